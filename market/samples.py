"""Real bars that ship inside installed packages, read without importing those. Knows no other source.

Market data is not kept in this repository: the files are read from the packages that publish them.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from market.bars import Bars
from market.errors import DataError
from market.frames import bars_from_frame


class Sample(NamedTuple):
    """Where a sample lies and how to read it; `adjusted` scales prices by adjusted close / close."""

    distribution: str
    package: str
    file: str
    time_column: str
    time_format: str
    ticker: str | None = None
    adjusted: bool = False


def _stock(ticker: str) -> Sample:
    # Unadjusted prices: a split would look like a crash.
    package = ("bokeh-sampledata", "bokeh_sampledata")
    return Sample(*package, "_data/stocks.csv.gz", "Date", "%Y-%m-%d", ticker, adjusted=True)


_TRADING = ("gym-anytrading", "gym_anytrading")
SAMPLES: dict[str, Sample] = {
    # Hourly ask prices of 2017, times in UTC (the first bar is Sunday 22:00, when the week opens).
    "eurusd": Sample(*_TRADING, "datasets/data/FOREX_EURUSD_1H_ASK.csv", "Time", "%d.%m.%Y %H:%M:%S.%f"),
    # Daily, 2009-2018, adjusted for splits by the source.
    "googl": Sample(*_TRADING, "datasets/data/STOCKS_GOOGL.csv", "Date", "%Y-%m-%d"),
    # Daily index values, 1999-2018.
    "nasdaq": Sample("arch", "arch", "data/nasdaq/nasdaq.csv.gz", "Date", "%m/%d/%Y"),
    # Daily, 2000-2013.
    "aapl": _stock("AAPL"),
    "ibm": _stock("IBM"),
    "msft": _stock("MSFT"),
}
DEMO = tuple(SAMPLES)


def load_samples(names: str) -> tuple[Bars, ...]:
    """The samples of a comma-separated list in its order, `demo` all six; `DataError` lists what exists."""
    wanted = [name.strip().lower() for name in names.split(",")]
    chosen = list(DEMO) if wanted == ["demo"] else wanted
    for name in chosen:
        if name not in SAMPLES:
            raise DataError("sample", name, f"choose demo or some of {', '.join(SAMPLES)}")
        if chosen.count(name) > 1:
            raise DataError("sample", name, "name each sample once")
    return tuple(_read(name) for name in chosen)


def _read(name: str) -> Bars:
    sample = SAMPLES[name]
    # The top-level package alone: looking inside would import it, and gym_anytrading imports gymnasium.
    package = find_spec(sample.package)
    mend = f"install {sample.distribution}, which ships it"
    if package is None or package.origin is None:
        raise DataError(f"sample {name}", f"{sample.package} is not installed", mend)
    path = Path(package.origin).parent / sample.file
    if not path.is_file():
        raise DataError(f"sample {name}", f"no {sample.file} in {sample.package}", mend)
    frame = pd.read_csv(path)
    if sample.ticker is not None:
        frame = frame[frame["Ticker"] == sample.ticker]
    if sample.adjusted:
        # One positive factor per row: floating-point products keep the order of open, high, low and close.
        prices = ["Open", "High", "Low", "Close"]
        frame[prices] = frame[prices].mul(frame["Adj Close"] / frame["Close"], axis=0)
    frame.index = pd.to_datetime(frame[sample.time_column], format=sample.time_format, utc=True)
    frame = frame[["Open", "High", "Low", "Close", "Volume"]]
    return bars_from_frame(frame, name)[0]
