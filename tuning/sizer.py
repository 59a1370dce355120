"""The sizer's training: masked DQN or PPO through RLlib on a signal table, scored and resumable.

Knows nothing of bars, run folders or registries. Training pays each signal's reward less that of its best
size. What an account does cannot change the stream, so every policy loses the same sum and the optimum stays
where it was (input-driven baselines: Mao, Venkatakrishnan, Schwarzkopf and Alizadeh 2019); what goes away is
the value of the signals still to come, most of the noise in a target.
"""

import hashlib
import json
import logging
import math
import signal
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import FrameType
from typing import Final

import numpy as np
import torch
from ray.rllib.algorithms.algorithm import Algorithm
from ray.rllib.algorithms.algorithm_config import AlgorithmConfig
from ray.rllib.utils.metrics import ENV_RUNNER_RESULTS, NUM_ENV_STEPS_SAMPLED_LIFETIME, NUM_EPISODES_LIFETIME

from envs.signal_table import SignalTable
from envs.sizing_env import Episodes
from features.spec import fingerprint
from market.home import write_atomically
from market.storage import storage
from policies.hybrid import Network
from policies.modules import export
from tuning import checkpoints
from tuning.cluster import connected
from tuning.config import DQNSettings, FineTuneSettings, PPOSettings, TrainConfig
from tuning.dqn import ArrayDQN
from tuning.rllib_config import rllib_config
from tuning.scoring import greedy_score
from tuning.warm_start import warm_start

Progress = Callable[[int, int, float], None]
Curve = list[tuple[int, float]]
Observe = Callable[[Network], None]
Settings = DQNSettings | PPOSettings | FineTuneSettings

CURVE_FILE: Final = "curve.jsonl"
RLLIB_FOLDER: Final = "rllib"
REPLAY_FILE: Final = "replay.npz"
BEST_FILE: Final = "best.npz"
TERMINATED: Final = 128 + signal.SIGTERM  # the exit status a shell gives to what SIGTERM ended


def train_sizer(
    train: SignalTable,
    select: SignalTable | None,
    config: TrainConfig,
    folder: Path,
    progress: Progress,
    *,
    resume: bool = True,
    observe: Observe | None = None,
) -> tuple[Network, Curve]:
    """Train a sizer: the network with the best score, and the learning curve as (environment steps, score).

    The score is `tuning.scoring.greedy_score`. `progress` is told (steps done, steps in all, score on
    `train`), and the curve holds the same; `observe` is shown the network just before. The network is chosen
    by its score on `select`, signals later than those of `train`, or on `train` where there are none.
    `folder` takes the checkpoints, and all scores as ``curve.jsonl``. With `resume`, training goes on from
    the newest checkpoint there: the curve continues, but accounts start afresh, so that the weights are not
    those of an uninterrupted run. On SIGTERM a checkpoint is written and the process exits with 143.

    Without remote samplers, the same seed gives the same weights on the same machine. Raises ConfigError for
    an algorithm that is not trained here, and for a checkpoint of other features, configuration or table.
    """
    run = Run(train, select, config, folder, observe=observe)
    carry_out(run, progress, resume=resume)
    return run.best, run.curve


def carry_out(run: "Run", progress: Progress, *, resume: bool) -> None:
    """Train to the end, from the newest checkpoint on with `resume`: `train_sizer` says how."""
    checkpoint = run.recall() if resume else None
    if checkpoint is None:
        run.forget()
    if not run.finished:
        with (
            connected(1 + run.settings.env_runners, None if storage() else run.folder),
            _one_thread(),
            quiet(),
            _termination() as asked_to_end,
        ):
            _train(run, checkpoint, progress, asked_to_end)


class Run:
    """What a training run has come to, beside RLlib's own state."""

    def __init__(
        self,
        train: SignalTable,
        select: SignalTable | None,
        config: TrainConfig,
        folder: Path,
        settings: Settings | None = None,
        observe: Observe | None = None,
    ) -> None:
        """`settings`: of what is trained, where it is not the tiers."""
        self.train, self.select, self.config, self.folder = train, select, config, folder
        self.settings = settings or config.learning
        self.observe = observe
        self.identity = {
            "feature_fingerprint": fingerprint(),
            "config": config.digest(),
            "table": table_digest(train),
        }
        self.total = total_steps(train, config, self.settings)
        self.steps = self.episodes = self.saved = 0
        self.curve: Curve = []
        self.best_score = -math.inf
        self.best: Network

    @property
    def finished(self) -> bool:
        """Whether the configuration's last step, or episode, is behind it."""
        if self.settings.episodes is not None:
            return self.episodes >= self.settings.episodes
        return self.steps >= self.total

    def algorithm(self, seed: int) -> AlgorithmConfig:
        """What is trained, on which environment."""
        return rllib_config(paid(self.train), self.config, self.total, seed)

    def begin(self, algorithm: Algorithm) -> None:
        """What comes before the first step of a run that is not resumed."""
        if isinstance(self.settings, PPOSettings) and self.settings.warm_start != "none":
            warm_start(algorithm, self.settings.warm_start, self.train, self.config)

    def score(self, network: Network, table: SignalTable) -> float:
        """How good a network is on a table."""
        return greedy_score(network, table, self.config.limits, self.config.session)

    def record(self, steps: int, episodes: int, network: Network) -> float:
        """Score a network, keep it if it is the best so far, and add the score on `train` to the curve."""
        self.steps, self.episodes = steps, episodes
        score = self.score(network, self.train)
        line = {"steps": steps, "episodes": episodes, "train": score}
        if self.select is not None:
            line["select"] = self.score(network, self.select)
        if line.get("select", score) > self.best_score:
            self.best_score, self.best = line.get("select", score), network
        self.curve.append((steps, score))
        with (self.folder / CURVE_FILE).open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
        if self.observe is not None:
            self.observe(network)
        return score

    def save(self, algorithm: Algorithm) -> None:
        """Write a checkpoint."""
        replay = algorithm.local_replay_buffer.get_state() if isinstance(algorithm, ArrayDQN) else None

        def write(draft: Path) -> None:
            algorithm.save_to_path(str(draft / RLLIB_FOLDER))
            if replay is not None:
                np.savez(draft / REPLAY_FILE, allow_pickle=False, **replay["columns"])
            np.savez(draft / BEST_FILE, allow_pickle=False, **self.best.to_arrays())

        state = {
            **self.identity,
            "steps": self.steps,
            "episodes": self.episodes,
            "best_score": self.best_score,
            "curve": self.curve,
        }
        if replay is not None:
            state["replay"] = {"added": replay["added"], "random": replay["random"]}
        checkpoints.save(self.folder, self.steps, state, write)
        self.saved = self.steps

    def recall(self) -> Path | None:
        """Take up the newest checkpoint and return its folder, or None where there is none."""
        found = checkpoints.newest(self.folder, self.identity)
        if found is None:
            return None
        checkpoint, state = found
        self.steps, self.episodes, self.saved = state["steps"], state["episodes"], state["steps"]
        self.curve = [(steps, score) for steps, score in state["curve"]]
        self.best_score = state["best_score"]
        self.best = best_network(checkpoint)
        lines = (self.folder / CURVE_FILE).read_bytes().splitlines(keepends=True)
        write_atomically(self.folder / CURVE_FILE, b"".join(lines[: len(self.curve)]))
        return checkpoint

    def forget(self) -> None:
        """Start afresh."""
        self.folder.mkdir(parents=True, exist_ok=True)
        checkpoints.clear(self.folder)
        write_atomically(self.folder / CURVE_FILE, b"")


def _train(run: Run, checkpoint: Path | None, progress: Progress, asked_to_end: threading.Event) -> None:
    # A resumed run draws other numbers than its first part did.
    seed = run.config.seed + run.steps
    algorithm = run.algorithm(seed).build_algo()
    try:
        if checkpoint is None:
            run.begin(algorithm)
        else:
            algorithm.restore_from_path(str(checkpoint / RLLIB_FOLDER))
            if isinstance(algorithm, ArrayDQN):
                _refill(algorithm, checkpoint)
        while not (run.finished or asked_to_end.is_set()):
            algorithm.train()
            steps, episodes = (
                int(algorithm.metrics.peek((ENV_RUNNER_RESULTS, name), default=0))
                for name in (NUM_ENV_STEPS_SAMPLED_LIFETIME, NUM_EPISODES_LIFETIME)
            )
            score = run.record(steps, episodes, export(algorithm.get_module()))
            if run.finished or steps - run.saved >= run.settings.checkpoint_every:
                run.save(algorithm)
            # Told after the checkpoint: whoever pauses a run here loses nothing of it.
            progress(min(steps, run.total), run.total, score)
            if asked_to_end.is_set() and run.saved < run.steps:
                run.save(algorithm)
    finally:
        algorithm.stop()


def best_network(checkpoint: Path) -> Network:
    """The network with the best score up to a checkpoint."""
    with np.load(checkpoint / BEST_FILE) as arrays:
        return Network.from_arrays(dict(arrays))


def paid(table: SignalTable) -> SignalTable:
    """The table with what training pays: each reward less that of the signal's best size."""
    return replace(table, reward=table.reward - table.reward.max(axis=1, keepdims=True))


def total_steps(table: SignalTable, config: TrainConfig, settings: Settings | None = None) -> int:
    """Environment steps of a whole run; for a number of episodes, the steps they are expected to take."""
    settings = settings or config.learning
    if settings.episodes is None:
        return settings.env_steps
    windows = Episodes(table, config.limits, 1, config.session)
    length = windows.window_end[windows.first] - windows.first
    return math.ceil(settings.episodes * float(length.mean()))


def table_digest(table: SignalTable) -> str:
    """SHA-256 of what training sees of a table."""
    digest = hashlib.sha256()
    for column in (table.time, table.exit_time, table.market, table.gross_r, table.reward, table.expected):
        digest.update(np.ascontiguousarray(column).tobytes())
    return digest.hexdigest()


def _refill(algorithm: ArrayDQN, checkpoint: Path) -> None:
    """Give the replay buffer back what it held."""
    state = json.loads((checkpoint / checkpoints.STATE_FILE).read_text(encoding="utf-8"))["replay"]
    with np.load(checkpoint / REPLAY_FILE) as columns:
        algorithm.local_replay_buffer.set_state({"columns": dict(columns), **state})


@contextmanager
def _one_thread() -> Iterator[None]:
    """One torch thread: the network is too small for two, and sums in one order give the same weights."""
    before, deterministic = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
        torch.use_deterministic_algorithms(deterministic)  # RLlib switches it on wherever it is given a seed


@contextmanager
def quiet() -> Iterator[None]:
    """Keep notices of RLlib and Gymnasium about their own affairs off the terminal."""
    loggers = [logging.getLogger(name) for name in ("ray", "ray.rllib", "ray.tune")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*Overriding environment rllib-.*")
            warnings.filterwarnings("ignore", category=DeprecationWarning, module="ray")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


@contextmanager
def _termination() -> Iterator[threading.Event]:
    """An event set by SIGTERM, after which the block's end is the process's.

    Outside the main thread nobody can listen.
    """
    asked = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield asked
        return

    def ask(number: int, frame: FrameType | None) -> None:
        asked.set()

    before = signal.signal(signal.SIGTERM, ask)
    try:
        yield asked
    finally:
        signal.signal(signal.SIGTERM, before)
    if asked.is_set():
        raise SystemExit(TERMINATED)
