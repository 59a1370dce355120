"""`journal` and `replay`: whether the journal is as it was written and a decision comes out of it again."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.box import SIMPLE_HEAD
from rich.markup import escape
from rich.table import Table

from cli.console import console, shown
from market.home import home

if TYPE_CHECKING:
    from journal.inspection import Inspection
    from journal.replay import Replay
    from journal.store import Journal
    from serving.what_if import Change

MOST_SHOWN = 20

app = typer.Typer()
group = typer.Typer(help="The journal of signals, decisions, outcomes and models.", no_args_is_help=True)
app.add_typer(group, name="journal")

UrlOption = Annotated[
    str | None,
    typer.Option("--journal", help="SQLAlchemy URL; default: BALLAST_JOURNAL, else the home's own"),
]


@group.command()
def verify(url: UrlOption = None) -> None:
    """Check every record against its chain and what other writers saw; exit code 1 if one was changed."""
    journal = _opened(url)
    inspection = journal.inspect()
    _tell(inspection)
    raise typer.Exit(1 if inspection.faults else 0)


@group.command()
def export(
    folder: Annotated[Path, typer.Argument(help="made by it: one Parquet file for each kind of record")],
    url: UrlOption = None,
) -> None:
    """Write the journal as Parquet files, all of them or none."""
    from journal.export import export as write

    counts = write(_opened(url).read(), folder)
    for kind, count in counts.items():
        console.print(f"{shown(folder.absolute()) / f'{kind}.parquet'}  {count:,} records", highlight=False)
    if not counts:
        console.print("the journal holds no record yet")


@app.command()
def replay(
    decision_id: Annotated[str, typer.Argument(help="as the answer of POST /sizing gave it")],
    why: Annotated[
        bool, typer.Option("--why", help="also the smallest change of one field that flips the tier")
    ] = False,
    url: UrlOption = None,
) -> None:
    """Make a decision again from journal and bundle; exit code 1 unless it comes out the same."""
    from journal.replay import changed_limits
    from journal.replay import replay as again
    from serving.again import request
    from serving.limits_file import LimitsFolder
    from serving.what_if import changes

    bundles = home() / "bundles"
    found = again(
        _opened(url), decision_id, lambda signal, decision: request(bundles, signal, decision).size()
    )
    since = changed_limits(found.decision, LimitsFolder(home()).of(found.decision.account_id).limits)
    _tell_replay(found)
    for one in since:
        console.print(
            f"since then the account's limits changed: {one.field} was {one.journaled}, is {one.now}",
            highlight=False,
        )
    if why and found.now is not None:
        _tell_why(changes(request(bundles, found.signal, found.decision)))
    raise typer.Exit(0 if found.identical else 1)


def _opened(url: str | None) -> "Journal":
    from journal.location import open_journal
    from journal.store import Journal

    return open_journal(home(), "reader", os.environ) if url is None else Journal(url, "reader")


def _tell(inspection: "Inspection") -> None:
    console.print(f"{inspection.records:,} records of {len(inspection.heads):,} writers", highlight=False)
    if inspection.findings:
        table = Table("what", "writer", "number", "record", box=SIMPLE_HEAD)
        table.add_column("detail", overflow="fold")
        for one in inspection.findings[:MOST_SHOWN]:
            table.add_row(
                one.kind,
                escape(one.writer),
                str(one.sequence),
                escape(one.record_id or ""),
                escape(one.detail),
            )
        console.print(table)
        if len(inspection.findings) > MOST_SHOWN:
            console.print(f"and {len(inspection.findings) - MOST_SHOWN:,} more", highlight=False)
    if inspection.faults:
        console.print(f"[red]not as it was written[/]: {len(inspection.faults):,} faults", highlight=False)
        return
    console.print("every chain holds, and nothing that another writer saw is missing or altered")
    unseen = sum(inspection.unanchored.values())
    if unseen:
        console.print(
            f"the newest {unseen:,} records no other writer has seen yet: of them only the chain can tell",
            highlight=False,
        )


def _tell_replay(found: "Replay") -> None:
    decision = found.decision
    console.print(
        f"{escape(decision.symbol)} {decision.side}: {decision.action} ({decision.multiplier:g}x), "
        f"binding rule {decision.binding_rule}, bundle {(decision.bundle or 'none')[:12]}",
        highlight=False,
    )
    table = Table("size", "multiple", "value", "legal", "blocked by", box=SIMPLE_HEAD)
    for rung in decision.ladder:
        value = "" if rung.value is None else f"{rung.value:+.4f}"
        chosen = "[bold]" if rung.action == decision.action else ""
        legal = "yes" if rung.legal else "no"
        table.add_row(f"{chosen}{rung.action}", f"{rung.size:g}x", value, legal, rung.blocked_by or "")
    console.print(table)
    if found.identical:
        console.print("made again: [green]identical[/], to the last bit of size, ladder, mask and propensity")
        return
    console.print(f"made again: [red]not the same[/], {len(found.differences)} differences")
    differences = Table("field", box=SIMPLE_HEAD)
    differences.add_column("journaled", overflow="fold")
    differences.add_column("now", overflow="fold")
    for one in found.differences[:MOST_SHOWN]:
        differences.add_row(escape(one.field), escape(str(one.journaled)), escape(str(one.now)))
    console.print(differences)


def _tell_why(found: "list[Change]") -> None:
    if not found:
        console.print("no field flips the tier within its range")
        return
    table = Table("field", "from", "to", "then", "share of its range", box=SIMPLE_HEAD)
    for change in found[:MOST_SHOWN]:
        table.add_row(
            change.field,
            f"{change.now:.6g}",
            f"{change.value:.6g}",
            change.action,
            f"{100 * change.share:.2f} %",
        )
    console.print("the smallest change of one field that flips the tier, the nearest first")
    console.print(table)
