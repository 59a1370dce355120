"""Read a whole journal and check every record against its chain and against what other writers saw of it.

Knows nothing of how records are written, nor of what they hold.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from itertools import groupby

from sqlalchemy import Connection, select

from journal.anchors import Seen, anchored
from journal.chain import NO_ANCHORS, Finding, findings
from journal.schema import GENESIS, Record, records


@dataclass(frozen=True)
class Inspection:
    """What a journal holds and what is to be told of it."""

    records: int
    heads: Mapping[str, Seen]  # where each writer stands
    unanchored: Mapping[str, int]  # how many of its newest records no other writer has seen yet
    findings: tuple[Finding, ...]

    @property
    def faults(self) -> list[Finding]:
        """The findings that mean that the journal is not as it was written: all but clocks that went back."""
        return [finding for finding in self.findings if finding.kind != "clock"]


def inspect(connection: Connection) -> Inspection:
    """Inspect the journal that `connection` sees."""
    # Read before the rest: what an anchor names was written before it.
    spoken = select(records).where(records.c.kind == "anchor")
    places = anchored(map(Record._make, connection.execute(spoken).yield_per(1000)))
    found: list[Finding] = []
    heads: dict[str, Seen] = {}
    count = 0
    ordered = connection.execute(select(records).order_by(records.c.writer, records.c.sequence))
    stored = map(Record._make, ordered.yield_per(1000))
    for writer, rows in groupby(stored, key=lambda record: str(record.writer)):
        tally = _Tally(rows)
        found += findings(writer, tally, partial(_links, connection, writer), places.get(writer, NO_ANCHORS))
        heads[writer] = tally.head
        count += tally.count
    for writer in sorted(places.keys() - heads.keys()):
        found += findings(writer, (), tuple, places[writer])
    unseen = {name: head.sequence - max(places.get(name, [0])) for name, head in heads.items()}
    return Inspection(count, heads, {name: n for name, n in unseen.items() if n > 0}, tuple(found))


class _Tally:
    """The rows of one writer, counted as they pass; `head` is the last of them."""

    def __init__(self, rows: Iterable[Record]) -> None:
        self._rows = rows
        self.count, self.head = 0, Seen(0, GENESIS)

    def __iter__(self) -> Iterator[Record]:
        for row in self._rows:
            self.count, self.head = self.count + 1, Seen(row.sequence, row.hash)
            yield row


def _links(connection: Connection, writer: str) -> Iterable[tuple[str, str]]:
    """The hash that each of the writer's records claims, and the hash it claims to follow."""
    pairs = connection.execute(select(records.c.hash, records.c.previous).where(records.c.writer == writer))
    return ((row.hash, row.previous) for row in pairs)
