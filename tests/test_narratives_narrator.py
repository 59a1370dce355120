import subprocess
import sys

import pytest

from market.errors import InputError
from narratives.facts import ungrounded_numbers
from narratives.narrator import Narrative, Narrator
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
        "sys.modules.update(dict.fromkeys(['ray', 'torch', 'mlflow', 'fastapi']))\n"
        "from narratives.narrator import Narrator\n"
        "print(Narrator().generate_performance_summary({'trades': 0, 'period': '2017'}).text)"
    )
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "Results for all symbols (2017): no trades were closed."
