"""A stand-in for a language model: it picks by turns, tells a given text, and can be slow or broken."""

import re
import time
from collections.abc import Iterator
from contextlib import contextmanager

from narratives.choices import Choice, Phrase
from narratives.facts import Facts
from narratives.template import wordings


class FakeModel:
    name = "fake"

    def __init__(
        self, told: str = "", choices_until_late: int = 1000, error: Exception | None = None
    ) -> None:
        self.told, self.left, self.error = told, choices_until_late, error
        self.talks = 0
        self.read: list[str] = []

    @contextmanager
    def talk(self, instructions: str, seed: int, deadline: float) -> Iterator["FakeModel"]:
        if time.monotonic() >= deadline:
            raise TimeoutError
        self.talks += 1
        self.seed = seed
        yield self

    def choose(self, said: str, heads: tuple[str, ...]) -> int:
        self.read.append(said)
        if self.left == 0:
            raise self.error or TimeoutError
        self.left -= 1
        self.seed = self.seed * 1103515245 + 12345
        return (self.seed >> 16) % len(heads)

    def tell(self, prompt: str, most: int, seed: int, deadline: float) -> Iterator[str]:
        self.talks += 1
        if self.error:
            raise self.error
        yield from re.split(r"(?<= )", self.told)


def is_allowed(text: str, facts: Facts) -> bool:
    """Whether the wordings of `facts` have this text: an expression matched apart from how they are told."""

    def pattern(phrase: Phrase) -> str:
        return "".join(
            f"(?:{'|'.join(map(pattern, part.options))})"
            if isinstance(part, Choice)
            else re.escape(facts.fill(part))
            for part in phrase
        )

    return re.fullmatch(pattern(wordings(facts)), text) is not None
