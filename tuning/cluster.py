"""A Ray to train on: the one connected, the cluster a submitted job runs in, or a local one for a while.

Knows nothing of what runs on it.
"""

import logging
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

LOCAL_OBJECT_STORE: Final = 200_000_000  # bytes: signal tables and configurations, nothing larger


@contextmanager
def connected(processors: int) -> Iterator[None]:
    """Ray for the block; where there is none, a local one of `processors` that ends with the block."""
    import ray

    if ray.is_initialized():
        yield
        return
    if os.environ.get("RAY_ADDRESS"):
        ray.init(log_to_driver=False, logging_level=logging.ERROR)
        try:
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
