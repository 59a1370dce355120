import time

import pytest

from narratives.facts import compute
from narratives.free_writer import FreeWriter
from narratives.writer import Fallback
from tests.fake_model import FakeModel
from tests.test_narratives_facts import DECISION
from tests.test_narratives_grounding import RETOLD

FACTS = compute("trade_rationale", DECISION)
LATER = time.monotonic() + 3600


def test_a_checked_text_comes_in_whole_sentences():
    pieces = list(FreeWriter(FakeModel(f" {RETOLD}\n")).write(FACTS, 1, LATER))
    assert "".join(pieces) == FACTS.fill(RETOLD)
    assert [piece.rstrip()[-1] for piece in pieces] == [".", ".", "."]


@pytest.mark.parametrize(
    ("model", "reason"),
    [
        (FakeModel(RETOLD.replace("rising", "falling")), "ungrounded"),
        (FakeModel(RETOLD.replace("$multiplier", "1.25x")), "ungrounded"),
        (FakeModel(""), "ungrounded"),
        (FakeModel(error=TimeoutError()), "timeout"),
        (FakeModel(error=RuntimeError()), "error"),
    ],
)
def test_nothing_of_an_unsound_text_is_shown(model, reason):
    with pytest.raises(Fallback) as caught:
        next(FreeWriter(model).write(FACTS, 1, LATER))
    assert (caught.value.reason, caught.value.writer) == (reason, "template")
