"""The evidence a promotion stands on: the figures found for one bundle and the verdict on them.

Knows nothing of how the figures were found, nor of the registry.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import (
    AwareDatetime,
    BaseModel,
    ConfigDict,
    Field,
    FiniteFloat,
    StrictBool,
    ValidationError,
    model_validator,
)

from market.digests import digest_of
from market.errors import InputError
from market.home import write_atomically

BundleDigest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$", description="SHA-256 of a bundle, hex")]


class Verdict(BaseModel):
    """Whether the gate opens, and every reason for that answer."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    passed: StrictBool
    reasons: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _refusal_has_a_reason(self) -> Self:
        if not self.passed and not self.reasons:
            raise ValueError("a verdict that did not pass needs a reason")
        return self


class Evidence(BaseModel):
    """What was found about one bundle, judged against the `champion` in production (None: against the rule).

    `figures` are finite numbers by name (dotted where they belong together, as in `vs_rule.lower`), each in
    the unit its name says; R multiples otherwise.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    bundle: BundleDigest
    figures: dict[str, FiniteFloat]
    verdict: Verdict
    champion: BundleDigest | None = None
    created: AwareDatetime = Field(default_factory=lambda: datetime.now(UTC))

    @property
    def digest(self) -> str:
        """See `digest_of`."""
        return digest_of(self)

    def check_bundle(self, digest: str) -> None:
        """Raise `InputError` unless this is evidence for exactly the bundle of that digest."""
        if self.bundle != digest:
            raise InputError("evidence.bundle", self.bundle, f"give the evidence for bundle {digest}")

    def save(self, path: Path) -> None:
        """Write the evidence and its digest to `path`, whole or not at all."""
        content = {"digest": self.digest, "evidence": self.model_dump(mode="json")}
        write_atomically(path, json.dumps(content, indent=2, sort_keys=True).encode() + b"\n")

    @staticmethod
    def load(path: Path, bundle: str | None = None) -> Evidence:
        """The evidence saved at `path`; `InputError` if absent, broken, altered or for another `bundle`."""
        try:
            file = _EvidenceFile.model_validate_json(path.read_bytes())
        except OSError as error:
            mend = f"give a file that can be read ({error.strerror})"
            raise InputError("evidence", str(path), mend) from error
        except ValidationError as error:
            mend = f"give a whole evidence file ({first_fault(error)})"
            raise InputError("evidence", str(path), mend) from error
        if file.evidence.digest != file.digest:
            raise InputError("evidence", str(path), "was altered after it was saved: evaluate again")
        if bundle is not None:
            file.evidence.check_bundle(bundle)
        return file.evidence


def newest(folder: Path, bundle: str) -> Evidence:
    """The newest evidence for `bundle` in the JSON files below `folder`.

    `InputError` if there is none, naming a broken file where one may have been it.
    """
    found: list[Evidence] = []
    broken: InputError | None = None
    for path in sorted(folder.rglob("*.json")):
        try:
            evidence = Evidence.load(path)
        except InputError as error:
            broken = error
        else:
            found += [evidence] if evidence.bundle == bundle else []
    if found:
        return max(found, key=lambda evidence: evidence.created)
    if broken is not None:
        raise broken
    raise InputError("evidence", str(folder), f"holds none for bundle {bundle}: evaluate it first")


class _EvidenceFile(BaseModel):
    """The file's layout."""

    model_config = ConfigDict(extra="forbid")

    digest: str
    evidence: Evidence


def first_fault(error: ValidationError) -> str:
    """The first thing that a model found wrong, with its place."""
    fault: Any = error.errors()[0]
    place = ".".join(str(part) for part in fault["loc"]) or "the file"
    return f"{place}: {fault['msg']}"
