"""Functions that numba compiles once, and keeps on disk until anything that they are made of changes.

numba builds constants and functions of other modules into what it compiles, but looks up what it has kept by
the function's own file alone: it would go on with an old limit after another file has changed. Here what a
function is made of belongs to what it is looked up by.
"""

import builtins
import dis
from collections.abc import Callable, Iterator
from functools import cache
from hashlib import sha256
from types import BuiltinFunctionType, CodeType, FunctionType, ModuleType
from typing import Any, Final, Literal, TypeVar, cast

import numba
import numpy as np
from numba.core.caching import FunctionCache
from numba.core.dispatcher import Dispatcher

# Their content changes with their version alone, which numba looks at itself or is pinned with it.
KNOWN: Final = ("builtins", "math", "numba", "numpy")

Kernel = TypeVar("Kernel", bound=Callable[..., Any])


def compiled(*, error_model: Literal["python", "numpy"] = "python") -> Callable[[Kernel], Kernel]:
    """Have numba compile a function when it is first called; it then runs without the interpreter's lock.

    `error_model`: a division by zero raises ("python"), or gives an infinity or NaN ("numpy").
    """

    def of(function: Kernel) -> Kernel:
        kernel: Any = numba.njit(nogil=True, error_model=error_model)(function)
        kernel._cache = _Kept(function)  # type: ignore[no-untyped-call]
        return cast(Kernel, kernel)

    return of


class _Kept(FunctionCache):
    def _index_key(self, sig: Any, codegen: Any) -> tuple[Any, ...]:
        return (*super()._index_key(sig, codegen), made_of(self._py_func))  # type: ignore[no-untyped-call]


@cache
def made_of(function: FunctionType) -> str:
    """The SHA-256 (hex) of a function's instructions and of all that they name, other functions' likewise.

    TypeError where a name stands for something of which a compiled function would keep an old copy unseen.
    """
    digest = sha256()
    for part in _parts(function, {function}):
        digest.update(repr(part).encode() + b"\n")
    return digest.hexdigest()


def _parts(function: FunctionType, seen: set[FunctionType]) -> Iterator[object]:
    known = vars(builtins) | function.__globals__
    for code in _codes(function.__code__):
        yield code.co_code, code.co_names, code.co_varnames
        yield [each for each in code.co_consts if not isinstance(each, CodeType)]
        loads = {each.argval for each in dis.get_instructions(code) if each.opname == "LOAD_GLOBAL"}
        for name in sorted(loads):
            yield from _content(name, known[name], seen)
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
        yield from _content(name, cell.cell_contents, seen)


def _codes(code: CodeType) -> Iterator[CodeType]:
    """A function's own code, and that of the functions in it."""
    yield code
    for each in code.co_consts:
        if isinstance(each, CodeType):
            yield from _codes(each)


def _content(name: str, value: Any, seen: set[FunctionType]) -> Iterator[object]:
    match value:
        case bool() | int() | float() | str() | np.generic():
            yield name, value
        case np.ndarray():
            yield name, value.dtype.str, value.shape, value.tobytes()
        case tuple():
            yield name, type(value).__qualname__
            for place, each in enumerate(value):
                yield from _content(f"{name}[{place}]", each, seen)
        case Dispatcher():
            yield name, sorted(value.targetoptions.items())
            if value.py_func not in seen:
                seen.add(value.py_func)
                yield from _parts(value.py_func, seen)
        case type() if hasattr(value, "_fields"):
            yield name, value.__qualname__, value._fields
        case (
            ModuleType(__name__=module) | type(__module__=module) | BuiltinFunctionType(__module__=module)
        ) if module.partition(".")[0] in KNOWN:
            yield name, module, value.__name__
        case _:
            raise TypeError(f"{name}: a compiled function would keep an old copy of {value!r} unseen")
