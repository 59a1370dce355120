"""`keys`: who may ask the endpoints, and how often."""

from typing import Annotated

import typer
from rich.box import SIMPLE_HEAD
from rich.markup import escape
from rich.table import Table

from cli.console import console
from market.home import home

app = typer.Typer(help="Who may ask the endpoints, and how often.", no_args_is_help=True)
NameArgument = Annotated[str, typer.Argument(help="name of the key")]


@app.command()
def add(
    name: NameArgument,
    rate: Annotated[
        float | None,
        typer.Option(help="requests per second to each of the applications; default: no limit"),
    ] = None,
) -> None:
    """Make a key and print it, this once; running endpoints ask for one from then on."""
    from serving import keys

    console.print(keys.add(home(), name, rate), markup=False, highlight=False)


@app.command("list")
def keys_list() -> None:
    """Names and rates; the keys themselves are kept nowhere."""
    from serving import keys

    found = keys.listed(home())
    if not found:
        console.print("no key: the endpoints, on loopback alone, ask for none; `keys add NAME` makes one")
        return
    table = Table("name", "requests per second", "SHA-256", "created (UTC)", box=SIMPLE_HEAD)
    for key in found:
        rate = "no limit" if key.rate is None else f"{key.rate:g}"
        created = "" if key.created is None else f"{key.created:%Y-%m-%d %H:%M}"
        table.add_row(escape(key.name), rate, key.sha256[:12], created)
    console.print(table)


@app.command()
def revoke(name: NameArgument) -> None:
    """Take a key away, from the next request on."""
    from serving import keys

    keys.revoke(home(), name)
    left = len(keys.listed(home()))
    console.print(f"revoked; {left} left" + ("" if left else ": the endpoints refuse everybody, add a key"))
