"""Which bundles there are and which one is live: register, promote on evidence, roll back, prune.

Knows nothing of what a bundle holds. Serving uses `read_export` alone, which never imports MLflow.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from journal.schema import canonical
from market.errors import InputError
from mlops import mlflow_store as store
from mlops.evidence import Evidence
from mlops.versions import MODEL, Alias, ModelVersion, Status, check_transition, read_export, write_export

if TYPE_CHECKING:
    from mlflow.tracking import MlflowClient

__all__ = ["MODEL", "ModelVersion", "Promotion", "Registry", "Status", "read_export"]

_DIGEST: Final = re.compile(r"[0-9a-f]{64}")
_NAME: Final = re.compile(r"(?!ballast\.)[\w.\- /]{1,200}", re.ASCII)


@dataclass(frozen=True)
class Promotion:
    """A change of what is live, for the caller to journal: `version` came for `replaced`.

    It stands on the evidence of that digest, or on the reason for an `override`.
    """

    version: ModelVersion
    replaced: ModelVersion | None
    evidence: str | None = None
    override: str | None = None


class Registry:
    """The versions under `home`/registry. Any number of processes may use one at once.

    Every method holds one file lock, so what it checks is still so when it writes. What is live is decided by
    a single write, the alias `production`. The rest follows from it, and is set right by the next use if a
    process dies in between: `previous` names what was live before, `staging` the newest STAGING version that
    is newer than the live one. Every use leaves the JSON export true.
    """

    def __init__(self, home: Path) -> None:
        if not home.is_absolute():
            raise InputError("home", str(home), "give an absolute folder")
        self.home = home
        self._folder = home / "registry"

    def register(
        self,
        digest: str,
        bundle_path: Path,
        tags: Mapping[str, str | int | float | bool] | None = None,
        *,
        metrics: Mapping[str, float] | None = None,
        status: Status = "STAGING",
    ) -> ModelVersion:
        """Register the bundle at `bundle_path`; a bundle registered before gives its version, unchanged.

        `tags` and `metrics` (finite numbers) describe it. `status` is TRAINING or STAGING.
        """
        figures = dict(metrics or {})
        described = _described(digest, bundle_path, tags or {}, figures, status)
        with self._opened() as client:
            known = _by_digest(client, digest)
            number = store.create(client, bundle_path, described, figures) if known is None else known.version
            return _settled(client, number)

    def versions(self) -> list[ModelVersion]:
        """All versions, oldest first."""
        with self._opened() as client:
            return store.read_all(client)

    def version(self, number: int) -> ModelVersion:
        """The version of that number; `InputError` if there is none."""
        with self._opened() as client:
            return _version(client, number)

    def by_digest(self, digest: str) -> ModelVersion | None:
        """The version of the bundle of that digest, or None."""
        with self._opened() as client:
            return _by_digest(client, digest)

    def transition(self, number: int, status: Status) -> ModelVersion:
        """Move a version to STAGING or ARCHIVED; to archive the one in production leaves production empty.

        PRODUCTION is reached by `promote` and `rollback` alone.
        """
        with self._opened() as client:
            version = _version(client, number)
            check_transition(version, status)
            if status == "PRODUCTION":
                raise InputError("status", status, "promote the version, on evidence")
            if "production" in version.aliases:
                store.drop_alias(client, "production")
            else:
                store.set_tag(client, number, "status", status)
            return _settled(client, number)

    def promote(
        self, number: int, evidence: Evidence | None = None, *, override: str | None = None
    ) -> Promotion:
        """Make a STAGING version the one in PRODUCTION; the one it replaces becomes `previous`.

        Needs passing `evidence` for exactly its bundle, judged against exactly the bundle that is in
        production now, so that of two promotions judged against the same champion only the first succeeds; or
        else the reason for an `override`. To promote what is in production already changes nothing.
        """
        with self._opened() as client:
            version, champion = _version(client, number), _holder(client, "production")
            if version == champion:
                return Promotion(version, None, version.evidence)
            check_transition(version, "PRODUCTION")
            _check_support(version, champion, evidence, override)
            if evidence is not None:
                evidence.save(self._folder / "evidence" / f"{evidence.digest}.json")
                store.set_tag(client, number, "evidence", evidence.digest)
            if override is not None:
                store.set_tag(client, number, "override", override)
            store.set_alias(client, "production", number)
            live = _settled(client, number)
            replaced = None if champion is None else _version(client, champion.version)
            return Promotion(live, replaced, evidence.digest if evidence else None, override)

    def rollback(self) -> Promotion:
        """Put the version `previous` back into production; the one it replaces becomes `previous` in turn."""
        with self._opened() as client:
            live, previous = _holder(client, "production"), _holder(client, "previous")
            if previous is None:
                raise InputError("previous", None, "no earlier production version to go back to: promote one")
            store.set_alias(client, "production", previous.version)
            back = _settled(client, previous.version)
            replaced = None if live is None else _version(client, live.version)
            return Promotion(back, replaced, back.evidence)

    def prune(self, keep: int) -> list[ModelVersion]:
        """Forget all but the newest `keep` versions and those an alias names; those forgotten, oldest first.

        Bundles stay on the disk: journaled decisions are replayed from them.
        """
        if keep < 0:
            raise InputError("keep", keep, "give 0 or more")
        with self._opened() as client:
            versions = store.read_all(client)
            old = versions[: max(len(versions) - keep, 0)]
            forgotten = [version for version in old if not version.aliases]
            for version in forgotten:
                store.forget(client, version.version)
            return forgotten

    def export(self) -> Path:
        """Write all versions to `home`/registry/export.json, whole or not at all; its path."""
        with self._opened() as client:
            return write_export(self.home, store.read_all(client))

    @contextmanager
    def _opened(self) -> Iterator[MlflowClient]:
        """MLflow, for us alone; whatever was done there stands in the export afterwards."""
        with store.opened(self._folder) as client:
            store.settle(client)
            yield client
            write_export(self.home, store.read_all(client))


def _settled(client: MlflowClient, number: int) -> ModelVersion:
    """The version of that number, after all that follows from a change was done."""
    store.settle(client)
    return _version(client, number)


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


def _version(client: MlflowClient, number: int) -> ModelVersion:
    versions = {version.version: version for version in store.read_all(client)}
    if number not in versions:
        known = ", ".join(map(str, versions))
        raise InputError("version", number, f"give one of {known}" if known else "register a bundle first")
    return versions[number]


def _by_digest(client: MlflowClient, digest: str) -> ModelVersion | None:
    return next((version for version in store.read_all(client) if version.digest == digest), None)


def _holder(client: MlflowClient, alias: Alias) -> ModelVersion | None:
    return next((version for version in store.read_all(client) if alias in version.aliases), None)


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
