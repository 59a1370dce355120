import re
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from narratives.chooser import Chooser
from narratives.facts import compute, ungrounded_numbers
from narratives.rule_words import RULE_WORDS
from narratives.template import write
from narratives.writer import Fallback
from tests.fake_model import FakeModel, is_allowed
from tests.test_narratives_facts import DECISION
from tests.test_narratives_template import TOLD

LATER = time.monotonic() + 3600


def told(model, facts, seed=1):
    return "".join(Chooser(model).write(facts, seed, LATER))


@settings(max_examples=50)
@given(TOLD, st.integers(0, 2**32 - 1))
def test_whatever_is_chosen_is_allowed_grounded_and_names_what_it_must(kind_and_context, seed):
    facts = compute(*kind_and_context)
    text = told(FakeModel(), facts, seed)
    assert ungrounded_numbers(text, facts) == []
    assert not re.search(r"[$_\[\]|]|\s\s|\s[.,;:]|\.\.|,,|\(\)|\bnan\b|None", text)
    assert is_allowed(text, facts)
    for sentence in re.split(r"(?<=\.) (?=\D)", text):
        assert re.match(r"[A-Z^]", sentence), sentence
        assert sentence.endswith(".")
    if facts.kind == "trade_rationale":
        assert facts.text("multiplier") in text
        assert RULE_WORDS[facts.text("binding_rule")] in text
        assert text.count("that ") >= min(len(facts.reasons), 2)


def test_the_model_reads_no_figure_and_chooses_the_words():
    facts = compute("trade_rationale", DECISION)
    model = FakeModel()
    texts = {told(model, facts, seed) for seed in range(20)}
    assert len(texts) > 10
    assert all(re.fullmatch(r"[^\d$]*", said) for said in model.read)
    assert told(FakeModel(), facts, 7) == told(FakeModel(), facts, 7)


@pytest.mark.parametrize(
    ("error", "reason"), [(None, "timeout"), (RuntimeError("llama_decode returned -3"), "error")]
)
def test_a_text_broken_off_is_ended_by_the_template(error, reason):
    facts = compute("trade_rationale", DECISION)
    pieces = []
    with pytest.raises(Fallback) as caught:
        pieces.extend(Chooser(FakeModel(choices_until_late=2, error=error)).write(facts, 1, LATER))
    assert (caught.value.reason, caught.value.writer) == (reason, "fake constrained, ended by the template")
    assert is_allowed("".join(pieces), facts)


def test_without_a_single_choice_the_text_is_the_templates():
    facts = compute("trade_rationale", DECISION)
    pieces = []
    with pytest.raises(Fallback) as caught:
        pieces.extend(Chooser(FakeModel(choices_until_late=0)).write(facts, 1, LATER))
    assert ("".join(pieces), caught.value.writer) == (write(facts), "template")
    with pytest.raises(Fallback, match="timeout"):
        next(Chooser(FakeModel()).write(facts, 1, deadline=0.0))
