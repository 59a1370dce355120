import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from threading import Event

import pytest

from market.errors import InputError
from narratives.chooser import Chooser
from narratives.facts import compute, ungrounded_numbers
from narratives.free_writer import FreeWriter
from narratives.narrator import KEPT_SECONDS, Narrative, Narrator
from narratives.writer import Unavailable
from tests.fake_model import FakeModel
from tests.test_narratives_facts import DECISION, FEATURES, PERFORMANCE

CONTEXTS = {
    "market_narrative": {"symbol": "EURUSD", "features": FEATURES},
    "trade_rationale": DECISION,
    "risk_assessment": DECISION,
    "performance_summary": PERFORMANCE,
}


@pytest.mark.parametrize("kind", CONTEXTS)
def test_each_kind_has_its_own_method_and_a_name(kind):
    narrator = Narrator()
    narrative = getattr(narrator, f"generate_{kind}")(CONTEXTS[kind])
    assert narrative == narrator.generate(kind, CONTEXTS[kind])
    assert (narrative.kind, narrative.facts.kind, narrative.writer) == (kind, kind, "template")
    assert ungrounded_numbers(narrative.text, narrative.facts) == []


def test_the_four_kinds_tell_different_things():
    texts = {Narrator().generate(kind, context).text for kind, context in CONTEXTS.items()}
    assert len(texts) == 4


@pytest.mark.parametrize(
    "change",
    [{"multiplier": 0.5}, {"side": "short"}, {"rule_cap": 1.3}, {"risk_fraction": 0.02}, {"symbol": "GOOGL"}],
)
def test_another_decision_gives_another_text(change):
    narrator = Narrator()
    assert narrator.generate("trade_rationale", DECISION | change) != narrator.generate(
        "trade_rationale", DECISION
    )


@pytest.mark.parametrize("kind", CONTEXTS)
def test_a_narrative_survives_json(kind):
    narrative = Narrator().generate(kind, CONTEXTS[kind])
    assert Narrative.model_validate_json(narrative.model_dump_json()) == narrative


def test_an_unknown_kind_is_refused():
    with pytest.raises(InputError, match="kind: got 'poem'"):
        Narrator().generate("poem", {})


def test_a_narrator_needs_no_ray():
    program = (
        "import sys\n"
        "sys.modules.update(dict.fromkeys(['ray', 'torch', 'mlflow', 'fastapi', 'llama_cpp']))\n"
        "from narratives.narrator import Narrator\n"
        "print(Narrator().generate_performance_summary({'trades': 0, 'period': '2017'}).text)"
    )
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "Results for all symbols (2017): no trades were closed."


def narrate(narrator):
    return narrator.generate("trade_rationale", DECISION)


def test_a_model_words_each_kind_and_its_pieces_are_the_whole():
    narrator = Narrator(Chooser(FakeModel()))
    for kind, context in CONTEXTS.items():
        telling = narrator.tell(kind, context)
        narrative = telling.whole()
        assert "".join(telling) == narrative.text
        assert (narrative.writer, narrative.facts) == ("fake constrained", compute(kind, context))
        assert ungrounded_numbers(narrative.text, narrative.facts) == []
    assert narrator.fallbacks == {}


def test_an_ungrounded_text_becomes_the_templates_and_is_counted():
    narrator = Narrator(FreeWriter(FakeModel("The trade is sure to win 90% of the time.")))
    telling = narrator.tell("trade_rationale", DECISION)
    assert "".join(telling) == telling.whole().text
    assert telling.whole() == narrate(Narrator())
    assert narrator.fallbacks == {"ungrounded": 1}


def test_a_late_model_is_counted_and_asked_again():
    model = FakeModel(choices_until_late=1)
    narrator = Narrator(Chooser(model))
    assert narrate(narrator).writer == "fake constrained, ended by the template"
    assert narrator.fallbacks == {"timeout": 1}
    model.left = 1000
    assert narrate(narrator).writer == "fake constrained"
    assert model.talks == 2


def test_a_model_that_is_not_there_is_counted():
    narrator = Narrator(Unavailable("a.gguf"))
    assert narrate(narrator) == narrate(Narrator())
    assert narrator.fallbacks == {"unavailable": 1}


def test_the_same_is_made_once_for_all_who_ask_until_it_is_old():
    now = 0.0
    begun, may_go_on = Event(), Event()

    class Slow(FakeModel):
        def choose(self, said, heads):
            begun.set()
            assert may_go_on.wait(30)
            return super().choose(said, heads)

    model = Slow()
    narrator = Narrator(Chooser(model), clock=lambda: now)
    with ThreadPoolExecutor(8) as pool:
        asked = [pool.submit(narrate, narrator) for _ in range(8)]
        assert begun.wait(30)
        may_go_on.set()
        assert len({answer.result(30).text for answer in asked}) == 1
    assert model.talks == 1
    now = KEPT_SECONDS - 1
    narrate(narrator)
    assert model.talks == 1
    narrator.generate("risk_assessment", DECISION)
    narrator.generate("trade_rationale", DECISION | {"rule_cap": 1.1})
    assert model.talks == 3
    now = KEPT_SECONDS + 1
    narrate(narrator)
    assert model.talks == 4


def test_pieces_can_be_followed_before_the_text_is_whole():
    may_go_on = Event()

    class Slow(FakeModel):
        def choose(self, said, heads):
            if len(self.read) == 1:
                assert may_go_on.wait(30)
            return super().choose(said, heads)

    telling = Narrator(Chooser(Slow())).tell("trade_rationale", DECISION)
    pieces = iter(telling)
    assert next(pieces) in ("Take", "Enter", "Open")
    may_go_on.set()
    assert "".join(pieces) in telling.whole().text


class Broken:
    """A writer that fails without saying how, after `given`."""

    name = "broken"

    def __init__(self, *given):
        self.given = given

    def write(self, facts, seed, deadline):
        yield from self.given
        raise ZeroDivisionError


def test_a_writer_that_fails_before_its_first_word_leaves_the_text_to_the_template():
    narrator = Narrator(Broken())
    assert narrate(narrator) == narrate(Narrator())
    assert narrator.fallbacks == {"error": 1}


def test_a_text_that_nobody_can_vouch_for_is_an_error_and_is_not_kept():
    narrator = Narrator(Broken("Take the"))
    telling = narrator.tell("trade_rationale", DECISION)
    assert next(iter(telling)) == "Take the"
    for follow in (telling.whole, lambda: list(telling)):
        with pytest.raises(ZeroDivisionError):
            follow()
    assert narrator.tell("trade_rationale", DECISION) is not telling
