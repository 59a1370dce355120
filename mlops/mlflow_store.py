"""Model versions in MLflow: open its database, read, add and forget versions, keep the aliases true.

Knows nothing of evidence, nor of who may promote what. MLflow is imported on use: it takes two seconds and
170 MB.
"""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import asdict
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from filelock import FileLock, Timeout
from pydantic import TypeAdapter, ValidationError

from market.errors import InputError
from mlops.evidence import first_fault
from mlops.versions import MODEL, Lineage, ModelVersion, read_export

if TYPE_CHECKING:
    from mlflow.tracking import MlflowClient

LOCK_SECONDS: Final = 300  # the first use makes some fifty tables, and others may be waiting before us
OWN: Final = "ballast."  # the tags with this prefix are ours
LINEAGE: Final = OWN + "lineage."  # one tag a field, so that MLflow's pages can search by each

_MODEL_VERSION: Final = TypeAdapter(ModelVersion)


@contextmanager
def opened(folder: Path) -> Iterator[MlflowClient]:
    """MLflow's client on the database in `folder`, made on first use, while no other process has it."""
    # Read when MLflow is imported; its telemetry thread would change os.environ under whoever copies it.
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "WARNING")
    from mlflow.exceptions import MlflowException
    from mlflow.tracking import MlflowClient

    folder.mkdir(parents=True, exist_ok=True)
    database = folder / "mlflow.db"
    try:
        with FileLock(folder / "registry.lock", timeout=LOCK_SECONDS):
            _check_database(database)
            url = f"sqlite:///{database}"
            client = MlflowClient(tracking_uri=url, registry_uri=url)
            # Without an artifact root of its own MLflow would write to ./mlruns of the working folder.
            if client.get_experiment_by_name(MODEL) is None:
                client.create_experiment(MODEL, artifact_location=(folder / "artifacts").as_uri())
            if not client.search_registered_models(f"name='{MODEL}'"):
                client.create_registered_model(MODEL)
            yield client
    except Timeout:
        mend = f"another process has held the registry for {LOCK_SECONDS} s: wait for it, or end it"
        raise InputError("registry", str(folder), mend) from None
    except MlflowException as error:
        raise InputError("registry", str(database), f"MLflow refused it: {error.message}") from error
    except OSError as error:
        mend = f"see to the disk ({error.strerror}); what was live before is still live, or the next use ends"
        raise InputError("registry", str(folder), f"{mend} what was begun") from error


def create(client: MlflowClient, path: Path, tags: Mapping[str, str], metrics: Mapping[str, float]) -> int:
    """The number of a new version for the bundle at `path`; it appears with all its tags, or not at all."""
    from mlflow.entities import Metric

    experiment = client.get_experiment_by_name(MODEL)
    assert experiment is not None, "opened() made it"
    run = client.create_run(experiment.experiment_id, tags=dict(tags)).info
    if metrics:
        figures = [Metric(name, value, run.start_time, 0) for name, value in metrics.items()]
        client.log_batch(run.run_id, figures)
    client.set_terminated(run.run_id)
    version = client.create_model_version(MODEL, source=str(path), run_id=run.run_id, tags=dict(tags))
    return int(version.version)


def forget(client: MlflowClient, number: int) -> None:
    """Take a version and its run out of MLflow; the caller sees to it that no alias names it."""
    run = client.get_model_version(MODEL, str(number)).run_id
    client.delete_model_version(MODEL, str(number))
    if run:
        client.delete_run(run)


def set_alias(client: MlflowClient, alias: str, number: int) -> None:
    """Let `alias` name the version of that number, and no other."""
    client.set_registered_model_alias(MODEL, alias, str(number))


def drop_alias(client: MlflowClient, alias: str) -> None:
    """Let `alias` name no version."""
    client.delete_registered_model_alias(MODEL, alias)


def set_tag(client: MlflowClient, number: int, name: str, value: str) -> None:
    """Set one of our own tags (`status`, `evidence`, ...) of a version; an empty one counts as none."""
    client.set_model_version_tag(MODEL, str(number), OWN + name, value)


def keep(client: MlflowClient) -> int | None:
    """How many versions are kept when one is registered; None where that was never said."""
    kept = client.get_registered_model(MODEL).tags.get(OWN + "keep")
    return None if kept is None else int(kept)


def set_keep(client: MlflowClient, number: int) -> None:
    """Say how many versions are kept from now on."""
    client.set_registered_model_tag(MODEL, OWN + "keep", str(number))


def read_all(client: MlflowClient) -> list[ModelVersion]:
    """All versions, oldest first; one that Ballast did not register is an `InputError`."""
    aliases: dict[int, list[str]] = {}
    for alias, number in sorted(client.get_registered_model(MODEL).aliases.items()):
        aliases.setdefault(int(number), []).append(alias)
    found = client.search_model_versions(f"name='{MODEL}'", max_results=10_000)
    versions = [_read(entry, tuple(aliases.get(int(entry.version), ()))) for entry in found]
    return sorted(versions, key=lambda version: version.version)


def settle(client: MlflowClient) -> list[ModelVersion]:
    """All versions, oldest first, after statuses, `previous` and `staging` follow what `production` names."""
    versions = read_all(client)
    writes = list(_to_settle(client, versions))
    for write in writes:
        write()
    return read_all(client) if writes else versions


def _to_settle(client: MlflowClient, versions: list[ModelVersion]) -> Iterator[Callable[[], None]]:
    """The writes that are missing, in their order."""
    live = next((version for version in versions if "production" in version.aliases), None)
    outgoing = [version for version in versions if version.status == "PRODUCTION" and version != live]
    for version in outgoing:
        yield partial(set_alias, client, "previous", version.version)
        yield partial(set_tag, client, version.version, "status", "ARCHIVED")
    if live is not None and "previous" in live.aliases and not outgoing:
        yield partial(drop_alias, client, "previous")
    if live is not None and live.status != "PRODUCTION":
        yield partial(set_tag, client, live.version, "status", "PRODUCTION")
    first = 0 if live is None else live.version + 1
    waiting = [version for version in versions if version.status == "STAGING" and version.version >= first]
    if waiting and "staging" not in waiting[-1].aliases:
        yield partial(set_alias, client, "staging", waiting[-1].version)
    elif not waiting and any("staging" in version.aliases for version in versions):
        yield partial(drop_alias, client, "staging")


def pages(folder: Path, port: int) -> tuple[list[str], dict[str, str]]:
    """The arguments and variables with which Python shows MLflow's pages on 127.0.0.1, of the database in
    `folder`.

    The pages alone: no artifacts, one worker, none of the job runners that take two gigabytes.
    """
    arguments = [
        "-m", "mlflow", "server", "--backend-store-uri", f"sqlite:///{folder / 'mlflow.db'}",
        "--default-artifact-root", (folder / "artifacts").as_uri(), "--no-serve-artifacts",
        "--host", "127.0.0.1", "--port", str(port), "--workers", "1",
    ]  # fmt: skip
    quiet = {"MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    return arguments, quiet


def lineage_tags(lineage: Lineage) -> dict[str, str]:
    """The tags that a version's lineage is kept in."""
    told = {name: str(value) for name, value in asdict(lineage).items() if value is not None}
    told["seeds"] = ",".join(map(str, lineage.seeds))
    return {LINEAGE + name: value for name, value in told.items()}


def _lineage(tags: Mapping[str, str]) -> dict[str, Any] | None:
    found: dict[str, Any] = {
        name.removeprefix(LINEAGE): value for name, value in tags.items() if name.startswith(LINEAGE)
    }
    return found | {"seeds": found.get("seeds", "").split(",")} if found else None


def _read(entry: Any, aliases: tuple[str, ...]) -> ModelVersion:
    """MLflow's version as ours."""
    own = {name.removeprefix(OWN): value for name, value in entry.tags.items() if name.startswith(OWN)}
    fields = {
        "version": int(entry.version),
        "digest": own.get("digest"),
        "path": entry.source,
        "status": own.get("status"),
        "created": datetime.fromtimestamp(entry.creation_timestamp / 1000, UTC),
        "tags": {name: value for name, value in entry.tags.items() if not name.startswith(OWN)},
        "aliases": aliases,
        "evidence": own.get("evidence") or None,
        "override": own.get("override") or None,
        "lineage": _lineage(entry.tags),
    }
    try:
        return _MODEL_VERSION.validate_python(fields | {"metrics": json.loads(own.get("metrics", "{}"))})
    except (ValidationError, json.JSONDecodeError) as error:
        cause = first_fault(error) if isinstance(error, ValidationError) else str(error)
        mend = f"was not registered by Ballast: delete it in MLflow ({cause})"
        raise InputError("version", fields["version"], mend) from error


def _check_database(database: Path) -> None:
    """Refuse a broken file at once, for which MLflow would retry for minutes, and a lost one, for which it
    would make an empty registry.
    """
    if not database.exists() or not database.stat().st_size:
        if read_export(database.parent.parent):
            mend = "is lost, but export.json lists versions: put a copy back in its place, or remove both"
            raise InputError("registry", str(database), mend)
        return
    try:
        with closing(sqlite3.connect(f"{database.as_uri()}?mode=ro", uri=True)) as connection:
            found = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
        if found != "ok":
            raise sqlite3.DatabaseError(found)
    except sqlite3.Error as error:
        mend = f"put a copy back in its place ({error}); export.json still holds the last good state"
        raise InputError("registry", str(database), mend) from error
