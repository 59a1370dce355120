"""A search space is refused where the configuration would refuse a value, with the key and the range."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from market.errors import ConfigError
from tuning.config import TrainConfig, parse
from tuning.search import DEFAULT, Space, read_space

CONFIG = TrainConfig.model_validate({})


def domain(kind: str, low: float, high: float, **more: object) -> dict[str, Any]:
    return {"kind": kind, "low": low, "high": high, **more}


def space(**domains: dict[str, Any]) -> Space:
    return read_space({key.replace("__", "."): value for key, value in domains.items()}, CONFIG)


@pytest.mark.parametrize(
    ("key", "given", "field", "allowed"),
    [
        ("dqn.gamma", domain("uniform", 0.5, 1.2), "dqn.gamma", "at least 0 and at most 1"),
        ("dqn.gamma", domain("uniform", -0.5, 1.0), "dqn.gamma", "at least 0 and at most 1"),
        ("dqn.learning_rate", domain("loguniform", 0.1, 2.0), "dqn.learning_rate", "above 0 and at most 1"),
        ("dqn.learning_rate", domain("loguniform", 0.0, 0.1), "dqn.learning_rate.low", "greater than 0"),
        ("dqn.gamma", domain("uniform", 0.9, 0.1), "dqn.gamma", "above the low"),
        ("dqn.gamma", {"kind": "uniform", "low": 0.1}, "dqn.gamma.high", "required"),
        ("dqn.gamma", domain("normal", 0.1, 0.9), "dqn.gamma.kind", "loguniform"),
        ("dqn.gamma", 0.9, "dqn.gamma.kind", "loguniform"),
        ("dqn.gamma", domain("uniform", 0.1, 0.9, step=1), "dqn.gamma.step", "not permitted"),
        ("dqn.gamma", domain("quniform", 0.1, 0.95, q=0.1), "dqn.gamma", "multiple of q"),
        ("dqn.target_update", domain("loguniform", 100, 900), "dqn.target_update", "whole numbers"),
        ("dqn.target_update", domain("quniform", 100, 900, q=0.5), "dqn.target_update", "whole numbers"),
        ("dqn.train_batch_size", domain("randint", 0, 64), "dqn.train_batch_size", "at least 1"),
        ("dqn.hidden", {"kind": "choice", "values": [[64, 32], [64, 0]]}, "dqn.hidden.1", "at least 1"),
        ("dqn.hidden", {"kind": "choice", "values": []}, "dqn.hidden.values", "at least 1"),
        ("dqn.momentum", domain("uniform", 0.1, 0.9), "dqn.momentum", "dqn.gamma"),
        ("rule", {"kind": "choice", "values": ["donchian"]}, "rule", "prepared once"),
        ("limits.max_drawdown", domain("uniform", 0.1, 0.2), "limits.max_drawdown", "prepared once"),
        ("dqn.env_steps", domain("randint", 1, 9), "dqn.env_steps", "--config"),
    ],
)
def test_what_the_configuration_would_refuse_is_refused_with_key_and_range(
    key: str, given: object, field: str, allowed: str
) -> None:
    with pytest.raises(ConfigError) as refused:
        read_space({key: given}, CONFIG)
    assert refused.value.field == field
    assert allowed in refused.value.mend


@pytest.mark.parametrize("content", ["", "[1, 2]", "dqn.gamma: [", "1: 2"])
def test_file_that_holds_no_space_is_refused(tmp_path: Path, content: str) -> None:
    path = tmp_path / "space.yaml"
    path.write_text(content)
    with pytest.raises(ConfigError, match="--space"):
        read_space(path, CONFIG)
    with pytest.raises(ConfigError, match="--space"):
        read_space(tmp_path / "none.yaml", CONFIG)


def test_plug_in_has_nothing_to_search() -> None:
    with pytest.raises(ConfigError, match="algo"):
        read_space(None, TrainConfig(algo="plugin"))


@pytest.mark.parametrize(("algo", "section"), [("dqn", "dqn"), ("ppo", "ppo"), ("dqn+ppo", "dqn")])
def test_default_space_is_that_of_the_algorithm_that_learns_tiers(algo: str, section: str) -> None:
    config = parse({"algo": algo})
    assert {key.partition(".")[0] for key in read_space(None, config).root} == {section}
    other = "ppo.gamma" if section == "dqn" else "dqn.gamma"
    with pytest.raises(ConfigError, match=other.replace(".", r"\.")):
        read_space({other: {"kind": "choice", "values": [0.9, 1.0]}}, config)


def test_yaml_file_and_mapping_give_the_same_space(tmp_path: Path) -> None:
    path = tmp_path / "space.yaml"
    path.write_text("dqn.gamma: {kind: uniform, low: 0.5, high: 1}\n")
    assert read_space(path, CONFIG) == space(dqn__gamma=domain("uniform", 0.5, 1.0))


def test_default_space_is_accepted_and_its_samples_are_configurations() -> None:
    default = read_space(None, CONFIG)
    assert set(default.root) == set(DEFAULT["dqn"])
    np.random.seed(0)  # noqa: NPY002 (the generator that Ray Tune draws from)
    seen = [
        default.config(CONFIG, {key: one.sample() for key, one in default.build().items()}) for _ in range(40)
    ]
    assert {config.dqn.hidden for config in seen} == {(64, 32), (64, 64), (128, 64)}
    assert len({config.digest() for config in seen}) == 40


def test_both_ends_of_a_whole_range_are_drawn() -> None:
    drawn = {
        space(dqn__train_batch_size=domain("randint", 3, 5)).build()["dqn.train_batch_size"].sample()
        for _ in range(60)
    }
    assert drawn == {3, 4, 5}


def test_sample_changes_its_own_keys_and_nothing_else() -> None:
    hidden = space(dqn__hidden={"kind": "choice", "values": [[8], [16, 8]]})
    config = hidden.config(CONFIG, {"dqn.hidden": "[16, 8]"})
    assert config == parse({"dqn": {"hidden": [16, 8]}})


def test_clamped_sample_is_inside_its_ranges_and_on_its_grids() -> None:
    wide = space(
        dqn__gamma=domain("uniform", 0.5, 1.0),
        dqn__final_epsilon=domain("quniform", 0.1, 0.5, q=0.1),
        dqn__target_update=domain("lograndint", 10, 100),
        dqn__double_q={"kind": "choice", "values": [True, False]},
    )
    sample = {"dqn.gamma": 1.2, "dqn.final_epsilon": 0.29, "dqn.target_update": 7.0, "dqn.double_q": True}
    clamped = wide.clamp(sample)
    assert clamped["dqn.gamma"] == 1.0
    assert clamped["dqn.final_epsilon"] == pytest.approx(0.3)
    assert (clamped["dqn.target_update"], clamped["dqn.double_q"]) == (10, True)
    wide.config(CONFIG, clamped)


def test_space_without_structure_leaves_what_a_running_trial_can_change() -> None:
    left = set(read_space(None, CONFIG).without_structure().root)
    assert left == set(DEFAULT["dqn"]) - {"dqn.hidden"}
