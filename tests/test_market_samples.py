"""The sample markets are the published ones, and reading them imports nobody else's code."""

import csv
import gzip
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from market import samples
from market.bars import iso
from market.errors import DataError
from market.sources import load

EXPECTED = {
    "EURUSD": (6225, "2017-01-01T22:00:00+00:00", "2017-12-29T21:00:00+00:00"),
    "GOOGL": (2335, "2009-05-22T00:00:00+00:00", "2018-08-29T00:00:00+00:00"),
    "NASDAQ": (5031, "1999-01-04T00:00:00+00:00", "2018-12-31T00:00:00+00:00"),
    "AAPL": (3270, "2000-03-01T00:00:00+00:00", "2013-03-01T00:00:00+00:00"),
    "IBM": (3270, "2000-03-01T00:00:00+00:00", "2013-03-01T00:00:00+00:00"),
    "MSFT": (3270, "2000-03-01T00:00:00+00:00", "2013-03-01T00:00:00+00:00"),
}


def test_the_demo_pools_all_six_markets():
    found = {bars.symbol: (len(bars), iso(bars.time[0]), iso(bars.time[-1])) for bars in load("sample:demo")}
    assert found == EXPECTED
    assert list(found) == list(EXPECTED)


def test_samples_are_chosen_by_name_in_the_order_given():
    assert [bars.symbol for bars in load("sample:googl, EURUSD")] == ["GOOGL", "EURUSD"]


def test_the_first_eurusd_bar_is_the_published_one():
    bars = load("sample:eurusd")[0]
    first = [bars.open[0], bars.high[0], bars.low[0], bars.close[0], bars.volume[0]]
    assert first == [1.05236, 1.05253, 1.05221, 1.05227, 143539993.3]


def test_stock_prices_are_adjusted_by_one_factor_per_day():
    package = find_spec("bokeh_sampledata")
    assert package is not None
    assert package.origin is not None
    with gzip.open(Path(package.origin).parent / "_data/stocks.csv.gz", "rt") as file:
        rows = [row for row in csv.DictReader(file) if row["Ticker"] == "AAPL"]
    bars = load("sample:aapl")[0]
    adjusted = np.array([float(row["Adj Close"]) for row in rows])
    np.testing.assert_allclose(bars.close, adjusted, rtol=1e-12)
    for name in ("Open", "High", "Low"):
        raw = np.array([float(row[name]) / float(row["Close"]) for row in rows])
        np.testing.assert_allclose(getattr(bars, name.lower()) / bars.close, raw, rtol=1e-12)
    # The 2:1 split of 2005-02-28 halved the raw price; the adjusted one goes on.
    split = [row["Date"] for row in rows].index("2005-02-28")
    assert float(rows[split]["Close"]) / float(rows[split - 1]["Close"]) < 0.55
    assert 0.9 < bars.close[split] / bars.close[split - 1] < 1.1


@pytest.mark.parametrize("name", ["gold", "", "eurusd,gold", "demo,eurusd"])
def test_an_unknown_sample_lists_what_exists(name):
    with pytest.raises(DataError, match="choose demo or some of eurusd, googl, nasdaq, aapl, ibm, msft"):
        load(f"sample:{name}")


def test_a_sample_named_twice_is_refused():
    with pytest.raises(DataError, match="name each sample once"):
        load("sample:eurusd,EURUSD")


def test_a_sample_whose_package_is_missing_says_what_to_install(monkeypatch):
    missing = samples.SAMPLES["eurusd"]._replace(package="no_such_package")
    monkeypatch.setitem(samples.SAMPLES, "eurusd", missing)
    with pytest.raises(DataError, match="no_such_package is not installed'; install gym-anytrading"):
        load("sample:eurusd")


def test_a_sample_whose_file_is_missing_says_what_to_install(monkeypatch):
    moved = samples.SAMPLES["eurusd"]._replace(file="elsewhere.csv")
    monkeypatch.setitem(samples.SAMPLES, "eurusd", moved)
    with pytest.raises(DataError, match=r"no elsewhere\.csv in gym_anytrading'; install gym-anytrading"):
        load("sample:eurusd")


def test_reading_samples_imports_none_of_the_packages_that_ship_them():
    code = (
        "import sys\nfrom market.sources import load\nload('sample:demo')\n"
        "assert not {'gym_anytrading', 'gymnasium', 'arch', 'bokeh_sampledata', 'ray'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
