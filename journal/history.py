"""What a journal tells of the past: its signals and what became of them as trades, skipped ones included.

Knows nothing of policies, nor of bars: a signal brings the features of its bar.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from features.spec import FEATURE_NAMES, fingerprint
from journal.records import DecisionRecord, OutcomeRecord, SignalRecord
from journal.schema import Record
from journal.store import Journal
from market.errors import DataError
from signals.outcomes import Costs
from signals.trades import REASONS, TIME, Dropped, Trades

DEFAULT_CONFIDENCE: Final = 0.5  # of a rule that states none
NO_BAR: Final = -1
COST_TOLERANCE: Final = 0.01  # share by which a journaled cost may differ without a word

Floats = npt.NDArray[np.float64]
Pair = tuple[Record, SignalRecord, OutcomeRecord]


@dataclass(frozen=True)
class History:
    """The settled trades of a journal, n rows in time order, and what was left out of them.

    `rows` gives the row of a signal's record id (of several where it was sent again); `strategies` counts the
    rows by strategy; `digest` is the SHA-256 of the records they came from; `notes` are sentences for whoever
    uses them.
    """

    trades: Trades
    rows: Mapping[str, int]
    strategies: Mapping[str, int]
    digest: str
    notes: tuple[str, ...]


@dataclass(frozen=True)
class Asked:
    """A decision of one account about the trade in `row` of a `History`; the first where it asked again."""

    row: int
    decision: DecisionRecord


def settled(url: str) -> History:
    """The settled trades of the journal at `url`.

    Left out and counted: signals without an outcome, signals whose features follow other definitions than
    today's, signals sent again (the same trade with other features: the first counts). Raises DataError,
    naming the record, for a broken chain, an outcome that contradicts another of the same trade, a trade that
    ends before it begins or has no stop; InputError where there is no journal.
    """
    with closing(Journal(url, "reader")) as journal:
        for fault in journal.verify():
            place = f"journal {fault.writer} {fault.sequence}"
            raise DataError(place, fault.kind, f"restore a whole copy of the journal: {fault.detail}")
        signals: dict[str, tuple[Record, SignalRecord]] = {}
        outcomes: dict[str, tuple[Record, OutcomeRecord]] = {}
        for record in journal.read("signal", "outcome"):
            if record.kind == "signal":
                signals[record.record_id] = record, SignalRecord.of(record)
            else:
                outcome = OutcomeRecord.of(record)
                known = outcomes.setdefault(outcome.signal_id, (record, outcome))
                _check_same((known[0].record_id, known[1]), (record.record_id, outcome))
    today = {name: pair for name, pair in signals.items() if pair[1].feature_fingerprint == fingerprint()}
    pairs = [(*pair, outcomes[name][1]) for name, pair in today.items() if name in outcomes]
    once = sorted(_once(pairs), key=lambda same: (same[0][1].time, same[0][1].symbol, same[0][0].record_id))
    kept = [same[0] for same in once]
    counts = {
        "have no outcome yet and are left out": len(today.keys() - outcomes.keys()),
        "follow other feature definitions than today's and are left out": len(signals) - len(today),
        "were sent again with other features and count once": len(pairs) - len(once),
    }
    strategies = Counter(signal.strategy_id or "unnamed" for _, signal, _ in kept)
    notes = [f"{count:,} journaled signals {what}" for what, count in counts.items() if count]
    if len(strategies) > 1:
        mix = ", ".join(f"{name} {count:,}" for name, count in sorted(strategies.items()))
        notes.append(f"trades of {len(strategies)} strategies are mixed: {mix}")
    if stray := len(outcomes.keys() - signals.keys()):
        notes.append(f"{stray:,} journaled outcomes are of signals that are not here, and left out")
    used = [f"{record.hash}{outcomes[record.record_id][0].hash}" for record, _, _ in kept]
    return History(
        trades=_trades(kept, unresolved=len(today.keys() - outcomes.keys())),
        rows={pair[0].record_id: row for row, same in enumerate(once) for pair in same},
        strategies=dict(strategies),
        digest=hashlib.sha256("".join(used).encode()).hexdigest(),
        notes=tuple(notes),
    )


def asked(url: str, account: str | None, rows: Mapping[str, int]) -> tuple[str, list[Asked]]:
    """The account (the only one there is, where None), and its decisions about the signals of `rows`, by row.

    Raises DataError for an account that decided nothing, and for None where there are several.
    """
    found: dict[str, dict[int, tuple[int, DecisionRecord]]] = {}
    with closing(Journal(url, "reader")) as journal:
        for record in journal.read("decision"):
            decision = DecisionRecord.of(record)
            row = rows.get(decision.signal_id)
            own = found.setdefault(decision.account_id, {})
            if row is not None and (row not in own or record.time < own[row][0]):
                own[row] = record.time, decision
    names = ", ".join(sorted(found)) or "none"
    if account is None and len(found) != 1:
        raise DataError("account", account, f"name one of the accounts journaled: {names}")
    name = next(iter(found)) if account is None else account
    if name not in found:
        raise DataError("account", name, f"give one of the accounts journaled: {names}")
    return name, [Asked(row, decision) for row, (_, decision) in sorted(found[name].items())]


def cost_note(trades: Trades, costs: Costs) -> str | None:
    """A sentence where the journaled costs are not those of `costs`; None where they are."""
    told = trades.cost_r + trades.impact_r
    stated = np.add(*costs.in_r(trades.close, trades.stop_distance))
    other = ~np.isclose(told, stated, rtol=COST_TOLERANCE)
    if not other.any():
        return None
    return (
        f"{int(other.sum()):,} of {len(trades):,} journaled trades cost other than is configured: "
        f"{np.median(told):.3f} R in the median, there {np.median(stated):.3f} R; the journal's are used"
    )


def _once(pairs: Iterable[Pair]) -> list[list[Pair]]:
    """The records of each trade, the first one first: they may differ in their features, not in their end."""
    known: dict[tuple[object, ...], list[Pair]] = {}
    for pair in sorted(pairs, key=lambda pair: (pair[0].time, pair[0].record_id)):
        signal = pair[1]
        prices = (signal.price, signal.stop, signal.take_profit, signal.entry)
        same = known.setdefault((signal.symbol, signal.side, signal.time, signal.strategy_id, *prices), [])
        same.append(pair)
        _check_same((same[0][0].record_id, same[0][2]), (pair[0].record_id, pair[2]))
    return list(known.values())


def _check_same(first: tuple[str, OutcomeRecord], other: tuple[str, OutcomeRecord]) -> None:
    for name in ("gross_r", "cost_r", "impact_r", "exit_time"):
        seen, known = getattr(other[1], name), getattr(first[1], name)
        if seen != known:
            raise DataError(
                f"{other[0]}.{name}",
                seen,
                f"the same trade has {known} in {first[0]}: one trade, one outcome",
            )


def _trades(pairs: Sequence[Pair], unresolved: int) -> Trades:
    """The rows; what an outcome leaves open is filled with the least that follows from it."""
    for record, signal, outcome in pairs:
        if outcome.exit_time < signal.time:
            raise DataError(
                f"{record.record_id}.exit_time",
                outcome.exit_time,
                f"no trade ends before its signal, {signal.time}",
            )
        if set(signal.features) != set(FEATURE_NAMES):
            strange = sorted(set(signal.features) ^ set(FEATURE_NAMES))
            raise DataError(f"{record.record_id}.features", strange, "give exactly those of features.spec")
        if signal.price == signal.stop:
            raise DataError(f"{record.record_id}.stop", signal.stop, "give a stop apart from the price")
    signals = [signal for _, signal, _ in pairs]
    outcomes = [outcome for _, _, outcome in pairs]
    symbols = tuple(sorted({signal.symbol for signal in signals}))

    def numbers(values: Iterable[float]) -> Floats:
        return np.fromiter(values, dtype=np.float64, count=len(pairs))

    def times(values: Iterable[int]) -> npt.NDArray[np.int64]:
        return np.fromiter(values, dtype=np.int64, count=len(pairs))

    close, stop = numbers(s.price for s in signals), numbers(s.stop for s in signals)
    gross = numbers(o.gross_r for o in outcomes)
    zipped = list(zip(signals, outcomes, strict=True))
    return Trades(
        symbols=symbols,
        symbol=np.array([symbols.index(s.symbol) for s in signals], dtype=np.int32),
        bar=np.full(len(pairs), NO_BAR, dtype=np.int64),
        signal_time=times(s.time for s in signals),
        entry_time=times(s.time if o.entry_time is None else o.entry_time for s, o in zipped),
        exit_time=times(o.exit_time for o in outcomes),
        side=np.array([1 if s.side == "long" else -1 for s in signals], dtype=np.int8),
        close=close,
        level=numbers(s.price if s.entry is None else s.entry for s in signals),
        stop=stop,
        take_profit=numbers(s.take_profit for s in signals),
        confidence=numbers(DEFAULT_CONFIDENCE if s.confidence is None else s.confidence for s in signals),
        stop_distance=np.abs(close - stop),
        gross_r=gross,
        cost_r=numbers(o.cost_r for o in outcomes),
        impact_r=numbers(o.impact_r for o in outcomes),
        mfe_r=numbers(max(o.gross_r, 0.0) if o.mfe_r is None else o.mfe_r for o in outcomes),
        mae_r=numbers(min(o.gross_r, 0.0) if o.mae_r is None else o.mae_r for o in outcomes),
        reason=np.array(
            [TIME if o.reason is None else REASONS.index(o.reason) for o in outcomes], dtype=np.int8
        ),
        holding=np.array([1 if o.holding is None else o.holding for o in outcomes], dtype=np.int32),
        features=_features(signals),
        dropped=Dropped(unresolved=unresolved),
    )


def _features(signals: Sequence[SignalRecord]) -> Floats:
    """The rows, float64[n, 31] in the order of features.spec."""
    rows = [[signal.features[name] for name in FEATURE_NAMES] for signal in signals]
    return np.array(rows, dtype=np.float64).reshape(len(rows), len(FEATURE_NAMES))
