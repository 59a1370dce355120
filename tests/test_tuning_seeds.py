"""Several seeds of one configuration: one preparation, a spread, the median on the select part registered."""

import json
from pathlib import Path
from typing import Any

import pytest

from market.errors import ConfigError
from mlops.registry import read_export
from tests.test_tuning_train import BARS
from tuning.config import TrainConfig, parse
from tuning.seeds import Spread, train_seeds
from tuning.train import start

pytestmark = pytest.mark.long

TINY = {"env_steps": 600, "environments": 16, "learning_starts": 200, "report_every": 300, "hidden": [8]}


class Recorder:
    """A listener that remembers the stages, and may fail while the sizer is trained."""

    def __init__(self, fail_at: int | None = None) -> None:
        self.stages: list[tuple[str, bool]] = []
        self.scores = 0
        self.fail_at = fail_at

    def working(self, stage: str, done: int, total: int) -> None:
        pass

    def stage(self, name: str, note: str, *, resumed: bool) -> None:
        self.stages.append((name, resumed))

    def warning(self, text: str) -> None:
        pass

    def progress(self, done: int, total: int, score: float) -> None:
        self.scores += 1
        if self.scores == self.fail_at:
            raise OSError("the terminal is gone")


def config(**changed: Any) -> TrainConfig:
    return parse({"data": BARS, "dqn": TINY, "predictor": {"epochs": 0}, "seed": 7, **changed})


def trained(home: Path, count: int, told: Recorder, mode: str, *, resume: bool) -> Spread:
    return train_seeds(start(config(), home, told, resume=resume), mode, count)


@pytest.fixture(scope="module")
def interrupted(ray_cluster: str, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Spread, Recorder]:
    """Three seeds, stopped in the middle of the second, and resumed."""
    home = tmp_path_factory.mktemp("home")
    with pytest.raises(OSError, match="terminal"):
        trained(home, 3, Recorder(fail_at=3), "all", resume=False)
    assert not read_export(home)
    told = Recorder()
    return home, trained(home, 3, told, "all", resume=True), told


def test_a_resumed_training_of_seeds_does_nothing_twice(interrupted: tuple[Path, Spread, Recorder]) -> None:
    _, spread, told = interrupted
    assert [one.seed for one in spread.trained] == [7, 8, 9]
    resumed = [name for name, before in told.stages if before]
    prepared = ["load", "features", "outcomes", "outcome_model", "predictor", "profit_tiers"]
    assert resumed == [*prepared, "sizer", "evaluate", "seed 7"]
    fresh = [name for name, before in told.stages if not before]
    assert fresh == ["sizer", "evaluate", "seed 8", "sizer", "evaluate", "seed 9", "register"]


def test_the_median_on_the_select_part_is_registered_and_nothing_else(
    interrupted: tuple[Path, Spread, Recorder],
) -> None:
    home, spread, _ = interrupted
    middle = sorted(spread.trained, key=lambda one: one.select)[1]
    assert spread.median is middle
    (version,) = read_export(home)
    assert spread.result.version is not None
    assert version.digest == spread.result.version.digest == spread.result.bundle
    assert version.tags["seed"] == str(middle.seed)
    assert version.lineage is not None
    assert version.lineage.seeds == (7, 8, 9)
    assert version.tags["seeds"].startswith("median of 3 on the select part (7: ")


def test_every_seed_has_weights_a_report_and_figures_of_its_own(
    interrupted: tuple[Path, Spread, Recorder],
) -> None:
    _, spread, _ = interrupted
    results = [one.training.result() for one in spread.trained]
    assert len({result.bundle for result in results}) == 3
    assert len({result.report for result in results}) == 3
    for one, result in zip(spread.trained, results, strict=True):
        assert result.report is not None
        assert json.loads(result.report.with_suffix(".json").read_text())["provenance"]["seed"] == one.seed
        assert one.over_rule is not None
        assert one.over_plug_in is not None


def test_one_seed_alone_gives_the_bundle_it_gave_among_others(
    interrupted: tuple[Path, Spread, Recorder], tmp_path: Path
) -> None:
    _, spread, _ = interrupted
    alone = start(parse({}, {"seed": 9}, config()), tmp_path, Recorder(), resume=False).run("rl_sizer")
    assert alone.bundle == spread.trained[2].training.result().bundle


def test_more_seeds_may_be_added_to_a_finished_run(
    interrupted: tuple[Path, Spread, Recorder],
) -> None:
    home, before, _ = interrupted
    told = Recorder()
    spread = trained(home, 4, told, "all", resume=True)
    assert [name for name, resumed in told.stages if not resumed][:3] == ["sizer", "evaluate", "seed 10"]
    assert [one.select for one in spread.trained[:3]] == [one.select for one in before.trained]
    assert spread.median.select == sorted(one.select for one in spread.trained)[1]  # the lower of the two


@pytest.mark.parametrize(
    ("mode", "changed", "field"),
    [
        ("features", {}, "--seeds"),
        ("rl_sizer", {"algo": "plugin"}, "--seeds"),
        ("rl_sizer", {"seed": 2**31 - 2}, "seed"),
    ],
)
def test_what_cannot_be_trained_with_seeds_is_refused(
    mode: str, changed: dict[str, Any], field: str, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=f"^{field}: "):
        train_seeds(start(config(**changed), tmp_path, Recorder(), resume=False), mode, 3)
    assert not read_export(tmp_path)
