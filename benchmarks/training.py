"""How fast training is beside the alternatives: `python -m benchmarks.training [--quick]`.

Prints progress to stderr and one JSON line to stdout. All learn the same: sizing on the oracle market, 64-32
networks, the same batch, minibatches and epochs, on one thread. Times are CPU seconds of the thread that
works, so that other programs on the machine disturb them little; all sides of a ratio are measured in turns,
best of several, in this one run. Figures are environment steps per second.
"""

import argparse
import gc
import json
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from ray.rllib.algorithms.algorithm_config import AlgorithmConfig
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from benchmarks import _training_references as references
from benchmarks._training_references import Work
from envs import oracle_market
from envs.signal_table import SignalTable
from envs.sizing_env import SizingVectorEnv
from policies.modules import standardisation
from tuning.cluster import connected
from tuning.config import PPOSettings, TrainConfig, parse
from tuning.rllib_config import rllib_config
from tuning.sizer import quiet

MINIBATCHES = (256, 2_048)
BATCH = 16_384
MANY = 4_096  # environments of the bare loops and of our sampler
OURS = 1_024  # environments of a training run
STOCK = (16, 64, 256)  # environments among which stock RLlib finds its best


def log(text: str) -> None:
    """Progress, to stderr."""
    print(text, file=sys.stderr, flush=True)


def settings(environments: int, **learning: Any) -> TrainConfig:
    """The common task."""
    ppo = {"train_batch_size": BATCH, "environments": environments} | learning
    limits, session = oracle_market.limits("L1"), oracle_market.session("L1")
    return parse({"algo": "ppo", "ppo": ppo, "limits": limits.model_dump(), "session": session.model_dump()})


def vector_env(table: SignalTable, config: TrainConfig, environments: int) -> SizingVectorEnv:
    """The environment without anything around it."""
    env = SizingVectorEnv(table, config.limits, environments, config.session)
    env.reset(seed=0)
    return env


def bare_env(table: SignalTable, config: TrainConfig, steps: int) -> Work:
    """Steps of the environment alone."""
    env, actions = vector_env(table, config, MANY), np.ones(MANY, dtype=np.int64)

    def work() -> int:
        for _ in range(steps):
            env.step(actions)
        return steps * MANY

    return work


def bare_policy(table: SignalTable, config: TrainConfig, steps: int) -> Work:
    """Steps with the policy's forward pass and its largest output for an action: nothing drawn, nothing
    kept.
    """
    env = vector_env(table, config, MANY)
    mean, scale = (torch.from_numpy(each) for each in standardisation(table.market, 12))
    net = references.dense([12, *config.ppo.hidden, 6])

    def work() -> int:
        observation = env.reset(seed=0)[0]
        with torch.inference_mode():
            for _ in range(steps):
                outputs = net((torch.from_numpy(observation) - mean) / scale)
                observation = env.step(outputs.argmax(dim=-1).numpy())[0]
        return steps * MANY

    return work


def runner(config: AlgorithmConfig, fragment: int) -> Work:
    """Sampling by an RLlib runner, metrics included."""
    config.rollout_fragment_length = fragment
    built = config.env_runner_cls(config=config, worker_index=0)

    def work() -> int:
        built.sample()
        return int(built.get_metrics()["num_env_steps_sampled"].peek())

    return work


def algorithm(config: AlgorithmConfig) -> Work:
    """Training iterations of an RLlib algorithm, everything included."""
    built, done = config.build_algo(), 0

    def work() -> int:
        nonlocal done
        before, done = done, int(built.train()["num_env_steps_sampled_lifetime"])
        return done - before

    return work


def race(contenders: dict[str, Callable[[], Work]], rounds: int) -> dict[str, float]:
    """Steps per CPU second of each: built, warmed up, then in turns, the best of `rounds`."""
    works = {name: build() for name, build in contenders.items()}
    for work in works.values():
        work()
    best = dict.fromkeys(works, 0.0)
    for _ in range(rounds):
        for name, work in works.items():
            gc.collect()
            started = time.thread_time()
            steps = work()
            best[name] = max(best[name], steps / (time.thread_time() - started))
    for name, rate in best.items():
        log(f"{name:>24} {rate:>14,.0f} steps/s")
    return best


def sampling(table: SignalTable, rounds: int) -> dict[str, float]:
    """The environment, the environment with a policy, and the two runners."""
    config = settings(MANY)
    ours = rllib_config(table, config, 10**9, seed=0)
    contenders: dict[str, Callable[[], Work]] = {
        "env": lambda: bare_env(table, config, 40),
        "env_policy": lambda: bare_policy(table, config, 20),
        "sampler": lambda: runner(ours, 20),
    }
    for count in STOCK:
        contenders[f"stock_sampler_{count}"] = lambda count=count: runner(  # type: ignore[misc]
            references.stock_ppo(ours, count), 2_048 // count
        )
    return race(contenders, rounds)


def learning(table: SignalTable, minibatch: int, stock: int, rounds: int) -> dict[str, float]:
    """PPO end to end, all four; `stock`: environments at which stock RLlib samples best."""
    config = settings(OURS, minibatch_size=minibatch, report_every=BATCH)
    ppo: PPOSettings = config.ppo
    ours = rllib_config(table, config, 10**9, seed=0)
    return race(
        {
            f"ppo_{minibatch}": lambda: algorithm(ours),
            f"stock_ppo_{minibatch}": lambda: algorithm(references.stock_ppo(ours, stock)),
            f"sb3_ppo_{minibatch}": lambda: references.stable_baselines(
                vector_env(table, config, OURS), ppo, 1
            ),
            f"torch_limit_{minibatch}": lambda: references.bare_torch(
                vector_env(table, config, OURS), ppo, 1
            ),
        },
        rounds,
    )


def q_learning(table: SignalTable, rounds: int) -> dict[str, float]:
    """DQN end to end, as many updates per step on both sides."""
    config = parse({"algo": "dqn", "dqn": {"report_every": 512}}, base=settings(OURS))
    ours = rllib_config(table, config, 10**9, seed=0)
    stock = references.stock_dqn(ours, config.dqn)
    stock.min_sample_timesteps_per_iteration = 128
    return race({"dqn": lambda: algorithm(ours), "stock_dqn": lambda: algorithm(stock)}, rounds)


def ratios(rates: dict[str, float]) -> dict[str, float]:
    """What the figures come to."""
    stock = max(rates[f"stock_sampler_{count}"] for count in STOCK)
    found = {
        "sampling_vs_stock": rates["sampler"] / stock,
        "sampling_share_of_bare_loop": rates["sampler"] / rates["env_policy"],
        "dqn_vs_stock": rates["dqn"] / rates["stock_dqn"],
    }
    shares = []
    for minibatch in MINIBATCHES:
        ours = rates[f"ppo_{minibatch}"]
        found[f"ppo_vs_stock_{minibatch}"] = ours / rates[f"stock_ppo_{minibatch}"]
        found[f"ppo_vs_sb3_{minibatch}"] = ours / rates[f"sb3_ppo_{minibatch}"]
        shares.append(ours / rates[f"torch_limit_{minibatch}"])
    return found | {"share_of_torch_limit": min(shares)}


def main() -> None:
    """Measure everything and print the JSON line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer rounds")
    quick = parser.parse_args().quick
    torch.set_num_threads(1)
    table = oracle_market.market("L1", 20_000, edge=1.0, seed=1)
    with connected(1), threadpool_limits(1), quiet():
        rates = sampling(table, 2 if quick else 7)
        best = max(STOCK, key=lambda count: rates[f"stock_sampler_{count}"])
        for minibatch in MINIBATCHES:
            rates |= learning(table, minibatch, best, 1 if quick else 5)
        rates |= q_learning(table, 1 if quick else 5)
    config = settings(OURS)
    updates = rates["dqn"] / config.dqn.env_steps_per_update
    figures: dict[str, Any] = {
        "env_steps_per_s": {name: round(rate) for name, rate in rates.items()},
        **{name: round(ratio, 3) for name, ratio in ratios(rates).items()},
        "dqn_updates_per_s": round(updates),
        "stock_environments": best,
        "batch": BATCH,
    }
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
