"""The figures of a backtest against hand-worked numbers and against empyrical."""

import dataclasses

import empyrical
import numpy as np
import pytest

from envs.guardrails import MAX_EXPOSURE, OUT_OF_DISTRIBUTION, TIERS, Limits
from evaluation.backtest import Path, run
from evaluation.metrics import drawdown, figures
from policies.baselines import FixedSize, PlugIn
from tests.synthetic_signals import HOUR, START, table


def by_hand() -> Path:
    return Path(
        name="by hand",
        multiplier=np.array([1.0, 0.0, 0.5, 1.5, 1.3]),
        binding=np.array([0, 0, MAX_EXPOSURE, MAX_EXPOSURE, OUT_OF_DISTRIBUTION], dtype=np.int8),
        utility=np.array([1.0, 0.0, -0.5, 1.2, -1.1]),
        expected=np.array([0.1, 0.0, 0.05, 0.2, 0.15]),
        net_r=np.array([2.0, 0.0, -0.5, 1.5, -1.0]),
        time=START + np.arange(6) * HOUR,
        equity=np.array([1.0, 1.02, 1.02, 0.969, 1.2, 0.9]),
        exposure=np.zeros(5),
    )


def test_every_figure_of_five_signals_by_hand() -> None:
    f = figures(by_hand())
    assert (f.name, f.signals) == ("by hand", 5)
    assert f.skipped == pytest.approx(0.2)
    assert f.mean_multiplier == pytest.approx(4.3 / 5)
    assert f.turnover == pytest.approx(4.3)
    assert f.mean_utility == pytest.approx(0.6 / 5)
    assert f.expected_utility == pytest.approx(0.1)
    assert f.total_net_r == pytest.approx(2.0)
    assert f.mean_net_r == pytest.approx(0.4)
    assert f.final_equity == 0.9
    assert f.growth_bp == pytest.approx(1e4 * np.log(0.9) / 5)
    assert f.max_drawdown == pytest.approx(0.25)
    assert f.win_rate == pytest.approx(0.5)
    assert f.sharpe == pytest.approx(0.4 / np.sqrt((1.6**2 + 0.4**2 + 0.9**2 + 1.1**2 + 1.4**2) / 4))
    shares = [0.2, 0.0, 0.2, 0.2, 0.2, 0.2]  # 1.3 counts as MODERATE
    assert f.tiers == pytest.approx(dict(zip(TIERS, shares, strict=True)))
    assert f.bound == {"max_exposure": 2, "out_of_distribution": 1}


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_drawdown_and_sharpe_equal_those_of_empyrical(seed: int) -> None:
    path = run(PlugIn(), table(150, seed=seed), Limits(), 28.0)
    returns = np.diff(path.equity) / path.equity[:-1]
    f = figures(path)
    assert f.max_drawdown == pytest.approx(-empyrical.max_drawdown(returns), rel=1e-9)
    assert f.final_equity == pytest.approx(1.0 + empyrical.cum_returns_final(returns), rel=1e-9)
    assert f.sharpe == pytest.approx(empyrical.sharpe_ratio(path.net_r, annualization=1), rel=1e-9)


def test_a_sizer_that_skips_everything_has_zeros_and_undefined_ratios() -> None:
    f = figures(run(FixedSize(0.0, "idle"), table(30), Limits(), 28.0))
    assert (f.skipped, f.mean_utility, f.total_net_r, f.final_equity) == (1.0, 0.0, 0.0, 1.0)
    assert (f.growth_bp, f.max_drawdown, f.turnover) == (0.0, 0.0, 0.0)
    assert f.sharpe is None
    assert f.win_rate is None


def test_one_signal_has_no_sharpe_ratio() -> None:
    assert figures(run(FixedSize(1.0, "rule 1x"), table(1), Limits(), 28.0)).sharpe is None


def test_growth_is_undefined_once_equity_is_gone() -> None:
    gone = dataclasses.replace(by_hand(), equity=np.array([1.0, 0.5, -0.1]))
    assert figures(gone).growth_bp is None
    assert figures(gone).max_drawdown == pytest.approx(1.1)


def test_drawdown_is_zero_at_every_new_peak() -> None:
    assert drawdown(np.array([1.0, 2.0, 1.0, 3.0])) == pytest.approx([0.0, 0.0, 0.5, 0.0])
