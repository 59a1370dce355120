"""A Ray cluster of one machine, held until standard input ends: python -m serving.local_cluster FOLDER PORTS.

Knows nothing of what runs on it. FOLDER takes Ray's sessions and logs, PORTS are two: the dashboard's, and
where Prometheus asks. It ends with whoever holds the other end of its input, however that ends, and no
process of Ray's outlives it.
"""

import shutil
import sys

import ray

OBJECT_STORE_BYTES = 100_000_000  # nothing that is served passes through it
PROCESSORS = 2  # logical: replicas ask for a tenth each


def main(folder: str, dashboard_port: int, metrics_port: int) -> None:
    """Hold the cluster."""
    ray.init(
        address="local",
        num_cpus=PROCESSORS,
        object_store_memory=OBJECT_STORE_BYTES,
        include_dashboard=True,
        dashboard_host="127.0.0.1",
        dashboard_port=dashboard_port,
        log_to_driver=False,
        _temp_dir=folder,
        _metrics_export_port=metrics_port,
    )
    try:
        sys.stdin.buffer.read()
    finally:
        ray.shutdown()
    shutil.rmtree(folder, ignore_errors=True)  # whoever held the other end may have been killed


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
