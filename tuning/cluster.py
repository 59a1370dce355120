"""A Ray to train on: the one connected, the cluster a submitted job runs in, or a local one for a while.

Knows nothing of what runs on it, but that it needs one folder that all its nodes see.
"""

import logging
import os
import secrets
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from market import home
from market.errors import ConfigError

LOCAL_OBJECT_STORE: Final = 200_000_000  # bytes: signal tables and configurations, nothing larger
ANSWER_WITHIN: Final = 60.0  # seconds, of a node that is asked what it sees


@contextmanager
def connected(processors: int, shared: Path | None = None) -> Iterator[None]:
    """Ray for the block; where there is none, a local one of `processors` that ends with the block.

    `shared`: a folder that all nodes of a cluster must see; ConfigError where one does not.
    """
    import ray

    if ray.is_initialized():
        yield
        return
    if os.environ.get("RAY_ADDRESS"):
        ray.init(log_to_driver=False, logging_level=logging.ERROR)
        try:
            if shared is not None:
                require_shared(shared)
            yield
        finally:
            ray.shutdown()
        return
    # Ray's sockets lie below this folder and their paths may have 107 characters in all.
    folder = tempfile.mkdtemp(prefix="bl-", dir="/tmp")
    try:
        ray.init(
            address="local",
            num_cpus=processors,
            object_store_memory=LOCAL_OBJECT_STORE,
            include_dashboard=False,
            log_to_driver=False,
            logging_level=logging.ERROR,
            _temp_dir=folder,
        )
        yield
    finally:
        ray.shutdown()
        shutil.rmtree(folder, ignore_errors=True)


def require_shared(folder: Path) -> None:
    """Ask every other node of the connected cluster whether it sees what is written into `folder` here.

    Raises ConfigError that names those who do not. A node that dies meanwhile, or has not answered in a
    minute, is let pass.
    """
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    here = ray.get_runtime_context().get_node_id()
    others = {
        node["NodeID"]: node["NodeManagerAddress"]
        for node in ray.nodes()  # type: ignore[no-untyped-call]
        if node["Alive"] and node["NodeID"] != here
    }
    if not others:
        return
    look = ray.remote(num_cpus=0, max_retries=0)(os.path.exists)  # which every node has, Ballast or not
    folder.mkdir(parents=True, exist_ok=True)
    marker = folder / f".seen-{secrets.token_hex(8)}"
    marker.touch()
    try:
        asked = {
            look.options(scheduling_strategy=NodeAffinitySchedulingStrategy(node, soft=False)).remote(
                str(marker)
            ): address
            for node, address in others.items()
        }
        answered, _ = ray.wait(list(asked), num_returns=len(asked), timeout=ANSWER_WITHIN)
        blind = sorted(asked[each] for each in answered if not _answer(each))
    finally:
        marker.unlink(missing_ok=True)
    if blind:
        mend = f"mount one folder there on every node: {', '.join(blind)} cannot see what is written here"
        raise ConfigError(home.VARIABLE, str(folder), mend)


def _answer(reference: object) -> bool:
    import ray

    try:
        return bool(ray.get(reference))  # type: ignore[call-overload]
    except ray.exceptions.RayTaskError:
        raise
    except ray.exceptions.RayError:  # it died
        return True
