"""`sample` and `lookahead`: what there is to know of bars, rules and features before trusting them."""

from typing import Annotated

import typer
from rich.box import SIMPLE_HEAD
from rich.markup import escape
from rich.table import Table

from cli.console import console
from cli.options import DataOption

app = typer.Typer()


@app.command()
def sample(data: DataOption = None) -> None:
    """List the bars that come with the installed packages, or report on the bars of --data: gaps, repeats,
    outliers, sessions."""
    from market.quality import in_words, report
    from market.samples import SAMPLES
    from market.sources import load

    table = Table("symbol", "bars", "from", "to", "missing", "repeats", "outliers", box=SIMPLE_HEAD)
    reports = [report(bars) for bars in load(f"sample:{','.join(SAMPLES)}" if data is None else data)]
    for seen in reports:
        table.add_row(
            escape(seen.symbol),
            f"{seen.bars:,}",
            seen.first[:10],
            seen.last[:10],
            f"{seen.missing_bars:,}",
            f"{seen.duplicates:,}",
            f"{seen.outliers:,}",
        )
    console.print(table)
    for seen in reports if data is not None else ():
        console.print(f"[bold]{escape(seen.symbol)}[/]")
        for line in in_words(seen):
            console.print(f"  {escape(line)}", highlight=False)
    if data is None:
        console.print(f"sample:NAME[,NAME...] with {', '.join(SAMPLES)}; sample:demo pools all of them")


@app.command()
def lookahead(
    subject: Annotated[
        str, typer.Argument(help="features, a rule such as donchian, or plugin:MODULE:NAME of your own")
    ],
    data: Annotated[str, typer.Option("--data", help="bars to try it on")] = "sample:eurusd",
    cuts: Annotated[int, typer.Option(help="moments at which the future is taken away")] = 20,
    seed: Annotated[int, typer.Option(help="of the cuts and of the other futures")] = 0,
) -> None:
    """Find values of a rule or feature that move when the future does; exit code 1 if any does."""
    from evaluation.lookahead import lookahead as analyse
    from evaluation.lookahead import print_table

    report = analyse(data, subject, cuts, seed)
    print_table(report, console)
    raise typer.Exit(0 if report.clean else 1)
