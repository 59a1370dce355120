"""The heads of writers' chains, and what one writer's records say of the heads of others.

Knows nothing of how a chain is checked: a chain alone cannot tell that its newest records were cut off or
rewritten, so each writer now and then journals where the others stand.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final, NamedTuple

from pydantic import ValidationError
from sqlalchemy.engine.interfaces import DBAPICursor

from journal.chain import Anchor
from journal.records import AnchorRecord, Head
from journal.schema import Record

MOST_HEADS: Final = 100  # of the writers that wrote last: older ones were seen by writers of their time

# One step down the primary key for each writer, however many records there are.
_HEADS: Final = """
    WITH RECURSIVE named(writer) AS (
        SELECT min(writer) FROM records
        UNION ALL
        SELECT (SELECT min(next.writer) FROM records AS next WHERE next.writer > named.writer)
        FROM named WHERE named.writer IS NOT NULL
    )
    SELECT head.writer, head.sequence, head.hash, head.time
    FROM named JOIN records AS head ON head.writer = named.writer
        AND head.sequence = (SELECT max(last.sequence) FROM records AS last WHERE last.writer = named.writer)
"""


class Seen(NamedTuple):
    """Where a writer stood."""

    sequence: int
    hash: str


def heads(cursor: DBAPICursor) -> dict[str, Seen]:
    """Where every writer stands, those that wrote last first."""
    cursor.execute(_HEADS)
    rows = sorted(cursor.fetchall(), key=lambda row: -row[3])
    return {writer: Seen(sequence, digest) for writer, sequence, digest, _ in rows}


def anchor(now: Mapping[str, Seen], before: Mapping[str, Seen], writer: str) -> AnchorRecord | None:
    """What `writer` can say of others' heads `now` that it did not say `before`; None where nothing."""
    news = {
        name: Head(sequence=seen.sequence, hash=seen.hash)
        for name, seen in now.items()
        if name != writer and before.get(name) != seen
    }
    newest = dict(list(news.items())[:MOST_HEADS])
    return AnchorRecord(heads=newest) if newest else None


def anchored(rows: Iterable[Record]) -> dict[str, dict[int, Anchor]]:
    """The hashes that others saw of each writer, by sequence; of the anchor `rows` unaltered ones count."""
    places: dict[str, dict[int, Anchor]] = {}
    for row in rows:
        if not row.gives_its_hash():
            continue
        try:
            said = AnchorRecord.model_validate_json(row.text).heads
        except ValidationError:
            continue
        for name, head in said.items():
            places.setdefault(name, {}).setdefault(head.sequence, Anchor(head.hash, row.writer))
    return places
