"""The risk budget of each account, which many processes spend from and none can spend twice.

A reservation holds budget for a trade about to be opened. `commit` makes it an open trade, `settle` closes
that trade and frees its exposure, `release` gives an unused reservation back, and so does its expiry. The
risk of a trade stays spent for the UTC day of its reservation. Amounts are fractions of equity, kept as whole
numbers of 1e-12 of it, the guardrail's own grain: sums are exact. Knows nothing of prices or models.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import ROUND_CEILING, ROUND_FLOOR, Decimal
from typing import Any, Final, Literal, NamedTuple

from sqlalchemy import (
    BigInteger,
    Column,
    Connection,
    Index,
    MetaData,
    String,
    Table,
    and_,
    case,
    func,
    insert,
    or_,
    select,
    update,
)
from sqlalchemy.dialects import postgresql, sqlite

from envs.guardrails import RISK_DECIMALS, Limits
from journal.database import Database
from journal.schema import checked_name
from market.errors import InputError

LONGEST_HOLD: Final = 86_400.0  # seconds
_DAY: Final = 86_400_000_000_000  # ns
GRAIN: Final = Decimal(10) ** -RISK_DECIMALS

State = Literal["reserved", "committed", "settled", "released", "expired"]
Amount = float | Decimal

_tables = MetaData()
_accounts = Table(
    "budget_accounts",
    _tables,
    Column("account", String(128), primary_key=True),
    Column(
        "latest", BigInteger, nullable=False
    ),  # the latest moment seen, ns: the account's time stands still
)  # where a clock goes back
_reservations = Table(
    "budget_reservations",
    _tables,
    Column("key", String(200), primary_key=True),
    Column("account", String(128), nullable=False),
    Column("risk", BigInteger, nullable=False),
    Column("exposure", BigInteger, nullable=False),
    Column("day", BigInteger, nullable=False),
    Column("expires", BigInteger, nullable=False),
    Column("state", String(16), nullable=False),  # never "expired": that follows from the account's time
)
Index("budget_by_day", _reservations.c.account, _reservations.c.day)
Index("budget_by_state", _reservations.c.account, _reservations.c.state, _reservations.c.expires)

_UPSERTS: Final[dict[str, Any]] = {"sqlite": sqlite.insert, "postgresql": postgresql.insert}


class OverBudget(InputError):
    """A reservation for more than is left; nothing was reserved, and the key may be used again."""


@dataclass(frozen=True)
class Reservation:
    """Budget held for one trade, in fractions of equity: `risk` of the UTC day `day`, and `exposure`.

    `day` counts from 1970; `expires` is in ns since 1970, UTC, and means nothing once there is a trade.
    """

    key: str
    account: str
    risk: Decimal
    exposure: Decimal
    day: int
    expires: int
    state: State


class Used(NamedTuple):
    """What an account has used: risk of the UTC day `day`, and open exposure, both with what is reserved."""

    day: int
    daily_risk: Decimal
    exposure: Decimal


class RiskBudget:
    """The budgets of all accounts in the database at an SQLAlchemy `url`, SQLite or PostgreSQL.

    What a call answers is durable as `Database` says. An account's time never runs backwards: a clock (ns
    since 1970, UTC) behind what the account has seen frees no day and revives nothing. Risk and exposure are
    fractions of the equity at their reservation and do not move with it. Threads may share a RiskBudget.
    """

    def __init__(
        self,
        url: str,
        *,
        synchronous: Literal["NORMAL", "FULL"] = "NORMAL",
        clock: Callable[[], int] = time.time_ns,
    ) -> None:
        self._database = Database(url, _tables, "budget", synchronous=synchronous)
        self._upsert, self._clock = _UPSERTS[self._database.engine.dialect.name], clock

    def reserve(
        self,
        account: str,
        key: str,
        *,
        risk: Amount,
        exposure: Amount,
        limits: Limits,
        seconds: float = 60.0,
    ) -> Reservation:
        """Hold `risk` of today's `limits.max_daily_risk` and `exposure` of `limits.max_exposure`.

        `key` names the trade for good, over all accounts. The same call again gives the reservation that
        exists and spends nothing; another account or other amounts under the key are an `InputError`, as is a
        key whose reservation was released or has expired, `seconds` after it was made. Raises `OverBudget`
        where less is left than asked, `InputError` for amounts that are not finite or below zero.
        """
        checked_name("account", account, 128)
        checked_name("key", key, 200)
        wanted = _grains("risk", risk, ROUND_CEILING), _grains("exposure", exposure, ROUND_CEILING)
        most = (
            _grains("limits.max_daily_risk", limits.max_daily_risk, ROUND_FLOOR),
            _grains("limits.max_exposure", limits.max_exposure, ROUND_FLOOR),
        )
        if not (math.isfinite(seconds) and 0.0 < seconds <= LONGEST_HOLD):
            raise InputError("seconds", seconds, f"give more than 0 and at most {LONGEST_HOLD:,.0f} seconds")
        with self._database.transaction(write=True) as connection:
            now, clock = self._lock(connection, account)
            row = _find(connection, key)
            if row is not None:
                return _same(_reservation(row, now), account, wanted)
            day = now // _DAY
            for name, asked, used, limit in zip(
                ("risk", "exposure"), wanted, _sums(connection, account, day, now), most, strict=True
            ):
                if used + asked > limit:
                    left = _fraction(max(limit - used, 0))
                    of = (
                        f"of {_fraction(limit)} for {_date(day)} UTC"
                        if name == "risk"
                        else f"of {_fraction(limit)}"
                    )
                    behind = "; the clock is behind what the account has seen" if clock < now else ""
                    raise OverBudget(name, str(_fraction(asked)), f"at most {left} is left {of}{behind}")
            values = {
                "key": key,
                "account": account,
                "risk": wanted[0],
                "exposure": wanted[1],
                "day": day,
                "expires": now + round(seconds * 1e9),
                "state": "reserved",
            }
            connection.execute(insert(_reservations), values)
            return _reservation(values, now)

    def commit(self, key: str) -> Reservation:
        """Make a reservation an open trade: its risk is spent for its day, its exposure held until `settle`.

        An expired reservation is an `InputError`: its budget may be another trade's by now. Commit before the
        order is sent, then no trade is ever open without budget.
        """
        return self._move(key, "reserved", "committed", ("committed", "settled"))

    def release(self, key: str) -> Reservation:
        """Give back a reservation that became no trade; one that has expired is already given back."""
        return self._move(key, "reserved", "released", ("released", "expired"))

    def settle(self, key: str) -> Reservation:
        """Close a committed trade: its exposure is free again, its risk stays spent for its day."""
        return self._move(key, "committed", "settled", ("settled",))

    def find(self, key: str) -> Reservation | None:
        """The reservation under `key` as it stands now, None where there is none; nothing is written."""
        with self._database.transaction(write=False) as connection:
            row = _find(connection, key)
            return None if row is None else _reservation(row, self._now(connection, row["account"]))

    def used(self, account: str) -> Used:
        """What the account has used by now; nothing is written."""
        with self._database.transaction(write=False) as connection:
            now = self._now(connection, account)
            day = now // _DAY
            risk, exposure = _sums(connection, account, day, now)
        return Used(day, _fraction(risk), _fraction(exposure))

    def close(self) -> None:
        """Give the database connections back."""
        self._database.close()

    def _move(self, key: str, source: State, target: State, done: tuple[State, ...]) -> Reservation:
        """Bring a reservation from `source` to `target`; in one of `done` it is there, or beyond, already."""
        with self._database.transaction(write=True) as connection:
            row = _find(connection, key)
            if row is None:
                raise InputError("key", key, "give the key of a reservation")
            now, _ = self._lock(connection, row["account"])
            found = _reservation(_find(connection, key), now)  # it may have moved before the lock was had
            if found.state in done:
                return found
            if found.state != source:
                raise InputError("key", key, f"cannot be {target}: {_told(found)}")
            connection.execute(update(_reservations).where(_reservations.c.key == key).values(state=target))
            return _reservation(_find(connection, key), now)

    def _now(self, connection: Connection, account: str) -> int:
        """The account's time, which no reader moves."""
        latest = connection.scalar(select(_accounts.c.latest).where(_accounts.c.account == account))
        return max(self._clock(), latest or 0)

    def _lock(self, connection: Connection, account: str) -> tuple[int, int]:
        """The account's time and this clock's, the account being this transaction's alone until it ends."""
        clock = self._clock()
        seen = self._upsert(_accounts).values(account=account, latest=clock)
        later = case(
            (seen.excluded.latest > _accounts.c.latest, seen.excluded.latest), else_=_accounts.c.latest
        )
        locked = seen.on_conflict_do_update(index_elements=["account"], set_={"latest": later})
        return connection.execute(locked.returning(_accounts.c.latest)).scalar_one(), clock


def room(limits: Limits) -> tuple[Decimal, Decimal]:
    """What `limits` grant of daily risk and of exposure, exactly: in whole grains, rounded down."""
    return (
        _fraction(_grains("limits.max_daily_risk", limits.max_daily_risk, ROUND_FLOOR)),
        _fraction(_grains("limits.max_exposure", limits.max_exposure, ROUND_FLOOR)),
    )


def _find(connection: Connection, key: str) -> Any:
    return connection.execute(select(_reservations).where(_reservations.c.key == key)).mappings().first()


def _sums(connection: Connection, account: str, day: int, now: int) -> tuple[int, int]:
    """Risk used on `day` and open exposure, in grains."""
    held = and_(_reservations.c.state == "reserved", _reservations.c.expires > now)

    def total(column: Any, *states: State) -> Any:
        counted = or_(held, _reservations.c.state.in_(states))
        return select(func.coalesce(func.sum(column), 0)).where(_reservations.c.account == account, counted)

    risk = total(_reservations.c.risk, "committed", "settled").where(_reservations.c.day == day)
    exposure = total(_reservations.c.exposure, "committed")
    return int(connection.scalar(risk) or 0), int(connection.scalar(exposure) or 0)


def _same(found: Reservation, account: str, wanted: tuple[int, int]) -> Reservation:
    """`found`, if it answers the call; InputError otherwise."""
    amounts = _fraction(wanted[0]), _fraction(wanted[1])
    if (found.account, found.risk, found.exposure) != (account, *amounts):
        said = f"risk {found.risk} and exposure {found.exposure} of account {found.account!r}"
        raise InputError(
            "key", found.key, f"is already there for {said}; give a new key, or the same amounts"
        )
    if found.state in ("released", "expired"):
        raise InputError("key", found.key, f"cannot be reserved again: {_told(found)}")
    return found


def _told(found: Reservation) -> str:
    """Why a reservation in its state can go nowhere else, and what to do."""
    if found.state == "expired":
        moment = datetime.fromtimestamp(found.expires / 1e9, UTC).isoformat(timespec="seconds")
        return f"it expired at {moment} and its budget went back; reserve under a new key"
    return {
        "released": "it was released; reserve under a new key",
        "reserved": "it is only reserved; commit it first",
        "committed": "its trade is open; settle it",
        "settled": "its trade is closed",
    }[found.state]


def _reservation(row: Any, now: int) -> Reservation:
    lapsed = row["state"] == "reserved" and row["expires"] <= now
    return Reservation(
        key=row["key"],
        account=row["account"],
        risk=_fraction(row["risk"]),
        exposure=_fraction(row["exposure"]),
        day=row["day"],
        expires=row["expires"],
        state="expired" if lapsed else row["state"],
    )


def _grains(field: str, amount: Amount, rounding: str) -> int:
    """`amount` in whole grains; what is asked is rounded up and what is granted down: nobody gains by it."""
    if isinstance(amount, bool) or not isinstance(amount, int | float | Decimal):
        raise InputError(field, amount, "give a fraction of equity")
    if not (math.isfinite(amount) and 0 <= amount <= 1):
        raise InputError(field, amount, "give a finite fraction of equity, from 0 to 1")
    exact = amount if isinstance(amount, Decimal) else Decimal(repr(float(amount)))
    return int((exact / GRAIN).to_integral_value(rounding))


def _fraction(grains: int) -> Decimal:
    return (Decimal(grains) * GRAIN).normalize()


def _date(day: int) -> str:
    return datetime.fromtimestamp(day * 86_400, UTC).date().isoformat()
