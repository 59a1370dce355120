"""The gate's benchmark plants what it says it plants, and judges it by the gate itself."""

import json
from dataclasses import replace

import numpy as np
import pytest

from benchmarks import gate as benchmark
from benchmarks.gate import FITTED, HALF, WORST, Amount, noise_stream, planted, rate, skill_stream
from evaluation.gate import judge

SMALL = Amount(noise=3, skill=2, trials=5, signals=600, replications=50)


def test_noise_is_worth_nothing_at_any_size_and_shared_by_its_day() -> None:
    stream = noise_stream(60_000, seed=0)
    daily = stream.r.reshape(-1, 6)
    means = daily.mean(axis=1)
    assert abs(means.mean()) < 4.0 * means.std() / np.sqrt(len(means))
    assert means.var() > 2.0 * daily.var() / 6.0
    np.testing.assert_array_equal(stream.utility[:, 3], stream.r)
    np.testing.assert_array_equal(stream.utility[:, 5], 1.5 * stream.r)
    one, two = (stream.tiers(np.random.default_rng(seed), FITTED) for seed in (1, 2))
    assert abs(np.corrcoef(one, stream.r)[0, 1]) < 0.02
    assert abs(np.corrcoef(one, two)[0, 1]) < 0.02


def test_error_takes_from_the_optimum_what_is_said_of_it() -> None:
    stream = skill_stream(30_000, seed=0)
    assert stream.expected is not None
    rows, best = np.arange(30_000), stream.expected.max(axis=1).mean()
    for error, share in ((0.0, 1.0), (FITTED, 0.92), (HALF, 0.5), (WORST, 0.12)):
        tiers = stream.tiers(np.random.default_rng(1), error)
        assert stream.expected[rows, tiers].mean() / best == pytest.approx(share, abs=0.05)


def test_planted_search_has_every_figure_the_gate_asks_for() -> None:
    stream = skill_stream(3 * SMALL.signals, seed=1)
    figures, again, known = planted(stream, np.full(5, FITTED), SMALL, seed=0)
    assert figures.held_out is not None
    assert figures.search is not None
    assert (figures.held_out.signals, figures.held_out.days) == (600, 100)
    assert (figures.search.tried, figures.search.compared) == (5, 5)
    assert (len(figures.folds), {len(fold) for fold in figures.folds}) == (5, {3})
    assert figures.search == again.search
    assert figures.held_out != again.held_out
    assert len(judge(figures).reasons) == 12
    assert not any("not measured" in reason or "undefined" in reason for reason in judge(figures).reasons)
    assert 0.5 < known["ratio"] <= 1.0


def test_selected_trial_was_lucky_and_its_luck_is_not_held_out() -> None:
    chosen, held = [], []
    for seed in range(12):
        figures, again, _ = planted(noise_stream(3 * 600, seed), np.zeros(5), SMALL, seed)
        assert figures.held_out is not None
        assert again.held_out is not None
        chosen.append(again.held_out.vs_rule.mean)
        held.append(figures.held_out.vs_rule.mean)
    assert np.mean(chosen) > 0.02
    assert abs(np.mean(held)) < 4.0 * np.std(held) / np.sqrt(len(held))


def test_benchmark_prints_one_line_with_rates_and_intervals(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(benchmark, "QUICK", replace(SMALL, noise=2))
    monkeypatch.setattr("sys.argv", ["benchmarks.gate", "--quick"])
    benchmark.main()
    printed = capsys.readouterr()
    figures = json.loads(printed.out)
    assert figures["noise_pass_rate"] == figures["noise"]["rate"]
    assert figures["skill_pass_rate"] == min(
        figures[f"skill_{kind}"]["rate"] for kind in ("uniform", "varied")
    )
    for kind in ("noise", "skill_uniform", "skill_varied", "skill_weak", "skill_few"):
        low, high = figures[kind]["interval"]
        assert low <= figures[kind]["rate"] <= high
        assert set(figures[kind]["by_criterion"]) == {
            "vs_rule", "vs_plug_in", "drawdown", "spa", "pbo", "folds"
        }  # fmt: skip
    assert "noise: 0 of 2 passed" in printed.err or "noise: 1 of 2 passed" in printed.err


def test_wilson_interval_is_the_known_one() -> None:
    found = rate(0, 60)
    z2 = 1.959964**2
    assert found["interval"] == [0.0, pytest.approx(z2 / (60 + z2), abs=1e-4)]
    assert (found["passed"], found["of"], found["rate"]) == (0, 60, 0.0)
