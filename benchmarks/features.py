"""How fast the data side is, features beside pandas and TA-Lib: `python -m benchmarks.features [--quick]`.

Prints progress to stderr and one JSON line to stdout. Times are CPU seconds of this process, so that other
programs on the machine disturb them little, and both sides of a ratio are measured in turns, best of several,
in this one run.
"""

import argparse
import gc
import json
import statistics
import subprocess
import sys
import time
import tracemalloc
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from numba import njit

from benchmarks._feature_references import with_pandas, with_talib
from features import kernel
from features.pipeline import FeaturePipeline
from features.spec import FEATURE_NAMES, WARMUP
from features.step import FEATURES, SIZE, step
from market.bars import Bars
from market.synthetic import regimes
from signals.outcome_model import OutcomeModel
from signals.outcome_trees import ROUNDS, grow
from signals.outcomes import Costs, label
from signals.predictor import PricePredictor
from signals.price_models import candidates, learn
from signals.price_rows import log_base_rates
from signals.signal_frame import checked, signal_frame

Figures = dict[str, float]
PIPELINE = FeaturePipeline()


class Setting(NamedTuple):
    """What every measurement gets: the bars, and how often to repeat."""

    bars: Bars
    rounds: int


def seconds(work: Callable[[], object]) -> float:
    """CPU seconds of one call."""
    gc.collect()
    started = time.process_time()
    work()
    return time.process_time() - started


def seconds_of(work: Callable[[], object], times: int) -> float:
    """CPU seconds of one call out of several in a row: a single one is shorter than the clock's tick is
    sure."""
    return seconds(lambda: [work() for _ in range(times)]) / times


def throughput(setting: Setting) -> Figures:
    """Bars per second, all 31 features, one thread, output buffer reused; and how often that of the
    alternatives."""
    bars, frame = setting.bars, setting.bars.frame()
    rows = np.empty((len(bars), FEATURES))
    arrays = (bars.time, bars.open, bars.high, bars.low, bars.close, bars.volume)
    rivals: dict[str, Callable[[], object]] = {
        "kernel": lambda: step(kernel.new_state(), *arrays, rows),
        "pandas": lambda: with_pandas(frame),
        "talib": lambda: with_talib(bars),
    }
    for name, theirs in (("pandas", with_pandas(frame).to_numpy()), ("TA-Lib", with_talib(bars))):
        assert_same(name, PIPELINE.matrix(bars), theirs)
    best = dict.fromkeys(rivals, float("inf"))
    for _ in range(setting.rounds):
        for name, work in rivals.items():
            best[name] = min(best[name], seconds(work))
    return {
        "mbars_per_s": len(bars) / best["kernel"] / 1e6,
        "vs_pandas": best["pandas"] / best["kernel"],
        "vs_talib": best["talib"] / best["kernel"],
    }


def assert_same(name: str, ours: np.ndarray, theirs: np.ndarray) -> None:
    """A comparison of times counts only where both sides compute the same: the running sums of the others
    drift."""
    late = slice(len(ours) // 2, None)
    worst = np.abs(ours[late] - theirs[late]).max(axis=0)
    print(
        f"largest difference to {name}: {worst.max():.1e} in {FEATURE_NAMES[worst.argmax()]}", file=sys.stderr
    )
    if not worst.max() < 1e-3:
        raise SystemExit(f"{name} computes other features: {dict(zip(FEATURE_NAMES, worst, strict=True))}")


def memory(setting: Setting) -> Figures:
    """Peak megabytes that were allocated beyond the bars, output included; chunked output is dropped as it
    comes."""
    bars, frame = setting.bars, setting.bars.frame()

    def chunked() -> None:
        for _ in PIPELINE.extract_chunks(bars):
            pass

    peaks = {}
    for key, work in (
        ("peak_mb", chunked),
        ("peak_mb_whole", lambda: PIPELINE.extract(bars)),
        ("peak_mb_pandas", lambda: with_pandas(frame)),
        ("peak_mb_talib", lambda: with_talib(bars)),
    ):
        gc.collect()
        tracemalloc.start()
        work()
        peaks[key] = tracemalloc.get_traced_memory()[1] / 1e6
        tracemalloc.stop()
    return peaks


def one_bar(setting: Setting) -> Figures:
    """Microseconds per bar, median: inside the compiled step (a compiled function that does nothing, called
    with the same arguments, is subtracted), and for `update` of a stream as a trading loop calls it."""
    bars = setting.bars.window(0, 12_000)
    arrays = (bars.time, bars.open, bars.high, bars.low, bars.close, bars.volume)
    cuts: list[Any] = [tuple(column[at : at + 1] for column in arrays) for at in range(len(bars))]
    row = np.empty((1, FEATURES))
    compiled: Any = step
    idle = njit(lambda state, time, open, high, low, close, volume, rows: -1)
    stream = PIPELINE.stream()
    tuples = list(zip(*(column.tolist() for column in arrays), strict=True))
    costs: dict[str, list[float]] = {"step": [], "idle": [], "update": []}
    state = np.zeros(SIZE)
    idle(state, *cuts[0], row)
    state = kernel.new_state()
    for start in range(0, len(bars), 500):
        for name, calls in (
            ("step", lambda: [compiled(state, *cut, row) for cut in cuts[start : start + 500]]),  # noqa: B023
            ("idle", lambda: [idle(state, *cut, row) for cut in cuts[start : start + 500]]),  # noqa: B023
            ("update", lambda: [stream.update(bar) for bar in tuples[start : start + 500]]),  # noqa: B023
        ):
            costs[name].append(seconds(calls) / 500 * 1e6)
    middle = {name: statistics.median(values[1:]) for name, values in costs.items()}
    return {"stream_us": middle["step"] - middle["idle"], "stream_update_us": middle["update"]}


def request(setting: Setting) -> Figures:
    """Milliseconds for 1,000 bars as arrays, checks included: what a request costs before HTTP. Median."""
    columns = {name: getattr(setting.bars, name)[:1000].copy() for name in ("time", *kernel.COLUMNS)}
    times = [seconds(lambda: kernel.compute(**columns)) for _ in range(40 * setting.rounds)]
    return {"request_ms": statistics.median(times) * 1e3}


def cold_start(setting: Setting) -> Figures:
    """CPU seconds from the start of Python to the first row, numba's cache warm: kernel alone, and with
    pandas."""
    figures = {}
    for key, first in (
        ("cold_start_s", "from features import kernel; kernel.warm()"),
        ("cold_start_pipeline_s", "from features import kernel, pipeline; kernel.warm()"),
    ):
        command = [sys.executable, "-c", f"{first}; import time; print(time.process_time())"]
        runs = [
            subprocess.run(command, capture_output=True, text=True, check=True) for _ in range(setting.rounds)
        ]
        figures[key] = min(float(done.stdout) for done in runs)
    return figures


def outcomes(setting: Setting) -> Figures:
    """Seconds from a table of 20,000 signals, held for up to 200 bars, to their outcomes in R, checks
    included."""
    bars = setting.bars
    bar = np.linspace(WARMUP, len(bars) - 202, 20_000).astype(np.int64)
    side = np.where(bar % 2, 1, -1)
    features = PIPELINE.matrix(bars)
    unit = side * 8.0 * features[bar, FEATURE_NAMES.index("atr_ratio")] * bars.close[bar]
    close = bars.close[bar]
    frame = signal_frame(bars, bar, side, close - unit, close + 2.0 * unit, close, 200, "benchmark")
    trades = label(bars, checked(frame, bars), Costs(), features)
    print(f"{len(trades):,} trades, held {trades.holding.mean():.0f} bars on average", file=sys.stderr)
    if len(trades) < 19_500:
        raise SystemExit(f"only {len(trades)} of 20,000 signals settled: {trades.dropped}")
    return {
        "outcomes_20k_s": min(
            seconds(lambda: label(bars, checked(frame, bars), Costs(), features))
            for _ in range(setting.rounds)
        )
    }


def predictions(setting: Setting) -> Figures:
    """Milliseconds of one row's probabilities, median: of the slowest kind of price predictor, and of the
    outcome model with trees for every question, and with logits."""
    rows = 4_000
    table, labels = PIPELINE.prepare_training_data(setting.bars.window(0, rows), 5, 1e-4)
    x, y = table.to_numpy(), labels.to_numpy()
    base = log_base_rates(y, 3)
    largest = {candidate.kind: candidate for candidate in candidates(epochs=1)}
    models = learn(x, y, list(largest.values()), seed=0)
    work: dict[str, Callable[[], object]] = {
        f"predict_{kind}_ms": partial(PricePredictor(kind, model, base, 0.7).predict_row, x[-1])
        for kind, model in zip(largest, models, strict=True)
    }
    for kind, model in outcome_models().items():
        work[f"outcome_{kind}_ms"] = partial(model.probability, np.full((1, 6), 0.4))
    figures = {}
    for name, answer in work.items():
        answer()
        times = [seconds_of(answer, 100) for _ in range(10 * setting.rounds)]
        figures[name] = statistics.median(times) * 1e3
    slowest = max(figures[f"predict_{kind}_ms"] for kind in largest)
    return {"predict_ms": slowest, **figures}


def outcome_models() -> dict[str, OutcomeModel]:
    """The same small outcome model answered by logits, and by the largest trees that may be kept."""
    random = np.random.default_rng(0)
    x = random.uniform(-1.0, 1.0, (2_000, 6))
    won = random.random(2_000) < 0.4 + 0.2 * x[:, 2]
    r = np.where(won, random.choice([0.4, 1.0, 2.0], 2_000), random.choice([-1.0, -0.6, -0.2], 2_000))
    time = np.arange(2_000, dtype=np.int64) * 10
    logits = replace(OutcomeModel.fit(x, r, time, time + 25), trees=(None,) * 3, rounds=np.zeros(3, np.int64))
    wins = logits.outcome_r[logits.outcome_r > 0.0].size
    grown = []
    for classes in (2, len(logits.outcome_r) - wins, wins):
        drawn = random.integers(0, classes, len(x))
        (trees,) = grow(x, drawn, np.log(np.bincount(drawn) / len(x)), ROUNDS[-1:])
        grown.append(trees)
    return {
        "logit": logits,
        "trees": replace(logits, trees=tuple(grown), rounds=np.full(3, ROUNDS[-1])),
    }


MEASUREMENTS: tuple[Callable[[Setting], Figures], ...] = (
    throughput,
    memory,
    one_bar,
    request,
    cold_start,
    outcomes,
    predictions,
)


def main() -> None:
    """Run all measurements and print their figures as one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--quick", action="store_true", help="200,000 bars instead of 1,000,000, fewer rounds"
    )
    quick = parser.parse_args().quick
    setting = Setting(regimes(200_000 if quick else 1_000_000, seed=0, minutes=1), rounds=3 if quick else 7)
    kernel.warm()
    figures: Figures = {}
    for measure in MEASUREMENTS:
        print(f"{measure.__name__} ...", file=sys.stderr, flush=True)
        figures |= measure(setting)
    print(json.dumps({name: round(figure, 4) for name, figure in figures.items()}))


if __name__ == "__main__":
    main()
