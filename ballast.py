"""The command line of Ballast: its commands in one application, and what a refusal looks like."""

import sys

import typer
from rich.markup import escape

import cli.data
import cli.demo
import cli.drift
import cli.evaluate
import cli.journal
import cli.keys
import cli.off_policy
import cli.registry
import cli.retrain
import cli.serving
import cli.shadow
import cli.training
from cli.console import complaints
from market.errors import InputError

app = typer.Typer(
    help="Ballast learns how much to bet: a size for each signal, never above your own limits.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
for group in (
    cli.training,
    cli.evaluate,
    cli.data,
    cli.serving,
    cli.demo,
    cli.retrain,
    cli.journal,
    cli.drift,
    cli.off_policy,
):
    app.add_typer(group.app)
app.add_typer(cli.registry.app, name="registry")
app.add_typer(cli.keys.app, name="keys")
app.add_typer(cli.shadow.app, name="shadow")


def main() -> None:
    """Run a command; what was refused is one line and exit code 2."""
    try:
        app(prog_name="ballast")
    except InputError as error:
        complaints.print(f"[red]refused[/] {escape(str(error))}", highlight=False)
        sys.exit(2)


if __name__ == "__main__":
    main()
