"""A trial of a search works where nothing stays behind: Tune may end its process at any moment."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from market.errors import ConfigError
from tests.synthetic_signals import table
from tuning import trial
from tuning.config import parse
from tuning.experiment import Experiment, plan_of
from tuning.search import read_space

SPACE = {"dqn.gamma": {"kind": "choice", "values": [0.0, 1.0]}}


def test_work_lies_in_the_directory_that_tune_made_for_the_trial(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    config = parse()
    plan = plan_of(config, read_space(SPACE, config), trials=1, seeds=2, scheduler=None)
    experiment = Experiment.start(tmp_path, "made", plan)
    place = tmp_path / "working_dirs" / "t1"
    place.mkdir(parents=True)
    monkeypatch.chdir(place)
    monkeypatch.setattr(trial.tune, "get_context", lambda: SimpleNamespace(get_trial_id=lambda: "t1"))
    monkeypatch.setattr(trial.tune, "get_checkpoint", lambda: None)
    worked: list[Path] = []

    def train(self: Any, number: int, signals: Any) -> None:
        assert self.work.is_dir()
        worked.append(self.work)

    monkeypatch.setattr(trial._Trial, "train", train)
    signals = table(50)
    trial.run_trial({"dqn.gamma": 0.0}, plan, experiment.folder, signals, signals)
    assert [work.parent for work in worked] == [place, place]
    assert list(place.iterdir()) == []


def test_trial_on_a_node_that_does_not_see_the_search_is_refused_and_writes_nothing(tmp_path: Path) -> None:
    config = parse()
    plan = plan_of(config, read_space(SPACE, config), trials=1, seeds=1, scheduler=None)
    elsewhere, signals = tmp_path / "home" / "experiments" / "made", table(50)
    with pytest.raises(ConfigError, match=r"BALLAST_HOME.*mount one folder there on every node"):
        trial.run_trial({"dqn.gamma": 0.0}, plan, elsewhere, signals, signals)
    assert list(tmp_path.iterdir()) == []
