"""From a sizing request to a journaled decision.

Knows nothing of Ray or HTTP: the arithmetic is the sizer's, the record the journal's.
"""

import time
import uuid
from collections.abc import Mapping
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from features.spec import FEATURE_NAMES, fingerprint
from journal.records import AccountSnapshot, BarsSeen, DecisionRecord, SignalRecord, signal_id
from journal.store import Entry
from market.bars import Bars, iso
from market.errors import DataError, InputError
from policies.bundle import open_bundle
from serving.desk import Deployed, Desk, journaled
from serving.limits_file import LimitsFolder
from serving.position_sizer import PositionSizer, feature_row
from serving.schemas import Signal, SizingBatch, SizingRequest, bars_of

Floats = npt.NDArray[np.float64]

NO_STATUS: Final = "no registry status"
REFUSED: Final = "the model was refused"


class _Sized(NamedTuple):
    """An answer, and what must be journaled before it is given."""

    answer: dict[str, Any]
    entries: list[Entry]


class SizingDesk(Desk):
    """A desk with a sizer, which a deployment replaces while it answers."""

    def __init__(self) -> None:
        super().__init__("sizing")
        self.sizer = PositionSizer(None)
        self._limits: LimitsFolder | None = None

    def deploy(self, config: Mapping[str, Any]) -> None:
        """See `Desk.deploy`. Without an old model the rule answers, and says that one was refused."""
        super().deploy(config)
        if self.refused and self.sizer.bundle is None:
            self.sizer = PositionSizer(None, REFUSED)

    def take(self, deployed: Deployed) -> None:
        """See `Desk.take`: the old bundle goes when the new one is whole and answers as it was recorded."""
        sizer = PositionSizer(None)
        if deployed.bundle is not None and deployed.digest is not None:
            bundle = open_bundle(deployed.bundle.parent, deployed.digest)
            sizer = PositionSizer(bundle, deployed.status or NO_STATUS, deployed.digest)
        super().take(deployed)
        self.sizer, self._limits = sizer, None

    @property
    def limits(self) -> LimitsFolder:
        """The operator's limits of this home."""
        if self._limits is None:
            self._limits = LimitsFolder(self.home)
        return self._limits

    def decide(self, request: SizingRequest) -> dict[str, Any]:
        """The answer to `request`, already journaled; Unavailable where it cannot be journaled."""
        sized = self._size(request)
        journaled(self.journal, sized.entries)
        return sized.answer

    def decide_all(self, batch: SizingBatch) -> list[dict[str, Any]]:
        """The answers to all requests, already journaled in one transaction: all of them or none.

        What is refused names the request by its number, from 0.
        """
        sized = []
        for number, request in enumerate(batch.requests):
            try:
                sized.append(self._size(request))
            except InputError as error:
                raise DataError(f"requests.{number}.{error.field}", error.value, error.mend) from error
        journaled(self.journal, [entry for one in sized for entry in one.entries])
        return [one.answer for one in sized]

    def _size(self, request: SizingRequest) -> _Sized:
        started = time.perf_counter()
        signal, account = request.signal, request.account
        row, bars = request.market.feature_row(), None
        if row is None:
            bars = bars_of(signal.symbol, request.market.bars or [])
            if bars.time[-1] > signal.time:
                seen = iso(int(bars.time[-1]))
                raise DataError(
                    "market.bars", seen, f"end at the signal bar: the signal is known at {iso(signal.time)}"
                )
            row = feature_row(bars)
        limits = self.limits.of(request.account_id)
        _, _, details = self.sizer.get_sizing_recommendation(
            signal,
            row,
            account.account(),
            limits,
            tighter=request.limits,
            win_rate_recent=account.win_rate_recent,
        )
        record = signal_record(signal, row, bars)
        decision = DecisionRecord(
            signal_id=signal_id(record),
            account_id=request.account_id,
            account=AccountSnapshot(**account.model_dump()),
            limits=limits.limits,
            tighter=request.limits,
            latency_ms=1000.0 * (time.perf_counter() - started),
            **details,
        )
        decision_id = str(uuid.uuid4())
        entries = [record.to_entry(decision.signal_id), decision.to_entry(decision_id)]
        return _Sized({"decision_id": decision_id, **details}, entries)

    def health(self) -> dict[str, Any]:
        """See `Desk.health`."""
        return super().health() | {"model_status": self.sizer.status, "bundle": self.sizer.digest}


def signal_record(signal: Signal, row: Floats, bars: Bars | None) -> SignalRecord:
    """What is journaled of `signal` and its features float64[31]; `bars` where they came from bars."""
    return SignalRecord(
        time=signal.time,
        features=dict(zip(FEATURE_NAMES, row.tolist(), strict=True)),
        feature_fingerprint=fingerprint(),
        bars=None if bars is None else BarsSeen(count=len(bars), digest=bars.digest()),
        **signal.model_dump(exclude={"timestamp"}),
    )
