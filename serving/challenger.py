"""A second sizer that sizes every request beside the first: in its shadow, or in its place on some days.

Knows nothing of HTTP. What goes wrong with it is recorded and nothing else: it can never fail an answer.
"""

import hashlib
from collections.abc import Mapping
from typing import Any, Final, Literal, NamedTuple

from journal.records import ShadowRecord, shadow_id
from journal.store import Entry
from market.errors import InputError, first_line
from policies.bundle import open_bundle
from serving.position_sizer import PositionSizer
from serving.schemas import Signal

Arm = Literal["champion", "challenger"]

DAY: Final = 86_400_000_000_000  # ns


class Challenger(NamedTuple):
    """A sizer on trial, and the share of days x symbols that it answers: 0 leaves it in the shadow."""

    sizer: PositionSizer
    share: float

    def answers(self, signal: Signal) -> bool:
        """Whether this signal is the challenger's to answer: by the hash of its UTC day and symbol.

        All of a day's signals of a symbol fall to one arm, on every replica alike; another challenger gets
        other days.
        """
        text = f"{self.sizer.digest or 'rule'} {signal.time // DAY} {signal.symbol}"
        number = int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")
        return number < self.share * 2.0**64

    def health(self) -> dict[str, Any]:
        """What /healthz tells."""
        return {"digest": self.sizer.digest, "status": self.sizer.status, "share": self.share}


def shadow_entry(
    decision_id: str, arm: Arm, sizer: PositionSizer, size: Mapping[str, Any] | Exception
) -> Entry:
    """What `arm`, which does not answer, would have answered to the decision; or why it had no answer."""
    who = {"decision_id": decision_id, "arm": arm, "bundle": sizer.digest, "model_status": sizer.status}
    try:
        if isinstance(size, Exception):
            raise size
        record = ShadowRecord(
            **who
            | {name: size[name] for name in ("model_status", "model_fault", "source", "action")}
            | {name: size[name] for name in ("multiplier", "proposed_multiplier", "binding_rule")}
        )
    except Exception as error:
        record = ShadowRecord(**who, model_fault=f"{type(error).__name__}: {first_line(error)}"[:200])
    return record.to_entry(shadow_id(decision_id))


def opened(bundle: Any, digest: str | None, status: str, share: float) -> Challenger | InputError:
    """The challenger of a bundle's folder, or of the rule where that is None; or what is wrong with it."""
    if bundle is None or digest is None:
        return Challenger(PositionSizer(None, status), share)
    try:
        return Challenger(PositionSizer(open_bundle(bundle.parent, digest), status, digest), share)
    except InputError as error:
        return error
