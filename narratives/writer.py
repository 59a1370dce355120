"""What words a narrative in the template's place, and why it may have been unable to.

Knows nothing of language models.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal, Protocol

from narratives.facts import Facts

Reason = Literal["timeout", "ungrounded", "unavailable", "error"]


class Fallback(Exception):
    """The writer did not write it all: the template did, or what was missing.

    Raised before the first piece, the whole text is the template's; after the last, the pieces stand and
    `writer` says whose they are.
    """

    def __init__(self, reason: Reason, writer: str = "template") -> None:
        super().__init__(reason)
        self.reason, self.writer = reason, writer


class Writer(Protocol):
    """Words the facts. `name` says who it is, in every narrative and in the journal."""

    @property
    def name(self) -> str:
        """Such as "smollm2-135m-instruct constrained"."""
        ...

    def write(self, facts: Facts, seed: int, deadline: float) -> Iterator[str]:
        """The text piece by piece, each final and checked; `Fallback` where it is not all the writer's.

        The same facts and seed give the same text. `deadline` is a time of time.monotonic().
        """
        ...


class Unavailable:
    """A writer that cannot write, such as one whose model would not load: every text is the template's."""

    def __init__(self, name: str) -> None:
        self.name = name

    def write(self, facts: Facts, seed: int, deadline: float) -> Iterator[str]:
        """Nothing."""
        raise Fallback("unavailable")
