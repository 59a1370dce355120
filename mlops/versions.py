"""What a registered version is, and the JSON export through which serving learns of all of them.

Knows nothing of MLflow, nor of what a bundle holds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, Final, Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, FiniteFloat, ValidationError, field_validator

from market.errors import InputError
from market.home import write_atomically
from mlops.evidence import BundleDigest, first_fault

MODEL: Final = "ballast-sizer"
Status = Literal["TRAINING", "STAGING", "PRODUCTION", "ARCHIVED"]
Alias = Literal["production", "previous", "staging"]
TRANSITIONS: Final[Mapping[str, tuple[str, ...]]] = {
    "TRAINING": ("STAGING", "ARCHIVED"),
    "STAGING": ("PRODUCTION", "ARCHIVED"),
    "PRODUCTION": ("ARCHIVED",),
    "ARCHIVED": ("STAGING",),  # back to PRODUCTION only by rollback, or through STAGING with new evidence
}


@dataclass(frozen=True)
class Lineage:
    """What a bundle was made of.

    `data`, `features` and `config` are digests: of all bars it was trained on, of the definition of the
    features, of the training's configuration. `seeds` are all that were trained, though one was registered.
    `parent` is the bundle that was in production when training began, or that a retraining started from.
    """

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    data: str
    features: str
    config: str
    seeds: tuple[int, ...]
    parent: BundleDigest | None = None


@dataclass(frozen=True)
class ModelVersion:
    """One registered bundle.

    `digest` is the bundle's, `path` its absolute folder, `lineage` what it was made of, where that was told.
    It was last promoted on the evidence of the digest `evidence`, or for the reason `override`.
    """

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    version: int
    digest: BundleDigest
    path: Path
    status: Status
    created: AwareDatetime
    tags: Mapping[str, str] = field(default_factory=dict)
    metrics: Mapping[str, FiniteFloat] = field(default_factory=dict)
    aliases: tuple[Alias, ...] = ()
    evidence: str | None = None
    override: str | None = None
    lineage: Lineage | None = None


def check_transition(version: ModelVersion, status: str) -> None:
    """Raise `InputError` unless the state machine has a way from the version's status to `status`."""
    allowed = TRANSITIONS[version.status]
    if status not in allowed:
        mend = f"version {version.version} is {version.status}: from there only {' or '.join(allowed)}"
        raise InputError("status", status, mend)


class _Export(BaseModel):
    """The export's layout."""

    model_config = ConfigDict(extra="forbid")

    layout: Literal[1] = 1
    model: Literal["ballast-sizer"] = MODEL
    versions: tuple[ModelVersion, ...]

    @field_validator("versions")
    @classmethod
    def _coherent(cls, versions: tuple[ModelVersion, ...]) -> tuple[ModelVersion, ...]:
        _check_once("version", [version.version for version in versions])
        _check_once("digest", [version.digest for version in versions])
        _check_once("alias", [alias for version in versions for alias in version.aliases])
        for version in versions:
            if not version.path.is_absolute():
                raise ValueError(f"the path of version {version.version} is not absolute")
            if ("production" in version.aliases) != (version.status == "PRODUCTION"):
                raise ValueError(f"version {version.version} is {version.status}, its aliases say otherwise")
        return versions


def write_export(home: Path, versions: Sequence[ModelVersion]) -> Path:
    """Write the versions, oldest first, to `home`/registry/export.json, whole or not at all; its path."""
    path = _path(home)
    content = _Export(versions=tuple(versions)).model_dump_json(indent=2).encode() + b"\n"
    if not path.exists() or path.read_bytes() != content:
        write_atomically(path, content)
    return path


def read_export(home: Path) -> list[ModelVersion]:
    """All versions of the registry under `home`, oldest first.

    No export means that nothing was ever registered: an empty list. A broken one is an `InputError`.
    """
    path = _path(home)
    try:
        export = _Export.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        return []
    except OSError as error:
        mend = f"make the file readable ({error.strerror})"
        raise InputError("registry export", str(path), mend) from error
    except ValidationError as error:
        mend = f"run `python -m ballast registry export` to write it again ({first_fault(error)})"
        raise InputError("registry export", str(path), mend) from error
    return list(export.versions)


def _path(home: Path) -> Path:
    return home / "registry" / "export.json"


def _check_once(name: str, values: Sequence[object]) -> None:
    if len(set(values)) < len(values):
        raise ValueError(f"one {name} stands twice")
