"""`shadow`: a challenger that sizes every request beside what is served, and how it does."""

import os
from typing import Annotated, Any

import typer
from rich.box import SIMPLE_HEAD
from rich.table import Table

from cli.console import console
from market.errors import InputError
from market.home import home

app = typer.Typer(
    help="A challenger that sizes every request beside what is served, and how it does.", no_args_is_help=True
)
ServeOption = Annotated[
    str,
    typer.Option(
        "--serve", help="address of the Ray dashboard of the service; BALLAST_API_KEY for its endpoints"
    ),
]
RULE, THE_RULE = "rule", "the rule itself"


@app.command()
def start(
    challenger: Annotated[str, typer.Argument(help="number of a registered version, or rule")],
    serve: ServeOption,
    share: Annotated[
        float, typer.Option(min=0, max=1, help="of days x symbols that it answers; 0: it stays in the shadow")
    ] = 0.0,
) -> None:
    """Size every request by a challenger too, without a restart; with --share it also answers some."""
    fields: dict[str, Any] = {"bundle": None, "digest": None, "status": THE_RULE, "share": share}
    if challenger != RULE:
        from mlops.versions import read_export

        numbered = {str(entry.version): entry for entry in read_export(home())}
        if challenger not in numbered:
            raise InputError("challenger", challenger, f"give one of {', '.join([*numbered, RULE])}")
        entry = numbered[challenger]
        fields |= {"bundle": str(entry.path), "digest": entry.digest, "status": entry.status}
    _challenge(serve, fields)


@app.command()
def stop(serve: ServeOption) -> None:
    """Size by what is served alone again."""
    _challenge(serve, None)


@app.command()
def report(
    journal: Annotated[
        str | None,
        typer.Option("--journal", help="database URL of the journal; absent: the one that serving writes"),
    ] = None,
) -> None:
    """The paired difference in R of each challenger, with an interval that holds whenever one looks."""
    from contextlib import closing

    from evaluation.shadow import LARGEST, shadow_reports
    from journal.location import journal_url
    from journal.store import Journal

    with closing(Journal(journal or journal_url(home(), os.environ), "reader")) as opened:
        found = shadow_reports(opened)
    if not found:
        console.print("no challenger has sized anything yet: `shadow start` has one do so")
        return
    table = Table("champion", "against", box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for column in ("days", "signals", "answered", "failed", "R a signal", "95 %"):
        table.add_column(column, justify="right")
    for one in found:
        table.add_row(
            *((digest or RULE)[:8] for digest in (one.champion, one.challenger)),
            *(f"{number:,}" for number in (one.days, one.signals, one.answered, one.failed)),
            "-" if one.mean is None else f"{one.mean:+.4f}",
            "-" if one.mean is None else f"{one.low:+.2f} to {one.high:+.2f}",
        )
    console.print(table)
    console.print(
        "R: the challenger's net R less the champion's, same signals; the interval holds whenever one looks"
    )
    for one in found:
        who = (one.challenger or RULE)[:8]
        if one.waiting:
            some = ", ".join(one.waiting[:3]) + (" and others" if len(one.waiting) > 3 else "")
            console.print(
                f"{who}: days from {one.waiting_day} on wait for {len(one.waiting)} outcomes of it: {some}"
            )
        if one.clipped:
            console.print(f"{who}: {one.clipped:,} differences beyond {LARGEST:g} R count as that")


def _challenge(serve: str, fields: dict[str, Any] | None) -> None:
    from serving.cluster import token_for
    from serving.rollout import KEY_VARIABLE, roll_out_challenger

    count = roll_out_challenger(serve, fields, token_for(os.environ, home()), os.environ.get(KEY_VARIABLE))
    console.print(f"{count} of {count} replicas " + ("size by it too" if fields else "size by no challenger"))
