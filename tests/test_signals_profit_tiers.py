import json
import os
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from market.errors import ConfigError, DataError
from signals.excursions import TradeOutcome, excursions
from signals.ladders import Ladder, Paths, grid, realised_r
from signals.outcome_store import FileOutcomeStore
from signals.outcomes import Costs, label, pool
from signals.profit_tiers import TierOptimizer
from signals.rules import DonchianBreakout, checked
from signals.trades import REASONS
from tests.jumpy_bars import HOUR, START, jumpy_bars

ROOT = Path(__file__).resolve().parents[1]


class MemoryStore:
    """The protocol without a disk."""

    def __init__(self) -> None:
        self.kept: dict[str, TradeOutcome] = {}

    def append(self, outcomes):
        new = [outcome for outcome in outcomes if outcome.trade_id not in self.kept]
        self.kept |= {outcome.trade_id: outcome for outcome in new}
        return len(new)

    def all(self):
        return tuple(self.kept.values())


def outcome_of(path, *, stop=-1.0, target=2.0, cost=0.0, number=0) -> TradeOutcome:
    """The outcome that (open, adverse, favourable, close) bars lead to, at hour `number`."""
    path = np.array(path, dtype=float)
    opened, adverse, favourable, close = path[-1]
    ends = (
        ("stop", opened, opened <= stop),
        ("target", opened, opened >= target),
        ("stop", stop, adverse <= stop),
        ("target", target, favourable >= target),
        ("time", close, True),
    )
    reason, gross = next((reason, gross) for reason, gross, holds in ends if holds)
    time = START + number * HOUR
    return TradeOutcome(
        f"t{number}", "HAND", time, time + len(path) * HOUR, stop, target, gross, cost, reason, path
    )


def net(ladder: Ladder, path, **barriers: float) -> float:
    return float(realised_r(ladder, Paths.of([outcome_of(path, **barriers)]))[0])


HALF_AT_1 = Ladder((1.0,), (0.5,))
HALF_AT_1_EVEN = Ladder((1.0,), (0.5,), 0)


@pytest.mark.parametrize(
    ("ladder", "path", "expected"),
    [
        # Half at 1 R, half at the target of 2 R.
        (HALF_AT_1, [(0, -0.2, 1.1, 0.9), (0.9, 0.5, 2.3, 2.2)], 0.5 * 1 + 0.5 * 2),
        # Half at 1 R, then the stop.
        (HALF_AT_1, [(0, -0.2, 1.1, 0.9), (0.9, -1.4, 0.9, -1.2)], 0.5 * 1 - 0.5 * 1),
        # The same, the stop at the entry by then.
        (HALF_AT_1_EVEN, [(0, -0.2, 1.1, 0.9), (0.9, -1.4, 0.9, -1.2)], 0.5 * 1),
        # A gap through the moved stop fills at the open.
        (HALF_AT_1_EVEN, [(0, -0.2, 1.1, 0.9), (-0.3, -1.4, 0.1, -1.2)], 0.5 * 1 - 0.5 * 0.3),
        # A bar that touches the level and the stop: the stop came first.
        (HALF_AT_1, [(0, -1.0, 1.5, 0.5)], -1.0),
        # A bar whose low is below the entry, then the level, then a close above: the moved stop did not act.
        (HALF_AT_1_EVEN, [(0, -0.9, 1.2, 0.1)], 0.5 * 1 + 0.5 * 0.1),
        # ... and a close at or below the entry: the way from 1 R to there went through it.
        (HALF_AT_1_EVEN, [(0, -0.9, 1.2, -0.6)], 0.5),
        (HALF_AT_1, [(0, -0.9, 1.2, -0.6)], 0.5 - 0.5 * 0.6),
        # The level is gapped over: filled at the better open.
        (HALF_AT_1, [(0, -0.5, 0.5, 0.4), (1.4, 0.2, 1.5, 0.3)], 0.5 * 1.4 + 0.5 * 0.3),
        # ... and the stop moved at that open, so that the bar's low closes the rest at the entry.
        (HALF_AT_1_EVEN, [(0, -0.5, 0.5, 0.4), (1.4, -0.2, 1.5, 0.3)], 0.5 * 1.4),
        # The target is gapped over: all at the open.
        (HALF_AT_1, [(0, -0.5, 0.5, 0.4), (2.6, 2.0, 2.7, 2.5)], 2.6),
        # Two levels in one bar; time ends the last part.
        (Ladder((0.5, 1.5), (0.25, 0.5)), [(0, 0, 1.6, 1.2)], 0.25 * 0.5 + 0.5 * 1.5 + 0.25 * 1.2),
        # The stop moves after the second level only.
        (Ladder((0.5, 1.5), (0.25, 0.25), 1), [(0, 0, 0.6, 0.2), (0.2, -1.1, 0.3, -1)], 0.25 * 0.5 - 0.75),
        # A level of no fraction moves the stop and closes nothing.
        (Ladder((1.0,), (0.0,), 0), [(0, 0, 1.2, 1.0), (1.0, -2.0, 1.0, -1.5)], 0.0),
        # A level beyond the target is never reached.
        (Ladder((3.0,), (1.0,)), [(0, -0.1, 3.5, 3.0)], 2.0),
        # Everything at 1 R: a nearer target.
        (Ladder((1.0,), (1.0,)), [(0, -0.2, 1.1, 0.9), (0.9, -1.4, 0.9, -1.2)], 1.0),
    ],
)
def test_a_ladder_realises_what_the_hand_computes(ladder, path, expected):
    assert net(ladder, path) == pytest.approx(expected, abs=1e-15)


def test_every_step_pays_its_share_of_the_same_costs():
    path = [(0, -0.2, 1.1, 0.9), (0.9, 0.5, 2.3, 2.2)]
    for ladder in grid():
        free, charged = net(ladder, path), net(ladder, path, cost=0.07)
        assert charged == pytest.approx(free - 0.07, abs=1e-15)


def plain_realised(ladder: Ladder, outcome: TradeOutcome) -> float:
    """A slow second telling: each bar as four prices in the assumed order, orders filled as they are met."""
    waiting = sorted(zip(ladder.levels, ladder.fractions, range(len(ladder.levels)), strict=True))
    stop, left, banked = outcome.stop_r, 1.0, 0.0
    for opened, adverse, favourable, close in outcome.path:
        for step, price in enumerate((opened, adverse, favourable, close)):
            jump = step == 0  # only the open can jump over an order
            if price <= stop:
                return banked + left * (price if jump else stop) - outcome.cost_r
            if jump and price >= outcome.target_r:
                return banked + left * price - outcome.cost_r
            while waiting and price >= waiting[0][0] and waiting[0][0] < outcome.target_r:
                level, part, place = waiting.pop(0)
                banked += part * (price if jump else level)
                left -= part
                if place == ladder.break_even_after:
                    stop = 0.0
            if price >= outcome.target_r:
                return banked + left * outcome.target_r - outcome.cost_r
    return banked + left * outcome.path[-1, 3] - outcome.cost_r


def backfilled(seed: int = 0, count: int = 6000):
    bars = jumpy_bars(count, seed=seed)
    trades = label(bars, checked(DonchianBreakout().generate(bars), bars), Costs())
    return bars, trades, excursions(bars, trades)


def test_without_a_ladder_the_recorded_outcome_comes_back_bit_for_bit():
    for seed in range(3):
        _, trades, outcomes = backfilled(seed)
        assert len(outcomes) == len(trades) > 50
        replayed = realised_r(Ladder(), Paths.of(outcomes))
        np.testing.assert_array_equal(replayed, trades.gross_r - (trades.cost_r + trades.impact_r))
        assert {outcome.reason for outcome in outcomes} == set(REASONS)


def test_the_compiled_ladders_equal_a_plain_walk_over_every_backfilled_path():
    _, _, outcomes = backfilled(4)
    paths = Paths.of(outcomes)
    for ladder in grid():
        slow = np.array([plain_realised(ladder, outcome) for outcome in outcomes])
        np.testing.assert_allclose(realised_r(ladder, paths), slow, atol=1e-12)


def test_excursions_agree_with_the_recorded_extremes_and_tell_markets_apart():
    bars, trades, outcomes = backfilled(1)
    for row, outcome in enumerate(outcomes):
        assert len(outcome.path) == trades.holding[row]
        assert outcome.path[:-1, 2].max(initial=0.0) <= trades.mfe_r[row] + 1e-12
        assert outcome.path[:-1, 1].min(initial=0.0) >= trades.mae_r[row] - 1e-12
        if outcome.reason == "time":
            assert outcome.path[:, 2].max() == pytest.approx(trades.mfe_r[row])
    other = jumpy_bars(3000, seed=9, symbol="OTHER")
    more = label(other, checked(DonchianBreakout().generate(other), other), Costs())
    pooled = pool([trades, more])
    parts = [excursions(each, pooled) for each in (bars, other)]
    assert [len(part) for part in parts] == [len(trades), len(more)]
    assert len({outcome.trade_id for part in parts for outcome in part}) == len(pooled)
    assert excursions(jumpy_bars(500, symbol="THIRD"), pooled) == ()
    with pytest.raises(DataError, match="the bars it was found on"):
        excursions(jumpy_bars(6000, seed=2), trades)


@pytest.mark.parametrize(
    "wrong",
    [
        {"levels": (1.0, 1.0), "fractions": (0.1, 0.1)},
        {"levels": (0.0,), "fractions": (0.1,)},
        {"levels": (float("nan"),), "fractions": (0.1,)},
        {"levels": (1.0,), "fractions": (0.1, 0.2)},
        {"levels": (1.0, 2.0), "fractions": (0.6, 0.6)},
        {"levels": (1.0,), "fractions": (-0.1,)},
        {"levels": (1.0,), "fractions": (0.5,), "break_even_after": 1},
        {"levels": (1.0,), "fractions": (0.5,), "break_even_after": True},
        {"levels": "12", "fractions": (0.5,)},
    ],
)
def test_a_ladder_that_is_none_is_refused(wrong):
    with pytest.raises(ConfigError, match="ladder"):
        Ladder(**wrong)


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"gross_r": float("nan")}, "gross_r"),
        ({"cost_r": -0.1}, "cost_r"),
        ({"cost_r": True}, "cost_r"),
        ({"stop_r": 10**400}, "stop_r"),
        ({"stop_r": 0.5}, "stop_r"),
        ({"target_r": 0.0}, "target_r"),
        ({"exit_time": 0}, "exit_time"),
        ({"signal_time": 1.5}, "signal_time"),
        ({"trade_id": ""}, "trade_id"),
        ({"symbol": "A\nB"}, "symbol"),
        ({"reason": "stop"}, "reason"),
        ({"reason": "because"}, "reason"),
        ({"gross_r": 1.9}, "gross_r"),
        ({"path": [[0, 0, 1]]}, "path"),
        ({"path": []}, "path"),
        ({"path": None}, "path"),
        ({"path": [["0", "0", "1", "0"]]}, "path"),
        ({"path": [[0, 0, float("nan"), 0]]}, "path bar 0"),
        ({"path": [[0, 0.5, 1, 0]]}, "path bar 0"),
        ({"path": [[0, -1.5, 1, 0], [0, -0.1, 2.1, 2.0]]}, "path bar 0"),
    ],
)
def test_an_outcome_that_cannot_be_is_refused_naming_the_field(change, field):
    good = outcome_of([(0, -0.2, 1.1, 0.9), (0.9, 0.5, 2.3, 2.2)])
    with pytest.raises(DataError, match=rf"outcome .*, {field}: got "):
        replace(good, **change)


def test_outcomes_survive_the_file_bit_for_bit(home):
    _, _, outcomes = backfilled(3)
    store = FileOutcomeStore("donchian")
    assert store.append(outcomes) == len(outcomes)
    back = FileOutcomeStore("donchian").all()
    assert [one.to_json() for one in back] == [one.to_json() for one in outcomes]
    for one, two in zip(back, outcomes, strict=True):
        np.testing.assert_array_equal(one.path, two.path)
    assert store.path == home / "outcomes" / "donchian.jsonl"


def test_a_trade_counts_once_and_never_changes(home):
    _, _, outcomes = backfilled(3)
    optimizer = TierOptimizer(FileOutcomeStore("once"))
    assert optimizer.record_outcome(outcomes[0]) is True
    assert optimizer.record_outcome(outcomes[0]) is False
    assert TierOptimizer(FileOutcomeStore("once")).record_outcome(outcomes[0]) is False
    assert optimizer.record_outcomes([*outcomes[:5], outcomes[2]]) == 4
    before = optimizer.store.path.read_bytes()
    with pytest.raises(DataError, match="another content"):
        optimizer.record_outcomes([outcomes[9], replace(outcomes[1], cost_r=outcomes[1].cost_r + 1)])
    assert optimizer.store.path.read_bytes() == before, "nothing of a refused batch is stored"


@pytest.mark.parametrize("kept", [0.0, 0.3, 0.99])
def test_a_line_torn_by_a_crash_is_passed_over_and_cut_by_the_next_append(home, kept):
    _, _, outcomes = backfilled(3)
    store = FileOutcomeStore("torn")
    store.append(outcomes[:3])
    whole = store.path.read_bytes()
    line = outcomes[3].to_json()
    store.path.write_bytes(whole + line[: int(kept * len(line))].encode())
    assert len(FileOutcomeStore("torn").all()) == 3
    assert store.append(outcomes[3:5]) == 2
    assert store.path.read_bytes() == whole + b"".join(o.to_json().encode() + b"\n" for o in outcomes[3:5])
    assert len(FileOutcomeStore("torn").all()) == 5


def test_a_process_killed_while_it_appends_loses_nothing_it_had_confirmed(home):
    program = """
import sys
from dataclasses import replace
from signals.outcome_store import FileOutcomeStore
from tests.test_signals_profit_tiers import outcome_of
store = FileOutcomeStore("killed")
path = [(0, -0.2, 0.9, 0.5)] * 400 + [(0.9, 0.5, 2.3, 2.2)]
for number in range(100_000):
    store.append([outcome_of(path, number=number)])
    print(number, flush=True)
"""
    child = subprocess.Popen(
        [sys.executable, "-c", program], cwd=ROOT, env=dict(os.environ), stdout=subprocess.PIPE, text=True
    )
    assert child.stdout is not None
    confirmed = [child.stdout.readline() for _ in range(20)]
    child.kill()
    confirmed += child.stdout.readlines()
    child.wait()
    stored = FileOutcomeStore("killed").all()
    assert len(confirmed) <= len(stored) <= len(confirmed) + 1
    assert FileOutcomeStore("killed").append([stored[0]]) == 0


def test_a_damaged_line_in_the_middle_is_named(home):
    _, _, outcomes = backfilled(3)
    store = FileOutcomeStore("damaged")
    store.append(outcomes[:3])
    lines = store.path.read_bytes().split(b"\n")
    for damage in (b"{", b"[]", lines[1].replace(b'"gross_r":', b'"gross_r":NaN,"x":'), lines[0]):
        store.path.write_bytes(b"\n".join([lines[0], damage, lines[2], b""]))
        with pytest.raises(DataError, match="line 2"):
            FileOutcomeStore("damaged").all()


def test_two_stores_on_one_file_append_without_losing_or_doubling(home):
    _, _, outcomes = backfilled(3)
    stores = [FileOutcomeStore("shared") for _ in range(3)]

    def write(store: FileOutcomeStore) -> None:
        for outcome in outcomes[:40]:
            store.append([outcome])

    threads = [threading.Thread(target=write, args=(store,)) for store in stores]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(one.trade_id for one in FileOutcomeStore("shared").all()) == sorted(
        one.trade_id for one in outcomes[:40]
    )


def test_a_full_disk_leaves_the_file_as_it_was(home, monkeypatch):
    _, _, outcomes = backfilled(3)
    store = FileOutcomeStore("full")
    store.append(outcomes[:2])
    before = store.path.read_bytes()

    def refuse(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", refuse)
        with pytest.raises(OSError, match="No space"):
            store.append(outcomes[2:4])
    assert store.path.read_bytes() == before
    assert store.append(outcomes[2:4]) == 2


@pytest.mark.parametrize("name", ["", "../x", "a/b", ".hidden", "a" * 200, None])
def test_a_store_name_that_leaves_its_folder_is_refused(home, name):
    with pytest.raises(ConfigError, match="store name"):
        FileOutcomeStore(name)


def walks(count: int, seed: int, *, fades: bool) -> list[TradeOutcome]:
    """Fair walks of 0.1 R a step, four steps a bar, to -1 R or 2 R within 50 bars; where one `fades`, it
    leans back after 1.2 R.

    Every level lies on the walk's grid, so nothing is overshot, and no bar spans a level and the entry:
    without a fade each ladder expects exactly the same.
    """
    random = np.random.default_rng(seed)
    found = []
    for number in range(count):
        bars, place, turned = [], 0, False
        while len(bars) < 50 and -10 < place < 20:
            ways = [place]
            for draw in random.random(4):
                if -10 < place < 20:
                    place += 1 if draw < (0.35 if turned else 0.5) else -1
                    turned = turned or (fades and place >= 12)
                    ways.append(place)
            bars.append((ways[0] / 10, min(ways) / 10, max(ways) / 10, place / 10))
        found.append(outcome_of(bars, cost=0.02, number=7 * number))
    return found


def optimized(outcomes, ladder: Ladder | None = None):
    optimizer = TierOptimizer(MemoryStore(), ladder)
    assert optimizer.record_outcomes(outcomes) == len(outcomes)
    return optimizer.optimize()


def test_a_planted_fade_is_found_and_the_ladder_that_sells_into_it_adopted():
    outcomes = walks(900, seed=1, fades=True)
    report = optimized(outcomes)
    assert report.adopted, report.verdict
    assert report.low is not None and report.low > 0.0  # noqa: PT018 (for the type checker)
    assert report.chosen == report.best != report.current
    assert 0.5 <= report.chosen.levels[0] <= 1.5
    assert sum(report.chosen.fractions) >= 0.5
    # On trades that played no part.
    fresh = Paths.of(walks(900, seed=2, fades=True))
    assert realised_r(report.chosen, fresh).mean() > realised_r(Ladder(), fresh).mean() + 0.05
    assert "adopts" in report.verdict
    json.dumps(report.to_dict(), allow_nan=False)


def test_noise_keeps_the_old_ladder():
    reports = [optimized(walks(400, seed=seed, fades=False)) for seed in range(20, 32)]
    adopted = [report for report in reports if report.adopted]
    # The interval's upper tail is 2.5 %: two of twelve happen by chance in one of thirty such tests.
    assert len(adopted) <= 1, [report.verdict for report in adopted]
    for report in reports:
        assert report.chosen == (report.best if report.adopted else report.current)
        assert report.best_gain >= 0.0, "hindsight always finds something"


def test_the_current_ladder_is_what_others_are_compared_with():
    outcomes = walks(400, seed=3, fades=True)
    good = optimized(outcomes).chosen
    report = optimized(outcomes, good)
    assert report.current == report.chosen == good
    assert not report.adopted
    assert report.gain == 0.0
    assert report.low is None
    json.dumps(report.to_dict(), allow_nan=False)


def test_held_out_trades_never_choose_their_own_ladder():
    outcomes = walks(400, seed=5, fades=False)
    before = optimized(outcomes)
    # The last block's paths are replaced: what that block was scored with must stay.
    changed = [*outcomes[:320], *walks(400, seed=6, fades=True)[320:]]
    assert optimized(changed).by_fold[-1] == before.by_fold[-1]
    assert optimized(changed).gain != before.gain


def test_too_few_outcomes_are_refused_and_the_same_seed_repeats():
    outcomes = walks(201, seed=8, fades=True)
    optimizer = TierOptimizer(MemoryStore())
    optimizer.record_outcomes(outcomes[:199])
    with pytest.raises(DataError, match=r"recorded outcomes: got 199; record at least 200"):
        optimizer.optimize()
    optimizer.record_outcome(outcomes[199])
    assert optimizer.optimize() == optimizer.optimize()
    with pytest.raises(ConfigError, match="seed"):
        optimizer.optimize(seed=-1)
    with pytest.raises(ConfigError, match="folds"):
        optimizer.optimize(folds=1)
