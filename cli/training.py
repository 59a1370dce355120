"""`train`, `tune` and `report`: what learns, and what a search found."""

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.box import SIMPLE_HEAD
from rich.table import Table

from cli.console import ConsoleListener, console, shown
from cli.options import AlgoOption, ConfigOption, DataOption, RuleOption, SeedOption, configured
from market.errors import ConfigError, InputError
from market.home import home

if TYPE_CHECKING:
    from tuning.config import TrainConfig
    from tuning.seeds import Spread
    from tuning.train import Result, Training

app = typer.Typer()


@app.command()
def train(
    mode: Annotated[str, typer.Option(help="all, features, predictor, tier_optimizer or rl_sizer")] = "all",
    data: DataOption = None,
    rule: RuleOption = None,
    episodes: Annotated[
        int | None, typer.Option(help="stop the sizer after this many environment episodes")
    ] = None,
    epochs: Annotated[int | None, typer.Option(help="epochs of the price predictor's perceptron")] = None,
    preset: Annotated[
        str, typer.Option(help="default, or owner: a replay of 10,000 and a target update every 100 updates")
    ] = "default",
    algo: AlgoOption = None,
    config: ConfigOption = None,
    seed: SeedOption = None,
    seeds: Annotated[
        int, typer.Option(min=1, max=100, help="train so many seeds, register the median on the select part")
    ] = 1,
    resume: Annotated[
        bool, typer.Option("--resume", help="go on with the newest run of this configuration")
    ] = False,
) -> None:
    """Train on a source of bars, and register what comes out as STAGING."""
    overrides = {
        "data": data,
        "rule": rule,
        "algo": algo,
        "dqn.episodes": episodes,
        "ppo.episodes": episodes,
        "predictor.epochs": epochs,
        "seed": seed,
    }
    _, result = trained(configured(config, overrides, preset), mode, resume=resume, seeds=seeds)
    if result.comparison is not None:
        show(result)
    console.print(f"run  {result.folder}", markup=False)
    if result.version is not None:
        version = result.version
        console.print(f"registered version {version.version}, {version.status}, bundle {version.digest}")


@app.command()
def tune(
    data: DataOption = None,
    rule: RuleOption = None,
    config: ConfigOption = None,
    space: Annotated[
        Path | None, typer.Option("--space", help="a YAML or JSON file: key -> kind, low and high, or values")
    ] = None,
    trials: Annotated[int | None, typer.Option(help="settings to try (20)")] = None,
    seeds: Annotated[int | None, typer.Option(help="trainings of each trial (2)")] = None,
    scheduler: Annotated[str | None, typer.Option(help="asha or pbt (asha)")] = None,
    seed: SeedOption = None,
    name: Annotated[str | None, typer.Option("--name", help="name of the experiment")] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="go on with the experiment --name, or with the newest")
    ] = False,
) -> None:
    """Search for better training settings, judged on the select part of the data."""
    from tuning.experiment import Experiment, plan_of
    from tuning.search import read_space

    given = {
        "--data": data, "--rule": rule, "--config": config, "--space": space, "--trials": trials,
        "--seeds": seeds, "--scheduler": scheduler, "--seed": seed,
    }  # fmt: skip
    if resume:
        for option, value in given.items():
            if value is not None:
                raise ConfigError(option, str(value), "leave it out: --resume goes on as it was planned")
        experiment = Experiment.open(home(), name)
    else:
        base = configured(config, {"data": data, "rule": rule, "seed": seed})
        plan = plan_of(base, read_space(space, base), trials=trials, seeds=seeds, scheduler=scheduler)
        experiment = Experiment.start(home(), name, plan)
    say_ray_mode()
    from tuning.tune import search

    listener = ConsoleListener()
    try:
        outcome = search(experiment, home(), listener, resume=resume)
    finally:
        listener.close()
    if outcome.best is None:
        raise InputError("experiment", experiment.name, "no trial was trained to its end: see what they said")
    python, programs = shown(Path(sys.executable)), shown(Path(sys.executable).parent)
    score = f"{outcome.best.objective:+.4f} R expected per signal of the select part"
    console.print(f"best trial   {outcome.best.name} of {len(outcome.trials)}: {score}")
    console.print(f"train it     {python} -m ballast train --config {outcome.config}")
    console.print(f"report       {python} -m ballast report {experiment.name}")
    console.print(f"TensorBoard  {python} -m tensorboard.main --logdir {experiment.board}")
    if experiment.plan.scheduler == "asha":
        missing = "" if (programs / "optuna-dashboard").exists() else "  (comes with pip install '.[ui]')"
        console.print(
            f"Optuna       {programs}/optuna-dashboard {experiment.study_url}{missing}", markup=False
        )


@app.command()
def report(experiment: Annotated[str, typer.Argument(help="name of a search, as tune printed it")]) -> None:
    """Write the page of a search: leaderboard, learning curves, settings, sizes taken."""
    from tuning.experiment import Experiment
    from tuning.experiment_report import write_report

    console.print(f"report  {write_report(Experiment.open(home(), experiment))}", markup=False)


def say_ray_mode() -> None:
    """Settle Ray's authentication before Ray is imported, which is when it is read.

    Unsaid, the first local cluster of a machine switches it on by itself and later commands fail against it;
    said, Ray wants a token that is there already.
    """
    from serving.cluster import own_token

    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    mode = os.environ.setdefault("RAY_AUTH_MODE", "token")
    if mode == "token" and not {"RAY_ADDRESS", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"} & os.environ.keys():
        os.environ["RAY_AUTH_TOKEN_PATH"] = str(own_token(home()))


def trained(config: "TrainConfig", mode: str, *, resume: bool, seeds: int = 1) -> "tuple[Training, Result]":
    """Train, told on the terminal: the run (of several seeds the median's) and what it left."""
    say_ray_mode()
    from tuning.train import start

    listener = ConsoleListener()
    training = start(config, home(), listener, resume=resume)
    try:
        if seeds == 1:
            return training, training.run(mode)
        from tuning.seeds import train_seeds

        spread = train_seeds(training, mode, seeds)
    finally:
        listener.close()
    _show_spread(spread)
    return spread.median.training, spread.result


def _show_spread(spread: "Spread") -> None:
    """Every seed's scores, and how far they lie apart."""
    from statistics import median

    names = ["select part, R", "test part: over the rule, R", "over the plug-in, R"]
    rows = [(one.select, one.over_rule, one.over_plug_in) for one in spread.trained]
    columns = [
        [figure for figure in column if figure is not None] for column in zip(*rows, strict=True)
    ]  # of the test part empty where it was not evaluated
    table = Table("seed", box=SIMPLE_HEAD)
    for name, column in zip(names, columns, strict=True):
        if column:
            table.add_column(name, justify="right")
    for one, figures in zip(spread.trained, rows, strict=True):
        cells = [f"{figure:+.4f}" for figure in figures if figure is not None]
        table.add_row(str(one.seed), *cells, style="bold" if one is spread.median else None)
    table.add_section()
    for name, of in (("best", max), ("median", median), ("worst", min)):
        table.add_row(name, *(f"{of(column):+.4f}" for column in columns if column))
    console.print(table)
    which = "the median" if len(rows) % 2 else "the lower of the two in the middle"
    proviso = "; what the test part says of a seed decides nothing" if columns[1] else ""
    console.print(f"seed {spread.median.seed}, {which} on the select part, is registered{proviso}")


def show(result: "Result") -> None:
    """Print an evaluated run's comparison and where its page lies."""
    from evaluation.report import print_table

    assert result.comparison is not None
    print_table(result.comparison, console)
    console.print(f"report  {result.report}", markup=False)
