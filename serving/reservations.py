"""Sizes held in the risk budget before they are answered, and what becomes of what is held.

Knows nothing of HTTP, nor of how a size comes about: what sizes is passed in.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from decimal import Decimal
from typing import Any, Final, Literal, NamedTuple

from envs.guardrails import Account, Limits
from journal.budget import OverBudget, Reservation, RiskBudget, room
from journal.database import NothingWritten
from journal.records import DecisionRecord, ReserveRecord
from market.bars import iso
from market.errors import DataError, InputError
from serving.refusals import Conflict, NotFound, Unavailable
from serving.schemas import Reserve

ATTEMPTS: Final = 100  # each that fails means that another reservation was made, so that less is left

Step = Literal["commit", "settle", "release"]
STEPS: Final[Mapping[Step, Callable[[RiskBudget, str], Reservation]]] = {
    "commit": RiskBudget.commit,
    "settle": RiskBudget.settle,
    "release": RiskBudget.release,
}


class Held(NamedTuple):
    """An answer's details, what the budget had left for it, and its reservation: None where the size is 0."""

    details: dict[str, Any]
    use: ReserveRecord
    reservation: Reservation | None


def entered(account: Account, use: ReserveRecord | None) -> Account:
    """`account` with what the risk budget counts as used, where that is more than it says itself."""
    if use is None:
        return account
    return account._replace(
        open_risk=max(account.open_risk, use.exposure),  # type: ignore[type-var]  # one account: scalars
        daily_risk_used=max(account.daily_risk_used, use.daily_risk),  # type: ignore[type-var]
    )


def held(
    budget: RiskBudget,
    account_id: str,
    asked: Reserve,
    limits: Limits,
    size: Callable[[ReserveRecord], dict[str, Any]],
) -> Held:
    """What `size` answers when shown what is left of `limits`, already reserved under the key of `asked`.

    A reservation that is already there under the key, of an attempt that went unanswered, is this request's:
    it is sized as that one was, and never larger than what is held.
    Conflict where the key is another account's, or its reservation is gone; Unavailable where the budget's
    database refuses.
    """
    with _told():
        for _ in range(ATTEMPTS):
            own = _of(budget, asked.key, account_id)
            use = _use(asked, limits, _left(budget, account_id, limits, own))
            details = size(use)
            if own is not None and Decimal(repr(details["risk_fraction"])) > own.risk:
                use = _use(asked, limits, (own.risk, own.exposure))
                details = size(use)
            risk = float(details["risk_fraction"])
            if risk == 0.0 or own is not None:
                return Held(details, use, own if risk else None)
            try:
                made = budget.reserve(
                    account_id,
                    asked.key,
                    risk=risk,
                    exposure=risk,
                    limits=limits,
                    seconds=asked.seconds,
                )
                return Held(details, use, made)
            except OverBudget:
                continue  # another was quicker
            except InputError as error:
                if error.field != "key":
                    raise
                # the same request, sent twice, has just reserved another amount under the key
    raise Unavailable("reserve", "too many reserve at once for this account: try again")


def moved(budget: RiskBudget, decision: DecisionRecord, step: Step) -> Reservation:
    """The decision's reservation after `step`; NotFound where it has none, Conflict where it cannot be."""
    if decision.reserve is None or decision.risk_fraction == 0.0:
        raise NotFound("decision_id", decision.account_id, "nothing was reserved for this decision")
    with _told():
        return STEPS[step](budget, decision.reserve.key)


def closed(budget: RiskBudget, decision: DecisionRecord) -> Reservation | None:
    """The decision's reservation once its outcome is known: settled, or released if it became no trade."""
    if decision.reserve is None:
        return None
    with _told():
        found = _find(budget, decision.reserve.key)
        if found is None or found.state in ("settled", "released", "expired"):
            return found
        return STEPS["settle" if found.state == "committed" else "release"](budget, found.key)


def standing(budget: RiskBudget, decision: DecisionRecord) -> Reservation | None:
    """The reservation that an earlier answer was given with; Conflict where it is gone.

    None for a size of 0, which needs none.
    """
    assert decision.reserve is not None
    if decision.risk_fraction == 0.0:
        return None
    with _told():
        return _of(budget, decision.reserve.key, decision.account_id, ("reserved", "committed", "settled"))


def give_back(budget: RiskBudget, key: str) -> None:
    """Release what is held under `key`, once its request is journaled with a size of 0.

    An earlier attempt that ended before its answer may have found a size, and another that is still on its
    way may have held one just now: its record is refused, so that it answers 0 as well.
    """
    with _told():
        found = _find(budget, key)
        if found is not None and found.state == "reserved":
            budget.release(key)


def told(reservation: Reservation | None) -> dict[str, Any] | None:
    """As answers have it."""
    if reservation is None:
        return None
    return {
        "key": reservation.key,
        "state": reservation.state,
        "risk": float(reservation.risk),
        "exposure": float(reservation.exposure),
        "expires": iso(reservation.expires),
    }


def _left(
    budget: RiskBudget, account_id: str, limits: Limits, own: Reservation | None
) -> tuple[Decimal, Decimal]:
    """What others leave of daily risk and of exposure: what the key holds is there for its request."""
    risk, exposure = room(limits)
    try:
        used = budget.used(account_id)
    except NothingWritten:
        return risk, exposure
    risk, exposure = risk - used.daily_risk, exposure - used.exposure
    if own is not None:
        risk, exposure = risk + (own.risk if own.day == used.day else 0), exposure + own.exposure
    return max(risk, Decimal(0)), max(exposure, Decimal(0))


def _use(asked: Reserve, limits: Limits, left: tuple[Decimal, Decimal]) -> ReserveRecord:
    """What counts as used, so that exactly what is left remains."""
    return ReserveRecord(
        key=asked.key,
        seconds=asked.seconds,
        daily_risk=max(float(Decimal(repr(limits.max_daily_risk)) - left[0]), 0.0),
        exposure=max(float(Decimal(repr(limits.max_exposure)) - left[1]), 0.0),
    )


def _of(
    budget: RiskBudget, key: str, account_id: str, states: tuple[str, ...] = ("reserved",)
) -> Reservation | None:
    found = _find(budget, key)
    if found is None:
        return None
    if found.account != account_id or found.state not in states:
        whose = "" if found.account == account_id else " by another account"
        raise Conflict("reserve.key", key, f"it is {found.state} already{whose}: give a new key")
    return found


def _find(budget: RiskBudget, key: str) -> Reservation | None:
    try:
        return budget.find(key)
    except NothingWritten:
        return None


@contextmanager
def _told() -> Iterator[None]:
    """Have the budget's refusals told as this service tells them."""
    try:
        yield
    except (Conflict, DataError):
        raise
    except InputError as error:
        if error.field == "budget":
            raise Unavailable("budget", error.mend) from error
        raise Conflict(f"reserve.{error.field}", error.value, error.mend) from error
