"""Features of more bars than one machine can hold: Parquet in, Parquet out, through Ray Data.

Knows no formula: each symbol's bars pass the door and the pipeline that all others pass, so the bits are the
same. One symbol's bars must fit in the memory of one worker; the caller has connected to Ray.
"""

import os
import secrets
import shutil
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias
from urllib.parse import unquote, urlsplit

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset
import pyarrow.fs
import pyarrow.parquet as pq
import ray
import ray.data
from ray.exceptions import UserCodeException

from features.pipeline import FeaturePipeline
from features.spec import FEATURE_NAMES
from market.bars import COLUMNS, symbol_name
from market.errors import ConfigError, DataError, InputError, first_line
from market.frames import bars_from_frame

ENDINGS = (".parquet", ".pq")
TIMES = ("timestamp", "datetime", "date", "time")
PARTITION_BYTES = 32_000_000  # of Parquet per task of the shuffle; some times that in memory
PATH = "path"  # the column in which Ray Data tells the file of a row

# Arrow publishes no types.
Table: TypeAlias = Any
Schema: TypeAlias = Any


class FeatureFiles(NamedTuple):
    """What was written: a folder of Parquet files and their rows, as many as there were bars."""

    folder: Path
    files: int
    rows: int


class Source(NamedTuple):
    """Parquet files with bars: where they are, what to read of them, the column with the timestamps where
    pandas kept them as an index, and the symbol where none is told.
    """

    filesystem: Any
    base: str
    files: list[str]
    size: int
    rows: int
    schema: Schema
    timestamps: str | None
    symbol: str


def write_features(source: str | Path, folder: str | Path, partitions: int | None = None) -> FeatureFiles:
    """Write the features of every bar of `source` to a new `folder`: symbol, timestamp (UTC, ns) and the 31
    columns, NaN in each symbol's first 100 rows, the same bits as `FeaturePipeline.extract`.

    `source` is a Parquet file, or a folder of them, partitioned by `symbol=NAME` folders or not; a path, or a
    URL that pyarrow or fsspec opens. It is read as `market.sources.load` reads a folder: rows are put in
    order of time. A symbol's rows lie in one file, in order; the order of symbols means nothing.
    `partitions` is the number of tasks of the shuffle (None: by size, at least one per processor).

    `folder` must be local, on a cluster a disk that all nodes share. It appears whole or not at all: what is
    half done lies beside it under a hidden name. Raises ConfigError for a folder that is in use, DataError
    for bars that are refused, naming symbol, row (of the symbol's bars in order of time), column and value.
    """
    if partitions is not None and partitions < 1:
        raise ConfigError("partitions", partitions, "give at least 1")
    target = _target(folder)
    found, shown = _source(str(source)), _shown(str(source))
    processors = int(ray.cluster_resources().get("CPU", 1.0))  # type: ignore[no-untyped-call]
    wanted = partitions or max(processors, -(-found.size // PARTITION_BYTES))
    draft = target.with_name(f".{target.name[:100]}.{secrets.token_hex(8)}.tmp")
    try:
        draft.mkdir(parents=True)
        _run(found, draft, wanted, shown)
        written = sorted(draft.glob("*.parquet"))
        rows = sum(pq.read_metadata(file).num_rows for file in written)
        if rows != found.rows:
            mend = f"the files of {shown} have {found.rows} rows: were they changed meanwhile?"
            raise DataError("rows of features", rows, mend)
        for path in (*written, draft):
            _sync(path)
        try:
            os.rename(draft, target)  # unlike shutil.move, refuses a folder with something in it
        except OSError as error:
            raise ConfigError("features folder", str(target), f"{error.strerror}: give a new one") from None
        _sync(target.parent)
    except BaseException:
        shutil.rmtree(draft, ignore_errors=True)
        raise
    return FeatureFiles(target, len(written), rows)


def _run(found: Source, draft: Path, partitions: int, shown: str) -> None:
    bars = ray.data.read_parquet(
        found.files,
        filesystem=found.filesystem,
        schema=found.schema,
        partitioning=None,  # Ray reads key=value in every folder above, too
        include_paths=True,
        # Without endings Ray would leave out, silently, what does not end in .parquet.
        file_extensions=sorted({path.rpartition(".")[2] for path in found.files}),
    )
    named = partial(_named, base=found.base, stamps=found.timestamps, symbol=found.symbol)
    # Of a function that yields, Ray Data keeps the error; of one that returns it tells the text alone.
    labelled = bars.map_batches(named, batch_format="pyarrow", batch_size=None)
    groups = labelled.groupby("symbol", num_partitions=partitions)
    try:
        groups.map_groups(_features, batch_format="pyarrow").write_parquet(str(draft))
    except Exception as error:
        refusal = _refusal(error, shown)
        if refusal is None:
            raise
        raise refusal from None


def _named(table: Table, base: str, stamps: str | None, symbol: str) -> Iterator[Table]:
    """A block of rows with lower-case column names and, for every row, the symbol by its one name."""
    try:
        rows = table.drop_columns([PATH])
        names = ["timestamp" if name == stamps else name.strip().lower() for name in rows.column_names]
        rows = rows.rename_columns(names)
        given = rows["symbol"] if "symbol" in names else pa.repeat(pa.scalar(symbol), len(rows))
        files = pc.dictionary_encode(table[PATH]).combine_chunks()
        folders = pa.array([_of_folder(path, base) for path in files.dictionary.to_pylist()], pa.string())
        told = pc.coalesce(folders.take(files.indices), given)
        coded = pc.dictionary_encode(told, null_encoding="encode")
        coded = coded.combine_chunks() if isinstance(coded, pa.ChunkedArray) else coded
        normal = pa.array([symbol_name(name) for name in coded.dictionary.to_pylist()], pa.string())
        rows = rows.drop_columns(["symbol"]) if "symbol" in names else rows
        rows = rows.append_column("symbol", normal.take(coded.indices))
    except InputError as error:
        # Ray Data logs the whole stack of any other exception.
        raise UserCodeException(error) from error
    yield rows


def _features(table: Table) -> Iterator[Table]:
    """The features of all bars of one symbol, in order of time."""
    frame = table.to_pandas()
    stamps = [name for name in TIMES if name in frame.columns]
    try:
        if stamps:  # so that an error counts rows in an order that does not depend on the shuffle
            frame = frame.sort_values(stamps[0], kind="stable", ignore_index=True)
        (bars,) = bars_from_frame(frame, sort=True)
        matrix = FeaturePipeline().matrix(bars)
    except InputError as error:
        raise UserCodeException(error) from error
    columns = {
        "symbol": pa.repeat(pa.scalar(bars.symbol), len(bars)),
        "timestamp": pa.array(bars.time, pa.timestamp("ns", tz="UTC")),
    }
    # Arrays and not a frame: Arrow would make missing values of a frame's NaN.
    columns |= {name: pa.array(matrix[:, column]) for column, name in enumerate(FEATURE_NAMES)}
    yield pa.table(columns)


def _refusal(error: BaseException, shown: str) -> InputError | None:
    """The refusal within what Ray raised, or None where it is something else."""
    waiting: list[object] = [error]
    seen: list[BaseException] = []
    while waiting:
        part = waiting.pop()
        if not isinstance(part, BaseException) or part in seen:
            continue
        seen.append(part)
        waiting += [part.__cause__, getattr(part, "cause", None), *part.args]
    for part in seen:
        # Ray's own mixture of both classes has neither the parts nor the text of the refusal.
        if isinstance(part, InputError) and not isinstance(part, ray.exceptions.RayError):
            return part
    for part in seen:
        # What Arrow cannot read has no error number; a full disk has.
        unreadable = isinstance(part, OSError) and part.errno is None
        if isinstance(part, pa.ArrowException) or unreadable:
            return DataError("source", shown, f"cannot be read: {first_line(part)}")
    return None


def _source(text: str) -> Source:
    """The files of a source and what to read of them; DataError where that cannot be told."""
    shown = _shown(text)
    try:
        filesystem, base = _filesystem(text)
        info = filesystem.get_file_info(base)
        if info.type == pyarrow.fs.FileType.NotFound:
            raise DataError("source", shown, "no such file or folder: give Parquet")
        inside = [info]
        if info.type == pyarrow.fs.FileType.Directory:
            inside = filesystem.get_file_info(pyarrow.fs.FileSelector(base, recursive=True))
        inside = [file for file in inside if file.is_file and _holds_bars(file.path, base)]
        if not inside:
            raise DataError("source", shown, f"no file there ends in {' or '.join(ENDINGS)}")
        files = sorted(file.path for file in inside)
        form = pyarrow.dataset.ParquetFileFormat()
        factory = pyarrow.dataset.FileSystemDatasetFactory(filesystem, files, form)
        # All files, not the first alone: a column that only some have must not be dropped.
        schema = factory.inspect(promote_options="permissive", fragments=None)
        rows = factory.finish(schema).count_rows()
        if not rows:
            raise DataError(f"{shown} rows", 0, "give at least one bar")
    except (OSError, ImportError, pa.ArrowException) as error:
        raise DataError("source", shown, f"cannot be read: {first_line(error)}") from None
    read, stamps = _wanted(schema)
    name = base.rstrip("/").rpartition("/")[2]
    ending = next((ending for ending in ENDINGS if info.is_file and name.lower().endswith(ending)), "")
    size = sum(file.size or 0 for file in inside)
    return Source(filesystem, base, files, size, rows, read, stamps, name[: len(name) - len(ending)])


def _filesystem(text: str) -> tuple[Any, str]:
    if "://" not in text:
        return pyarrow.fs.LocalFileSystem(), str(Path(text).expanduser().resolve())
    try:
        return pyarrow.fs.FileSystem.from_uri(text)  # type: ignore[no-any-return]
    except pa.ArrowInvalid:
        try:
            return pyarrow.fs.FileSystem.from_uri(f"fsspec+{text}")  # type: ignore[no-any-return]
        except ValueError as error:
            raise DataError("source", _shown(text), f"cannot be opened: {first_line(error)}") from None


def _wanted(schema: Schema) -> tuple[Schema, str | None]:
    """The columns of bars, and the name of the timestamp where pandas kept that as an index."""
    kept = (schema.pandas_metadata or {}).get("index_columns", [])
    index = kept[0] if len(kept) == 1 and isinstance(kept[0], str) else None
    if index is not None and not pa.types.is_timestamp(schema.field(index).type):
        index = None
    fields = []
    for field in schema:
        name = field.name.strip().lower()
        if name == "symbol":
            kind = field.type.value_type if pa.types.is_dictionary(field.type) else field.type
            if not (pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_null(kind)):
                raise DataError("column symbol", str(kind), "give text")
            fields.append(pa.field(field.name, pa.string()))
        elif field.name == index or name in COLUMNS or (index is None and name in TIMES):
            fields.append(field)
    names = [field.name.strip().lower() for field in fields]
    for name in names:
        if names.count(name) > 1:
            raise DataError(f"column {name}", "more than one", "column names ignore case: keep one")
    missing = [name for name in ("open", "high", "low", "close") if name not in names]
    if missing:
        there = ", ".join(schema.names)
        raise DataError(f"column {', '.join(missing)}", "missing", f"add it; the columns are {there}")
    return pa.schema(fields), index


def _holds_bars(path: str, base: str) -> bool:
    """Whether a file of a folder counts: names with . or _ are other programs' drafts and notes."""
    inner = path.removeprefix(base).strip("/").split("/")
    return path.lower().endswith(ENDINGS) and not any(part.startswith((".", "_")) for part in inner)


def _of_folder(path: str, base: str) -> str | None:
    """The symbol by the `symbol=NAME` folder below `base` in which a file lies, or None."""
    for part in reversed(path.removeprefix(base).split("/")[:-1]):
        key, equals, value = part.partition("=")
        if equals and key.lower() == "symbol":
            return unquote(value)
    return None


def _target(folder: str | Path) -> Path:
    if "://" in str(folder):
        mend = "give a local folder: only there a rename makes the result appear whole"
        raise ConfigError("features folder", _shown(str(folder)), mend)
    target = Path(folder).expanduser().absolute()
    try:
        used = target.exists() and (not target.is_dir() or any(target.iterdir()))
    except OSError as error:
        raise ConfigError("features folder", str(folder), f"{error.strerror}") from None
    if used:
        raise ConfigError("features folder", str(folder), "it is in use: give a new one")
    return target


def _shown(source: str) -> str:
    """A source as errors may show it: a URL without what may be a password."""
    if "://" not in source:
        return source
    parts = urlsplit(source)
    return f"{parts.scheme}://{parts.hostname or ''}{parts.path}"


def _sync(path: Path) -> None:
    """Have a file or a folder's list of names on the disk."""
    number = os.open(path, os.O_RDONLY)
    try:
        os.fsync(number)
    finally:
        os.close(number)
