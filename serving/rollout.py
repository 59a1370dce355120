"""Put a bundle behind a running /sizing, and know that every replica answers from it.

Knows nothing of registries: what is to be live is passed in.
"""

import json
import time
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from market.errors import ConfigError, InputError
from serving.cluster import APPLICATIONS, deployed, fetch, swap

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


def endpoint_of(dashboard: str, token: str | None) -> str:
    """Where the applications of the cluster at `dashboard` answer; a host of its own name where it is any."""
    options = deployed(dashboard, token)["http_options"]
    host = options["host"]
    if host in ("", "0.0.0.0", "::"):
        host = urlsplit(dashboard).hostname
    return f"http://{f'[{host}]' if ':' in host else host}:{options['port']}"


def await_replicas(
    dashboard: str,
    endpoint: str,
    bundle: Path | None,
    token: str | None,
    key: str | None,
    seconds: float | None = None,
) -> int:
    """Return once every running replica of /sizing says that it answers from `bundle`: how many they are."""
    digest = None if bundle is None else bundle.name
    seconds = SECONDS if seconds is None else seconds
    deadline = time.monotonic() + seconds
    while True:
        running = _running(dashboard, token)
        said: dict[str, dict[str, Any]] = {}
        # A proxy gives a request to any of them; whom it leaves out now, it will not in the next round.
        for _ in range(8 * running):
            if (health := _health(endpoint, key)) is not None:
                said[health["replica"]] = health
        others = [health for health in said.values() if health["bundle"] != digest]
        if running and len(said) >= running and not others:
            return running
        refused = [health["refused"] for health in others if health["refused"] is not None]
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
