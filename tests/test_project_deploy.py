"""The files for clusters say what their readers know: Ray's launcher, AWS, KubeRay, Serve and Ballast."""

import copy
import re
import stat
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import botocore.session
import jsonschema
import pytest
import ray
import yaml
from botocore.validate import ParamValidator
from pydantic import BaseModel, ValidationError
from ray.autoscaler._private.util import prepare_config, validate_config
from ray.serve.schema import ServeDeploySchema

import ballast
from serving.cluster import CONFIG, environment, own_token
from tests.kuberay_schema import PersistentVolumeClaim, RayJob, RayService
from tests.test_project_install import pins
from tests.test_project_tree import ROOT
from tests.test_serving_cluster import unknown_keys

AWS, LOCAL = "cluster.yaml", "deploy/cluster.local.yaml"
JOB, SERVICE = "deploy/kuberay/rayjob.yaml", "deploy/kuberay/rayservice.yaml"
KINDS: dict[str, type[BaseModel]] = {
    JOB: RayJob,
    SERVICE: RayService,
    "deploy/kuberay/storage.yaml": PersistentVolumeClaim,
}
# Keys of a node's configuration that Ray itself turns into those of EC2's RunInstances.
BY_RAY = {"SubnetIds": ["SubnetId", str], "SecurityGroupIds": ["SecurityGroupIds", list]}
PROVIDERS = {
    "aws": {"type", "region", "cache_stopped_nodes", "use_internal_ips"},
    "local": {"type", "head_ip", "worker_ips"},
}
# Who reads each environment variable that a file sets: a module of ours or of an installed package.
SITE = Path(ray.__file__).parents[1]
READERS = {
    "BALLAST_HOME": ROOT / "market/home.py",
    "BALLAST_JOURNAL": ROOT / "journal/location.py",
    "BALLAST_BUDGET": ROOT / "journal/location.py",
    "BALLAST_STREAMS": ROOT / "serving/stream_store.py",
    "BALLAST_API_KEYS_SHA256": ROOT / "serving/keys.py",
    "MLFLOW_DISABLE_TELEMETRY": SITE / "mlflow/environment_variables.py",
    "RAY_AUTH_MODE": SITE / "ray/_private/authentication/authentication_token_setup.py",
    "RAY_AUTH_TOKEN_PATH": SITE / "ray/_private/runtime_env/image_uri.py",
    "RAY_JOB_STOP_WAIT_TIME_S": SITE / "ray/dashboard/modules/job/job_supervisor.py",
    "RAY_SERVE_ENABLE_HA_PROXY": SITE / "ray/serve/_private/constants.py",
    "RAY_SERVE_PROXY_HEALTH_CHECK_PERIOD_S": SITE / "ray/serve/_private/constants.py",
    "RAY_SERVE_THROUGHPUT_OPTIMIZED": SITE / "ray/serve/_private/constants.py",
    "RAY_USAGE_STATS_ENABLED": SITE / "ray/_common/usage/usage_constants.py",
}
SERVES = {name: value for name, value in environment({}, Path("/h"), Path("/f"), 1).items() if value == "1"}


def read(file: str) -> dict[str, Any]:
    document: dict[str, Any] = yaml.safe_load((ROOT / file).read_text())
    return document


def shell(file: str) -> str:
    """Everything that a cluster file makes a shell run, as one text."""
    cluster = read(file)
    return "\n".join(
        line
        for key, value in [
            *cluster.items(),
            ("docker_commands", cluster.get("docker", {}).get("run_options")),
        ]
        if key.endswith("_commands") and value
        for line in value
    )


def variables(file: str) -> dict[str, str]:
    """The environment that a cluster file, or each container of a manifest, gives to Ray."""
    if file in KINDS:
        found: dict[str, str] = {}
        for container in containers(file):
            found |= {each["name"]: each.get("value", "") for each in container.get("env", ())}
        if "runtimeEnvYAML" in read(file)["spec"]:
            found |= yaml.safe_load(read(file)["spec"]["runtimeEnvYAML"])["env_vars"]
        return found
    text = "\n".join(line for line in shell(file).splitlines() if not line.lstrip().startswith("#"))
    return dict(re.findall(r"\b([A-Z][A-Z0-9_]*_[A-Z0-9_]+)=(\"[^\"]*\"|\S+)", text))


def containers(file: str) -> Iterator[dict[str, Any]]:
    """All containers of a manifest."""

    def below(node: Any) -> Iterator[dict[str, Any]]:
        for key, value in node.items() if isinstance(node, dict) else ((None, one) for one in node):
            if key == "containers":
                yield from value
            elif isinstance(value, dict | list):
                yield from below(value)

    yield from below(read(file))


@pytest.mark.parametrize("file", [AWS, LOCAL])
def test_cluster_files_are_what_the_launcher_takes_and_a_misspelt_key_is_not(file: str) -> None:
    cluster = read(file)
    validate_config(prepare_config(copy.deepcopy(cluster)))
    assert set(cluster["provider"]) <= PROVIDERS[cluster["provider"]["type"]]
    with pytest.raises(jsonschema.ValidationError, match="idle_timeout"):
        validate_config(prepare_config(cluster | {"idle_timeout": 5}))


def test_machines_are_what_ec2_takes_and_a_misspelt_key_is_not() -> None:
    instances = botocore.session.get_session().get_service_model("ec2").operation_model("RunInstances")

    def complaints(node: dict[str, Any]) -> str:
        asked = {key: value for key, value in node.items() if key != "SubnetIds"}
        asked |= {"SubnetId": node["SubnetIds"][0], "MinCount": 1, "MaxCount": 1}
        report: str = ParamValidator().validate(asked, instances.input_shape).generate_report()
        return report

    types = read(AWS)["available_node_types"]
    for kind in types.values():
        assert complaints(kind["node_config"]) == ""
        assert kind["node_config"]["SecurityGroupIds"]  # without it Ray lets in SSH from the whole world
    wrong = types["head"]["node_config"] | {"InstanceTyp": "m6i.xlarge"}
    assert 'Unknown parameter in input: "InstanceTyp"' in complaints(wrong)


def test_workers_are_bounded_and_gpus_are_off_until_asked_for() -> None:
    cluster = read(AWS)
    types = cluster["available_node_types"]
    assert types["gpu_worker"]["min_workers"] == types["gpu_worker"]["max_workers"] == 0
    assert (
        types["cpu_worker"]["min_workers"] == 0 < types["cpu_worker"]["max_workers"] <= cluster["max_workers"]
    )
    assert "InstanceMarketOptions" not in types["head"]["node_config"]


@pytest.mark.parametrize("file", KINDS)
def test_manifests_hold_nothing_that_kuberay_does_not_know(file: str) -> None:
    KINDS[file].model_validate(read(file))

    def paths(node: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
        """Where a key could be misspelt: every mapping whose keys are fields."""
        if isinstance(node, dict):
            if path[-1:] != ("rayStartParams",):
                yield path
            for key, value in node.items():
                yield from paths(value, (*path, key))
        elif isinstance(node, list):
            for number, value in enumerate(node):
                yield from paths(value, (*path, number))

    manifest = read(file)
    for path in paths(manifest):
        wrong = copy.deepcopy(manifest)
        place: Any = wrong
        for step in path:
            place = place[step]
        place["replcas"] = 1
        with pytest.raises(ValidationError, match="replcas"):
            KINDS[file].model_validate(wrong)


def test_kubernetes_serves_what_the_config_file_says_apart_from_where_pods_listen() -> None:
    served = yaml.safe_load(read(SERVICE)["spec"]["serveConfigV2"])
    assert unknown_keys(served, ServeDeploySchema.model_validate(served).model_dump(warnings=False)) == []
    ours = yaml.safe_load(CONFIG.read_text())
    ours["proxy_location"] = "EveryNode"
    ours["http_options"]["host"] = "0.0.0.0"
    assert served == ours


def test_beyond_loopback_pods_do_not_start_without_api_keys() -> None:
    for container in containers(SERVICE):
        (keys,) = [each for each in container["env"] if each["name"] == "BALLAST_API_KEYS_SHA256"]
        assert keys["valueFrom"] == {"secretKeyRef": {"name": "ballast-api-keys", "key": "sha256"}}


@pytest.mark.parametrize("file", [AWS, LOCAL, JOB, SERVICE, "deploy/Dockerfile"])
def test_every_version_named_is_the_pinned_one(file: str) -> None:
    text = (ROOT / file).read_text()
    rays = re.findall(r"(?:rayproject/ray:|rayVersion: |-ray)(\d+\.\d+\.\d+)", text)
    assert rays or file == LOCAL
    assert set(rays) <= {pins()["ray"]}
    assert set(re.findall(r"torch==(\S+)", text)) <= {pins()["torch"]}
    assert set(re.findall(r"ballast:([\d.]+)-ray", text)) <= {version("ballast")}
    assert set(re.findall(r"-py(\d+)-", text)) <= {"311"}


@pytest.mark.parametrize("file", [AWS, LOCAL, JOB, SERVICE])
def test_every_variable_set_is_one_that_is_read(file: str) -> None:
    found = variables(file)
    assert "BALLAST_HOME" in found
    assert found.keys() <= READERS.keys()
    for name in found:
        assert name in READERS[name].read_text()
    assert Path(found["BALLAST_HOME"]).is_absolute()


@pytest.mark.parametrize("file", [AWS, LOCAL, SERVICE])
def test_serve_runs_in_its_fast_mode_as_on_one_machine(file: str) -> None:
    assert len(SERVES) == 3 + 1  # and one thread of HAProxy, which is for one machine
    assert variables(file).items() >= {(name, "1") for name in SERVES if "NBTHREAD" not in name}


@pytest.mark.parametrize("file", [AWS, LOCAL])
def test_dashboard_is_the_heads_own_and_nobody_gets_in_without_the_token(file: str, tmp_path: Path) -> None:
    head, worker = (read(file)[f"{kind}_start_ray_commands"][-1] for kind in ("head", "worker"))
    assert "--dashboard-host=127.0.0.1" in head
    assert (set(re.findall(r":(\d+)", worker)), "--port=6379" in head) == ({"6379"}, True)
    ports = [set(re.findall(r"--object-manager-port=(\d+)", each)) for each in (head, worker)]
    assert ports[0] == ports[1] == {"8076"}
    assert variables(file)["RAY_AUTH_MODE"] == "token"
    # What is copied is the folder in which Ballast keeps the token on one's own machine.
    assert read(file)["file_mounts"]["~/ray-token"] == "~/.ballast/ray"
    mine = own_token(tmp_path)
    assert mine.parent.name == "ray"
    assert Path(variables(file)["RAY_AUTH_TOKEN_PATH"].strip('"')).name == mine.name
    assert stat.S_IMODE(mine.stat().st_mode) == 0o600
    assert f"chmod 600 ~/ray-token/{mine.name}" in shell(file)


@pytest.mark.parametrize("file", [AWS, LOCAL])
def test_machines_get_this_project_with_its_pins_and_the_cpu_build_of_torch(file: str) -> None:
    assert read(file)["file_mounts"]["~/ballast"] == "."
    installs = [line for line in shell(file).splitlines() if "pip install" in line]
    assert all("-c ~/ballast/constraints.txt" in line for line in installs)
    torch, ballast = installs
    assert "--extra-index-url https://download.pytorch.org/whl/cpu torch==" in torch
    assert ballast.endswith(" ~/ballast")


@pytest.mark.parametrize(
    ("file", "shared"),
    [(JOB, {"BALLAST_JOURNAL"}), (SERVICE, {"BALLAST_JOURNAL", "BALLAST_BUDGET", "BALLAST_STREAMS"})],
)
def test_pods_share_no_database_of_sqlite(file: str, shared: set[str]) -> None:
    for container in containers(file):
        if container["name"] != "submitter":
            urls = {each["name"]: each["valueFrom"] for each in container["env"] if each["name"] in shared}
            assert set(urls) == shared
            secret = {"secretKeyRef": {"name": "ballast-journal", "key": "url"}}
            assert all(each == secret for each in urls.values())


def test_ports_of_the_pods_are_those_that_serve_and_ray_listen_on() -> None:
    served = yaml.safe_load(CONFIG.read_text())["http_options"]["port"]
    from ray._private import ray_constants

    known = {
        "dashboard": 8265,
        "gcs-server": ray_constants.DEFAULT_PORT,
        "client": 10_001,
        "serve": served,
    }
    probed = {
        "/-/healthz": served,
        "/api/gcs_healthz": 8265,
        "/api/local_raylet_healthz": ray_constants.DEFAULT_DASHBOARD_AGENT_LISTEN_PORT,
    }
    healthz = (SITE / "ray/dashboard/modules/reporter").glob("*.py")
    assert set(re.findall(r'"(/api/\w+_healthz)"', "".join(file.read_text() for file in healthz))) == {
        path for path in probed if path.startswith("/api")
    }
    for file in (JOB, SERVICE):
        for container in containers(file):
            for port in container.get("ports", ()):
                assert known[port["name"]] == port["containerPort"]
            if container["name"] == "submitter":
                continue
            for kind in ("readinessProbe", "livenessProbe"):
                asked = container[kind]["httpGet"]
                assert probed[asked["path"]] == asked["port"]


def test_state_lies_on_the_storage_that_all_pods_mount() -> None:
    claim = read("deploy/kuberay/storage.yaml")["metadata"]["name"]
    for file in (JOB, SERVICE):
        spec = read(file)["spec"]
        cluster = spec.get("rayClusterSpec") or spec["rayClusterConfig"]
        groups = [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]
        for pod in (group["template"]["spec"] for group in groups):
            (shared,) = [one["name"] for one in pod["volumes"] if "persistentVolumeClaim" in one]
            assert {"name": shared, "persistentVolumeClaim": {"claimName": claim}} in pod["volumes"]
            (container,) = pod["containers"]
            (path,) = [one["mountPath"] for one in container["volumeMounts"] if one["name"] == shared]
            (home,) = [one["value"] for one in container["env"] if one["name"] == "BALLAST_HOME"]
            assert Path(path) in Path(home).parents


def test_the_cluster_page_names_files_variables_and_commands_that_there_are() -> None:
    page = (ROOT / "docs/cluster.md").read_text()
    for file in re.findall(r"`((?:deploy|tuning|tests|serving)/[\w./]+\.\w+)`", page):
        assert (ROOT / file).exists(), file
    assert {AWS, LOCAL, JOB, SERVICE} <= set(re.findall(r"[\w./]+\.yaml", page))
    readers = READERS | {"BALLAST_STORAGE": ROOT / "market/storage.py"}
    named = set(re.findall(r"\b((?:BALLAST|RAY|MLFLOW)_[A-Z_]+)\b", page))
    assert {"BALLAST_HOME", "BALLAST_STORAGE", "RAY_JOB_STOP_WAIT_TIME_S"} <= named
    assert named - readers.keys() == {"RAY_API_SERVER_ADDRESS"}  # which Ray's own commands read
    commands = {command.name or command.callback.__name__ for command in _commands(ballast.app)}
    assert set(re.findall(r"python -m ballast (\w+)", page)) <= commands


def _commands(app: Any) -> list[Any]:
    groups = [one for each in app.registered_groups for one in _commands(each.typer_instance)]
    return [*app.registered_commands, *groups, *(each for each in app.registered_groups if each.name)]
