"""`evaluate`: what a configuration or a registered model is worth on signals it has not seen."""

from typing import Annotated

import typer

from cli.console import ConsoleListener, console
from cli.options import ConfigOption, DataOption, RuleOption, SeedOption, configured
from market.home import home

app = typer.Typer()


@app.command()
def evaluate(
    data: DataOption = None,
    rule: RuleOption = None,
    algo: Annotated[str | None, typer.Option(help="dqn, ppo, dqn+ppo or plugin")] = None,
    config: ConfigOption = None,
    folds: Annotated[int, typer.Option(help="tests of the walk-forward, one after the other")] = 5,
    seeds: Annotated[int, typer.Option(min=1, max=100, help="trainings of each fold")] = 3,
    seed: SeedOption = None,
) -> None:
    """Walk-forward: retrain fold after fold, and judge each on the signals that come next."""
    from cli.training import say_ray_mode
    from evaluation.comparison import compare
    from evaluation.report import print_table
    from tuning.evaluate import walk
    from tuning.study import study

    chosen = configured(config, {"data": data, "rule": rule, "algo": algo, "seed": seed})
    say_ray_mode()
    listener = ConsoleListener()
    try:
        seen = study(chosen)
        walked = walk(chosen, seen, home(), listener, folds, range(chosen.seed, chosen.seed + seeds))
    finally:
        listener.close()
    tested = walked.tested
    print_table(compare(tested.paths, tested.table, symbols=seen.trades.symbols), console)
