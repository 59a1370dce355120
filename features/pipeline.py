"""`FeaturePipeline`: bars of one or many symbols become features, streams, training data. Computes nothing
itself."""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Self

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from features import spec
from features.kernel import feed, new_state
from features.scaling import Normaliser
from features.spec import FEATURE_NAMES, WARMUP
from features.stream import FeatureStream
from features.tables import Market, Source, chunks, from_row, read
from market.bars import Bars
from market.errors import ConfigError, DataError
from market.frames import UNNAMED
from market.home import write_atomically

FloatArray = NDArray[np.float64]
SCHEMA = "ballast feature pipeline 1"
CHUNK = 65_536
DOWN, FLAT, UP = 0, 1, 2


class FeaturePipeline:
    """The 31 features of `features.spec`, and the normaliser that training fitted for them (None: none yet).

    Where a method takes a source, that is one `Bars` or several, a pandas frame or an Arrow table
    (`DatetimeIndex` or timestamp column; a `symbol` column makes it several symbols), or text that
    `market.sources.load` takes.
    """

    def __init__(self, normaliser: Normaliser | None = None) -> None:
        self.normaliser = normaliser

    def matrix(self, bars: Bars) -> FloatArray:
        """The features of n bars: float64[n, 31] in the order of `FEATURE_NAMES`, rows 0 to 99 NaN."""
        arrays = (bars.time, bars.open, bars.high, bars.low, bars.close, bars.volume)
        return feed(new_state(), *arrays, symbol=bars.symbol)

    def extract(self, source: Source, threads: int | None = None) -> pd.DataFrame:
        """The features of every bar: 31 columns, rows in order of time, NaN in each symbol's first 100.

        The index is the frame's own `DatetimeIndex`, else UTC timestamps. Several symbols come one after the
        other, in order of first appearance, with `symbol` as first column; they are computed by `threads`
        threads (None: one per processor). Raises DataError with row, column and value: bad bars are never
        filled.
        """
        market = read(source)
        matrices = _in_threads(self.matrix, market.bars, threads)
        result = _frame(market, matrices)
        if (
            isinstance(source, pd.DataFrame)
            and isinstance(source.index, pd.DatetimeIndex)
            and not market.named
        ):
            result.index = source.index
        return result

    def extract_chunks(self, source: Source | Iterable[Any], rows: int = CHUNK) -> Iterator[pd.DataFrame]:
        """As `extract`, in frames of at most `rows` bars and the same bits, remembering 3 kB per symbol
        between them.

        A path must name one Parquet file, which is read piece by piece; an iterator yields frames or Arrow
        tables. Each symbol's bars must be in order of time over all chunks. A DataError says in which chunk,
        and ends the iteration.
        """
        streams: dict[str, FeatureStream] = {}
        start = 0
        for market in chunks(source, rows):
            for bars in market.bars:
                streams.setdefault(bars.symbol, FeatureStream(bars.symbol))
            try:
                matrices = [streams[bars.symbol].extend(bars) for bars in market.bars]
            except DataError as error:
                raise from_row(start, error) from None
            start += sum(len(bars) for bars in market.bars)
            yield _frame(market, matrices)

    def stream(self, symbol: str = UNNAMED) -> FeatureStream:
        """A stream that has seen no bar yet; `restore` puts it where a snapshot was taken."""
        return FeatureStream(symbol)

    def prepare_training_data(
        self, source: Source, horizon: int, threshold: float
    ) -> tuple[pd.DataFrame, pd.Series]:
        """X: features of every bar t from 100 to n - 1 - horizon; y: 0 down, 1 flat, 2 up, by the sign of
        what follows.

        y is 2 where ln(C_t+horizon / C_t) > threshold, 0 where it is < -threshold, else 1. Both have the
        timestamps as index (several symbols: symbol and timestamp). The last `horizon` rows have no label yet
        and are left out, so splits must purge that many rows, and embargo (Lopez de Prado 2018, chapter 7). X
        is not normalised.

        Raises ConfigError for a horizon below 1 or a threshold that is negative or not finite; DataError for
        a symbol with fewer than 101 + horizon bars, and for bad bars.
        """
        if isinstance(horizon, bool) or not isinstance(horizon, int | np.integer) or horizon < 1:
            raise ConfigError("horizon", horizon, "give a whole number of bars, at least 1")
        if isinstance(threshold, bool) or not isinstance(threshold, int | float | np.floating | np.integer):
            raise ConfigError("threshold", threshold, "give a log return, 0 or more")
        if not 0.0 <= threshold < math.inf:
            raise ConfigError("threshold", threshold, "give a finite log return, 0 or more")
        market = read(source)
        first = WARMUP - 1
        for bars in market.bars:
            if len(bars) < WARMUP + horizon:
                raise DataError(
                    f"{bars.symbol} rows", len(bars), f"needs {WARMUP} bars and the horizon of {horizon}"
                )
        matrices = [matrix[first:-horizon] for matrix in _in_threads(self.matrix, market.bars, None)]
        known = Market(tuple(bars.window(first, len(bars) - horizon) for bars in market.bars), market.named)
        table = _frame(known, matrices)
        if market.named:
            table = table.set_index("symbol", append=True).swaplevel()
        followed = np.concatenate(
            [np.log(bars.close[first + horizon :] / bars.close[first:-horizon]) for bars in market.bars]
        )
        label = np.where(followed > threshold, UP, np.where(followed < -threshold, DOWN, FLAT))
        return table, pd.Series(label, index=table.index, name="label", dtype="int64")

    def fitted(self, rows: ArrayLike) -> Self:
        """The same pipeline with a normaliser fitted on these training rows float64[n, 31], and on no
        others."""
        return type(self)(Normaliser.fit(rows))

    def normalised(self, rows: ArrayLike) -> FloatArray:
        """Rows float64[n, 31] in the training rows' units. Raises ConfigError where no normaliser was
        fitted."""
        if self.normaliser is None:
            raise ConfigError("normaliser", None, "fit one on training rows first: pipeline.fitted(rows)")
        return self.normaliser.apply(rows)

    def fingerprint(self) -> str:
        """SHA-256 (hex) of the features' definitions and the normaliser's numbers."""
        stored = None if self.normaliser is None else self.normaliser.to_dict()
        content = json.dumps([spec.fingerprint(), stored], sort_keys=True)
        return hashlib.sha256(content.encode()).hexdigest()

    def save(self, path: str | Path) -> None:
        """Write one JSON file, whole or not at all; floats are hexadecimal, so nothing is rounded."""
        content = {
            "schema": SCHEMA,
            "features": spec.fingerprint(),
            "names": FEATURE_NAMES,
            "normaliser": None if self.normaliser is None else self.normaliser.to_dict(),
            "fingerprint": self.fingerprint(),
        }
        write_atomically(Path(path), (json.dumps(content, indent=1) + "\n").encode())

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """The pipeline that `save` wrote; DataError for anything else, and for features defined otherwise."""
        try:
            content = json.loads(Path(path).read_bytes())
        except (OSError, ValueError, RecursionError) as error:
            raise DataError("pipeline file", str(path), f"cannot be read ({error})") from None
        keys = {"schema", "features", "names", "normaliser", "fingerprint"}
        if not isinstance(content, dict) or content.get("schema") != SCHEMA or set(content) != keys:
            raise DataError(
                "pipeline file", str(path), f"needs schema {SCHEMA!r} and the keys {', '.join(sorted(keys))}"
            )
        if content["features"] != spec.fingerprint() or content["names"] != list(FEATURE_NAMES):
            mend = f"these features are {spec.fingerprint()}: fit the pipeline again"
            raise DataError("pipeline features", content["features"], mend)
        stored = content["normaliser"]
        pipeline = cls(None if stored is None else Normaliser.from_dict(stored))
        if content["fingerprint"] != pipeline.fingerprint():
            raise DataError(
                "pipeline fingerprint", content["fingerprint"], "the file was changed: save it again"
            )
        return pipeline


def _in_threads(matrix: Any, market: tuple[Bars, ...], threads: int | None) -> list[FloatArray]:
    """One matrix per symbol. The kernel holds no lock of Python's, so threads use as many processors."""
    wanted = len(os.sched_getaffinity(0)) if threads is None else threads
    if wanted < 1:
        raise ConfigError("threads", threads, "give at least 1")
    if min(wanted, len(market)) == 1:
        return [matrix(bars) for bars in market]
    with ThreadPoolExecutor(min(wanted, len(market))) as pool:
        return list(pool.map(matrix, market))


def _frame(market: Market, matrices: list[FloatArray]) -> pd.DataFrame:
    """The matrices of a market's symbols, one below the other, with timestamps and, where told apart,
    symbols."""
    time = np.concatenate([bars.time for bars in market.bars]).view("datetime64[ns]")
    index = pd.DatetimeIndex(time, tz="UTC", name="timestamp")
    values = matrices[0] if len(matrices) == 1 else np.concatenate(matrices)
    result = pd.DataFrame(values, index=index, columns=list(FEATURE_NAMES), copy=False)
    if market.named:
        symbols = np.repeat([bars.symbol for bars in market.bars], [len(bars) for bars in market.bars])
        result.insert(0, "symbol", symbols)
    return result
