"""`off-policy`: what a registered model would have earned on the signals that a desk journaled."""

import os
from typing import Annotated

import typer
from rich.box import SIMPLE_HEAD
from rich.markup import escape
from rich.table import Table

from cli.console import console
from market.errors import InputError
from market.home import home

app = typer.Typer()


@app.command("off-policy")
def off_policy(
    version: Annotated[str, typer.Argument(help="number of a registered version, or an alias of one")],
    journal: Annotated[
        str | None,
        typer.Option("--journal", help="database URL of the journal; absent: the one that serving writes"),
    ] = None,
    account: Annotated[
        str | None, typer.Option("--account", help="whose decisions; needed where several are journaled")
    ] = None,
    seed: Annotated[int, typer.Option("--seed", help="seed of the resampling")] = 0,
) -> None:
    """Estimate what a version would have earned on journaled signals, skipped ones included."""
    from evaluation.off_policy import off_policy as estimate
    from journal.history import asked, settled
    from journal.location import journal_url
    from mlops.registry import read_export
    from policies.bundle import open_bundle

    known = read_export(home())
    named = [entry for entry in known if version in (str(entry.version), *entry.aliases)]
    if not named:
        there = ", ".join(str(entry.version) for entry in known) or "none: train one first"
        raise InputError("version", version, f"give one that is registered ({there})")
    url = journal or journal_url(home(), os.environ)
    history = settled(url)
    name, decisions = asked(url, account, history.rows)
    bundle = open_bundle(home() / "bundles", named[0].digest)
    found = estimate(bundle, history.trades, name, decisions, seed=seed)
    table = Table("estimate", box=SIMPLE_HEAD)
    for column in ("R per signal", "95 % interval"):
        table.add_column(column, justify="right")
    table.add_column("what it stands on", overflow="fold")
    for each in found.estimates:
        value = "-" if each.value is None else f"{each.value:+.4f}"
        known_bounds = each.low is not None and each.high is not None
        bounds = f"{each.low:+.4f} to {each.high:+.4f}" if known_bounds else "-"
        table.add_row(each.name, value, bounds, each.note)
    console.print(
        f"version {named[0].version} on the {found.signals:,} settled signals, of {found.days:,} days, that "
        f"account {escape(found.account)} asked about; utility, costs in"
    )
    console.print(table)
    for note in (*history.notes, *found.notes):
        console.print(f"[yellow]note[/]  {escape(note)}")
