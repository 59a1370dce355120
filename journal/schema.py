"""What a journal record is: its columns, its canonical JSON and its link in a writer's hash chain.

Knows nothing of connections, transactions or what a payload means.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Iterable, Mapping
from typing import Any, Final, NamedTuple

import orjson
from sqlalchemy import DDL, BigInteger, Column, MetaData, String, Table, Text, event

from market.errors import InputError

KINDS: Final = ("signal", "decision", "outcome", "fill", "narrative", "model", "trigger", "anchor", "shadow")
GENESIS: Final = "0" * 64  # what the first record of every writer is chained to
FORMAT: Final = "ballast-journal-2"  # part of every hash, so that a later format cannot pass for this one
FIRST_FORMAT: Final = "ballast-journal-1"  # whose records are read and verified as well

metadata = MetaData()
records = Table(
    "records",
    metadata,
    Column("writer", String(128), primary_key=True),
    Column("sequence", BigInteger, primary_key=True, autoincrement=False),
    Column("kind", String(32), nullable=False),
    Column("record_id", String(200), nullable=False, unique=True),
    Column("time", BigInteger, nullable=False),
    Column("payload", Text, nullable=False),
    Column("previous", String(64), nullable=False),
    Column("hash", String(64), nullable=False),
)

# Against accidents only: whoever owns the database can drop a trigger, and then the hash chain tells.
_REFUSALS: Final = {
    "sqlite": [
        f"CREATE TRIGGER records_refuse_{change.lower()} BEFORE {change} ON records "
        "BEGIN SELECT RAISE(ABORT, 'journal records are append-only'); END"
        for change in ("UPDATE", "DELETE")
    ],
    "postgresql": [
        "CREATE OR REPLACE FUNCTION records_refuse() RETURNS trigger LANGUAGE plpgsql AS "
        "'BEGIN RAISE EXCEPTION ''journal records are append-only''; END'",
        "CREATE TRIGGER records_refuse_change BEFORE UPDATE OR DELETE OR TRUNCATE ON records "
        "FOR EACH STATEMENT EXECUTE FUNCTION records_refuse()",
    ],
}
for _dialect, _statements in _REFUSALS.items():
    for _statement in _statements:
        _refusal = DDL(_statement)  # type: ignore[no-untyped-call]  # SQLAlchemy leaves it untyped
        event.listen(records, "after_create", _refusal.execute_if(dialect=_dialect))


class Record(NamedTuple):
    """One journaled fact. `sequence` counts from 1 per writer; `time` is in nanoseconds since 1970, UTC.

    `previous` is the hash of the same writer's record before this one (`GENESIS` for the first), `hash`
    covers all other fields. A record's place is given by its sequence, never by its time: clocks may step
    backwards. The fields are those of a row of `records`, in the order of its columns.
    """

    writer: str
    sequence: int
    kind: str
    record_id: str
    time: int
    text: str  # the payload, in canonical JSON
    previous: str
    hash: str

    @property
    def payload(self) -> Mapping[str, Any]:
        """What the record says."""
        content: dict[str, Any] = json.loads(self.text)
        return content

    def gives_its_hash(self) -> bool:
        """Whether the record, at the place where it lies, is as it was written."""
        try:
            return gives_hash(self.hash, *self[:7])
        except (TypeError, AttributeError):  # a database that was damaged may hold anything
            return False


def checked_name(field: str, value: object, longest: int) -> str:
    """`value`, if it can name something in a column of `longest` characters; `InputError` otherwise."""
    if not (isinstance(value, str) and value.isprintable() and value.strip() and len(value) <= longest):
        raise InputError(field, value, f"give 1 to {longest} printable characters")
    return value


class Canonical(str):
    """A payload that is text already, as `canonical` gives it."""

    __slots__ = ()


def canonical(payload: Mapping[str, Any], field: str = "payload") -> Canonical:
    """The one JSON text of `payload`: sorted keys, no spaces, ASCII, shortest floats that read back the same.

    It is as orjson writes it, which a later one may do otherwise: of two texts that differ, the values tell
    whether they say the same. NaN, infinity, keys that are no strings and values JSON has no type for raise
    `InputError`, naming the place below `field`.
    """
    if not isinstance(payload, Mapping):
        raise InputError(field, payload, "give a mapping of names to JSON values")
    plain = dict(payload)
    _check_json(plain, field)
    return _written(plain)


def canonical_of_plain(payload: dict[str, Any], field: str = "payload") -> Canonical:
    """`canonical` of what is known to be JSON, but for its numbers: `InputError` where one is not finite."""
    if not _finite(payload):
        _check_json(payload, field)
    return _written(payload)


_SORTED: Final = json.JSONEncoder(sort_keys=True, separators=(",", ":"), allow_nan=False)
_IN_ORDER: Final = json.JSONEncoder(separators=(",", ":"))
_NOT_ASCII: Final = re.compile(r"[^\x00-\x7f]")  # which stands in strings alone


def _written(payload: dict[str, Any]) -> Canonical:
    try:
        text = orjson.dumps(payload, _plain_float, orjson.OPT_SORT_KEYS).decode()
    except TypeError:  # whole numbers beyond 64 bits, halves of characters: orjson has no place for them
        return Canonical(_SORTED.encode(payload))
    if not text.isascii():
        text = _NOT_ASCII.sub(lambda found: json.dumps(found[0])[1:-1], text)
    return Canonical(text)


def say_the_same(one: str, other: str) -> bool:
    """Whether two payloads' texts, of which one may have been written by an earlier version, are of one."""
    try:
        return canonical(json.loads(one)) == canonical(json.loads(other))
    except ValueError:  # a text that was damaged
        return False


def _plain_float(value: object) -> float:
    """What is written for a number of another type, such as NumPy's."""
    if isinstance(value, float):
        return float(value)
    raise TypeError(value)


def _finite(payload: dict[str, Any]) -> bool:
    """Whether all numbers in `payload`, and in what it holds, are finite: orjson makes null of others."""
    held: list[Iterable[object]] = [payload.values()]
    while held:
        for value in held.pop():
            kind = type(value)
            if kind is float:
                if value - value != 0.0:  # type: ignore[operator]  # NaN, for NaN and the infinities
                    return False
            elif kind is dict:
                held.append(value.values())  # type: ignore[attr-defined]
            elif kind is list or kind is tuple:
                held.append(value)  # type: ignore[arg-type]
            elif kind not in _PLAIN:
                return False  # perhaps: what is unknown here is looked at closely
    return True


_PLAIN: Final = frozenset((str, int, bool, type(None)))


def _check_json(value: object, field: str) -> None:
    """Refuse what `json.dumps` would refuse without saying where, or would change in silence."""
    if type(value) in _PLAIN:
        return
    if isinstance(value, float):
        if not math.isfinite(value):
            raise InputError(field, value, "give a finite number, or leave the value out")
    elif isinstance(value, dict):
        for key, item in value.items():
            if not isinstance(key, str):
                raise InputError(field, key, "give a string as key")
            if type(item) not in _PLAIN and not (type(item) is float and math.isfinite(item)):
                _check_json(item, f"{field}.{key}")
    elif isinstance(value, list | tuple):
        for index, item in enumerate(value):
            _check_json(item, f"{field}[{index}]")
    elif not isinstance(value, str | int):
        raise InputError(field, value, "give a string, number, boolean, null, list or mapping")


def chained_hash(
    writer: str, sequence: int, kind: str, record_id: str, time: int, payload: str, previous: str
) -> str:
    """The SHA-256 (hex) of a record whose payload is the canonical text `payload`.

    What is hashed is the JSON array of all else, which tells by itself where it ends, and then the payload.
    """
    fields = orjson.dumps([FORMAT, writer, sequence, kind, record_id, time, previous])
    return hashlib.sha256(fields + payload.encode()).hexdigest()


def gives_hash(
    digest: str, writer: str, sequence: int, kind: str, record_id: str, time: int, payload: str, previous: str
) -> bool:
    """Whether a record's content gives `digest`, by this format or, for a record written then, the first."""
    if chained_hash(writer, sequence, kind, record_id, time, payload, previous) == digest:
        return True
    fields = [FIRST_FORMAT, writer, sequence, kind, record_id, time, payload, previous]
    return hashlib.sha256(_IN_ORDER.encode(fields).encode()).hexdigest() == digest
