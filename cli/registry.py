"""`registry`: the registered models, and which of them is live."""

import os
import sys
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.box import SIMPLE_HEAD
from rich.markup import escape
from rich.table import Table

from cli.console import console, warn
from market.errors import ConfigError, InputError
from market.home import home

if TYPE_CHECKING:
    from mlops.registry import Promotion, Registry
    from mlops.versions import ModelVersion

app = typer.Typer(help="Registered models, and which of them is live.", no_args_is_help=True)
ServeOption = Annotated[
    str | None,
    typer.Option(
        "--serve",
        help="address of the Ray dashboard of a running service, which takes the version without a restart; "
        "BALLAST_API_KEY where its endpoints ask for a key",
    ),
]
VersionArgument = Annotated[int, typer.Argument(help="number of a version, as `registry list` shows it")]


@app.command("list")
def registry_list() -> None:
    """All versions, newest first."""
    from mlops.versions import read_export

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
            _finding(entry),
        )
    console.print(table)


@app.command()
def show(version: VersionArgument) -> None:
    """One version: its status, what it was made of, and what its promotion stands on."""
    from mlops.versions import read_export

    numbered = {entry.version: entry for entry in read_export(home())}
    if version not in numbered:
        known = ", ".join(map(str, numbered))
        raise ConfigError("version", version, f"give one of {known}" if known else "train one first")
    entry = numbered[version]
    numbers = {one.digest: str(one.version) for one in numbered.values()}
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    rows: list[tuple[str, object]] = [
        ("version", " ".join([str(entry.version), entry.status, *(f"@{alias}" for alias in entry.aliases)])),
        ("bundle", entry.digest),
        ("folder", entry.path),
        ("created", f"{entry.created:%Y-%m-%d %H:%M:%S} UTC"),
        ("evidence", entry.evidence),
        ("override", entry.override),
    ]
    if (lineage := entry.lineage) is not None:
        parent = lineage.parent
        rows += [
            ("data digest", lineage.data),
            ("features", lineage.features),
            ("configuration", lineage.config),
            ("seeds", ", ".join(map(str, lineage.seeds))),
            ("parent", parent and f"{parent} (version {numbers.get(parent, 'no longer kept')})"),
        ]
    rows += sorted(entry.tags.items())
    rows += [(name, f"{value:.6g}") for name, value in sorted(entry.metrics.items())]
    for name, value in rows:
        if value is not None:
            table.add_row(name, escape(str(value)))
    console.print(table)


@app.command()
def promote(
    version: VersionArgument,
    evidence: Annotated[
        Path | None, typer.Option(help="evidence file; default: the newest for its bundle that evaluate left")
    ] = None,
    override: Annotated[
        str | None, typer.Option(help="promote without passing evidence, for this reason; it is journaled")
    ] = None,
    serve: ServeOption = None,
) -> None:
    """Make a STAGING version live, on evidence that passed the gate; with --serve also where it is served."""
    from mlops.evidence import Evidence, newest

    _check_served(serve)
    registry = _registry()
    chosen = registry.version(version)
    if chosen.status == "PRODUCTION":
        console.print(f"version {version} is in PRODUCTION already; nothing was changed")
    else:
        digest = chosen.digest
        support = None if evidence is None else Evidence.load(evidence, digest)
        if support is None and override is None:
            support = newest(home() / "evidence", digest)
        _made_live(registry, registry.promote(version, support, override=override))
    _served(registry.version(version), serve)


@app.command()
def rollback(serve: ServeOption = None) -> None:
    """Put the version that was live before back into production; with --serve also where it is served."""
    _check_served(serve)
    registry = _registry()
    promotion = registry.rollback()
    _made_live(registry, promotion)
    _served(promotion.version, serve)


@app.command()
def prune(
    keep: Annotated[int | None, typer.Option(help="versions to keep; default: as many as always")] = None,
    always: Annotated[
        bool, typer.Option("--always", help="keep so many from now on, whenever one is registered")
    ] = False,
) -> None:
    """Forget old versions, but none that an alias names; bundles and evidence stay on the disk."""
    if always and keep is None:
        raise ConfigError("--always", None, "give --keep with it")
    registry = _registry()
    if always and keep is not None:
        registry.set_keep(keep)
    forgotten = registry.prune(keep)
    numbers = ", ".join(str(version.version) for version in forgotten) or "none"
    console.print(f"forgotten {numbers}; the newest {registry.keep()} are kept when one is registered")
    _tell_unjournaled(registry)


@app.command()
def export() -> None:
    """Write the JSON export that serving reads, and say where."""
    registry = _registry()
    console.print(str(registry.export()), markup=False)
    _tell_unjournaled(registry)


@app.command()
def ui(port: Annotated[int, typer.Option(help="port on 127.0.0.1")] = 5070) -> None:
    """Open MLflow's own pages on the registry, on this machine alone, until interrupted."""
    try:
        metadata.version("mlflow")
    except metadata.PackageNotFoundError:
        mend = "the pages are not in it; they come with: pip install '.[ui]'"
        raise ConfigError("mlflow", "mlflow-skinny alone", mend) from None
    from mlops.mlflow_store import pages

    _registry().export()  # the first use makes the database, whoever comes first
    arguments, environment = pages(home() / "registry", port)
    console.print(f"http://127.0.0.1:{port}  Ctrl-C stops it; what is changed there, the next use journals")
    os.execve(sys.executable, [sys.executable, *arguments], {**os.environ, **environment})


def _registry() -> "Registry":
    from mlops.registry import Registry

    return Registry(home())


def _check_served(dashboard: str | None) -> None:
    """Refuse, before anything changes, where nothing is served behind `dashboard`."""
    if dashboard is not None:
        from serving.cluster import deployed, token_for

        deployed(dashboard, token_for(os.environ, home()))


def _made_live(registry: "Registry", promotion: "Promotion") -> None:
    """Tell what is live now."""
    live, replaced = promotion.version, promotion.replaced
    instead = "" if replaced is None else f", in place of version {replaced.version}"
    console.print(f"version {live.version} is in PRODUCTION{instead}; bundle {live.digest}")
    _tell_unjournaled(registry)


def _served(live: "ModelVersion", dashboard: str | None) -> None:
    """Have the service behind `dashboard`, if one is given, answer from the live version."""
    if dashboard is None:
        return
    from serving.cluster import token_for
    from serving.rollout import KEY_VARIABLE, roll_out

    try:
        token, key = token_for(os.environ, home()), os.environ.get(KEY_VARIABLE)
        count = roll_out(dashboard, live.path, live.status, token, key)
    except InputError as error:
        again = f"the registry has version {live.version} live, the service may not: once that is mended, "
        again += f"`registry promote {live.version} --serve {dashboard}`"
        raise type(error)(error.field, error.value, f"{error.mend}; {again}") from error
    console.print(f"{count} of {count} replicas answer from it")


def _tell_unjournaled(registry: "Registry") -> None:
    if registry.unjournaled is not None:
        warn(
            f"done, but not journaled yet; the next use of the registry tries again ({registry.unjournaled})"
        )


def _finding(entry: "ModelVersion") -> str:
    return entry.tags.get("headline", entry.tags.get("verdict", "not evaluated"))
