"""From a sizing request to a journaled decision.

Knows nothing of Ray or HTTP: the arithmetic is the sizer's, the record the journal's.
"""

import uuid
from collections.abc import Mapping
from typing import Any, Final

from features.spec import FEATURE_NAMES
from journal.store import Journal
from market.bars import iso
from market.errors import DataError, InputError
from policies.bundle import open_bundle
from serving.desk import Deployed, Desk
from serving.limits_file import LimitsFolder
from serving.position_sizer import PositionSizer, feature_row
from serving.refusals import Unavailable
from serving.schemas import SizingRequest, bars_of

NO_STATUS: Final = "no registry status"
REFUSED: Final = "the model was refused"


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
        decision_id = str(uuid.uuid4())
        # Everything the size came from: the decision can be made again from its record alone.
        record = {
            "decision": details,
            "signal": signal.model_dump(mode="json", exclude_none=True),
            "features": dict(zip(FEATURE_NAMES, row.tolist(), strict=True)),
            "bars": None if bars is None else {"count": len(bars), "digest": bars.digest()},
            "account": account.model_dump(mode="json", exclude_none=True),
            "account_id": request.account_id,
            "limits": None if limits.limits is None else limits.limits.model_dump(mode="json"),
            "tighter": None if request.limits is None else request.limits.model_dump(mode="json"),
        }
        _append(self.journal, decision_id, record)
        return {"decision_id": decision_id, **details}

    def health(self) -> dict[str, Any]:
        """See `Desk.health`."""
        return super().health() | {"model_status": self.sizer.status, "bundle": self.sizer.digest}


def _append(journal: Journal, decision_id: str, record: dict[str, Any]) -> None:
    try:
        journal.append("decision", decision_id, record)
    except InputError as error:
        # The request was sound, so this is no fault of the client's; without a record there is no size.
        raise Unavailable("journal", error.mend) from error
