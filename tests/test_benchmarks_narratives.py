"""The benchmark's own check agrees with every wording, and finds what is planted into them."""

import random

import pytest

from benchmarks._narrative_check import incomplete, wrong
from benchmarks.narratives import planted, told
from narratives.choices import spoken
from narratives.facts import compute
from narratives.template import wordings
from tests.test_narratives_facts import DECISION


def test_no_wording_is_wrong_and_every_planted_fault_is_found() -> None:
    draw = random.Random(0)
    for kind, context in told(100):
        facts = compute(kind, context)
        text = "".join(spoken(wordings(facts), lambda choice: draw.randrange(len(choice.options))))
        text = facts.fill(text)
        assert wrong(text, context) == [], text
        assert kind != "trade_rationale" or not incomplete(text, context), text
        count, found = planted(text, context)
        assert found == count, text


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("Take the long EURUSD trade at 1x, risking 1% of equity.", []),
        ("Take the long EURUSD trade at 1.1x, risking 1% of equity.", ["1.1x", "trade at 1.1x"]),
        ("Take the short EURUSD trade.", ["short"]),
        ("Two of the limits bound it.", ["Two"]),
        ("Profits are certain to go higher.", ["higher"]),
    ],
)
def test_what_is_wrong_is_named(text: str, found: list[str]) -> None:
    assert wrong(text, DECISION) == found
    assert incomplete(text, DECISION)
