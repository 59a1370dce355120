"""Find what was altered, taken out or moved in one writer's hash chain.

Knows nothing of databases: rows come in, faults go out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Literal, Protocol

from journal.schema import GENESIS, chained_hash


@dataclass(frozen=True)
class Fault:
    """One thing wrong with a writer's chain at `sequence`; `record_id` is None where no record is."""

    kind: Literal["altered", "missing", "reordered"]
    writer: str
    sequence: int
    record_id: str | None
    detail: str


class StoredRecord(Protocol):
    """A record as it lies in the journal, its payload still text."""

    writer: str
    sequence: int
    kind: str
    record_id: str
    time: int
    payload: str
    previous: str
    hash: str


def chain_faults(
    writer: str, rows: Iterable[StoredRecord], links: Callable[[], Iterable[tuple[str, str]]]
) -> Iterator[Fault]:
    """The faults among one writer's `rows`, which come in order of sequence; each row is held only briefly.

    `links` gives (hash, previous hash) of all the writer's rows, and is asked only once a row's content does
    not give its hash: a record that was merely moved still gives it at its old place.
    """
    places: dict[str, int] | None = None
    sequence, previous, before = 0, GENESIS, ""
    sound = True  # whether the row before this one gave its own hash
    for row in rows:
        adjacent = row.sequence == sequence + 1
        if not adjacent:
            yield Fault("missing", writer, sequence + 1, None, _span(sequence + 1, row.sequence - 1))
        whole = _hash(row, row.sequence) == row.hash
        if not whole:
            places = _places(links()) if places is None else places
            place = places.get(row.hash)
            if place is not None and _hash(row, place) == row.hash:
                yield Fault("reordered", writer, row.sequence, row.record_id, f"was number {place}")
            else:
                yield Fault("altered", writer, row.sequence, row.record_id, "does not give its own hash")
        elif adjacent and sound and row.previous != previous:
            # Both rows are whole in themselves, so the earlier one is not the one this row was chained to.
            culprit, number = (before, sequence) if sequence else (row.record_id, row.sequence)
            yield Fault("altered", writer, number, culprit, "the chain after it was built on another record")
        sequence, previous, before, sound = row.sequence, row.hash, row.record_id, whole


def _hash(row: StoredRecord, sequence: int) -> str:
    return chained_hash(row.writer, sequence, row.kind, row.record_id, row.time, row.payload, row.previous)


def _places(links: Iterable[tuple[str, str]]) -> dict[str, int]:
    """The sequence that each hash was written at: its distance from the chain's start, by the links alone."""
    following = {previous: digest for digest, previous in links}
    places: dict[str, int] = {}
    digest = following.get(GENESIS)
    while digest is not None and digest not in places:
        places[digest] = len(places) + 1
        digest = following.get(digest)
    return places


def _span(first: int, last: int) -> str:
    return f"no record has number {first}" if first == last else f"no records have numbers {first} to {last}"
