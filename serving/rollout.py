"""Put a bundle behind a running /sizing, and know that every replica answers from it.

Knows nothing of registries: what is to be live is passed in.
"""

import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple
from urllib.parse import urlsplit

from market.errors import ConfigError, InputError
from serving.cluster import APPLICATIONS, challenge, deployed, fetch, swap

SECONDS: Final = 60.0  # a replica opens a bundle in a tenth of one; a crowded machine takes its time
KEY_VARIABLE: Final = "BALLAST_API_KEY"


class NotTaken(InputError):
    """Replicas that do not answer from the bundle they were told of: they go on with what they had."""


class KeyNeeded(ConfigError):
    """The replicas do not say what they answer from without an API key."""


def roll_out(
    dashboard: str, bundle: Path | None, status: str | None, token: str | None, key: str | None
) -> int:
    """Put `bundle`, or none, behind the /sizing of the cluster at `dashboard`; how many replicas took it.

    Nothing but `user_config` changes, so that no replica starts anew. `token` is the cluster's, `key` an API
    key of the endpoints where they ask for one. BundleError, and nothing sent, for an unsound bundle;
    NotTaken with the reason where a replica refuses it; KeyNeeded; InputError where nothing answers.
    """
    swap(dashboard, bundle, status, token)
    return await_replicas(dashboard, endpoint_of(dashboard, token), bundle, token, key)


def roll_out_challenger(
    dashboard: str, challenger: Mapping[str, Any] | None, token: str | None, key: str | None
) -> int:
    """As `roll_out`, for what sizes beside the bundle that is served: see `serving.cluster.challenge`."""
    challenge(dashboard, challenger, token)
    wanted = digest = None
    if challenger is not None:
        digest = challenger["digest"]
        wanted = {name: challenger[name] for name in ("digest", "status", "share")}
    expected = _Expected("challenger", wanted, digest, "challenger_refused")
    return _await(dashboard, endpoint_of(dashboard, token), expected, token, key, SECONDS)


def endpoint_of(dashboard: str, token: str | None) -> str:
    """Where the applications of the cluster at `dashboard` answer; a host of its own name where it is any."""
    options = deployed(dashboard, token)["http_options"]
    host = options["host"]
    if host in ("", "0.0.0.0", "::"):
        host = urlsplit(dashboard).hostname
    return f"http://{f'[{host}]' if ':' in host else host}:{options['port']}"


def await_replicas(
    dashboard: str, endpoint: str, bundle: Path | None, token: str | None, key: str | None
) -> int:
    """Return once every running replica of /sizing says that it answers from `bundle`: how many they are."""
    digest = None if bundle is None else bundle.name
    return _await(dashboard, endpoint, _Expected("bundle", digest, digest, "refused"), token, key, SECONDS)


class _Expected(NamedTuple):
    """What a replica's health shows under `name` once it has taken over, and where it tells of a refusal."""

    name: str
    value: object
    digest: str | None
    refusal: str


def _await(
    dashboard: str, endpoint: str, expected: _Expected, token: str | None, key: str | None, seconds: float
) -> int:
    digest = expected.digest
    deadline = time.monotonic() + seconds
    while True:
        running = _running(dashboard, token)
        said: dict[str, dict[str, Any]] = {}
        # A proxy gives a request to any of them; whom it leaves out now, it will not in the next round.
        for _ in range(8 * running):
            if (health := _health(endpoint, key)) is not None:
                said[health["replica"]] = health
        others = [health for health in said.values() if health[expected.name] != expected.value]
        if running and len(said) >= running and not others:
            return running
        refused = [health[expected.refusal] for health in others if health[expected.refusal] is not None]
        for refusal in refused:
            if refusal["digest"] == digest:
                raise NotTaken(
                    refusal["field"], digest, f"a replica refused it and keeps its own: {refusal['mend']}"
                )
        if time.monotonic() > deadline:
            seen = f"{len(said) - len(others)} of {running} replicas answer from it"
            raise NotTaken(
                "bundle", digest, f"{seen} after {seconds:g} s: look at Serve's own pages and logs"
            )
        time.sleep(0.1)


def _running(dashboard: str, token: str | None) -> int:
    """How many replicas of /sizing there are but for those that are ending: one that is updated counts."""
    status, body = fetch(f"{dashboard}{APPLICATIONS}", token)
    if status != 200:
        return 0
    deployments = json.loads(body)["applications"].get("sizing", {}).get("deployments", {})
    return sum(
        replica["state"] != "STOPPING" for each in deployments.values() for replica in each["replicas"]
    )


def _health(endpoint: str, key: str | None) -> dict[str, Any] | None:
    """What some replica says of itself; None where none answers."""
    status, body = fetch(f"{endpoint}/sizing/healthz", key)
    if status == 401:
        raise KeyNeeded(
            KEY_VARIABLE, key and "a key that is not accepted", "set it to a key of the endpoints"
        )
    health: dict[str, Any] | None = json.loads(body) if status == 200 else None
    return health
