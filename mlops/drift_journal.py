"""What the journal holds of one model's signals, decisions and outcomes, as drift compares them.

Knows nothing of databases.
"""

from collections.abc import Iterable

import numpy as np

from envs.guardrails import SIZES, STANDARD
from features.spec import FEATURE_NAMES, fingerprint
from journal.records import DecisionRecord, OutcomeRecord, SignalRecord
from journal.schema import Record
from mlops.drift_streams import Observed, Signals, results
from policies.bundle import BundleMeta


def observe_journal(records: Iterable[Record], meta: BundleMeta, digest: str, source: str) -> Observed:
    """What the bundle of that digest saw, proposed and got by these records, in order of the signals' times.

    A signal that several accounts traded counts once. Sizes are those proposed before the account's limits,
    so that a full account is not taken for another model; outside the training data they are lowered to the
    rule's as when they are answered. Decisions that the rule made because no model had a valid say are noted.
    """
    signals: dict[str, SignalRecord] = {}
    decisions: dict[str, DecisionRecord] = {}
    outcomes: dict[str, OutcomeRecord] = {}
    by_rule = others = 0
    for record in records:
        if record.kind == SignalRecord.kind:
            signals[record.record_id] = SignalRecord.of(record)
        elif record.kind == OutcomeRecord.kind:
            outcome = OutcomeRecord.of(record)
            outcomes[outcome.signal_id] = outcome
        elif record.kind == DecisionRecord.kind:
            decision = DecisionRecord.of(record)
            if decision.bundle != digest:
                others += 1
            elif decision.proposed_multiplier is None:
                by_rule += 1
            else:
                decisions.setdefault(decision.signal_id, decision)
    usable = [
        name for name in decisions if name in signals and signals[name].feature_fingerprint == fingerprint()
    ]
    notes = {
        "decisions were made by the rule: no model had a valid say": by_rule,
        "decisions are of other models": others,
        "signals have features of another definition": len(decisions) - len(usable),
    }
    told = tuple(f"{count:,} {what}" for what, count in notes.items() if count)
    if not usable:
        return Observed(source, {}, None, None, (*told, "the journal holds no decision of this model"))
    usable.sort(key=lambda name: (signals[name].time, name))
    known = [decisions[name] for name in usable]
    symbols = tuple(sorted({decision.symbol for decision in known}))
    size = np.array([_proposed(decision) for decision in known])
    valued = all(None not in decision.values for decision in known)
    values = (
        np.array([decision.values for decision in known], np.float64) if valued else np.empty((len(known), 0))
    )
    features = np.array([[signals[name].features[column] for column in FEATURE_NAMES] for name in usable])
    seen = Signals(
        symbols, np.array([symbols.index(d.symbol) for d in known], np.int64), features, size, values
    )
    settled = [i for i, name in enumerate(usable) if name in outcomes]
    if not settled:
        return Observed(source, {}, seen, None, (*told, "no signal of this model has a settled outcome"))
    became = [outcomes[usable[i]] for i in settled]
    gross, cost, impact = (
        np.array([getattr(outcome, name) for outcome in became]) for name in ("gross_r", "cost_r", "impact_r")
    )
    found = results(size[settled], gross, cost, impact, meta.k, meta.base_risk)
    return Observed(source, {}, seen, found, told)


def _proposed(decision: DecisionRecord) -> float:
    proposed = decision.proposed_multiplier or 0.0
    return min(proposed, float(SIZES[STANDARD])) if decision.out_of_distribution else proposed
