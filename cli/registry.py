"""`registry`: the registered models."""

import typer
from rich.box import SIMPLE_HEAD
from rich.table import Table

from cli.console import console
from market.home import home

app = typer.Typer(help="Registered models.", no_args_is_help=True)


@app.command("list")
def registry_list() -> None:
    """All versions, newest first."""
    from mlops.registry import read_export

    versions = read_export(home())
    if not versions:
        console.print("no version is registered yet: train one with `train` or `demo`")
        return
    table = Table("version", "status", "aliases", "bundle", "created (UTC)", box=SIMPLE_HEAD)
    table.add_column("finding", overflow="fold")
    for entry in reversed(versions):
        table.add_row(
            str(entry.version),
            entry.status,
            ", ".join(entry.aliases),
            entry.digest[:12],
            f"{entry.created:%Y-%m-%d %H:%M}",
            entry.tags.get("headline", entry.tags.get("verdict", "not evaluated")),
        )
    console.print(table)
