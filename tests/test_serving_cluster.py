"""What a cluster is told to serve, and the environment it gets."""

import json
import shutil
import socket
import stat
from pathlib import Path
from typing import Any

import pytest
import yaml
from ray.serve._private import constants
from ray.serve.schema import ServeDeploySchema

from market.errors import ConfigError, InputError
from policies.bundle import BundleError
from serving.cluster import CONFIG, desired, environment, own_ports, push, swap, token_of
from serving.desk import Deployed
from serving.launch import StartError, _dashboard_port, free_port, port_to_serve_on, start
from tests.serving_bundles import saved


def unknown_keys(given: Any, known: Any, place: str = "") -> list[str]:
    """Keys of `given` that Serve dropped in silence when it read them."""
    if isinstance(given, dict) and isinstance(known, dict):
        here = [f"{place}{key}" for key in given if key not in known]
        return here + [
            name
            for key in given
            if key in known
            for name in unknown_keys(given[key], known[key], f"{place}{key}.")
        ]
    if isinstance(given, list) and isinstance(known, list):
        return [
            name for one, other in zip(given, known, strict=True) for name in unknown_keys(one, other, place)
        ]
    return []


def test_config_file_holds_nothing_that_serve_does_not_know() -> None:
    config = yaml.safe_load(CONFIG.read_text())
    read = ServeDeploySchema.model_validate(config).model_dump(warnings=False)
    assert unknown_keys(config, read) == []
    config["applications"][0]["deployments"][0]["max_surge_pct"] = 100
    read = ServeDeploySchema.model_validate(config).model_dump(warnings=False)
    assert unknown_keys(config, read) == ["applications.deployments.max_surge_pct"]


def test_config_file_is_for_loopback_and_bounds_what_waits() -> None:
    config = yaml.safe_load(CONFIG.read_text())
    assert config["http_options"]["host"] == "127.0.0.1"
    assert config["http_options"]["request_timeout_s"] == 5
    assert [each["route_prefix"] for each in config["applications"]] == [
        "/features",
        "/sizing",
        "/narratives",
    ]
    for application in config["applications"]:
        (deployment,) = application["deployments"]
        assert (deployment["max_ongoing_requests"], deployment["max_queued_requests"]) == (32, 64)
        assert deployment["backpressure_config"] == {"status_code": 429, "retry_after_s": 1}
        assert deployment["num_replicas"] == 2
        assert Deployed.model_validate(deployment["user_config"]).replicas == deployment["num_replicas"]


def test_import_paths_of_the_config_file_are_applications() -> None:
    from ray.serve import Application

    import serving.app

    for application in yaml.safe_load(CONFIG.read_text())["applications"]:
        module, _, name = application["import_path"].partition(":")
        assert module == "serving.app"
        bound = getattr(serving.app, name)
        assert isinstance(bound, Application)
        assert bound._bound_deployment.name == application["deployments"][0]["name"]


def test_desired_configuration_names_path_digest_and_status(home: Path) -> None:
    folder = saved(home)
    config = desired(home, folder, "STAGING", host="127.0.0.1", port=8111, replicas=1)
    sizing = config["applications"][1]["deployments"][0]
    assert sizing["user_config"] == {
        "home": str(home), "replicas": 1,
        "bundle": str(folder), "digest": folder.name, "status": "STAGING",
    }  # fmt: skip
    assert (config["http_options"]["port"], sizing["num_replicas"]) == (8111, 1)
    ServeDeploySchema.model_validate(json.loads(json.dumps(config)))


def test_unsound_bundle_is_refused_before_anything_starts(home: Path) -> None:
    folder = saved(home)
    (folder / "bundle.json").write_bytes(b"{}")
    with pytest.raises(BundleError, match="altered"):
        desired(home, folder, "STAGING", host="127.0.0.1", port=8111, replicas=1)
    with pytest.raises(BundleError, match="give the digest of a bundle that is there"):
        start(home, bundle=home / "bundles" / ("0" * 64), status="STAGING")


def test_environment_switches_on_haproxy_and_throughput_and_leaves_no_default_place(
    home: Path, tmp_path: Path
) -> None:
    given = environment({"RAY_ADDRESS": "10.0.0.1:6379", "PATH": "/bin"}, home, tmp_path, 8100)
    assert given["RAY_SERVE_ENABLE_HA_PROXY"] == given["RAY_SERVE_THROUGHPUT_OPTIMIZED"] == "1"
    assert given["RAY_SERVE_PROXY_HEALTH_CHECK_PERIOD_S"] == "1"
    assert "RAY_ADDRESS" not in given
    assert given["PATH"] == "/bin"
    assert given["RAY_SERVE_HAPROXY_BALANCE_ALGORITHM"].startswith("hash src_port\n")
    own = {"RAY_SERVE_HAPROXY_BALANCE_ALGORITHM": "leastconn"}
    assert own.items() <= environment(own, home, tmp_path, 8100).items()
    # Ray's own places for these files are the same for every cluster and every user of a machine.
    shared = [name for name, value in vars(constants).items() if str(value).startswith("/tmp/haproxy-serve")]
    assert len(shared) >= 5
    assert all(given[name].startswith(str(tmp_path)) for name in shared)


def test_authentication_is_always_said_and_its_token_is_the_owners_alone(home: Path, tmp_path: Path) -> None:
    given = environment({}, home, tmp_path, 8100)
    assert given["RAY_AUTH_MODE"] == "token"
    path = Path(given["RAY_AUTH_TOKEN_PATH"])
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    token = token_of(given)
    assert token is not None
    assert len(token) == 64
    assert token_of(environment({}, home, tmp_path, 8100)) == token
    assert token_of({"RAY_AUTH_MODE": "disabled"}) is None
    assert token_of({"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "t"}) == "t"
    with pytest.raises(ConfigError, match="RAY_AUTH_TOKEN_PATH"):
        token_of({"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(tmp_path / "none")})


def test_neighbouring_ports_have_ports_of_their_own_below_them() -> None:
    blocks = [own_ports(port) for port in range(8100, 8197)]
    assert len({port for block in blocks for port in block}) == 97 * 100
    assert min(map(min, blocks)) >= 20_000
    assert max(map(max, blocks)) < 30_000


def test_beyond_loopback_a_key_is_a_must(home: Path) -> None:
    with pytest.raises(ConfigError, match=r"host: got '0\.0\.0\.0'; beyond loopback keys are a must"):
        start(home, host="0.0.0.0")


def test_port_in_use_is_refused_before_anything_starts(home: Path) -> None:
    import socket

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(ConfigError, match="is in use: give another port"):
            start(home, port=taken.getsockname()[1])
        with pytest.raises(ConfigError, match="is in use: give another port"):
            port_to_serve_on(taken.getsockname()[1])


def test_without_a_wish_the_first_port_whose_own_ports_are_free_too_is_taken(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    used = {8100, own_ports(8101)[-1]}
    monkeypatch.setattr("serving.launch._is_free", lambda host, port: port not in used)
    assert port_to_serve_on(None) == 8102
    assert port_to_serve_on(9000) == 9000
    monkeypatch.setattr("serving.launch._is_free", lambda host, port: False)
    with pytest.raises(ConfigError, match="in use"):
        port_to_serve_on(None)


def test_of_two_that_start_at_once_one_gets_the_usual_dashboard_port(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    usual = free_port()
    monkeypatch.setattr("serving.launch.DASHBOARD_PORT", usual)
    monkeypatch.setattr("serving.launch.tempfile.gettempdir", lambda: str(tmp_path))
    with _dashboard_port() as first, _dashboard_port() as second:
        assert first == usual
        assert second != usual
    with _dashboard_port() as again:
        assert again == usual
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", usual))
        taken.listen()
        with _dashboard_port() as other:
            assert other != usual


def test_ray_that_ends_by_itself_is_said_at_once_and_leaves_nothing(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = home / "ray-folder"
    monkeypatch.setattr("serving.launch.sys.executable", shutil.which("false"))
    monkeypatch.setattr("serving.launch.tempfile.mkdtemp", lambda **_: str(folder.mkdir() or folder))
    with pytest.raises(StartError, match="Ray ended by itself"):
        start(home, port=8196)
    assert not folder.exists()


def test_cluster_that_is_not_there_is_named(home: Path) -> None:
    for call in (
        lambda: push("http://127.0.0.1:9", {}, None),
        lambda: swap("http://127.0.0.1:9", None, None, "t"),
    ):
        with pytest.raises(InputError, match="running Ray dashboard"):
            call()
