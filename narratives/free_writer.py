"""A language model that tells a note in its own words, of which nothing is shown before all of it is checked.

Knows nothing of llama.cpp. Figures enter as placeholders alone: a text with a number of its own, with a
direction that the facts do not have, or without what must be named, is given up for the template.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final, Protocol

from narratives.choices import first
from narratives.chooser import reason_of
from narratives.facts import Facts, ungrounded_numbers
from narratives.grounding import faults
from narratives.template import wordings
from narratives.writer import Fallback

MOST_TOKENS: Final = 400
PROMPT: Final = (
    "Rewrite this note for a trading desk in your own words, as one short paragraph of plain English. Words "
    "that begin with $ stand for figures: keep each of them exactly as it is, and write no number yourself. "
    "Add nothing and leave nothing out.\n\n"
)


class TellingModel(Protocol):
    """A language model that writes freely."""

    name: str

    def tell(self, prompt: str, most: int, seed: int, deadline: float) -> Iterator[str]:
        """Up to `most` tokens, piece by piece; TimeoutError once the time is up."""
        ...


class FreeWriter:
    """Has the model retell the template's note, and shows what passes the check, sentence by sentence."""

    def __init__(self, model: TellingModel) -> None:
        self._model = model
        self.name = f"{model.name} free"

    def write(self, facts: Facts, seed: int, deadline: float) -> Iterator[str]:
        """The text sentence by sentence, placeholders filled; `Fallback` before the first where it fails."""
        note = first(wordings(facts))
        try:
            told = "".join(self._model.tell(PROMPT + note, MOST_TOKENS, seed, deadline))
        except Exception as error:
            raise Fallback(reason_of(error)) from error
        text = " ".join(told.split())
        if faults(text, facts):
            raise Fallback("ungrounded")
        filled = facts.fill(text)
        if ungrounded_numbers(filled, facts):  # two displays side by side may make a third number
            raise Fallback("ungrounded")
        yield from re.findall(r".+?[.!?](?:\s+(?=[A-Z$])|$)|.+$", filled)
