"""Whatever holds bars becomes validated `Bars` per symbol, whole or chunk by chunk. Knows nothing of
features.

A source is one `Bars` or several, a pandas frame or an Arrow table (`DatetimeIndex` or timestamp column; a
`symbol` column makes it several symbols), or text that `market.sources.load` takes, such as a Parquet path.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from market.bars import Bars
from market.errors import ConfigError, DataError, first_line
from market.frames import bars_from_frame
from market.sources import load

# Arrow publishes no types, so its tables are Any to the type checker.
Source: TypeAlias = Bars | Sequence[Bars] | pd.DataFrame | str | Path | Any


class Market(NamedTuple):
    """The bars of each symbol, in the order of first appearance; `named`: the source tells symbols apart."""

    bars: tuple[Bars, ...]
    named: bool


def read(source: Source) -> Market:
    """All bars of a source. `DataError` names the first failing row, column and value."""
    if isinstance(source, Bars):
        return Market((source,), named=False)
    if isinstance(source, str | Path):
        bars = load(str(source))
        return Market(bars, named=len(bars) > 1)
    if isinstance(source, pd.DataFrame | pa.Table):
        return _tabled(source)
    several = [bars for bars in source if isinstance(bars, Bars)] if isinstance(source, Sequence) else []
    if several and len(several) == len(source):
        return Market(tuple(several), named=True)
    raise DataError("bars", type(source).__name__, "give Bars, a pandas frame, an Arrow table or a path")


def chunks(source: Source | Iterable[Any], rows: int) -> Iterator[Market]:
    """A source in pieces of at most `rows` bars; of a Parquet file only one piece is in memory at a time.

    Any other iterable yields frames or tables, which are taken as they come. `DataError` also says where its
    piece starts; `ConfigError` for fewer than one row.
    """
    if rows < 1:
        raise ConfigError("rows per chunk", rows, "give at least 1")
    if isinstance(source, Bars) or (isinstance(source, Sequence) and not isinstance(source, str)):
        market = read(source)
        for bars in market.bars:
            for start in range(0, len(bars), rows):
                part = bars.window(start, min(start + rows, len(bars)))
                yield Market((part,), market.named)
        return
    start = 0
    for table in _pieces(source, rows):
        if len(table):
            try:
                market = _tabled(table)
            except DataError as error:
                raise from_row(start, error) from None
            yield market
        start += len(table)


def from_row(start: int, error: DataError) -> DataError:
    """The same refusal, for a piece whose rows are counted from `start`."""
    return DataError(f"in the chunk that starts at row {start}: {error.field}", error.value, error.mend)


def _tabled(table: Any) -> Market:
    frame: pd.DataFrame = table if isinstance(table, pd.DataFrame) else table.to_pandas()
    named = any(str(name).strip().lower() == "symbol" for name in frame.columns)
    return Market(bars_from_frame(frame, coerce=False), named)


def _pieces(source: Any, rows: int) -> Iterator[Any]:
    if isinstance(source, pd.DataFrame):
        for start in range(0, len(source), rows):
            yield source.iloc[start : start + rows]
    elif isinstance(source, pa.Table):
        for start in range(0, len(source), rows):
            yield source.slice(start, rows)
    elif isinstance(source, str | Path):
        try:
            with pq.ParquetFile(source) as file:
                for batch in file.iter_batches(batch_size=rows):
                    yield pa.Table.from_batches([batch])
        except (OSError, pa.ArrowException) as error:
            mend = f"in chunks, give one Parquet file or an iterator of frames ({first_line(error)})"
            raise DataError("source", str(source), mend) from None
    elif isinstance(source, Iterable):
        yield from source
    else:
        raise DataError(
            "bars", type(source).__name__, "give Bars, a table, a Parquet path or an iterator of tables"
        )
