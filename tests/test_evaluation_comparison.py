"""The comparison's differences by hand, and a verdict that only the interval decides."""

import dataclasses
import json
from typing import Any

import numpy as np
import pytest

from envs.guardrails import Limits
from evaluation.backtest import Path, run
from evaluation.comparison import Comparison, Difference, compare
from market.errors import DataError
from policies.baselines import FixedSize, PlugIn, baselines
from tests.synthetic_signals import HOUR, START, table

SIGNALS = table(
    120, time=START + np.arange(120) * 12 * HOUR, exit_time=START + (np.arange(120) + 1) * 12 * HOUR
)


def path(name: str, utility: np.ndarray, **changed: Any) -> Path:
    """A path of which only the utilities matter."""
    whole = run(FixedSize(0.5, name), SIGNALS, Limits(), 28.0)
    return dataclasses.replace(whole, utility=utility, **changed)


def compared(
    learned: float, plug_in: float = 0.0, rule: float = 0.0, noise: float = 0.1, **changed: Any
) -> Comparison:
    """Three sizers whose utilities differ by the given means and by seeded noise."""
    random = np.random.default_rng(7)
    common = random.normal(size=120)
    paths = [
        path(name, mean + common + noise * random.normal(size=120))
        for name, mean in (("rule 1x", rule), ("meta-label plug-in", plug_in), ("RL sizer", learned))
    ]
    return compare(paths, SIGNALS, replications=300, **changed)


def versus(comparison: Comparison, name: str, other: str) -> Difference:
    row = comparison.row(name)
    assert row is not None
    found = [d for d in (row.versus_reference, row.versus_plug_in) if d is not None and d.other == other]
    return found[0]


def test_differences_are_paired_by_signal() -> None:
    rule, sizer = np.random.default_rng(0).normal(size=(2, 120))
    made = compare([path("rule 1x", rule), path("RL sizer", sizer)], SIGNALS)
    assert versus(made, "RL sizer", "rule 1x").mean == pytest.approx(np.mean(sizer - rule))


def test_noise_that_both_share_leaves_no_doubt_about_a_small_gain() -> None:
    common = np.random.default_rng(0).normal(size=120)
    made = compare([path("rule 1x", common), path("RL sizer", common + 0.001)], SIGNALS)
    d = versus(made, "RL sizer", "rule 1x")
    assert d.relation == "beats"
    assert d.low == pytest.approx(0.001)
    assert d.high == pytest.approx(0.001)


def test_the_highest_mean_utility_comes_first() -> None:
    made = compared(learned=0.1, plug_in=0.5, rule=-0.2)
    assert [row.figures.name for row in made.rows] == ["meta-label plug-in", "RL sizer", "rule 1x"]
    means = [row.figures.mean_utility for row in made.rows]
    assert means == sorted(means, reverse=True)


@pytest.mark.parametrize(
    ("learned", "plug_in", "headline"),
    [
        (0.5, 0.0, "RL sizer beats rule 1x and meta-label plug-in."),
        (0.5, 0.5, "RL sizer beats rule 1x and is not distinguishable from meta-label plug-in."),
        (0.5, 0.9, "RL sizer beats rule 1x and loses to meta-label plug-in."),
        (0.0, 0.0, "RL sizer is not distinguishable from rule 1x or meta-label plug-in."),
        (-0.5, 0.5, "RL sizer loses to rule 1x and meta-label plug-in."),
    ],
)
def test_the_headline_says_how_the_learned_sizer_stands(
    learned: float, plug_in: float, headline: str
) -> None:
    assert compared(learned, plug_in).headline == headline


def test_a_difference_whose_interval_holds_zero_is_no_victory_however_large() -> None:
    d = Difference("rule 1x", 5.0, -0.001, 10.0)
    assert d.relation == "is not distinguishable from"
    assert Difference("rule 1x", 5.0, 0.0, 10.0).relation == "is not distinguishable from"
    assert Difference("rule 1x", 5.0, None, None).relation == "is not distinguishable from"


def test_the_verdict_names_the_leader_the_rank_and_both_intervals() -> None:
    made = compared(learned=0.1, plug_in=0.5, rule=-0.2)
    verdict = made.verdict
    assert verdict.startswith("Meta-label plug-in has the highest mean utility, ")
    assert "over 120 signals on 60 days. RL sizer, rank 2 of 3 with" in verdict
    for other in ("rule 1x", "meta-label plug-in"):
        d = versus(made, "RL sizer", other)
        assert f"{other} ({d.mean:+.3f} R, 95 % interval {d.low:+.3f} to {d.high:+.3f})" in verdict


def test_a_learned_sizer_that_leads_is_named_once() -> None:
    verdict = compared(learned=0.9).verdict
    assert verdict.startswith("RL sizer has the highest mean utility, ")
    assert "; it beats rule 1x (" in verdict


def test_without_a_learned_sizer_the_headline_says_so() -> None:
    made = compare([path("rule 1x", np.zeros(120)), path("half", np.ones(120))], SIGNALS)
    assert (
        made.headline == "No learned sizer was compared: half has the highest mean utility and beats rule 1x."
    )
    alone = compare([path("rule 1x", np.zeros(120))], SIGNALS)
    assert alone.headline == "No learned sizer was compared: rule 1x has the highest mean utility."
    assert alone.verdict.endswith("over 120 signals on 60 days.")


def test_a_learned_sizer_that_is_the_plug_in_itself_is_compared_with_the_rule_alone() -> None:
    common = np.random.default_rng(0).normal(size=120)
    paths = [path("rule 1x", common), path("meta-label plug-in", common + 0.1)]
    assert (
        compare(paths, SIGNALS, learned="meta-label plug-in").headline == "Meta-label plug-in beats rule 1x."
    )
    alone = compare(paths[:1], SIGNALS, learned="rule 1x")
    assert alone.headline == "No learned sizer was compared: rule 1x has the highest mean utility."


def test_few_days_give_no_interval_no_victory_and_a_caveat() -> None:
    short = SIGNALS.take(np.arange(30))
    paths = [
        run(FixedSize(size, name), short, Limits(), 28.0)
        for size, name in ((1.0, "rule 1x"), (0.0, "RL sizer"))
    ]
    made = compare(paths, short)
    assert versus(made, "RL sizer", "rule 1x").low is None
    assert made.headline == "RL sizer is not distinguishable from rule 1x."
    assert "too few days for an interval" in made.verdict
    assert made.caveats[0].startswith("15 days with a signal are too few")


def test_a_rule_stopped_by_the_drawdown_limit_is_a_caveat() -> None:
    losing = table(200, gross_r=np.full(200, -1.0))
    paths = [
        run(FixedSize(size, name), losing, Limits(), 28.0)
        for size, name in ((1.0, "rule 1x"), (0.0, "RL sizer"))
    ]
    made = compare(paths, losing)
    assert len(made.caveats) == 1
    share = made.rows[-1].figures.bound["max_drawdown"] / 2  # of 200 signals, in percent
    assert share > 50.0
    assert made.caveats[0].startswith(f"The drawdown limit cut {share:.0f} % of the sizes of rule 1x")
    assert compared(0.1).caveats == ()


def test_symbols_are_summed_apart_and_named() -> None:
    paths = [run(policy, SIGNALS, Limits(), 28.0) for policy in (FixedSize(1.0, "rule 1x"), PlugIn())]
    made = compare(paths, SIGNALS, symbols=("EURUSD", "GOOGL", "NASDAQ"))
    assert [row.symbol for row in made.symbols] == ["EURUSD", "GOOGL", "NASDAQ"]
    assert sum(row.signals for row in made.symbols) == 120
    for index, row in enumerate(made.symbols):
        own = SIGNALS.symbol == index
        assert row.mean_utility["rule 1x"] == pytest.approx(np.mean(paths[0].utility[own]))
        assert row.total_net_r["meta-label plug-in"] == pytest.approx(np.sum(paths[1].net_r[own]))


def test_a_comparison_is_the_same_every_time_and_moves_with_the_seed() -> None:
    assert compared(0.02) == compared(0.02)
    one, other = (versus(compared(0.02, seed=seed), "RL sizer", "rule 1x") for seed in (0, 1))
    assert one.mean == other.mean
    assert one.low != other.low


def test_the_dictionary_is_json_without_nan_even_where_figures_are_undefined() -> None:
    short = SIGNALS.take(np.arange(3))
    idle = [run(FixedSize(0.0, name), short, Limits(), 28.0) for name in ("rule 1x", "RL sizer")]
    plain = compare(idle, short).to_dict()
    assert json.loads(json.dumps(plain, allow_nan=False)) == plain
    row = plain["rows"][0]
    assert row["figures"]["sharpe"] is None
    assert row["drawdown_p95"] is None
    other = next(row for row in plain["rows"] if row["figures"]["name"] == "RL sizer")
    assert other["versus_reference"]["relation"] == "is not distinguishable from"
    assert other["versus_plug_in"] is None


def test_all_baselines_can_be_compared() -> None:
    made = compare(
        [run(policy, SIGNALS, Limits(), 28.0) for policy in baselines()], SIGNALS, replications=100
    )
    assert len(made.rows) == len(baselines())
    reference = made.row("rule 1x")
    assert reference is not None
    assert reference.versus_reference is None


def test_a_path_of_other_signals_is_refused() -> None:
    short = run(FixedSize(1.0, "rule 1x"), SIGNALS.take(np.arange(9)), Limits(), 28.0)
    with pytest.raises(DataError, match="9 signals"):
        compare([short], SIGNALS)


def test_two_policies_of_one_name_are_refused() -> None:
    with pytest.raises(DataError, match="a name of its own"):
        compare([path("rule 1x", np.zeros(120)), path("rule 1x", np.ones(120))], SIGNALS)


def test_a_missing_reference_is_refused_with_the_names_there_are() -> None:
    with pytest.raises(DataError, match="name one of half"):
        compare([path("half", np.zeros(120))], SIGNALS)


def test_too_few_symbol_names_are_refused() -> None:
    with pytest.raises(DataError, match="name all 3 symbols"):
        compare([path("rule 1x", np.zeros(120))], SIGNALS, symbols=("EURUSD",))
