"""What changed in the registry since the journal was last told, and the telling.

Knows nothing of MLflow. It compares what is with what was told: a change is found whoever made it, and by the
next use if the process that made it died before it could tell.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from journal.location import open_journal
from journal.records import ModelRecord
from journal.store import Entry
from market.errors import InputError
from market.home import write_atomically
from mlops.evidence import BundleDigest, first_fault
from mlops.versions import ModelVersion, Status

BY_HAND: Final = "nobody gave one: it was made live in MLflow itself"

Append = Callable[[Sequence[Entry]], object]


class Told(BaseModel):
    """A version as the journal knows it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    status: Status
    digest: BundleDigest


class Changes:
    """The file at `path`: the versions as the journal knows them, and the records it could not take yet.

    Whoever calls holds the registry's lock. `append` journals entries, all or none; one whose id was
    journaled before is no second record.
    """

    def __init__(self, path: Path, append: Append) -> None:
        self._path, self._append = path, append

    def tell(self, versions: Sequence[ModelVersion]) -> str | None:
        """Journal how `versions` differ from what was told; why that could not be, or None.

        What could not be told is kept, and told the next time.
        """
        known = self._read()
        told = {version.version: Told(status=version.status, digest=version.digest) for version in versions}
        if told != known.told:
            found = [
                _Owed(record_id=f"model-{secrets.token_hex(16)}", record=record)
                for record in changes(known.told, versions)
            ]
            known = _Known(told=told, owed=(*known.owed, *found))
            self._write(known)
        if not known.owed:
            return None
        try:
            self._append([owed.record.to_entry(owed.record_id) for owed in known.owed])
        except InputError as error:
            return str(error)
        self._write(_Known(told=told))
        return None

    def _read(self) -> _Known:
        try:
            return _Known.model_validate_json(self._path.read_bytes())
        except FileNotFoundError:
            return _Known()
        except ValidationError as error:
            mend = f"remove it, and all versions are journaled anew ({first_fault(error)})"
            raise InputError("registry changes", str(self._path), mend) from error

    def _write(self, known: _Known) -> None:
        write_atomically(self._path, known.model_dump_json(indent=2).encode() + b"\n")


def changes(told: Mapping[int, Told], versions: Sequence[ModelVersion]) -> list[ModelRecord]:
    """What happened between `told` and `versions`, which come oldest first.

    That a version lost its place in production is told with the one that took it. One that is live without
    evidence and without an override was made so by hand, and is told as an override.
    """
    live = next(((number, one) for number, one in told.items() if one.status == "PRODUCTION"), None)
    taken = any(version.status == "PRODUCTION" for version in versions)
    records = []
    for version in versions:
        known = told.get(version.version)
        before = known.status if known else "TRAINING" if version.status == "TRAINING" else "STAGING"
        if known is None:
            records.append(_record("registered", version))
        if version.status == before:
            continue
        if version.status == "PRODUCTION":
            records.append(_went_live(version, live, back=before == "ARCHIVED"))
        elif version.status == "STAGING":
            records.append(_record("staged", version))
        elif not (before == "PRODUCTION" and taken):
            records.append(_record("archived", version))
    numbers = {version.version for version in versions}
    gone = [(number, one.digest) for number, one in sorted(told.items()) if number not in numbers]
    return records + [ModelRecord(action="pruned", version=number, digest=digest) for number, digest in gone]


def _record(action: Literal["registered", "staged", "archived"], version: ModelVersion) -> ModelRecord:
    return ModelRecord(action=action, version=version.version, digest=version.digest)


def _went_live(version: ModelVersion, replaced: tuple[int, Told] | None, *, back: bool) -> ModelRecord:
    number, told = replaced or (None, None)
    by_hand = version.evidence is None and version.override is None
    return ModelRecord(
        action="rolled_back" if back else "promoted",
        version=version.version,
        digest=version.digest,
        replaced_version=number,
        replaced_digest=None if told is None else told.digest,
        evidence=version.evidence,
        override=BY_HAND if by_hand else version.override,
    )


class _Owed(BaseModel):
    """A record that is still to be journaled, under an id that stays the same however often that is tried."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    record_id: str
    record: ModelRecord


class _Known(BaseModel):
    """The file's layout."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    told: dict[int, Told] = {}
    owed: tuple[_Owed, ...] = ()


def appender(home: Path, writer: str) -> Append:
    """What writes to the journal of `home` as `writer`; it is opened only when there is something to write.

    Whoever uses it holds a lock: then one chain takes what any number of processes have to tell.
    """

    def append(entries: Sequence[Entry]) -> None:
        journal = open_journal(home, writer, os.environ)
        try:
            journal.append_many(entries)
        finally:
            journal.close()

    return append
