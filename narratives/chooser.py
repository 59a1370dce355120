"""A language model that chooses among wordings, all of them correct and true.

Knows nothing of llama.cpp. What there is to choose from is compiled from the decision's own facts.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager
from typing import Final, Protocol

from narratives.choices import Choice, spoken, without_figures
from narratives.facts import Facts
from narratives.template import wordings
from narratives.writer import Fallback, Reason

INSTRUCTIONS: Final = (
    "Write a note for a trading desk about one decision, market or period, in plain and exact English, with "
    "an X for every figure."
)


class Talk(Protocol):
    """One text in the making."""

    def choose(self, said: str, heads: tuple[str, ...]) -> int:
        """Which of `heads` goes on after `said`, by place; TimeoutError once the time is up."""
        ...


class ChoosingModel(Protocol):
    """A language model that can be asked which words come next."""

    name: str

    def talk(self, instructions: str, seed: int, deadline: float) -> AbstractContextManager[Talk]:
        """Alone with the model until the context ends; TimeoutError where it is not free in time."""
        ...


class Chooser:
    """Writes what the wordings allow, the model choosing; when its time is up, first options end the text."""

    def __init__(self, model: ChoosingModel) -> None:
        self._model = model
        self.name = f"{model.name} constrained"

    def write(self, facts: Facts, seed: int, deadline: float) -> Iterator[str]:
        """The text piece by piece, placeholders filled."""
        said, chosen, failed = "", 0, None
        phrase = wordings(facts)
        try:
            with self._model.talk(INSTRUCTIONS, seed, deadline) as talk:

                def pick(choice: Choice) -> int:
                    nonlocal chosen, failed
                    if failed is None:
                        try:
                            place = talk.choose(without_figures(said), choice.heads)
                            chosen += 1
                            return place
                        except Exception as error:
                            failed = reason_of(error)
                    return 0

                for piece in spoken(phrase, pick):
                    said += piece
                    yield facts.fill(piece)
        except Exception as error:
            # The model was not free in time, or would not begin: nothing is said yet.
            raise Fallback(reason_of(error)) from error
        if failed is not None:
            raise Fallback(failed, f"{self.name}, ended by the template" if chosen else "template")


def reason_of(error: Exception) -> Reason:
    """What the fallback is counted as."""
    return "timeout" if isinstance(error, TimeoutError) else "error"
