"""`serve`: the three endpoints on this machine."""

import signal
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Annotated

import typer
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from cli.console import console
from market.errors import ConfigError
from market.home import home

if TYPE_CHECKING:
    from serving.launch import Server

STOPS = {signal.SIGINT, signal.SIGTERM}

app = typer.Typer()


@app.command()
def serve(
    port: Annotated[int, typer.Option(help="port of the three endpoints on 127.0.0.1")] = 8100,
    version: Annotated[
        int | None, typer.Option(help="registered version; default: PRODUCTION, else the rule alone")
    ] = None,
    staging: Annotated[
        bool, typer.Option("--staging", help="serve the newest STAGING version, and say so")
    ] = False,
) -> None:
    """Serve /features, /sizing and /narratives until interrupted."""
    digest, status = _served(version, staging)
    if digest is None:
        console.print(
            "no model to serve: /sizing answers the rule's own size, and says so (--staging, --version)"
        )
    with endpoints(digest, status, port) as server:
        url = server.url
        console.print(f"{url}/features  {url}/sizing  {url}/narratives  Ctrl-C stops them")
        console.print(f"another version, without a restart: registry promote N --serve {server.dashboard}")
        console.print(f"metrics for Prometheus: {server.metrics}")
        _until_interrupted()


@contextmanager
def endpoints(digest: str | None, status: str, port: int) -> Iterator["Server"]:
    """The three endpoints for the block; what is being waited for is on the terminal meanwhile."""
    from serving.launch import serving

    console.print("starting Ray Serve on this machine ...")
    with ExitStack() as served:
        with Progress(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            TimeElapsedColumn(),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        ) as shown:
            task = shown.add_task("")
            server = served.enter_context(
                serving(home(), digest, status, port, lambda text: shown.update(task, description=text))
            )
        yield server


def _served(version: int | None, staging: bool) -> tuple[str | None, str]:
    """The digest to serve and its status; no model is no error: the rule's tier is answered."""
    from mlops.registry import read_export

    entries = read_export(home())
    if version is not None:
        chosen = [entry for entry in entries if entry.version == version]
        if not chosen:
            known = ", ".join(str(entry.version) for entry in entries)
            mend = f"the versions are {known}" if known else "no version is registered yet: train one first"
            raise ConfigError("--version", version, mend)
    else:
        chosen = [entry for entry in entries if entry.status == ("STAGING" if staging else "PRODUCTION")]
    return (chosen[-1].digest, chosen[-1].status) if chosen else (None, "NONE")


def _until_interrupted() -> None:
    """Wait for Ctrl-C or SIGTERM."""
    signal.pthread_sigmask(signal.SIG_BLOCK, STOPS)
    signal.sigwait(STOPS)
