"""A text in the making: made once, followed piece by piece by any number of threads.

Knows nothing of how it is made.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from threading import Condition
from typing import Generic, TypeVar

Whole = TypeVar("Whole")


class Telling(Generic[Whole]):
    """Pieces of text, and in the end the whole they make. Whoever follows, late or slow, holds up nobody."""

    def __init__(self) -> None:
        self._changed = Condition()
        self._pieces: list[str] = []
        self._whole: Whole | None = None
        self._error: BaseException | None = None

    def __iter__(self) -> Iterator[str]:
        """Every piece from the first on, as it comes; raises what the making raised."""
        place = 0
        while True:
            with self._changed:
                while len(self._pieces) == place and not self._ended:
                    self._changed.wait()
                new = self._pieces[place:]
            if not new:
                self.whole()
                return
            yield from new
            place += len(new)

    def whole(self) -> Whole:
        """What it came to, once it is all made; raises what the making raised."""
        with self._changed:
            self._changed.wait_for(lambda: self._ended)
            if self._error is not None:
                raise self._error
            assert self._whole is not None
            return self._whole

    def make(self, maker: Callable[[Callable[[str], None]], Whole]) -> None:
        """Have `maker` make it, in this thread; it is given what takes the pieces, and returns the whole."""
        try:
            whole = maker(self._say)
        except BaseException as error:
            with self._changed:
                self._error = error
                self._changed.notify_all()
        else:
            with self._changed:
                self._whole = whole
                self._changed.notify_all()

    def _say(self, piece: str) -> None:
        with self._changed:
            self._pieces.append(piece)
            self._changed.notify_all()

    @property
    def _ended(self) -> bool:
        return self._whole is not None or self._error is not None
