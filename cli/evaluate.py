"""`evaluate`: what a configuration or a registered model is worth on signals it has not seen."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.box import SIMPLE_HEAD
from rich.markup import escape
from rich.table import Table

from cli.console import ConsoleListener, console, shown
from cli.options import AlgoOption, ConfigOption, DataOption, RuleOption, SeedOption, configured
from market.errors import ConfigError
from market.home import home

if TYPE_CHECKING:
    from tuning.evaluate import Evaluation, Judged

app = typer.Typer()


@app.command()
def evaluate(
    version: Annotated[
        int | None, typer.Argument(help="registered version; without one the configuration is evaluated")
    ] = None,
    data: DataOption = None,
    rule: RuleOption = None,
    algo: AlgoOption = None,
    config: ConfigOption = None,
    seed: SeedOption = None,
    folds: Annotated[int, typer.Option(help="tests of the walk-forward, one after the other")] = 5,
    seeds: Annotated[int, typer.Option(min=1, max=100, help="trainings of each fold")] = 3,
    final: Annotated[
        bool, typer.Option("--final", help="open the locked test part too; every time is counted")
    ] = False,
    experiment: Annotated[
        str | None, typer.Option(help="the search the version comes from; looked for if absent")
    ] = None,
    oracle: Annotated[
        Path | None, typer.Option(help="a file of the lines that `python -m benchmarks.oracle` printed")
    ] = None,
    waive_synthetic: Annotated[
        str | None, typer.Option(help="why the oracle market is done without, in words")
    ] = None,
) -> None:
    """Walk-forward: train anew fold after fold, and judge each on the signals that come next.

    With a version and --final, the gate judges that very model, and the evidence is kept for its promotion.
    """
    from cli.training import say_ray_mode
    from tuning.evaluate import Request, configuration_of, read_oracle_lines, registered
    from tuning.evaluate import evaluate as evaluated

    opened = None
    if version is None:
        chosen = configured(config, {"data": data, "rule": rule, "algo": algo, "seed": seed})
        for option, value in {"--experiment": experiment, "--oracle": oracle}.items():
            if value is not None:
                raise ConfigError(option, str(value), "give it with a version: only a model is judged")
    else:
        for option, given in {"--rule": rule, "--algo": algo, "--config": config, "--seed": seed}.items():
            if given is not None:
                raise ConfigError(option, str(given), "leave it out: the version says how it was made")
        opened = registered(home(), version)
        chosen = configuration_of(opened, data)
    request = Request(
        config=chosen,
        opened=opened,
        folds=folds,
        seeds=seeds,
        final=final,
        experiment=experiment,
        oracle_lines=() if oracle is None else read_oracle_lines(oracle),
        waived={} if waive_synthetic is None else {"synthetic": waive_synthetic},
    )
    say_ray_mode()
    listener = ConsoleListener()
    try:
        evaluation = evaluated(request, home(), listener)
    finally:
        listener.close()
    _show(evaluation, opened_final=final, version=version)


def _show(evaluation: "Evaluation", *, opened_final: bool, version: int | None) -> None:
    from evaluation.report import print_table

    console.rule("Walk-forward")
    print_table(evaluation.walked.comparison, console)
    _folds(evaluation)
    if evaluation.final is not None:
        console.rule(f"Locked test, look number {evaluation.looks}")
        print_table(evaluation.final.comparison, console)
    if evaluation.judged is not None:
        _verdict(evaluation.judged, version)
    elif version is not None and not opened_final:
        console.print("No verdict: the gate judges a version on the locked part (--final, counted).")
    console.print(f"report  {shown(evaluation.page)}", markup=False)


def _folds(evaluation: "Evaluation") -> None:
    """What the subject gained on the rule, by fold and seed."""
    subject = evaluation.walked.subject
    title = f"{subject}: gained on the rule, R per signal"
    table = Table("fold", title=title, title_justify="left", box=SIMPLE_HEAD, show_edge=False)
    table.add_column("tested", no_wrap=True)
    for name in ("trained on", "signals", "median seed", "worst seed"):
        table.add_column(name, justify="right")
    for fold in evaluation.folds:
        table.add_row(
            str(fold.number),
            f"{fold.first} to {fold.last}",
            f"{fold.trained:,}",
            f"{fold.signals:,}",
            f"{fold.median:+.3f}",
            f"{fold.worst:+.3f}",
        )
    console.print(table)
    gained = sorted(seed.versus_rule.mean for seed in evaluation.seeds)
    if len(gained) > 1:
        spread = f"median {gained[(len(gained) - 1) // 2]:+.3f}, worst {gained[0]:+.3f}"
        console.print(
            f"{len(gained)} seeds over all folds: {spread} R per signal on the rule", highlight=False
        )
    skill = evaluation.walked.attribution
    chance = "no p-value" if skill.p_value is None else f"p = {skill.p_value:.3f}"
    beyond = f"{skill.gained_r:+.3f} R per signal beyond one flat size of {skill.flat_size:.2f}x"
    console.print(f"Sizing skill: {beyond}, {chance}", highlight=False)


def _verdict(judged: "Judged", version: int | None) -> None:
    console.rule("The gate opens" if judged.verdict.passed else "The gate stays shut")
    for one in judged.criteria:
        mark = "[green]passed[/]" if one.passed else "[red]failed[/]"
        console.print(f"{mark}  {one.name:>12}  {escape(one.text)}", highlight=False)
    console.print(f"evidence  {shown(judged.path)}", markup=False)
    if judged.verdict.passed:
        console.print(f"promote   ballast registry promote {version} --evidence {shown(judged.path)}")
