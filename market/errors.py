"""The refusals: what was wrong, the value seen, and how to mend it. Knows nothing of what is checked."""

from __future__ import annotations

import numpy as np

_LONGEST_VALUE = 200


class InputError(ValueError):
    """A refused input. `str()` reads `field: got value; mend`; the three parts stay readable as attributes.

    `field` names the place (a key, or symbol, row and column), `value` is what was seen there and `mend` is
    what to do about it. Survives pickling, so that it crosses processes whole.
    """

    def __init__(self, field: str, value: object, mend: str) -> None:
        super().__init__(field, value, mend)
        self.field = field
        self.value = value
        self.mend = mend

    def __str__(self) -> str:
        value = self.value.item() if isinstance(self.value, np.number | np.bool_) else self.value
        seen = repr(value)
        if len(seen) > _LONGEST_VALUE:
            seen = seen[: _LONGEST_VALUE - 3] + "..."
        return f"{self.field}: got {seen}; {self.mend}"


class DataError(InputError):
    """Market data, signals or outcomes that cannot be used."""


class ConfigError(InputError):
    """A configuration, a limit or a command-line value that cannot be used."""


def first_line(error: BaseException) -> str:
    """The first line of another library's complaint, or the name of its kind."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
