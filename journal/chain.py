"""Find what was altered, taken out or moved in one writer's hash chain.

Knows nothing of databases: rows come in, findings go out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final, Literal, NamedTuple

from journal.schema import GENESIS, Record

NO_ANCHORS: Final[Mapping[int, Anchor]] = {}


@dataclass(frozen=True)
class Finding:
    """One thing to be told of a writer's chain at `sequence`; `record_id` is None where no record is.

    All kinds but "clock" mean that the journal is not as it was written: "clock" tells that the writer's
    clock went back, which the chain, ordered by sequence, does not mind.
    """

    kind: Literal["altered", "missing", "reordered", "clock"]
    writer: str
    sequence: int
    record_id: str | None
    detail: str


class Anchor(NamedTuple):
    """What another writer, the `witness`, saw as a record's hash."""

    hash: str
    witness: str


def findings(
    writer: str,
    rows: Iterable[Record],
    links: Callable[[], Iterable[tuple[str, str]]],
    anchors: Mapping[int, Anchor] = NO_ANCHORS,
) -> Iterator[Finding]:
    """What is to be told of one writer's `rows`, which come in order of sequence; each is held only briefly.

    `links` gives (hash, previous hash) of all the writer's rows, and is asked only once a row's content does
    not give its hash: a record that was merely moved still gives it at its old place. `anchors` are the
    hashes that other writers saw, by sequence.
    """
    places: dict[str, int] | None = None
    sequence, previous, before = 0, GENESIS, ""
    sound = True  # whether the row before this one gave its own hash
    latest = 0
    for row in rows:
        if not isinstance(row.sequence, int):  # a database that was damaged may hold anything
            yield Finding("altered", writer, sequence + 1, row.record_id, "its number is none")
            continue
        adjacent = row.sequence == sequence + 1
        if not adjacent:
            yield Finding("missing", writer, sequence + 1, None, _span(sequence + 1, row.sequence - 1))
        whole = row.gives_its_hash()
        seen = anchors.get(row.sequence)
        if not whole:
            places = _places(links()) if places is None else places
            place = places.get(row.hash)
            if place is not None and row._replace(sequence=place).gives_its_hash():
                yield Finding("reordered", writer, row.sequence, row.record_id, f"was number {place}")
            else:
                yield Finding("altered", writer, row.sequence, row.record_id, "does not give its own hash")
        elif adjacent and sound and row.previous != previous:
            # Both rows are whole in themselves, so the earlier one is not the one this row was chained to.
            culprit, number = (before, sequence) if sequence else (row.record_id, row.sequence)
            yield Finding(
                "altered", writer, number, culprit, "the chain after it was built on another record"
            )
        elif seen is not None and seen.hash != row.hash:
            detail = f"writer {seen.witness} saw another record here"
            yield Finding("altered", writer, row.sequence, row.record_id, detail)
        elif sound and row.time < latest:
            behind = f"the clock stood {(latest - row.time) / 1e9:g} s behind an earlier record"
            yield Finding("clock", writer, row.sequence, row.record_id, behind)
        latest = max(latest, row.time) if whole else latest
        sequence, previous, before, sound = row.sequence, row.hash, row.record_id, whole
    last = max(anchors, default=0)
    if last > sequence:
        detail = f"{_span(sequence + 1, last)}: writer {anchors[last].witness} saw number {last}"
        yield Finding("missing", writer, sequence + 1, None, detail)


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
