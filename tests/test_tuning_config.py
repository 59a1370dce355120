"""A configuration is refused by the path of its key, and its digest stands for all of it."""

import json
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from market.errors import ConfigError
from tuning.config import TrainConfig, parse, preset


def refusal(values: Any, overrides: dict[str, Any] | None = None) -> ConfigError:
    with pytest.raises(ConfigError) as caught:
        parse(values, overrides)
    return caught.value


def test_defaults_are_what_an_empty_mapping_gives() -> None:
    assert parse({}) == parse() == preset("default") == TrainConfig()


@pytest.mark.parametrize(
    ("values", "field", "allowed"),
    [
        ({"dqn": {"gamma": 2}}, "dqn.gamma", "a finite number at least 0 and at most 1"),
        ({"dqn": {"gamma": float("nan")}}, "dqn.gamma", "a finite number at least 0 and at most 1"),
        (
            {"dqn": {"learning_rate": float("inf")}},
            "dqn.learning_rate",
            "a finite number above 0 and at most 1",
        ),
        ({"limits": {"base_risk": 0}}, "limits.base_risk", "above 0 and at most 0.5"),
        ({"costs": {"fee_bps": -1}}, "costs.fee_bps", "a finite number at least 0"),
        ({"session": {"days": -3}}, "session.days", "above 0"),
        ({"folds": 1}, "folds", "a whole number at least 2 and at most 50"),
        ({"seed": 1.5}, "seed", "a whole number at least 0 and at most 2,147,483,647"),
        ({"algo": "sarsa"}, "algo", "one of dqn, ppo, dqn+ppo, plugin"),
        ({"reward": "profit"}, "reward", "one of expected, excess"),
        ({"k": -1}, "k", "a finite number above 0 and at most 10,000, or nothing"),
        ({"data": ""}, "data", "text at least 1 long"),
        ({"dqn": {"double_q": "maybe"}}, "dqn.double_q", "true or false"),
        ({"dqn": {"hidden": []}}, "dqn.hidden", "at least 1 long"),
        ({"dqn": {"hidden": [64, 0]}}, "dqn.hidden.1", "each at least 1 and at most 4,096"),
        ({"fractions": [0.5, 0.5]}, "fractions.2", "a list of 3 numbers, each above 0 and below 1"),
        ({"fractions": [0.5, 0.5, 0.5]}, "fractions", "sum to 1"),
        ({"advised_trades": 3}, "advised_trades", "at least least_trades, 500"),
        ({"dqn": 3}, "dqn", "keys and values"),
        ({"dqn": {"gama": 1}}, "dqn.gama", "there is no such key; choose one of checkpoint_every"),
        ({"limits": {"base_rsk": 1}}, "limits.base_rsk", "choose one of allow_skip, base_risk"),
        ({"sed": 1}, "sed", "choose one of advised_trades, algo"),
    ],
)
def test_bad_value_is_refused_with_its_path_and_what_is_allowed(
    values: dict[str, Any], field: str, allowed: str
) -> None:
    error = refusal(values)
    assert error.field == field
    assert allowed in error.mend


def test_refusal_holds_the_value_that_was_seen() -> None:
    assert str(refusal({}, {"dqn.gamma": "2"})).startswith("dqn.gamma: got '2'; give a finite number")


def test_overrides_reach_into_sections_and_read_text_as_a_command_line_gives_it() -> None:
    config = parse({"dqn": {"gamma": 0.5}}, {"dqn.gamma": "0.9", "dqn.hidden": [8], "seed": "7", "k": None})
    assert (config.dqn.gamma, config.dqn.hidden, config.seed, config.k) == (0.9, (8,), 7, None)


def test_base_keeps_what_neither_source_nor_overrides_name() -> None:
    config = parse({"dqn": {"gamma": 0.5}}, {"seed": 3}, base=preset("owner"))
    assert (config.dqn.gamma, config.seed, config.dqn.replay_capacity) == (0.5, 3, 10_000)


@pytest.mark.parametrize("name", ["train.yaml", "train.json"])
def test_a_file_gives_what_its_mapping_gives(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_text(json.dumps({"dqn": {"env_steps": 5}}))
    assert parse(path) == parse(str(path)) == parse({"dqn": {"env_steps": 5}})


@pytest.mark.parametrize(
    ("name", "content", "complaint"),
    [
        ("c.yaml", "ppo:\n  clip: 1.5\n", "ppo.clip: got 1.5; give a finite number above 0 and at most 1"),
        (
            "c.yaml",
            "dqn:\n  gama: 1\n",
            "dqn.gama: got 1; there is no such key; choose one of checkpoint_every",
        ),
        ("c.yaml", "dqn:\n  hidden: [64, 32.5]\n", "dqn.hidden.1: got 32.5; give a list of numbers"),
        ("c.yaml", "fractions:\n- 0.7\n- 0.1\n- 2\n", "fractions.2: got 2; give a list of 3 numbers, each"),
        ("c.json", '{"limits": {"base_risk": 0.6}}', "limits.base_risk: got 0.6; give"),
        ("c.json", '{"dqn": {"hidden": [64, 5000]}}', "dqn.hidden.1: got 5000; give a list of numbers"),
        ("c.json", '{"dqn": [1, 2]}', "dqn: got [1, 2]; give keys and values"),
        ("c.json", '{"limits": {"risk": {"base": 1}}}', "limits.risk: got {'base': 1}; there is no such key"),
    ],
)
def test_a_file_is_refused_by_key_path_value_and_range(
    tmp_path: Path, name: str, content: str, complaint: str
) -> None:
    path = tmp_path / name
    path.write_text(content)
    assert str(refusal(path)).startswith(complaint)


def test_an_empty_file_changes_nothing(tmp_path: Path) -> None:
    (tmp_path / "empty.yaml").touch()
    assert parse(tmp_path / "empty.yaml") == TrainConfig()


@pytest.mark.parametrize("content", [b"[1, 2]", b"a: [", b"\xff\xfe\x00", b"3: 4"])
def test_a_file_that_is_no_mapping_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "train.yaml"
    path.write_bytes(content)
    assert refusal(path).field == "config"


def test_a_missing_file_is_refused() -> None:
    assert "No such file" in refusal("/nowhere/train.yaml").mend


def test_configuration_is_frozen() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        TrainConfig().seed = 1  # type: ignore[misc]


def test_digest_changes_with_any_key_and_with_nothing_else() -> None:
    assert parse({}).digest() == TrainConfig().digest()
    assert parse({"dqn": {"hidden": [64, 32]}}).digest() == TrainConfig().digest()
    changed = [parse({}, {key: value}).digest() for key, value in (("seed", 1), ("dqn.gamma", 0.5), ("k", 3))]
    assert len({TrainConfig().digest(), *changed}) == 4


def test_owners_preset_holds_ten_thousand_and_copies_the_target_every_hundred_updates() -> None:
    owner = preset("owner").dqn
    assert owner.replay_capacity == 10_000
    assert owner.target_update == 100 * owner.train_batch_size / owner.training_intensity


def test_unknown_preset_is_refused_with_those_there_are() -> None:
    with pytest.raises(ConfigError, match="default, owner"):
        preset("fast")


def test_algorithms_settings_are_found_under_one_name() -> None:
    assert parse({"ppo": {"hidden": [8]}, "algo": "ppo"}).learning.hidden == (8,)
    assert parse({"dqn": {"hidden": [9]}}).learning.hidden == (9,)
    with pytest.raises(ConfigError, match="algo"):
        _ = parse({"algo": "plugin"}).learning
    assert parse({"dqn": {"hidden": [9]}, "algo": "dqn+ppo"}).learning.hidden == (9,)


def test_minibatch_larger_than_its_batch_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"ppo\.minibatch_size"):
        parse({"ppo": {"minibatch_size": 2_000, "train_batch_size": 1_000}})
    with pytest.raises(ConfigError, match=r"fine_tune\.minibatch_size.*fine_tune\.train_batch_size"):
        parse({"fine_tune": {"minibatch_size": 2_000, "train_batch_size": 1_000}})


@pytest.mark.parametrize(
    ("given", "path", "mend"),
    [
        ({"fine_tune": {"band": 0.6}}, "fine_tune.band", "above 0 and at most 0.5"),
        ({"fine_tune": {"band": 0}}, "fine_tune.band", "above 0 and at most 0.5"),
        ({"fine_tune": {"warm_start": "rule"}}, "fine_tune.warm_start", "no such key"),
        ({"ppo": {"warm_start": "oracle"}}, "ppo.warm_start", "one of none, plugin, rule"),
    ],
)
def test_fine_tune_and_warm_start_are_bounded(given: dict[str, object], path: str, mend: str) -> None:
    with pytest.raises(ConfigError) as refused:
        parse(given)
    assert path in str(refused.value)
    assert mend in str(refused.value)


def test_fine_tune_is_a_small_network_within_fifteen_percent() -> None:
    settings = parse().fine_tune
    assert (settings.band, settings.hidden) == (0.15, (64,))
    assert settings.minibatch_size <= settings.train_batch_size
