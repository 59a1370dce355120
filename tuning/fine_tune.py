"""The fine-tune of a trained sizer's tiers: a second network by PPO over the first, which stays as it is.

Served only if it is proven to add something: on signals later than those of training, net of costs, beside
the tiers alone. Knows nothing of run folders or bundles.
"""

import hashlib
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
import ray
from ray.rllib.algorithms.algorithm_config import AlgorithmConfig

from envs.account import NANOSECONDS_PER_DAY
from envs.fine_tune_env import FineTuneVectorEnv
from envs.signal_table import SignalTable
from evaluation.backtest import run as backtest
from evaluation.resampling import lower_bound
from policies.bundle import FineTuneFigures
from policies.hybrid import FineTunedPolicy, Network, TierPolicy
from policies.modules import SizingPPO
from tuning.config import TrainConfig
from tuning.rllib_config import assembled, ppo_config, registered, sizing_module
from tuning.scoring import fine_tuned_score
from tuning.sizer import Curve, Progress, Run, carry_out

REPLICATIONS: Final = 2_000


class FineTune(NamedTuple):
    """What phase two came to."""

    policy: FineTunedPolicy
    figures: FineTuneFigures
    curve: Curve  # (environment steps, expected utility per signal of the training table)


def fine_tune(
    train: SignalTable,
    select: SignalTable,
    tiers: Network,
    config: TrainConfig,
    folder: Path,
    progress: Progress,
    *,
    resume: bool = True,
) -> FineTune:
    """Train the fine-tune of `tiers` on `train` and judge it on `select`.

    Folder, progress, resuming and SIGTERM as in `tuning.sizer.train_sizer`. The network is the one with the
    best score on `train`: had it been chosen on `select`, that could not judge it any more.
    """
    run = FineTuneRun(train, tiers, config, folder)
    carry_out(run, progress, resume=resume)
    policy = run.policy(run.best)
    return FineTune(policy, judged(policy, select, config), run.curve)


def judged(policy: FineTunedPolicy, table: SignalTable, config: TrainConfig) -> FineTuneFigures:
    """The paired difference of realised utility, fine-tuned less tiers alone, on the signals of `table`.

    It is to be served if the one-sided 95 % lower bound of the mean, by stationary bootstrap over days, is
    above zero; too few days for a bound prove nothing.
    """
    tuned, alone = (
        backtest(sizer, table, config.limits, config.session.days).utility for sizer in (policy, policy.tiers)
    )
    days = table.time // NANOSECONDS_PER_DAY
    low = lower_bound(tuned - alone, days, REPLICATIONS, config.seed)
    return FineTuneFigures(
        band=policy.band,
        served=low is not None and low > 0.0,
        mean_difference=float(np.mean(tuned - alone)),
        lower_bound=low,
        signals=len(table),
        days=len(np.unique(days)),
    )


class FineTuneRun(Run):
    """Phase two as a run of `tuning.sizer`."""

    def __init__(self, train: SignalTable, tiers: Network, config: TrainConfig, folder: Path) -> None:
        super().__init__(train, None, config, folder, config.fine_tune)
        self.tiers = TierPolicy(tiers)
        arrays = sorted(tiers.to_arrays().items())
        self.identity["tiers"] = hashlib.sha256(b"".join(a.tobytes() for _, a in arrays)).hexdigest()

    def policy(self, network: Network) -> FineTunedPolicy:
        """The sizer that a network of this run makes."""
        return FineTunedPolicy(self.tiers, network, self.config.fine_tune.band)

    def algorithm(self, seed: int) -> AlgorithmConfig:
        """See `Run.algorithm`."""
        config, settings = self.config, self.config.fine_tune
        needed = ray.put((self.train, self.tiers))

        def environment(context: dict[str, Any]) -> FineTuneVectorEnv:
            table, tiers = ray.get(needed)
            return FineTuneVectorEnv(
                table,
                config.limits,
                context["num_envs"],
                tiers.choose,
                settings.band,
                config.session,
                realised=config.reward == "excess",
            )

        return assembled(
            ppo_config(settings, self.total),
            settings,
            registered(f"ballast-fine-tune-{needed.hex()}", environment),
            sizing_module(SizingPPO, self.train, config, settings.hidden, free_log_std=True),
            seed,
        )

    def score(self, network: Network, table: SignalTable) -> float:
        """See `Run.score`."""
        return fine_tuned_score(self.policy(network), table, self.config.limits, self.config.session)
