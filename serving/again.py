"""Make a journaled decision again: the request that its records hold, through the sizer of its bundle.

Knows nothing of the journal's database, nor of what is served now.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from envs.guardrails import Account, TighterLimits
from features.spec import FEATURE_NAMES
from journal.records import DecisionRecord, SignalRecord
from market.errors import DataError
from policies.bundle import open_bundle
from serving.limits_file import OperatorLimits
from serving.position_sizer import NOT_USED, PositionSizer
from serving.reservations import entered
from serving.schemas import EPOCH, AccountState, Signal

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Request:
    """All that a journaled size came from."""

    sizer: PositionSizer
    signal: Signal
    row: Floats  # float64[31]
    account: Account
    win_rate_recent: float | None
    limits: OperatorLimits
    tighter: TighterLimits | None

    def size(self) -> Mapping[str, Any]:
        """The answer's details."""
        return self.sizer.get_sizing_recommendation(
            self.signal,
            self.row,
            self.account,
            self.limits,
            tighter=self.tighter,
            win_rate_recent=self.win_rate_recent,
        ).details


def request(bundles: Path, signal: SignalRecord, decision: DecisionRecord) -> Request:
    """The request of a journaled decision, its bundle opened below `bundles`.

    BundleError for a bundle that is missing, altered, or of other features; DataError for features of other
    names than today's.
    """
    if signal.features.keys() != set(FEATURE_NAMES):
        strange = sorted(signal.features.keys() ^ set(FEATURE_NAMES))
        raise DataError("features", strange, "replay it with the version of Ballast that has these features")
    bundle = None if decision.bundle is None else open_bundle(bundles, decision.bundle)
    given = AccountState(**decision.account.model_dump())
    limits = decision.limits
    operator = (
        OperatorLimits(None, decision.limits_source, decision.limits_digest)
        if limits is None
        else OperatorLimits.of(limits, decision.limits_source)
    )
    return Request(
        sizer=PositionSizer(bundle, decision.model_status.partition(NOT_USED)[0], decision.bundle),
        signal=Signal(
            timestamp=EPOCH + timedelta(microseconds=signal.time // 1000),
            **signal.model_dump(exclude={"time", "features", "feature_fingerprint", "bars"}),
        ),
        row=np.array([signal.features[name] for name in FEATURE_NAMES]),
        account=entered(given.account(), decision.reserve),
        win_rate_recent=given.win_rate_recent,
        limits=operator,
        tighter=decision.tighter,
    )
