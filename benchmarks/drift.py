"""How often drift monitoring cries wolf, how soon it finds a shift: `python -m benchmarks.drift [--quick]`.

Stationary replays of real bars, see `_drift_replays`; shifts are planted in one feature at a time. `--choose`
prints the settings that were chosen from, on markets that the figures are not from. Progress goes to stderr,
one JSON line to stdout.
"""

import argparse
import itertools
import json
import sys
import time
from collections.abc import Iterable
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from benchmarks._drift_replays import in_order, replay
from envs.guardrails import LARGEST_SIZE
from features.spec import FEATURE_NAMES, FEATURES
from market.samples import load_samples
from mlops.drift_limits import ALARM, STEPS, Alarm, Monitor, limits, ratio, training_distances
from mlops.drift_performance import performance
from mlops.drift_statistics import Reference
from mlops.drift_streams import MARKET_WINDOW, SIGNAL_WINDOW, results
from mlops.monitored import NAMES_WITH_CHANGES, SETTLING, with_changes
from signals.outcomes import Costs, label
from signals.rules import rule
from signals.signal_frame import checked
from signals.trades import pool

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]

CHOOSING: Final = ("eurusd", "googl", "aapl")
MEASURING: Final = ("nasdaq", "ibm", "msft")
CHOOSING_SEEDS: Final = range(1000, 1004)
ROWS: Final = 3_000  # of a live replay
PLACES: Final = (900, 1_500, 2_100)  # rows of it where a shift begins
WITHIN: Final = 500  # bars in which a shift should be found
FAST: Final = 10.0  # bars: a feature whose autocorrelation sums to no more is fast, else slow
SHIFT: Final = {"fast": 0.5, "slow": 1.5}  # standard deviations of the training rows
LEAST_CORRELATION: Final = 0.05  # where the sum of the autocorrelation ends
GRID: Final = {
    "window": (150, 200, 250, 300),
    "margin": tuple(np.round(np.arange(1.6, 3.61, 0.2), 1).tolist()),
    "in_a_row": (1, 2, 3),
    "columns": (1, 2, 3),
}
TRADES_TOGETHER: Final = 10  # of the blocks that are shuffled
WORSE: Final = 0.5  # R
CHOOSE_BELOW: Final = 0.005  # false alarms per check where settings are chosen: half of what is promised
LOW: Final = np.array([feature.low for feature in FEATURES])
HIGH: Final = np.array([feature.high for feature in FEATURES])


class Planted(NamedTuple):
    """One feature shifted from one row of the live replay on."""

    feature: str
    speed: str  # fast or slow
    columns: list[int]  # monitored columns that the shift reaches
    distances: Floats  # [checks, columns, 4], from the check at the shift on


class Trial(NamedTuple):
    """What was measured on one replay; every choice of settings is judged on these."""

    training: Floats  # [windows, 33, 4], for the limits
    quiet: Floats  # [checks, 33, 4], of the live replay as it is
    planted: list[Planted]
    step: int


def trial(market: str, seed: int, window: int, places: Iterable[int]) -> Trial:
    """Measure one replay of a sample."""
    rows = replay(load_samples(market)[0], seed, ROWS)
    training = with_changes(rows.training)[SETTLING:]
    monitor = Monitor(NAMES_WITH_CHANGES, Reference.of(training), np.empty(0), window)
    live = with_changes(rows.live)
    ends = range(SETTLING + window, len(live) + 1, monitor.step)
    quiet = np.stack([monitor.reference.distances(live[end - window : end]) for end in ends])
    planted = [
        plant(rows.live, rows.training, monitor, feature, place, sign)
        for place in places
        for feature in np.flatnonzero(rows.training.std(axis=0) > 0.0).tolist()
        for sign in (1.0, -1.0)
    ]
    return Trial(training_distances(training, window), quiet, planted, monitor.step)


def plant(live: Floats, training: Floats, monitor: Monitor, feature: int, place: int, sign: float) -> Planted:
    """Shift one feature of the live rows from `place` on, within the range it can have."""
    speed = "fast" if autocorrelation_time(training[:, feature]) <= FAST else "slow"
    shifted = live[: place + WITHIN].copy()
    moved = shifted[place:, feature] + sign * SHIFT[speed] * training[:, feature].std()
    shifted[place:, feature] = np.clip(moved, LOW[feature], HIGH[feature])
    rows = with_changes(shifted)
    before = with_changes(live[: place + WITHIN])
    reached = np.flatnonzero((rows != before).any(axis=0)).tolist()
    reference = part(monitor.reference, reached)
    ends = range(place, place + WITHIN + 1, monitor.step)
    distances = [reference.distances(rows[end - monitor.window : end][:, reached]) for end in ends]
    return Planted(FEATURE_NAMES[feature], speed, reached, np.stack(distances))


def part(reference: Reference, columns: list[int]) -> Reference:
    """Some columns of a reference."""
    return Reference(
        ordered=reference.ordered[columns],
        edges=tuple(reference.edges[i] for i in columns),
        shares=tuple(reference.shares[i] for i in columns),
        quantiles=reference.quantiles[columns],
        scale=reference.scale[columns],
    )


def autocorrelation_time(values: Floats) -> float:
    """1 + 2 x the sum of the autocorrelations up to the first negligible one, in bars."""
    centred = values - values.mean()
    spectrum = np.fft.rfft(centred, 2 * len(centred))
    correlation = np.fft.irfft(spectrum * np.conj(spectrum))[: len(centred)]
    correlation /= correlation[0]
    end = int(np.argmax(correlation < LEAST_CORRELATION))
    return 1.0 + 2.0 * float(correlation[1:end].sum())


def alarmed(distances: Floats, known: Floats, alarm: Alarm) -> Bools:
    """Whether each check alarms, bool[checks], from [checks, columns, 4]."""
    above = ratio(distances, known) > 1.0
    drifted = np.zeros_like(above)
    for check in range(alarm.in_a_row - 1, len(above)):
        drifted[check] = above[check + 1 - alarm.in_a_row : check + 1].all(axis=0)
    return np.asarray(drifted.sum(axis=1) >= alarm.columns)


def delay(planted: Planted, known: Floats, alarm: Alarm, step: int) -> float:
    """Bars from the shift to the first alarm after it; infinite where there is none within 500."""
    found = np.flatnonzero(alarmed(planted.distances, known[planted.columns], alarm)[1:])
    return float((found[0] + 1) * step) if len(found) else np.inf


class Judged(NamedTuple):
    """What a choice of settings gives on some trials."""

    false_alarms: list[Bools]  # by trial, [checks]
    delays: list[list[tuple[str, str, float]]]  # by trial: feature, speed, bars

    @property
    def false_alarm_rate(self) -> float:
        """Share of checks of the quiet replays that alarm."""
        return float(np.concatenate(self.false_alarms).mean())

    def bars(self, speed: str | None = None) -> Floats:
        """All delays, or those of fast or slow features."""
        each = itertools.chain.from_iterable(self.delays)
        return np.array([bars for _, kind, bars in each if speed in (None, kind)])

    def found(self, speed: str) -> float:
        """Share of shifts found within 500 bars."""
        return float(np.isfinite(self.bars(speed)).mean())


def judge(trials: Iterable[Trial], alarm: Alarm) -> Judged:
    """Judge the trials by these settings."""
    false_alarms, delays = [], []
    for one in trials:
        known = limits(one.training, alarm)
        false_alarms.append(alarmed(one.quiet, known, alarm))
        delays.append([(p.feature, p.speed, delay(p, known, alarm, one.step)) for p in one.planted])
    return Judged(false_alarms, delays)


def choose() -> dict[str, Any]:
    """Judge every setting of the grid on the choosing markets: which finds the most within the bound."""
    best: dict[str, Any] = {}
    for window in GRID["window"]:
        trials = []
        for market, seed in itertools.product(CHOOSING, CHOOSING_SEEDS):
            trials.append(trial(market, seed, int(window), PLACES))
            print(f"window {window}: {market}, seed {seed}", file=sys.stderr, flush=True)
        for margin, in_a_row, columns in itertools.product(*list(GRID.values())[1:]):
            alarm = Alarm(float(margin), int(in_a_row), int(columns))
            judged = judge(trials, alarm)
            row = {
                "window": window,
                **alarm._asdict(),
                "false_alarm_rate": round(judged.false_alarm_rate, 4),
                "found_fast": round(judged.found("fast"), 3),
                "found_slow": round(judged.found("slow"), 3),
                "delay_fast": finite(float(np.median(judged.bars("fast")))),
                "delay_slow": finite(float(np.median(judged.bars("slow")))),
            }
            print(json.dumps(row), file=sys.stderr, flush=True)
            if row["false_alarm_rate"] <= CHOOSE_BELOW and (not best or total(row) > total(best)):
                best = row
    return {"chosen": best, "in_use": {"window": MARKET_WINDOW, **ALARM._asdict()}}


def total(row: dict[str, Any]) -> float:
    """Share of shifts found, fast and slow features counting alike."""
    return float(row["found_fast"] + row["found_slow"])


def finite(value: float) -> float | None:
    """The number, or None where it is infinite: not found."""
    return value if np.isfinite(value) else None


def measure(seeds: int, places: Iterable[int]) -> dict[str, Any]:
    """False alarms and delays on the measuring markets, with intervals over resampled replays."""
    trials = []
    for market, seed in itertools.product(MEASURING, range(seeds)):
        started = time.perf_counter()
        trials.append(trial(market, seed, MARKET_WINDOW, places))
        took = time.perf_counter() - started
        print(f"{market}, seed {seed}: {took:.1f} s", file=sys.stderr, flush=True)
    judged = judge(trials, ALARM)
    checks = [len(flags) for flags in judged.false_alarms]
    random = np.random.default_rng(0)
    rates, medians = [], []
    for _ in range(1_000):
        drawn = random.integers(len(trials), size=len(trials))
        again = Judged([judged.false_alarms[i] for i in drawn], [judged.delays[i] for i in drawn])
        rates.append(again.false_alarm_rate)
        medians.append(float(np.median(again.bars())))
    features: dict[str, dict[str, float | None] | None] = {}
    for name in FEATURE_NAMES:
        rows = [row for row in itertools.chain.from_iterable(judged.delays) if row[0] == name]
        bars = np.array([bars for _, _, bars in rows])
        if not rows:
            features[name] = None  # constant in these markets: there is nothing to shift by
            continue
        features[name] = {
            "slow_share": round(float(np.mean([speed == "slow" for _, speed, _ in rows])), 2),
            "delay": finite(float(np.median(bars))),
            "found": round(float(np.isfinite(bars).mean()), 3),
            "shifts": len(rows),
        }
    return {
        "false_alarm_rate": round(judged.false_alarm_rate, 5),
        "false_alarm_interval": np.round(np.quantile(rates, [0.025, 0.975]), 5).tolist(),
        "checks": sum(checks),
        "replays": len(trials),
        "replays_with_an_alarm": sum(bool(flags.any()) for flags in judged.false_alarms),
        "detection_delay_bars": finite(float(np.median(judged.bars()))),
        "detection_delay_interval": [
            finite(float(x)) for x in np.quantile(medians, [0.025, 0.975], method="nearest")
        ],
        "delay_fast": finite(float(np.median(judged.bars("fast")))),
        "delay_slow": finite(float(np.median(judged.bars("slow")))),
        "found_fast": round(judged.found("fast"), 3),
        "found_slow": round(judged.found("slow"), 3),
        "shifts": len(judged.bars()),
        "per_feature": features,
    }


def later_bars() -> dict[str, dict[str, float | None]]:
    """By market, its first bars for training and its later ones as they came: share of checks that alarm (not
    false: the market did change), and shifts found in them."""
    figures: dict[str, dict[str, float | None]] = {}
    for market in (*CHOOSING, *MEASURING):
        rows = in_order(load_samples(market)[0])
        monitor = Monitor.calibrated(
            NAMES_WITH_CHANGES, with_changes(rows.training)[SETTLING:], MARKET_WINDOW
        )
        live = with_changes(np.concatenate([rows.training, rows.live]))[len(rows.training) :]
        ends = range(MARKET_WINDOW, len(live) + 1, monitor.step)
        distances = np.stack([monitor.reference.distances(live[end - MARKET_WINDOW : end]) for end in ends])
        alarms = float(alarmed(distances, monitor.limits, ALARM).mean())
        figures[market] = {"alarm_share": round(alarms, 3), "found": None}
        if len(live) >= MARKET_WINDOW + WITHIN:
            planted = [
                plant(rows.live, rows.training, monitor, feature, MARKET_WINDOW, sign)
                for feature in np.flatnonzero(rows.training.std(axis=0) > 0.0).tolist()
                for sign in (1.0, -1.0)
            ]
            delays = [delay(one, monitor.limits, ALARM, monitor.step) for one in planted]
            figures[market]["found"] = round(float(np.isfinite(delays).mean()), 3)
    return figures


def outcomes(replays: int) -> dict[str, Any]:
    """False alarms of performance monitoring on shuffled blocks of real trades, and how soon it finds that
    each trade loses 0.5 R more. Sizes are 1.5x throughout, so that d has the noise of the trades."""
    parts = []
    for market in MEASURING:
        (bars,) = load_samples(market)
        parts.append(label(bars, checked(rule("donchian").generate(bars), bars), Costs()))
    trades = pool(parts)
    alarms, delays = [], []
    step = SIGNAL_WINDOW // STEPS
    for seed in range(replays):
        random = np.random.default_rng(seed)
        runs = np.array_split(np.arange(len(trades)), len(trades) // TRADES_TOGETHER)
        taken = trades.take(np.concatenate([runs[i] for i in random.permutation(len(runs))]))
        cut = len(taken) // 2
        for loss in (0.0, WORSE):
            gross = taken.gross_r - loss * (np.arange(len(taken)) >= cut + SIGNAL_WINDOW)
            size = np.full(len(taken), LARGEST_SIZE)
            found = results(size, gross, taken.cost_r, taken.impact_r, 5.0, 0.01)
            ends = range(cut + SIGNAL_WINDOW + step, len(taken) + 1, step)
            known = found.d[:cut], found.r[:cut]
            worse = [
                performance(known, (found.d[cut:end], found.r[cut:end]), SIGNAL_WINDOW).worse for end in ends
            ]
            if loss:
                delays.append(float(step * (worse.index(True) + 1)) if any(worse) else np.inf)
            else:
                alarms += worse
        print(f"outcomes, seed {seed}", file=sys.stderr, flush=True)
    return {
        "performance_false_alarm_rate": round(float(np.mean(alarms)), 5),
        "performance_checks": len(alarms),
        "performance_delay_signals": finite(float(np.median(delays))),
        "performance_found": round(float(np.isfinite(delays).mean()), 3),
        "performance_signals": len(trades),
    }


def speed(repeats: int) -> dict[str, float]:
    """CPU milliseconds of the four statistics of 31 features, 5,000 x 500 rows, and of a whole check."""
    random = np.random.default_rng(0)
    names = tuple(FEATURE_NAMES)
    rows, window = random.normal(size=(5_000, 31)), random.normal(size=(600, 31))
    monitor = Monitor.calibrated(names, rows, 500)
    once = min(cpu(lambda: monitor.reference.distances(window[:500])) for _ in range(repeats))
    whole = min(cpu(lambda: monitor.check(window)) for _ in range(repeats))
    calibrated = cpu(lambda: Monitor.calibrated(names, rows, 500))
    return {
        "check_ms": round(once, 2),
        "check_in_a_row_ms": round(whole, 2),
        "calibration_ms": round(calibrated, 1),
    }


def cpu(work: Any) -> float:
    """CPU milliseconds of one call out of ten in a row."""
    started = time.process_time()
    for _ in range(10):
        work()
    return 100.0 * (time.process_time() - started)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="two replays a market instead of eight")
    parser.add_argument("--choose", action="store_true", help="print the grid that the settings are from")
    options = parser.parse_args()
    if options.choose:
        print(json.dumps(choose()))
        return
    seeds, places = (2, PLACES[:1]) if options.quick else (8, PLACES)
    figures = measure(seeds, places)
    figures |= outcomes(2 if options.quick else 20)
    figures |= speed(3 if options.quick else 10)
    print(json.dumps(figures | {"later_bars": later_bars()}))


if __name__ == "__main__":
    main()
