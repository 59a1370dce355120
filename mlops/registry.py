"""Which bundles there are and which one is live: register, promote on evidence, roll back, prune.

Knows nothing of what a bundle holds, only how to try whether it opens. Serving uses `read_export` alone,
which never imports MLflow.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from journal.schema import canonical
from market.errors import InputError
from mlops import mlflow_store as store
from mlops.changes import Append, Changes, appender
from mlops.evidence import Evidence
from mlops.versions import (
    MODEL,
    Alias,
    Lineage,
    ModelVersion,
    Status,
    check_transition,
    read_export,
    write_export,
)

if TYPE_CHECKING:
    from mlflow.tracking import MlflowClient

__all__ = ["KEEP", "MODEL", "Lineage", "ModelVersion", "Promotion", "Registry", "Status", "read_export"]

KEEP: Final = 50  # versions kept when one is registered, where `set_keep` never said another number
_DIGEST: Final = re.compile(r"[0-9a-f]{64}")
_NAME: Final = re.compile(r"(?!ballast\.)[\w.\- /]{1,200}", re.ASCII)


@dataclass(frozen=True)
class Promotion:
    """A change of what is live: `version` came for `replaced`, on the evidence or the override it names."""

    version: ModelVersion
    replaced: ModelVersion | None


class Registry:
    """The versions under `home`/registry. Any number of processes may use one at once.

    Every method holds one file lock, so what it checks is still so when it writes. What is live is decided by
    a single write, the alias `production`. The rest follows from it, and is set right by the next use if a
    process dies in between: `previous` names what was live before, `staging` the newest STAGING version that
    is newer than the live one. Every use leaves the JSON export true.

    Every change is journaled as a `model` record by `append`, by default in the journal of `home`. Should the
    journal be out of order, `unjournaled` says why; a change stands all the same, and is told by the next
    use. Nothing goes live that `opens`, given the folder of all bundles and a digest, does not open: by
    default `policies.bundle.open_bundle`.
    """

    def __init__(
        self,
        home: Path,
        *,
        append: Append | None = None,
        opens: Callable[[Path, str], object] | None = None,
    ) -> None:
        if not home.is_absolute():
            raise InputError("home", str(home), "give an absolute folder")
        self.home = home
        self._folder = home / "registry"
        self._changes = Changes(self._folder / "changes.json", append or appender(home, "registry"))
        self.unjournaled: str | None = None
        self._opens = opens or _open_bundle

    def register(
        self,
        digest: str,
        bundle_path: Path,
        tags: Mapping[str, str | int | float | bool] | None = None,
        *,
        metrics: Mapping[str, float] | None = None,
        lineage: Lineage | None = None,
        status: Status = "STAGING",
    ) -> ModelVersion:
        """Register the bundle at `bundle_path`; a bundle registered before gives its version, unchanged.

        `tags` and `metrics` (finite numbers) describe it. `status` is STAGING, or TRAINING where somebody
        will still judge whether it may be a candidate at all. Old versions are pruned, see `set_keep`.
        """
        figures = dict(metrics or {})
        described = _described(digest, bundle_path, tags or {}, figures, status)
        described |= {} if lineage is None else store.lineage_tags(lineage)
        with self._opened() as (client, versions):
            known = _by_digest(versions, digest)
            if known is not None:
                return known
            number = store.create(client, bundle_path, described, figures)
            versions = store.settle(client)
            _prune(client, versions, _keep(client))
            return _version(versions, number)

    def versions(self) -> list[ModelVersion]:
        """All versions, oldest first."""
        with self._opened() as (_, versions):
            return versions

    def version(self, number: int) -> ModelVersion:
        """The version of that number; `InputError` if there is none."""
        with self._opened() as (_, versions):
            return _version(versions, number)

    def by_digest(self, digest: str) -> ModelVersion | None:
        """The version of the bundle of that digest, or None."""
        with self._opened() as (_, versions):
            return _by_digest(versions, digest)

    def transition(self, number: int, status: Status) -> ModelVersion:
        """Move a version to STAGING or ARCHIVED; to archive the one in production leaves production empty.

        PRODUCTION is reached by `promote` and `rollback` alone.
        """
        with self._opened() as (client, versions):
            version = _version(versions, number)
            check_transition(version, status)
            if status == "PRODUCTION":
                raise InputError("status", status, "promote the version, on evidence")
            if "production" in version.aliases:
                store.drop_alias(client, "production")
            else:
                store.set_tag(client, number, "status", status)
            return _version(store.settle(client), number)

    def promote(
        self, number: int, evidence: Evidence | None = None, *, override: str | None = None
    ) -> Promotion:
        """Make a STAGING version the one in PRODUCTION; the one it replaces becomes `previous`.

        Needs passing `evidence` for exactly its bundle, judged against exactly the bundle that is in
        production now, so that of two promotions judged against the same champion only the first succeeds; or
        else the reason for an `override`. To promote what is in production already changes nothing. A bundle
        that does not open whole is refused, by an override too.
        """
        with self._opened() as (client, versions):
            version, champion = _version(versions, number), _holder(versions, "production")
            if version == champion:
                return Promotion(version, None)
            check_transition(version, "PRODUCTION")
            _check_support(version, champion, evidence, override)
            self._opens(version.path.parent, version.digest)
            if evidence is not None:
                evidence.save(self._folder / "evidence" / f"{evidence.digest}.json")
            store.set_tag(client, number, "evidence", evidence.digest if evidence else "")
            store.set_tag(client, number, "override", override or "")
            return _made_live(client, version, champion)

    def rollback(self) -> Promotion:
        """Put the version `previous` back into production; the one it replaces becomes `previous` in turn.

        A bundle that does not open whole any more is refused, and what is live stays.
        """
        with self._opened() as (client, versions):
            live, previous = _holder(versions, "production"), _holder(versions, "previous")
            if previous is None:
                raise InputError("previous", None, "no earlier production version to go back to: promote one")
            self._opens(previous.path.parent, previous.digest)
            return _made_live(client, previous, live)

    def keep(self) -> int:
        """How many versions are kept when one is registered."""
        with self._opened() as (client, _):
            return _keep(client)

    def set_keep(self, number: int) -> None:
        """Keep so many versions from now on, whoever registers: the setting lies in the registry itself."""
        _check_keep(number)
        with self._opened() as (client, _):
            store.set_keep(client, number)

    def prune(self, keep: int | None = None) -> list[ModelVersion]:
        """Forget all but the newest `keep` versions (default: `self.keep()`); those forgotten, oldest first.

        What an alias names stays, and what is still TRAINING. Bundles and evidence stay on the disk:
        journaled decisions are replayed from them.
        """
        if keep is not None:
            _check_keep(keep)
        with self._opened() as (client, versions):
            return _prune(client, versions, _keep(client) if keep is None else keep)

    def export(self) -> Path:
        """Write all versions to `home`/registry/export.json, whole or not at all; its path."""
        with self._opened() as (_, versions):
            return write_export(self.home, versions)

    @contextmanager
    def _opened(self) -> Iterator[tuple[MlflowClient, list[ModelVersion]]]:
        """MLflow, for us alone, and the versions there; journal and export know afterwards what was done."""
        with store.opened(self._folder) as client:
            versions = store.settle(client)
            self.unjournaled = self._changes.tell(versions)
            yield client, versions
            versions = store.read_all(client)
            self.unjournaled = self._changes.tell(versions)
            write_export(self.home, versions)


def _open_bundle(root: Path, digest: str) -> object:
    from policies.bundle import open_bundle  # with all that a policy computes with: on use

    return open_bundle(root, digest)


def _keep(client: MlflowClient) -> int:
    kept = store.keep(client)
    return KEEP if kept is None else kept


def _check_keep(number: int) -> None:
    if number < 0:
        raise InputError("keep", number, "give 0 or more")


def _prune(client: MlflowClient, versions: Sequence[ModelVersion], keep: int) -> list[ModelVersion]:
    """Forget old ones of the versions; those forgotten, oldest first."""
    old = versions[: max(len(versions) - keep, 0)]
    forgotten = [version for version in old if not version.aliases and version.status != "TRAINING"]
    for version in forgotten:
        store.forget(client, version.version)
    return forgotten


def _made_live(client: MlflowClient, version: ModelVersion, live: ModelVersion | None) -> Promotion:
    """Let `version` take the place of `live`: one write, and all that follows from it."""
    store.set_alias(client, "production", version.version)
    versions = store.settle(client)
    replaced = None if live is None else _version(versions, live.version)
    return Promotion(_version(versions, version.version), replaced)


def _described(
    digest: str, bundle_path: Path, tags: Mapping[str, Any], metrics: Mapping[str, float], status: str
) -> dict[str, str]:
    """The tags of a new version; an `InputError` for anything that MLflow or the export could not hold."""
    if not _DIGEST.fullmatch(digest):
        raise InputError("digest", digest, "give the bundle's SHA-256 as 64 lower-case hex digits")
    if not (bundle_path.is_absolute() and bundle_path.is_dir()):
        raise InputError("bundle_path", str(bundle_path), "give the absolute folder of a bundle that exists")
    if status not in ("TRAINING", "STAGING"):
        raise InputError("status", status, "register as TRAINING or STAGING")
    for name in (*tags, *metrics):
        if not _NAME.fullmatch(name):
            raise InputError("tags", name, "give a name of letters, digits and `._-/`; `ballast.` is ours")
    own = {"digest": digest, "status": status, "metrics": canonical(metrics, "metrics")}
    described = {name: str(value) for name, value in tags.items()}
    return described | {store.OWN + name: value for name, value in own.items()}


def _version(versions: Sequence[ModelVersion], number: int) -> ModelVersion:
    numbered = {version.version: version for version in versions}
    if number not in numbered:
        known = ", ".join(map(str, numbered))
        raise InputError("version", number, f"give one of {known}" if known else "register a bundle first")
    return numbered[number]


def _by_digest(versions: Sequence[ModelVersion], digest: str) -> ModelVersion | None:
    return next((version for version in versions if version.digest == digest), None)


def _holder(versions: Sequence[ModelVersion], alias: Alias) -> ModelVersion | None:
    return next((version for version in versions if alias in version.aliases), None)


def _check_support(
    version: ModelVersion, champion: ModelVersion | None, evidence: Evidence | None, override: str | None
) -> None:
    """Refuse a promotion that neither evidence nor an override supports."""
    if evidence is not None:
        evidence.check_bundle(version.digest)
    if override is not None:
        if not override.strip():
            raise InputError("override", override, "give the reason in words")
        return
    if evidence is None:
        mend = f"give passing evidence for bundle {version.digest}, or the reason for an override"
        raise InputError("evidence", None, mend)
    if not evidence.verdict.passed:
        raise InputError("evidence.verdict", evidence.verdict.reasons, "the gate is shut: improve the model")
    live = None if champion is None else champion.digest
    if evidence.champion != live:
        mend = f"in production now is {live or 'no model'}: evaluate against that"
        raise InputError("evidence.champion", evidence.champion, mend)
