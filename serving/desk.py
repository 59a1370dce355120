"""What every replica holds: its home, its API keys and its door to the journal, as deployed.

Knows nothing of Ray, HTTP or sizes.
"""

import os
import time
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import Field, ValidationError, model_validator

from journal.database import NothingWritten
from journal.location import open_journal
from journal.records import DecisionRecord
from journal.store import Entry, Journal
from market.errors import ConfigError, InputError
from market.home import home as default_home
from narratives.language_model import LanguageModel
from serving.keys import Keys
from serving.refusals import NotFound, Unavailable
from serving.schemas import Strict
from serving.telemetry import JOURNAL_QUEUE, JOURNAL_WAIT, NOT_TAKEN, Reading, Telemetry

Status = Annotated[str, Field(pattern=r"^\w[\w .,:/+-]{0,29}$")]


class Challenged(Strict):
    """Who sizes every request beside the bundle that is served."""

    bundle: Path | None = Field(default=None, description="folder of its bundle; absent: the rule itself")
    digest: str | None = Field(default=None, description="SHA-256 of the bundle, which names the folder")
    status: Status = "CHALLENGER"
    share: Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)] = Field(
        default=0.0, description="of days x symbols that it answers; 0: of none, it stays in the shadow"
    )

    @model_validator(mode="after")
    def _resolved(self) -> Self:
        _check_resolved(self.bundle, self.digest)
        return self


class Deployed(Strict):
    """`user_config` of an application, as whoever deploys resolved it: paths and digests, never an alias."""

    home: Path | None = Field(default=None, description="absolute; BALLAST_HOME of the process where absent")
    bundle: Path | None = Field(default=None, description="folder of the bundle; absent: the rule answers")
    digest: str | None = Field(default=None, description="SHA-256 of the bundle, which names the folder")
    status: Status | None = Field(
        default=None, description="registry status of the bundle, as answers and narratives print it"
    )

    challenger: Challenged | None = None
    llm: LanguageModel | None = Field(
        default=None, description="who words the narratives; absent: as BALLAST_LLM of the process says"
    )
    replicas: Annotated[int, Field(ge=1, le=1_000)] = Field(
        default=1, description="how many share the rate of an API key"
    )

    @model_validator(mode="after")
    def _resolved(self) -> Self:
        if self.home is not None and not self.home.is_absolute():
            raise ConfigError("home", str(self.home), "give an absolute path")
        _check_resolved(self.bundle, self.digest)
        return self


def _check_resolved(bundle: Path | None, digest: str | None) -> None:
    if bundle is not None and not bundle.is_absolute():
        raise ConfigError("bundle", str(bundle), "give an absolute path")
    if digest != (None if bundle is None else bundle.name):
        raise ConfigError("digest", digest, "give it with the folder of its name, or neither")


class Desk:
    """The state of one replica. Threads share it: each thing in it is replaced whole."""

    def __init__(self, name: str) -> None:
        # One writer per process and life, so that no chain of the journal is ever continued by another.
        self.writer = f"{name}-{uuid.uuid4().hex}"
        self.refused: dict[str, Any] | None = None  # why the last deployment was not taken over
        self.replicas = 1
        self.telemetry = Telemetry()
        self._home: Path | None = None
        self._keys: Keys | None = None
        self._journal: Journal | None = None

    @property
    def home(self) -> Path:
        """As deployed, else that of the environment."""
        if self._home is None:
            self._home = default_home()
        return self._home

    @property
    def keys(self) -> Keys:
        """The API keys of this home."""
        if self._keys is None:
            self._keys = Keys(self.home, os.environ)
        return self._keys

    @property
    def journal(self) -> Journal:
        """This replica's door to the journal of this home."""
        if self._journal is None:
            self._journal = open_journal(self.home, self.writer, os.environ)
        return self._journal

    def deploy(self, config: Mapping[str, Any]) -> None:
        """Take over `config`, the fields of `Deployed`; an unusable one leaves the old state as it was.

        Nothing is raised: Serve would try again and again, and then run on with half of its replicas.
        """
        digest = config.get("digest")
        try:
            self.take(Deployed.model_validate(dict(config)))
            self.refused = None
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False, include_context=False)[0]
            place = ".".join(["user_config", *map(str, first["loc"])])
            self.refused = {"digest": digest, "field": place, "mend": first["msg"]}
        except InputError as error:
            self.refused = {"digest": digest, "field": error.field, "mend": error.mend}

    def take(self, deployed: Deployed) -> None:
        """Take over a checked deployment, whole or not at all; InputError where it cannot be used."""
        if deployed.home is not None and deployed.home != self._home:
            self._home, self._keys, self._journal = deployed.home, None, None
        self.replicas = deployed.replicas

    def write(self, entries: list[Entry], *, wait: bool = True) -> None:
        """See `journaled`; how long an answer waits for it is told."""
        started = time.perf_counter()
        journaled(self.journal, entries, wait=wait)
        self.telemetry.took(JOURNAL_WAIT, started)

    def readings(self) -> list[Reading]:
        """Where the gauges stand; asked about once a second."""
        queue = 0 if self._journal is None else self._journal.deepest()
        return [Reading(JOURNAL_QUEUE, queue), Reading(NOT_TAKEN, float(self.refused is not None))]

    def health(self) -> dict[str, Any]:
        """What /healthz tells."""
        return {"status": "ok", "replica": self.writer, "refused": self.refused}


def decision_of(journal: Journal, decision_id: str) -> DecisionRecord:
    """The journaled decision of that id; NotFound where there is none."""
    mend = "give the decision id of an answer of POST /sizing"
    try:
        record = journal.get(decision_id)
    except InputError as error:
        if error.field == "journal" and not isinstance(error, NothingWritten):
            raise Unavailable("journal", error.mend) from error
        raise NotFound("decision_id", decision_id, mend) from error
    if record.kind != "decision":
        raise NotFound("decision_id", decision_id, mend)
    return DecisionRecord.of(record)


def journaled(journal: Journal, entries: list[Entry], *, wait: bool = True) -> None:
    """Write `entries` in one transaction; Unavailable where that cannot be done, WouldWait as the journal."""
    try:
        journal.append_many(entries, wait=wait)
    except InputError as error:
        # The request was sound, so this is no fault of the client's; without a record there is no answer.
        raise Unavailable("journal", error.mend) from error
