"""Functions that numba compiles once, and keeps on disk until a module that they are made of changes.

numba builds constants, functions and field orders of other modules into what it compiles, but keeps it for as
long as the function's own file stays as it is: it would go on with an old limit after another file has
changed. Here the sources of all that the file imports are part of the name under which a function is kept.
"""

import inspect
import re
import time
from collections.abc import Callable
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple, TypeVar, cast

import numba
from numba.core.caching import CompileResultCacheImpl, FunctionCache

ROOT: Final = Path(__file__).resolve().parents[1]
BEGAN: Final = time.time()
IMPORTED: Final = re.compile(r"^\s*(?:from|import)\s+([\w.]+)", re.MULTILINE)

Kernel = TypeVar("Kernel", bound=Callable[..., Any])


def compiled(*, error_model: Literal["python", "numpy"] = "python") -> Callable[[Kernel], Kernel]:
    """Have numba compile a function when it is first called; it then runs without the interpreter's lock.

    `error_model`: a division by zero raises ("python"), or gives an infinity or NaN ("numpy").
    """

    def of(function: Kernel) -> Kernel:
        kernel: Any = numba.njit(nogil=True, error_model=error_model)(function)
        sources = _sources(function)
        # A file that changed meanwhile may not be the one that was imported: nothing is kept then.
        if all(source.changed < BEGAN for source in sources):
            kernel._cache = _Kept(function)  # type: ignore[no-untyped-call]
            kernel._cache.error_model = error_model
        return cast(Kernel, kernel)

    return of


class _Files(CompileResultCacheImpl):
    def __init__(self, function: Callable[..., Any]) -> None:
        self._digest = sha256(b"".join(source.digest for source in _sources(function))).hexdigest()
        super().__init__(function)  # type: ignore[no-untyped-call]

    def get_filename_base(self, fullname: str, abiflags: str) -> str:
        return f"{super().get_filename_base(fullname, abiflags)}-{self._digest[:16]}"  # type: ignore[no-untyped-call]


class _Kept(FunctionCache):
    _impl_class = _Files
    error_model: str

    def _index_key(self, sig: Any, codegen: Any) -> tuple[Any, ...]:
        return (*super()._index_key(sig, codegen), self.error_model)  # type: ignore[no-untyped-call]


class Source(NamedTuple):
    """A module as it was read."""

    digest: bytes  # SHA-256
    changed: float  # s since the epoch
    imports: tuple[Path, ...]  # modules of this project


def made_of(file: Path) -> dict[Path, Source]:
    """A module and all of this project's that it imports, that they import, and so on.

    Of a package from which a module is imported all modules count.
    """
    found: dict[Path, Source] = {}
    waiting = [file]
    while waiting:
        if (module := waiting.pop()) not in found:
            found[module] = _read(module)
            waiting += found[module].imports
    return found


def _sources(function: Callable[..., Any]) -> tuple[Source, ...]:
    return _sources_of(inspect.getfile(function))


@cache  # for all functions of the file
def _sources_of(file: str) -> tuple[Source, ...]:
    return tuple(source for _, source in sorted(made_of(Path(file).resolve()).items()))


@cache
def _read(module: Path) -> Source:
    text = module.read_bytes()
    imports: list[Path] = []
    for name in IMPORTED.findall(text.decode()):
        place = ROOT.joinpath(*name.split("."))
        imports += place.glob("*.py") if place.is_dir() else [place.with_suffix(".py")]
    ours = tuple(each for each in imports if each.exists())
    return Source(sha256(text).digest(), module.stat().st_mtime, ours)
