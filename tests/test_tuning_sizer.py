"""The masked DQN through RLlib learns the oracle market, repeats itself, resumes, and heeds SIGTERM."""

import hashlib
import json
import math
import os
import signal
import subprocess
import sys
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from envs import oracle_market
from envs.guardrails import SIZES, Limits
from envs.signal_table import SignalTable
from envs.sizing_env import Session
from market.errors import ConfigError
from policies.hybrid import Network
from tests.test_project_tree import ROOT
from tuning.config import TrainConfig, parse
from tuning.scoring import greedy_score
from tuning.sizer import paid, table_digest, total_steps, train_sizer

LIMITS, SESSION = oracle_market.limits("L1"), oracle_market.session("L1")


@cache
def stream() -> SignalTable:
    return oracle_market.market("L1", 20_000, edge=1.0, seed=1)


@cache
def later() -> SignalTable:
    return oracle_market.market("L1", 5_000, edge=1.0, seed=2)


def config(**dqn: object) -> TrainConfig:
    return parse({"limits": LIMITS.model_dump(), "session": SESSION.model_dump(), "dqn": dqn})


def tiny(**dqn: object) -> TrainConfig:
    """Seconds, and no skill to speak of."""
    return config(**{"env_steps": 900, "environments": 16, "learning_starts": 200, "report_every": 300} | dqn)


def digest(network: Network) -> str:
    arrays = network.to_arrays()
    return hashlib.sha256(b"".join(arrays[name].tobytes() for name in sorted(arrays))).hexdigest()


def quiet(done: int, total: int, score: float) -> None:
    pass


def fixed_size(tier: int) -> Network:
    """A network that values one tier above all others, whatever it sees."""
    bias = np.zeros(6, dtype=np.float32)
    bias[tier] = 1.0
    return Network(
        np.zeros(12, dtype=np.float32),
        np.ones(12, dtype=np.float32),
        (np.zeros((6, 12), dtype=np.float32),),
        (bias,),
    )


def tiers_chosen(network: Network) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    observation = later().market.copy()
    observation[:, 9:] = 1.0
    return np.argmax(network(observation), axis=1)  # type: ignore[no-any-return]


def test_learns_the_oracle_market_in_twenty_thousand_steps(ray_cluster: str, tmp_path: Path) -> None:
    told: list[tuple[int, int, float]] = []
    network, curve = train_sizer(
        stream(), None, config(env_steps=20_000), tmp_path, lambda *news: told.append(news)
    )
    reached = oracle_market.ratio(later(), tiers_chosen(network))
    assert reached >= 0.95, f"{reached:.4f} of the optimum on signals it has not seen"
    assert [(steps, score) for steps, _, score in told] == [(min(s, 20_000), score) for s, score in curve]
    assert told[-1][:2] == (20_000, 20_000)
    best = greedy_score(network, stream(), LIMITS, SESSION)
    assert best == max(score for _, score in curve)
    assert best > 2 * curve[0][1]


def ppo(**settings: object) -> TrainConfig:
    return parse({"algo": "ppo", "ppo": settings}, base=config())


SMALL_PPO = {"environments": 16, "train_batch_size": 320, "minibatch_size": 64, "report_every": 300}


def test_ppo_learns_the_oracle_market_too(ray_cluster: str, tmp_path: Path) -> None:
    network, curve = train_sizer(stream(), None, ppo(env_steps=200_000), tmp_path, quiet)
    reached = oracle_market.ratio(later(), tiers_chosen(network))
    assert reached >= 0.95, f"{reached:.4f} of the optimum on signals it has not seen"
    assert curve[-1][0] >= 200_000


def test_ppo_repeats_itself_resumes_and_counts_its_steps(ray_cluster: str, tmp_path: Path) -> None:
    settings = ppo(env_steps=1_500, checkpoint_every=600, **SMALL_PPO)
    first, again = (
        digest(train_sizer(stream(), None, settings, tmp_path / name, quiet)[0]) for name in ("one", "two")
    )
    assert first == again

    def fail(done: int, total: int, score: float) -> None:
        if done >= 1_200:
            raise OSError("the terminal is gone")

    with pytest.raises(OSError, match="terminal"):
        train_sizer(stream(), None, settings, tmp_path / "three", fail)
    _, curve = train_sizer(stream(), None, settings, tmp_path / "three", quiet)
    steps = [done for done, _ in curve]
    assert steps == sorted(set(steps))
    assert steps[-1] >= 1_500
    (saved,) = (tmp_path / "three").glob("steps-*")
    assert not (saved / "replay.npz").exists()


def test_counterfactuals_count_no_step_twice_and_repeat_themselves(ray_cluster: str, tmp_path: Path) -> None:
    settings = tiny(counterfactual=True, target_rate=0.1, target_update=16)
    (first, curve), (again, _) = (
        train_sizer(stream(), None, settings, tmp_path / name, quiet) for name in ("one", "two")
    )
    assert digest(first) == digest(again)
    plain, plain_curve = train_sizer(stream(), None, tiny(), tmp_path / "plain", quiet)
    assert [steps for steps, _ in curve] == [steps for steps, _ in plain_curve]
    assert digest(plain) != digest(first)
    with np.load(next((tmp_path / "one").glob("steps-*")) / "replay.npz") as replay:
        assert len(replay["actions"]) == 6 * curve[-1][0], "no limit of L1 ever forbids a tier"


@pytest.mark.long
@pytest.mark.parametrize("algo", ["dqn", "dqn, counterfactual", "ppo"])
def test_two_remote_samplers_train_too(ray_cluster: str, tmp_path: Path, algo: str) -> None:
    remote = parse({"dqn": {"env_runners": 2}}, base=tiny())
    settings = {
        "dqn": remote,
        "dqn, counterfactual": parse({"dqn": {"counterfactual": True}}, base=remote),
        "ppo": ppo(env_runners=2, env_steps=900, **SMALL_PPO),
    }
    _, curve = train_sizer(stream(), None, settings[algo], tmp_path, quiet)
    assert curve[-1][0] >= 900


def test_same_seed_gives_the_same_weights_and_another_seed_others(ray_cluster: str, tmp_path: Path) -> None:
    first, again, other = (
        digest(train_sizer(stream(), None, parse({}, {"seed": seed}, tiny()), tmp_path / name, quiet)[0])
        for name, seed in (("first", 3), ("again", 3), ("other", 4))
    )
    assert first == again
    assert first != other


def test_network_is_chosen_by_its_score_on_later_signals(ray_cluster: str, tmp_path: Path) -> None:
    network, _ = train_sizer(stream(), later(), tiny(), tmp_path, quiet)
    lines = [json.loads(line) for line in (tmp_path / "curve.jsonl").read_text().splitlines()]
    assert greedy_score(network, later(), LIMITS, SESSION) == max(line["select"] for line in lines)
    assert [line["steps"] for line in lines] == sorted(line["steps"] for line in lines)
    assert set(lines[0]) == {"steps", "episodes", "train", "select"}


def test_eleven_fields_and_no_veto_train_too(ray_cluster: str, tmp_path: Path) -> None:
    eleven = config(env_steps=600, environments=16, learning_starts=200, report_every=300, hidden=[8])
    eleven = parse({"session": {"session_left": False}, "limits": {"allow_skip": False}}, base=eleven)
    network, _ = train_sizer(stream(), None, eleven, tmp_path, quiet)
    assert [weight.shape for weight in network.weights] == [(8, 11), (6, 8)]


def test_training_ends_after_the_asked_number_of_episodes(ray_cluster: str, tmp_path: Path) -> None:
    told: list[int] = []
    asked = tiny(episodes=20, report_every=100)
    train_sizer(stream(), None, asked, tmp_path, lambda done, total, score: told.append(total))
    lines = [json.loads(line) for line in (tmp_path / "curve.jsonl").read_text().splitlines()]
    assert lines[-1]["episodes"] >= 20
    assert all(line["episodes"] < 20 for line in lines[:-1])
    assert set(told) == {total_steps(stream(), asked)}
    assert total_steps(stream(), asked) == pytest.approx(20 * 30, abs=5)  # five days of six signals


def test_finished_run_is_not_trained_again(ray_cluster: str, tmp_path: Path) -> None:
    network, curve = train_sizer(stream(), None, tiny(), tmp_path, quiet)

    def refuse(done: int, total: int, score: float) -> None:
        raise AssertionError("trained again")

    again, same_curve = train_sizer(stream(), None, tiny(), tmp_path, refuse)
    assert (digest(again), same_curve) == (digest(network), curve)
    told: list[int] = []
    train_sizer(stream(), None, tiny(), tmp_path, lambda done, total, score: told.append(done), resume=False)
    assert len(told) == len(curve)


def test_checkpoint_of_another_table_configuration_or_features_is_refused(
    ray_cluster: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train_sizer(stream(), None, tiny(), tmp_path, quiet)
    with pytest.raises(ConfigError, match=r"checkpoint\.table"):
        train_sizer(later(), None, tiny(), tmp_path, quiet)
    with pytest.raises(ConfigError, match=r"checkpoint\.config"):
        train_sizer(stream(), None, tiny(gamma=0.5), tmp_path, quiet)
    monkeypatch.setattr("tuning.sizer.fingerprint", lambda: "another")
    with pytest.raises(ConfigError, match=r"checkpoint\.feature_fingerprint.*\(here: another\)"):
        train_sizer(stream(), None, tiny(), tmp_path, quiet)


def test_resumed_training_goes_on_where_the_last_checkpoint_was(ray_cluster: str, tmp_path: Path) -> None:
    steady = config(env_steps=6_000, checkpoint_every=2_000)

    def fail(done: int, total: int, score: float) -> None:
        if done >= 5_000:
            raise OSError("the terminal is gone")

    with pytest.raises(OSError, match="terminal"):
        train_sizer(stream(), None, steady, tmp_path, fail)
    before = [json.loads(line) for line in (tmp_path / "curve.jsonl").read_text().splitlines()]
    told: list[tuple[int, int, float]] = []
    _, curve = train_sizer(stream(), None, steady, tmp_path, lambda *news: told.append(news))
    first = told[0]
    assert 4_000 < first[0] <= 5_500
    assert first[2] > 0.9 * before[-1]["train"] > 1.5 * before[0]["train"]  # it had not unlearned
    steps = [s for s, _ in curve]
    assert steps == sorted(set(steps))
    assert steps[-1] >= 6_000
    (saved,) = tmp_path.glob("steps-*")
    assert json.loads((saved / "state.json").read_text())["replay"]["added"] == steps[-1]
    lines = [json.loads(line) for line in (tmp_path / "curve.jsonl").read_text().splitlines()]
    assert [(line["steps"], line["train"]) for line in lines] == curve


def test_sigterm_writes_a_checkpoint_that_training_goes_on_from(ray_cluster: str, tmp_path: Path) -> None:
    told: list[int] = []

    def ask_to_end(done: int, total: int, score: float) -> None:
        told.append(done)
        os.kill(os.getpid(), signal.SIGTERM)

    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(SystemExit) as ended:
        train_sizer(stream(), None, tiny(), tmp_path, ask_to_end)
    assert ended.value.code == 128 + signal.SIGTERM
    assert signal.getsignal(signal.SIGTERM) == before
    (saved,) = tmp_path.glob("steps-*")
    assert int(saved.name.removeprefix("steps-")) == told[0]
    _, curve = train_sizer(stream(), None, tiny(), tmp_path, lambda done, total, score: told.append(done))
    steps = [done for done, _ in curve]
    assert steps[0] == told[0] < told[1]
    assert steps == sorted(set(steps))
    assert steps[-1] >= 900


ENDLESS = """
import sys
from pathlib import Path
from envs import oracle_market
from tuning.config import parse
from tuning.sizer import train_sizer

table = oracle_market.market("L1", 2_000, edge=1.0, seed=1)
limits, session = oracle_market.limits("L1"), oracle_market.session("L1")
endless = {"dqn.env_steps": sys.argv[2], "dqn.report_every": 500, "dqn.checkpoint_every": 10**6}
config = parse({"limits": limits.model_dump(), "session": session.model_dump()}, endless)
train_sizer(table, None, config, Path(sys.argv[1]), lambda done, total, score: print(done, flush=True))
"""


@pytest.mark.long
def test_process_that_is_sent_sigterm_says_nothing_and_ends_with_its_exit_status(tmp_path: Path) -> None:
    program = [sys.executable, "-c", ENDLESS, str(tmp_path / "run"), "1000000"]
    environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    process = subprocess.Popen(
        program, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    seen = int(process.stdout.readline())
    process.send_signal(signal.SIGTERM)
    rest, errors = process.communicate(timeout=120)
    assert process.returncode == 128 + signal.SIGTERM, errors
    assert "Traceback" not in errors
    last = int(rest.split()[-1]) if rest.split() else seen
    saved = list((tmp_path / "run").glob("steps-*"))
    assert [int(path.name.removeprefix("steps-")) for path in saved] == [last]
    state = json.loads((saved[0] / "state.json").read_text())
    assert (state["steps"], state["replay"]["added"]) == (last, last)


def test_what_training_pays_moves_no_policy_against_another() -> None:
    """Over whole episodes every policy loses the same sum, limits that bind included."""
    tight = Limits(max_daily_risk=0.025, max_exposure=0.03)
    day = Session(days=1.0)
    table = oracle_market.market("L1", 600, edge=1.0, seed=5)
    differences = [
        greedy_score(fixed_size(tier), replace(table, expected=paid(table).reward), tight, day)
        - greedy_score(fixed_size(tier), table, tight, day)
        for tier in range(6)
    ]
    np.testing.assert_allclose(differences, -table.expected.max(axis=1).mean(), rtol=1e-12)
    assert (paid(table).reward.max(axis=1) == 0.0).all()


def test_score_of_a_fixed_size_is_its_mean_expected_utility() -> None:
    for tier in range(6):
        expected = float(stream().expected[:, tier].mean())
        assert greedy_score(fixed_size(tier), stream(), LIMITS, SESSION) == pytest.approx(expected, rel=1e-12)


def test_score_obeys_the_limits() -> None:
    one_micro = Limits(max_position=0.0025)
    micro = float(stream().expected[:, 1].mean())
    assert SIZES[1] == 0.25
    largest = fixed_size(5)
    ranked = replace(largest, biases=(np.arange(6, dtype=np.float32),))
    assert greedy_score(ranked, stream(), one_micro, SESSION) == pytest.approx(micro, rel=1e-12)


def test_plug_in_is_not_trained(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="algo"):
        train_sizer(stream(), None, TrainConfig(algo="plugin"), tmp_path, quiet)


def test_table_digest_sees_a_single_changed_number() -> None:
    changed = stream().reward.copy()
    changed[7, 3] = math.nextafter(changed[7, 3], 1.0)
    assert table_digest(replace(stream(), reward=changed)) != table_digest(stream())
