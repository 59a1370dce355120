"""Runs every benchmark of this folder, each in its own process, and writes benchmarks/results.json.

Knows nothing of what they measure: it keeps the JSON line that each prints last.
"""

import json
import os
import platform
import subprocess
import sys
import time
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from market.home import write_atomically

FOLDER = Path(__file__).resolve().parent
LIBRARIES = ("numba", "numpy", "pandas", "pyarrow", "ray", "torch")


def processor() -> str:
    """The name of this machine's processor, as far as the system tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next(
        (line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "unknown"
    )


def conditions() -> dict[str, Any]:
    """Where and with what the benchmarks ran."""
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": {"system": platform.system(), "processor": processor(), "cores": os.cpu_count()},
        "versions": {"python": platform.python_version(), **{name: version(name) for name in LIBRARIES}},
    }


def run(name: str, options: list[str]) -> dict[str, Any]:
    """The figures of one benchmark, or {"error": why there are none}; its progress goes to our stderr."""
    command = [sys.executable, "-m", f"benchmarks.{name}", *options]
    result = subprocess.run(command, cwd=FOLDER.parent, stdout=subprocess.PIPE, text=True)
    lines = result.stdout.strip().splitlines()
    if result.returncode:
        return {"error": f"exit code {result.returncode}"}
    try:
        figures: dict[str, Any] = json.loads(lines[-1])
    except (IndexError, json.JSONDecodeError):
        return {"error": f"its last line is not JSON: {lines[-1:]}"}
    return figures


def main(options: list[str]) -> int:
    """Run all benchmarks with `options` (`--quick`); the exit code is 1 when any of them failed."""
    results: dict[str, Any] = {}
    for file in sorted(FOLDER.glob("[!_]*.py")):
        started = time.perf_counter()
        print(f"{file.stem} ...", file=sys.stderr, flush=True)
        results[file.stem] = run(file.stem, options)
        print(
            f"{file.stem}: {time.perf_counter() - started:.0f} s {json.dumps(results[file.stem])}", flush=True
        )
    report = {**conditions(), "options": options, "results": results}
    write_atomically(FOLDER / "results.json", (json.dumps(report, indent=1) + "\n").encode())
    return int(any("error" in figures for figures in results.values()))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
