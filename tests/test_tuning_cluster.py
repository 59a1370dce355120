"""On several nodes nothing starts in a folder that some of them do not see."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import ray._private.utils
from ray.cluster_utils import Cluster

from tests.test_project_tree import ROOT

# What lies below /proc/self/fd is each process's own: the nearest to a disk of its own that a node on one
# machine can have.
ASK = """
import json
import os
from pathlib import Path
from market.errors import ConfigError
from tuning.cluster import connected

found = []
os.mkdir("home")
os.dup2(os.open("home", os.O_RDONLY), 200)
for folder in (Path("home").absolute(), Path("/proc/self/fd/200")):
    try:
        with connected(1, folder):
            found.append("shared")
    except ConfigError as error:
        found.append(str(error))
with connected(1):
    found.append("not asked")
print(json.dumps([found, [path.name for path in Path("home").iterdir()]]))
"""


@pytest.mark.long
@pytest.mark.timeout(300)
def test_folder_that_another_node_does_not_see_is_refused_by_the_nodes_address(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ray._private.utils, "write_ray_address", lambda *rest, **more: None)  # nobody else's
    node: dict[str, Any] = {"object_store_memory": 80_000_000}
    cluster = Cluster(initialize_head=True, head_node_args=node | {"num_cpus": 0, "include_dashboard": False})
    try:
        address = cluster.add_node(num_cpus=1, **node).node_ip_address
        environment = os.environ | {"RAY_ADDRESS": cluster.address, "PYTHONPATH": str(ROOT)}
        command = [sys.executable, "-c", ASK]
        asked = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
        assert asked.returncode == 0, asked.stderr
        (shared, refused, unasked), left = json.loads(asked.stdout.splitlines()[-1])
        assert (shared, unasked, left) == ("shared", "not asked", [])
        assert refused == (
            "BALLAST_HOME: got '/proc/self/fd/200'; mount one folder there on every node: "
            f"{address} cannot see what is written here"
        )
    finally:
        cluster.shutdown()
