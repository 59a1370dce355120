"""A bundle, its baseline from synthetic bars, and later bars of the same kind, for the tests of drift."""

from functools import cache

from market.bars import Bars
from market.synthetic import regimes
from mlops.drift_baseline import Baseline, baseline
from mlops.drift_streams import Observed, observe_bars
from policies.bundle import PolicyBundle
from tests.serving_bundles import bundle

DIGEST = "d" * 64
BARS = regimes(9_000, 5, 60)
CUT = 6_000


@cache
def model() -> PolicyBundle:
    return bundle(0)


def before() -> Bars:
    return BARS.window(0, CUT)


def later() -> Bars:
    return BARS.window(CUT, len(BARS))


@cache
def seen(part: str) -> Observed:
    return observe_bars(model(), (before() if part == "before" else later(),), "a test")


@cache
def trained() -> Baseline:
    known = seen("before")
    assert known.signals is not None
    assert known.results is not None
    return baseline(DIGEST, "a test", known.markets, known.signals, (known.results, "the same signals"))
