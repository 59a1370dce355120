"""What is known of every trial of a search, the ones that came to nothing counted too."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from evaluation.backtest import run
from evaluation.gate_figures import search
from market.errors import DataError
from policies.baselines import FixedSize, PlugIn
from policies.hybrid import Network, TierPolicy
from tests.synthetic_signals import table
from tuning.config import parse
from tuning.experiment import UTILITIES_FILE, Experiment, Found, plan_of
from tuning.search import read_space
from tuning.trial_utilities import trial_utilities, write_utilities

SELECT = table(300, seed=2)
SPACE = {"dqn.gamma": {"kind": "choice", "values": [0.0, 0.5, 1.0]}}


def network(seed: int) -> Network:
    weights = np.random.default_rng(seed).normal(size=(6, 12)).astype(np.float32)
    zeros = np.zeros(12, dtype=np.float32)
    return Network(zeros, zeros + 1, (weights,), (np.zeros(6, dtype=np.float32),))


def row(objective: float, seeds_done: int) -> dict[str, Any]:
    return {"env_steps": 100, "objective": objective, "worst": objective, "seeds_done": seeds_done}


@pytest.fixture
def experiment(tmp_path: Path) -> Experiment:
    """Two trials with both seeds, one stopped in its first, one failed, one that had only begun."""
    config = parse({})
    made = Experiment.start(
        tmp_path, "five", plan_of(config, read_space(SPACE, config), trials=5, seeds=2, scheduler=None)
    )
    for number in range(5):
        made.begin(f"t{number}", {"dqn.gamma": 0.0})
    made.fail("t3", "ValueError: no luck")
    for trial, seeds, objective in (("t0", 2, 0.1), ("t1", 2, 0.2), ("t2", 1, 0.9)):
        for seed in range(seeds):
            made.keep(trial, seed, Found(network(10 * int(trial[1]) + seed), objective, finished=seeds == 2))
        made.record(trial, row(objective, seeds_done=2 if seeds == 2 else 0))
    return made


def test_every_network_is_walked_and_every_trial_counted(experiment: Experiment) -> None:
    kept = write_utilities(experiment, SELECT)
    config = experiment.plan.config
    assert kept.names == ("t0", "t1", "t2")
    assert kept.tried == 5
    assert list(kept.finished) == [True, True, False]
    assert kept.selected == 1, "the best of those that are finished"
    for column, seeds in enumerate((2, 2, 1)):
        paths = [
            run(TierPolicy(network(10 * column + seed)), SELECT, config.limits, config.session.days)
            for seed in range(seeds)
        ]
        np.testing.assert_allclose(kept.realised[:, column], np.mean([p.utility for p in paths], axis=0))
        np.testing.assert_allclose(kept.expected[:, column], np.mean([p.expected for p in paths], axis=0))
    for policy, own in ((FixedSize(1.0, "rule 1x"), kept.rule), (PlugIn(), kept.plug_in)):
        np.testing.assert_array_equal(own, run(policy, SELECT, config.limits, config.session.days).utility)
    np.testing.assert_array_equal(kept.time, SELECT.time)


def test_what_was_written_is_what_is_read(experiment: Experiment) -> None:
    written, again = write_utilities(experiment, SELECT), trial_utilities(experiment)
    np.testing.assert_array_equal(written.realised, again.realised)
    np.testing.assert_array_equal(written.expected, again.expected)
    assert (written.tried, written.names, written.selected) == (again.tried, again.names, again.selected)


def test_the_gate_gets_the_real_search(experiment: Experiment) -> None:
    kept = write_utilities(experiment, SELECT)
    days = kept.time // 86_400_000_000_000
    assert kept.selected is not None
    found = search(kept.realised, kept.rule, days, kept.tried, kept.selected, replications=100)
    assert (found.tried, found.compared) == (5, 3)
    assert found.spa is not None
    assert found.pbo is not None


def test_search_without_a_finished_trial_selects_none(experiment: Experiment) -> None:
    for trial in ("t0", "t1"):
        (experiment.folder / "history" / f"{trial}.jsonl").unlink()
    assert write_utilities(experiment, SELECT).selected is None


def test_search_that_has_not_summed_up_is_refused_with_the_mend(experiment: Experiment) -> None:
    with pytest.raises(DataError, match=r"ballast tune --name five --resume"):
        trial_utilities(experiment)
    write_utilities(experiment, SELECT)
    path = experiment.folder / UTILITIES_FILE
    with np.load(path) as file:
        older = {name: file[name] for name in file if name != "expected"}
    np.savez(path, **older)
    with pytest.raises(DataError, match=r"expected.*--resume"):
        trial_utilities(experiment)
