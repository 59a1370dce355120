"""What more nodes are worth to training and to a search: `python -m benchmarks.scaling [--quick]`.

Prints progress to stderr and one JSON line to stdout. Up to three nodes are simulated on this machine, in one
cluster of Ray's with daemons and object stores of their own: wall-clock rates, all taken in turns in this one
run, that cannot exceed what its cores hold. Beyond, a model with the costs measured here says what nodes of
their own would give; docs/cluster.md states what it assumes. All train PPO on the oracle market.
"""

import argparse
import json
import logging
import os
import pickle
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Final

import ray
import ray._private.utils
import torch
from ray.cluster_utils import Cluster

from benchmarks.training import BATCH, OURS, log, settings
from envs import oracle_market
from envs.signal_table import SignalTable
from tuning.rllib_config import rllib_config
from tuning.sizer import quiet

NODES: Final = 3
MINIBATCH: Final = 2_048
BEYOND: Final = (1, 2, 4, 8, 16, 64)
BANDWIDTH: Final = 1.25e9  # bytes/s between two nodes: 10 Gbit/s
LATENCY: Final = 2e-4  # s, of one message there and back within a data centre
COPY: Final = 2e9  # bytes/s into or out of an object store
RUNNERS, TRIALS = "runners-of-", "trials"  # resources of a node: one of each kind at a time
SLOW: Final = 100.0  # how much longer a step of a costly environment takes, for comparison


@dataclass(frozen=True)
class Costs:
    """What one iteration of `batch` steps is made of."""

    batch: int
    updates: int  # of the network, per iteration
    sample_s: float  # per environment step of a sampler, policy forward included
    learn_s: float  # per environment step of the learner, all epochs
    step_bytes: float  # of one environment step as it travels
    weights_bytes: int
    remote_s: float = 0.0  # of one iteration: what RLlib's calls to remote samplers take, beside the bytes

    def iteration(self, runners: int, learners: int = 1, sample: float = 1.0) -> float:
        """Seconds of one iteration, modelled: sample, gather, learn, hand the weights out, one after another.

        `runners`: samplers on nodes of their own, 0: in the learner's process. `sample`: how much longer a
        step takes to sample than measured. `learners`: data-parallel, each on a node of its own.
        """
        sampling = self.batch * self.sample_s * sample / max(runners, 1)
        moved = 0.0
        if runners:
            gathered, handed_out = self.batch * self.step_bytes, runners * self.weights_bytes
            # All goes through the learner's one network card, and into and out of an object store.
            moved = (gathered + handed_out) * (1 / BANDWIDTH + 2 / COPY) + 2 * LATENCY + self.remote_s
        learning = self.batch * self.learn_s / learners
        if learners > 1:
            travelling = 2 * self.weights_bytes * (learners - 1) / learners / BANDWIDTH
            learning += self.updates * (2 * LATENCY + travelling)
        return sampling + moved + learning

    def speedups(self, **fixed: float) -> dict[str, float]:
        """Modelled rate with so many runners over that of a training in one process."""
        alone = self.iteration(0, **fixed)  # type: ignore[arg-type]
        return {
            str(count): round(alone / self.iteration(count, **fixed), 3)  # type: ignore[arg-type]
            for count in BEYOND
        }

    def learner_speedups(self) -> dict[str, float]:
        """The same with so many learners, each with a sampler of its own on its node."""
        alone = self.iteration(0)
        sampled = self.batch * self.sample_s
        return {
            str(count): round(alone / (sampled / count + self.iteration(0, count) - sampled), 3)
            for count in BEYOND
        }


@ray.remote(num_cpus=1, resources={TRIALS: 1})
class Trial:
    """A training that knows of no other, as in a search."""

    def __init__(self, table: SignalTable) -> None:
        torch.set_num_threads(1)
        with quiet():
            self.algorithm = algorithm(table, 0)

    def work(self, iterations: int) -> int:
        """Environment steps of so many iterations."""
        for _ in range(iterations):
            self.algorithm.train()
        return iterations * BATCH


def algorithm(table: SignalTable, runners: int) -> Any:
    """PPO with so many remote samplers, or with one in this process."""
    config = settings(OURS, minibatch_size=MINIBATCH, report_every=BATCH, env_runners=runners)
    built = rllib_config(table, config, 10**9, seed=0)
    if runners:
        built = built.env_runners(custom_resources_per_env_runner={f"{RUNNERS}{runners}": 1})
    return built.build_algo()


def measured_costs(table: SignalTable, rounds: int) -> Costs:
    """CPU seconds and bytes of a training in this process, the best of `rounds`."""
    built = algorithm(table, 0)
    built.train()
    sample_s = whole_s = float("inf")
    rollouts: Any = None
    for _ in range(rounds):
        started = time.thread_time()
        rollouts = built.env_runner.sample()
        steps = sum(len(rollout) for rollout in rollouts)
        sample_s = min(sample_s, (time.thread_time() - started) / steps)
        started = time.thread_time()
        built.train()
        whole_s = min(whole_s, (time.thread_time() - started) / BATCH)
    weights = len(pickle.dumps(built.get_module().get_state()))
    step_bytes = len(pickle.dumps(rollouts)) / sum(len(rollout) for rollout in rollouts)
    updates = settings(OURS).ppo.epochs * BATCH // MINIBATCH
    built.stop()
    return Costs(BATCH, updates, sample_s, max(whole_s - sample_s, 0.0), step_bytes, weights)


def runners_rates(table: SignalTable, iterations: int, rounds: int) -> dict[int, float]:
    """Environment steps per second of one training with so many remote samplers, one a node."""
    built = {count: algorithm(table, count) for count in range(NODES + 1)}

    def work(count: int) -> int:
        for _ in range(iterations):
            built[count].train()
        return iterations * BATCH

    try:
        return in_turns({count: lambda count=count: work(count) for count in built}, rounds)  # type: ignore[misc]
    finally:
        for each in built.values():
            each.stop()


def trials_rates(table: SignalTable, iterations: int, rounds: int) -> dict[int, float]:
    """Environment steps per second of so many trainings at once, one a node."""
    stream = ray.put(table)
    trials = [Trial.remote(stream) for _ in range(NODES)]  # type: ignore[attr-defined]

    def work(count: int) -> int:
        return sum(ray.get([trial.work.remote(iterations) for trial in trials[:count]]))

    try:
        counts = range(1, NODES + 1)
        return in_turns({count: lambda count=count: work(count) for count in counts}, rounds)  # type: ignore[misc]
    finally:
        for trial in trials:
            ray.kill(trial)


def in_turns(works: dict[int, Callable[[], int]], rounds: int) -> dict[int, float]:
    """Steps per second of each: done once unmeasured, then in turns, the best of `rounds`."""
    for work in works.values():
        work()
    best = dict.fromkeys(works, 0.0)
    for _ in range(rounds):
        for count, work in works.items():
            started = time.perf_counter()
            steps = work()
            best[count] = max(best[count], steps / (time.perf_counter() - started))
    return best


def simulated() -> Cluster:
    """A head without processors, and nodes that each have room for one sampler of every kind, and a trial."""
    # Ray notes a cluster it starts for whoever comes next on this machine; this one is for nobody else.
    ray._private.utils.write_ray_address = lambda *rest, **more: None
    store: dict[str, Any] = {"object_store_memory": 150_000_000}
    cluster = Cluster(
        initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False} | store
    )
    room = {f"{RUNNERS}{count}": 1 for count in range(1, NODES + 1)} | {TRIALS: 1}
    for _ in range(NODES):
        cluster.add_node(num_cpus=len(room), resources=room, **store)
    return cluster


def main() -> None:
    """Measure everything and print the JSON line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer rounds")
    quick = parser.parse_args().quick
    iterations, rounds = (2, 2) if quick else (5, 5)
    os.environ["OMP_NUM_THREADS"] = "1"
    torch.set_num_threads(1)
    table = oracle_market.market("L1", 20_000, edge=1.0, seed=1)
    cluster = simulated()
    try:
        ray.init(address=cluster.address, log_to_driver=False, logging_level=logging.ERROR)
        with quiet():
            costs = measured_costs(table, rounds)
            log(f"costs {costs}")
            runners = runners_rates(table, iterations, rounds)
            log(f"runners {runners}")
            # With one remote sampler nothing runs at once: what an iteration takes more is the calls' price.
            remote_s = BATCH / runners[1] - BATCH / runners[0] + costs.iteration(0) - costs.iteration(1)
            costs = replace(costs, remote_s=max(remote_s, 0.0))
            trials = trials_rates(table, iterations, rounds)
            log(f"trials {trials}")
    finally:
        ray.shutdown()
        cluster.shutdown()  # type: ignore[no-untyped-call]
    figures = {
        "cores": len(os.sched_getaffinity(0)),
        "nodes": NODES,
        "runners_steps_per_s": {str(count): round(rate) for count, rate in runners.items()},
        "runners_speedup": {str(count): round(rate / runners[0], 3) for count, rate in runners.items()},
        "trials_speedup": {str(count): round(rate / trials[1], 3) for count, rate in trials.items()},
        "sample_us": round(costs.sample_s * 1e6, 2),
        "learn_us": round(costs.learn_s * 1e6, 2),
        "remote_ms": round(costs.remote_s * 1e3, 2),
        "step_bytes": round(costs.step_bytes, 1),
        "weights_bytes": costs.weights_bytes,
        "table_bytes": len(pickle.dumps(table)),
        "modelled_runners": costs.speedups(),
        "modelled_runners_slow_environment": costs.speedups(sample=SLOW),
        "modelled_learners": costs.learner_speedups(),
    }
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
