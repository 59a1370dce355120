"""The journal as Parquet files, one for each kind of record, all of them written or none.

Knows nothing of what a payload means: its columns follow from its type.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Iterable
from contextlib import ExitStack
from itertools import groupby, islice
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Final, Literal, Union, get_args, get_origin

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import BaseModel, JsonValue

from journal.records import NANOSECONDS, PAYLOADS, Payload
from journal.schema import Record
from market.errors import ConfigError, first_line

GROUP: Final = 10_000  # rows held at once
MOMENT: Final = pa.timestamp("ns", tz="UTC")
ENVELOPE: Final = {
    "writer": pa.string(),
    "sequence": pa.int64(),
    "record_id": pa.string(),
    "journaled": MOMENT,
    "hash": pa.string(),
}
_SCALARS: Final = {str: pa.string(), bool: pa.bool_(), int: pa.int64(), float: pa.float64()}
_FREE: Final = dict[str, JsonValue]  # of any shape: a column of JSON text


def export(records: Iterable[Record], folder: Path) -> dict[str, int]:
    """Write KIND.parquet below `folder` for each kind that there is; how many records of each.

    Beside a payload's own columns stand the record's (`ENVELOPE`); what has parts has a column for each, as
    in `account.equity`. Raises ConfigError where `folder` exists already or cannot be made, DataError for a
    record of another version; then no folder is there.
    """
    if folder.exists():
        raise ConfigError("folder", str(folder), "give a folder that does not exist yet")
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        draft = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    except OSError as error:
        mend = f"give a folder that can be made ({error.strerror})"
        raise ConfigError("folder", str(folder), mend) from error
    try:
        counts = _write(records, draft)
        draft.chmod(0o755)
        os.replace(draft, folder)
    except (OSError, pa.ArrowException) as error:
        mend = f"it could not be written, and is not there ({first_line(error)})"
        raise ConfigError("folder", str(folder), mend) from error
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    return counts


def _write(records: Iterable[Record], folder: Path) -> dict[str, int]:
    counts: dict[str, int] = {}
    with ExitStack() as files:
        writers: dict[str, pq.ParquetWriter] = {}
        for kind, group in groupby(records, key=lambda record: record.kind):
            payload = PAYLOADS[kind]
            while rows := [_row(payload.of(record), record) for record in islice(group, GROUP)]:
                schema = pa.schema(ENVELOPE | _columns(payload))
                table = pa.Table.from_pylist(rows, schema).flatten()
                if kind not in writers:
                    writers[kind] = files.enter_context(
                        pq.ParquetWriter(folder / f"{kind}.parquet", table.schema)
                    )
                writers[kind].write_table(table)
                counts[kind] = counts.get(kind, 0) + len(rows)
    return counts


def _row(payload: Payload, record: Record) -> dict[str, Any]:
    envelope = (record.writer, record.sequence, record.record_id, record.time, record.hash)
    content = payload.model_dump(mode="json")
    for name, field in type(payload).model_fields.items():
        if field.annotation == _FREE:
            content[name] = json.dumps(content[name])
    return dict(zip(ENVELOPE, envelope, strict=True)) | content


def _columns(model: type[BaseModel]) -> dict[str, pa.DataType]:
    return {name: _arrow(field.rebuild_annotation()) for name, field in model.model_fields.items()}


def _arrow(hint: Any) -> pa.DataType:
    """The Arrow type of a payload's field."""
    if hint == _FREE:
        return pa.string()
    if hint in _SCALARS:
        return _SCALARS[hint]
    origin, parts = get_origin(hint), get_args(hint)
    if origin is Annotated:
        return MOMENT if NANOSECONDS in parts[1:] else _arrow(parts[0])
    if origin in (Union, UnionType):
        (kind,) = (part for part in parts if part is not type(None))
        return _arrow(kind)
    if origin is Literal:
        return _arrow(type(parts[0]))
    if origin is tuple:
        return pa.list_(_arrow(parts[0]))
    if origin is dict:
        return pa.map_(_arrow(parts[0]), _arrow(parts[1]))
    return pa.struct(_columns(hint))
