"""The journal as drift sees it: each signal of this model once, in order, as proposed before the limits."""

from collections.abc import Iterable
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from journal.records import Payload
from journal.schema import GENESIS, Record, canonical
from journal.store import Journal
from market.errors import DataError
from mlops.drift import check
from mlops.drift_journal import observe_journal
from mlops.drift_streams import Observed
from tests.drift_journals import entries, write
from tests.drift_worlds import DIGEST, model, seen, trained

OTHER = "e" * 64


def records(found: Iterable[tuple[str, str, Payload]]) -> list[Record]:
    return [
        Record("w", i, kind, name, 0, canonical(payload.model_dump(mode="json")), GENESIS, GENESIS)
        for i, (kind, name, payload) in enumerate(found)
    ]


def observed(found: Iterable[tuple[str, str, Payload]]) -> Observed:
    return observe_journal(records(found), model().meta, DIGEST, "journal")


def changed(position: int, **update: object) -> list[tuple[str, str, Payload]]:
    """The newest three signals, one of whose records says something else."""
    found = entries(DIGEST, 3)
    kind, name, payload = found[position]
    found[position] = kind, name, payload.model_copy(update=update)
    return found


def test_signals_come_back_from_a_database_in_order_of_time(tmp_path: Path) -> None:
    with closing(Journal(f"sqlite:///{tmp_path}/journal.db", "w")) as journal:
        write(journal, DIGEST)
        found = observe_journal(journal.read(), model().meta, DIGEST, "journal")
    known = seen("later").signals
    assert found.signals is not None
    assert known is not None
    np.testing.assert_array_equal(found.signals.features, known.features)
    np.testing.assert_array_equal(found.signals.size, known.size)
    np.testing.assert_array_equal(found.signals.values, known.values)
    assert found.results is not None
    np.testing.assert_allclose(found.results.r, seen("later").results.r, atol=1e-12)
    assert found.notes == ()


def test_a_journal_of_the_same_kind_is_no_alarm() -> None:
    assert check(trained(), observed(entries(DIGEST))).alarms == ()


def test_a_signal_of_two_accounts_counts_once() -> None:
    found = entries(DIGEST, 3)
    again = [(kind, f"{name}-again", payload) for kind, name, payload in found if kind == "decision"]
    assert len(observed(found + again).signals or ()) == 3


def test_decisions_of_other_models_and_of_the_rule_are_left_out_and_noted() -> None:
    other = observed(changed(1, bundle=OTHER))
    rule = observed(changed(1, proposed_multiplier=None))
    assert len(other.signals or ()) == len(rule.signals or ()) == 2
    assert other.notes == ("1 decisions are of other models",)
    assert rule.notes == ("1 decisions were made by the rule: no model had a valid say",)


def test_features_of_another_definition_are_left_out_and_noted() -> None:
    assert observed(changed(0, feature_fingerprint="old")).notes == (
        "1 signals have features of another definition",
    )


def test_outside_the_training_data_the_proposal_counts_as_lowered() -> None:
    bold = observed(changed(1, proposed_multiplier=1.5, out_of_distribution=True)).signals
    assert bold is not None
    assert bold.size[-1] == 1.0


def test_a_policy_that_values_no_sizes_has_no_values() -> None:
    found = entries(DIGEST, 3)
    rungs = tuple(rung.model_copy(update={"value": None}) for rung in found[1][2].ladder)
    silent = observed(changed(1, ladder=rungs)).signals
    assert silent is not None
    assert silent.values.shape == (3, 0)


def test_a_signal_without_an_outcome_has_no_result() -> None:
    found = observed(entries(DIGEST, 3)[:-1])
    assert len(found.signals or ()) == 3
    assert found.results is not None
    assert len(found.results.d) == 2


def test_a_journal_without_a_decision_of_the_model_is_refused_and_says_why() -> None:
    with pytest.raises(DataError, match=r"bring more of them: .*no decision of this model"):
        check(trained(), observed([]))
