import random
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from narratives.choices import first, spoken
from narratives.facts import compute
from narratives.grounding import faults
from narratives.template import wordings
from tests.test_narratives_facts import DECISION
from tests.test_narratives_template import TOLD

FLIPPED = {
    "rising": "falling", "above": "below", "high": "low", "clear": "weak", "upward": "downward",
    "widening": "narrowing", "overbought": "oversold", "with the trade": "against the trade",
    "more than the target": "less than the target", "runs in the direction of": "runs against",
}  # fmt: skip
FLIPPED |= {new: old for old, new in FLIPPED.items()}


def any_text(facts, seed):
    draw = random.Random(seed)
    text = "".join(spoken(wordings(facts), lambda choice: draw.randrange(len(choice.options))))
    return text.replace("$side", facts.text("side")) if "side" in facts else text


@settings(max_examples=50)
@given(TOLD, st.integers(0, 2**32 - 1))
def test_nothing_is_wrong_with_our_own_wordings_and_every_flipped_direction_is_found(told, seed):
    facts = compute(*told)
    text = any_text(facts, seed)
    assert faults(text, facts) == []
    for old, new in [*FLIPPED.items(), ("long", "short"), ("short", "long")]:
        for match in re.finditer(rf"\b{old}\b(?! nor)", text):
            flipped = f"{text[: match.start()]}{new}{text[match.end() :]}"
            assert faults(flipped, facts) != [], flipped


FACTS = compute("trade_rationale", DECISION)
NOTE = first(wordings(FACTS))
RETOLD = (
    "The desk should go $side $symbol with $multiplier ($action), which risks $risk_fraction of equity. "
    "The $model_status model wanted $proposed_multiplier, yet the daily risk budget allows no more than "
    "$rule_cap. The chance of a win is $signal_confidence, above its break-even rate of $break_even, and "
    "momentum supports the idea with prices rising (score $momentum_score)."
)


def test_a_sound_retelling_passes():
    assert faults(RETOLD, FACTS) == []
    assert faults(NOTE, FACTS) == []


@pytest.mark.parametrize(
    ("old", "new", "fault"),
    [
        ("prices rising", "prices falling", "falling"),
        ("above its", "below its", "below"),
        ("momentum supports", "momentum contradicts", "contradicts"),
        ("go $side", "go short", "short"),
        ("$multiplier (", "1x (", "1x"),
        ("$multiplier (", "two lots (", "two"),
        ("$multiplier", "$size", "$size"),
        ("the daily risk budget", "the desk", "the binding rule is not told"),
        (" (score $momentum_score)", "", "$momentum_score is not told"),
        (" and momentum supports the idea with prices rising", " as traders know", "away from"),
        ("momentum supports", "volatility is low and momentum supports", "low"),
        ("above its", "not above its", "above"),
        ("The desk", "**The** desk", "*"),
    ],
)
def test_what_is_wrong_is_named(old, new, fault):
    assert old in RETOLD
    assert any(fault in found for found in faults(RETOLD.replace(old, new, 1), FACTS))
