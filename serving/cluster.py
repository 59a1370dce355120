"""A Ray cluster as serving sees it from outside: the environment it needs, and what it is told to serve.

Knows Ray by its environment variables and its REST interface alone. What is sent is serving/config.yaml with
the values of this machine, as `serve deploy` would send it.
"""

import json
import os
import secrets
import urllib.error
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import yaml

from market.errors import ConfigError, InputError
from policies.bundle import open_bundle

CONFIG: Final = Path(__file__).with_name("config.yaml")
APPLICATIONS: Final = "/api/serve/applications/"
PORTS: Final = 100  # of a cluster's own: one for each replica, one for Ray's metrics, two for HAProxy
# A connection keeps to one replica, which then has what it needs in the processor's caches, unless that one
# has 1.25 times its share of what is under way. Ray writes the value into HAProxy's `defaults` as it stands.
BALANCE: Final = "hash src_port\n    hash-type consistent\n    hash-balance-factor 125"

Config = dict[str, Any]


def desired(
    home: Path, bundle: Path | None, status: str | None, *, host: str, port: int, replicas: int
) -> Config:
    """serving/config.yaml with this machine's values: what Serve is to run."""
    config: Config = yaml.safe_load(CONFIG.read_text())
    config["http_options"] |= {"host": host, "port": port}
    for application in config["applications"]:
        user_config = {"home": str(home), "replicas": replicas}
        application["deployments"][0] |= {"num_replicas": replicas, "user_config": user_config}
    _sizing(config)["user_config"] |= _bundle_config(bundle, status)
    return config


def deployed(dashboard: str, token: str | None) -> Config:
    """What the cluster behind `dashboard` was last told to serve; InputError where nothing answers there."""
    status, body = fetch(f"{dashboard}{APPLICATIONS}", token)
    if status != 200:
        raise InputError("serve", dashboard, f"give a running Ray dashboard and its token ({status})")
    known = json.loads(body)
    applications = [each["deployed_app_config"] for each in known["applications"].values()]
    return {
        "proxy_location": known["proxy_location"],
        "http_options": known["http_options"],
        "applications": applications,
    }


def push(dashboard: str, config: Mapping[str, Any], token: str | None) -> None:
    """Tell a cluster what to serve, all of it, as `serve deploy` does; InputError where it refuses."""
    request = urllib.request.Request(
        f"{dashboard}{APPLICATIONS}",
        data=json.dumps(config).encode(),
        method="PUT",
        headers={"content-type": "application/json"} | _authorization(token),
    )
    try:
        with urllib.request.urlopen(request, timeout=60):
            return
    except urllib.error.HTTPError as error:
        said = error.read(2000).decode(errors="replace")
        raise InputError("serve", dashboard, f"the cluster refused ({error.code}): {said}") from None
    except OSError as error:
        raise InputError(
            "serve", dashboard, f"give the address of a running Ray dashboard ({error})"
        ) from None


def swap(dashboard: str, bundle: Path | None, status: str | None, token: str | None) -> None:
    """Put another bundle, or none, behind a running /sizing, without a restart.

    The bundle is opened here first: BundleError, and nothing is sent, where it is not sound.
    """
    config = deployed(dashboard, token)
    _sizing(config)["user_config"] |= _bundle_config(bundle, status)
    push(dashboard, config, token)


def challenge(dashboard: str, challenger: Mapping[str, Any] | None, token: str | None) -> None:
    """Have a running /sizing size every request by another bundle or the rule too; None ends it.

    `challenger`: the fields of `serving.desk.Challenged`. A bundle is opened here first: see `swap`.
    """
    config = deployed(dashboard, token)
    if challenger is not None and challenger["bundle"] is not None:
        open_bundle(Path(challenger["bundle"]).parent, challenger["digest"])
    _sizing(config)["user_config"]["challenger"] = None if challenger is None else dict(challenger)
    push(dashboard, config, token)


def fetch(url: str, token: str | None = None, timeout: float = 5.0) -> tuple[int, bytes]:
    """GET `url`: status and body; status 0 where nothing answers."""
    try:
        request = urllib.request.Request(url, headers=_authorization(token))
        with urllib.request.urlopen(request, timeout=timeout) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()
    except OSError:
        return 0, b""


def own_ports(port: int) -> range:
    """The hundred ports of a cluster that serves on `port`: one firewall rule names them.

    Ray's metrics and HAProxy's own two (metrics, statistics), the last three, listen on all interfaces
    whatever is asked for; the others are the replicas' behind HAProxy.
    """
    first = 20_000 + PORTS * (port % 97)
    return range(first, first + PORTS)


def environment(given: Mapping[str, str], home: Path, folder: Path, port: int) -> dict[str, str]:
    """The environment of every Ray process: HAProxy and throughput mode, a place for its files, a token."""
    ports = own_ports(port)
    ours = {
        "BALLAST_HOME": str(home),
        "PYTHONPATH": os.pathsep.join(filter(None, (str(CONFIG.parents[1]), given.get("PYTHONPATH")))),
        "RAY_SERVE_ENABLE_HA_PROXY": "1",
        "RAY_SERVE_THROUGHPUT_OPTIMIZED": "1",
        "RAY_SERVE_PROXY_HEALTH_CHECK_PERIOD_S": "1",  # a killed proxy is back in 6 s, not in 30
        "RAY_SERVE_DIRECT_INGRESS_MIN_HTTP_PORT": str(ports[0]),
        "RAY_SERVE_DIRECT_INGRESS_MAX_HTTP_PORT": str(ports[-4]),
        "RAY_SERVE_HAPROXY_METRICS_PORT": str(ports[-2]),
        "RAY_SERVE_HAPROXY_STATS_PORT": str(ports[-1]),
        "RAY_SERVE_HAPROXY_NBTHREAD": "1",
        "RAY_SERVE_HAPROXY_BALANCE_ALGORITHM": given.get("RAY_SERVE_HAPROXY_BALANCE_ALGORITHM", BALANCE),
        "RAY_SERVE_HAPROXY_CONFIG_FILE_LOC": str(folder / "haproxy.cfg"),
        "RAY_SERVE_HAPROXY_SOCKET_PATH": str(folder / "haproxy.sock"),
        "RAY_SERVE_HAPROXY_METRICS_SOCKET_PATH": str(folder / "metrics.sock"),
        "RAY_SERVE_HAPROXY_SERVER_STATE_BASE": str(folder),
        "RAY_SERVE_HAPROXY_SERVER_STATE_FILE": str(folder / "server-state"),
        "RAY_worker_niceness": "0",  # else any program of the machine's goes before an answer
        "RAY_AUTH_MODE": given.get("RAY_AUTH_MODE", "token"),
        "RAY_USAGE_STATS_ENABLED": "0",
        "MLFLOW_DISABLE_TELEMETRY": "true",
    }
    # A cluster of its own: an address in the environment leads to another one.
    kept = {name: value for name, value in given.items() if name != "RAY_ADDRESS"}
    if ours["RAY_AUTH_MODE"] == "token" and not {"RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"} & kept.keys():
        ours["RAY_AUTH_TOKEN_PATH"] = str(own_token(home))
    return kept | ours


def token_of(given: Mapping[str, str]) -> str | None:
    """The token that `given`, an environment, names; None where authentication is off."""
    if given.get("RAY_AUTH_MODE") != "token":
        return None
    if token := given.get("RAY_AUTH_TOKEN"):
        return token
    path = Path(given.get("RAY_AUTH_TOKEN_PATH") or Path.home() / ".ray" / "auth_token")
    try:
        return path.read_text().strip()
    except OSError as error:
        raise ConfigError(
            "RAY_AUTH_TOKEN_PATH", str(path), f"give a readable file ({error.strerror})"
        ) from None


def token_for(given: Mapping[str, str], home: Path) -> str | None:
    """The token for a cluster whose mode nobody states: what `given` names, else that of this home."""
    stated = {"RAY_AUTH_MODE": "token", **given}
    if not {"RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"} & stated.keys() and (own := _own_token(home)).exists():
        stated["RAY_AUTH_TOKEN_PATH"] = str(own)
    return token_of(stated)


def own_token(home: Path) -> Path:
    """The token of this home's clusters: made once, readable by its owner alone."""
    path = _own_token(home)
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    try:
        with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(secrets.token_hex(32))
    except FileExistsError:
        pass
    return path


def _own_token(home: Path) -> Path:
    return home / "ray" / "token"


def _authorization(token: str | None) -> dict[str, str]:
    return {} if token is None else {"authorization": f"Bearer {token}"}


def _sizing(config: Config) -> dict[str, Any]:
    """The deployment of /sizing within `config`."""
    for application in config["applications"]:
        if application["name"] == "sizing":
            deployment: dict[str, Any] = application["deployments"][0]
            return deployment
    raise InputError(
        "serve", [each["name"] for each in config["applications"]], "deploy serving/config.yaml first"
    )


def _bundle_config(bundle: Path | None, status: str | None) -> dict[str, Any]:
    """What the `user_config` of /sizing says of its bundle, which is opened, and so checked, here already."""
    if bundle is None:
        return {"bundle": None, "digest": None, "status": None}
    folder = bundle.absolute()
    open_bundle(folder.parent, folder.name)
    return {"bundle": str(folder), "digest": folder.name, "status": status}
