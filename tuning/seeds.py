"""One configuration trained with several seeds: how far they spread, and the one in the middle registered.

That one is chosen on the select part alone; what the test part says of each seed decides nothing. Knows
nothing of terminals.
"""

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import NamedTuple

from evaluation.backtest import run
from market.errors import ConfigError, DataError
from market.storage import storage
from policies.bundle import open_bundle
from tuning.cluster import connected
from tuning.config import TrainConfig, parse
from tuning.prepare import Prepared
from tuning.train import MODES, Result, Training


class Trained(NamedTuple):
    """One seed's sizer."""

    seed: int
    select: float  # mean expected utility per signal of the select part, net of costs, in R
    over_rule: float | None  # mean realised utility per signal of the test part less that of the rule at 1x
    over_plug_in: float | None  # and less that of the plug-in; None where the mode does not evaluate
    training: Training


@dataclass(frozen=True)
class Spread:
    """All seeds, in their order, and the one that was registered."""

    trained: tuple[Trained, ...]
    median: Trained  # by `select`; of an even number the lower of the two in the middle
    result: Result  # of the registered one


def train_seeds(first: Training, mode: str, count: int) -> Spread:
    """Train the seeds from that of `first` on, and register the one whose score on the select part is median.

    The stages before the sizer run once, in the run of `first`; the other seeds have folders in it. What is
    finished there already is not done again: a resumed run goes on with the seed it was at, and may be given
    more seeds. Raises ConfigError for a mode without a sizer and for a sizer that draws no numbers, DataError
    without select trades.
    """
    config, stages = first.config, MODES.get(mode, ())
    if "sizer" not in stages:
        raise ConfigError("--seeds", count, "give it with --mode all or rl_sizer: nothing else is trained")
    if config.algo == "plugin":
        raise ConfigError("--seeds", count, "give dqn, ppo or dqn+ppo as algo: the plug-in draws no numbers")
    configs = [parse({}, {"seed": config.seed + number}, config) for number in range(count)]
    at = stages.index("sizer")
    before, after = stages[:at], tuple(stage for stage in stages[at:] if stage != "register")
    first.finish(before)
    prepared = first.finished.prepared()
    if not len(prepared.select):
        raise DataError("select trades", 0, "give more data, or a larger second share in fractions")
    trainings = [first, *(_beside(first, other, before) for other in configs[1:])]
    with _ray(config, trainings):
        trained = [_train(training, after, prepared) for training in trainings]
    median = sorted(trained, key=lambda one: (one.select, one.seed))[(count - 1) // 2]
    scores = ", ".join(f"{one.seed}: {one.select:+.4f}" for one in trained)
    median.training.seeds = tuple(one.seed for one in trained)
    median.training.tags["seeds"] = f"median of {count} on the select part ({scores})"
    median.training.finish(("register",))
    return Spread(tuple(trained), median, median.training.result())


def _beside(first: Training, config: TrainConfig, stages: tuple[str, ...]) -> Training:
    """The training of another seed, with what the first has prepared."""
    folder = first.folder.within(f"seed-{config.seed}", config.model_dump(mode="json"))
    for stage in stages:
        folder.share(stage, first.folder)
    return Training(config, folder, first.home, first.listener)


def _ray(config: TrainConfig, trainings: list[Training]) -> AbstractContextManager[None]:
    """One Ray for all seeds that are still to be trained."""
    if all(training.folder.done("sizer") for training in trainings):
        return nullcontext()
    runners = config.fine_tune.env_runners if config.algo == "dqn+ppo" else 0
    shared = None if storage() else trainings[0].home
    return connected(1 + max(config.learning.env_runners, runners), shared)


def _train(training: Training, stages: tuple[str, ...], prepared: Prepared) -> Trained:
    config, listener = training.config, training.listener
    resumed = all(training.folder.done(stage) for stage in stages)
    training.finish(stages)
    policy = open_bundle(training.home / "bundles", training.folder.facts("sizer")["bundle"]).policy()
    walk = run(policy, prepared.select, config.limits, config.session.days)
    score, comparison = float(walk.expected.mean()), training.result().comparison
    listener.stage(f"seed {config.seed}", f"{score:+.4f} R on the select part", resumed=resumed)
    row = None if comparison is None else comparison.row(comparison.learned)
    differences = (None, None) if row is None else (row.versus_reference, row.versus_plug_in)
    over_rule, over_plug_in = (None if one is None else one.mean for one in differences)
    return Trained(config.seed, score, over_rule, over_plug_in, training)
