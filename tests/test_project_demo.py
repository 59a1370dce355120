"""The demo as a new user runs it, on few bars: what it prints, what it leaves, and what it takes away."""

import json
import os
import re
import socket
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest

from mlops.registry import read_export
from serving.launch import processes_of
from tests.test_project_tree import ROOT

CONFIG = {
    "data": "synthetic:regimes?bars=6000&seed=3",
    "least_trades": 100,
    "algo": "plugin",
    "predictor": {"epochs": 0},
}


@pytest.mark.timeout(600)
def test_the_demo_goes_from_bars_to_a_reason_and_leaves_no_process(home: Path, tmp_path: Path) -> None:
    config = tmp_path / "config.json"
    config.write_text(json.dumps(CONFIG))
    with socket.socket() as taken:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        with suppress(OSError):  # in use already is as good
            taken.bind(("127.0.0.1", 8100))
            taken.listen()
        command = [sys.executable, "-m", "ballast", "demo", "--config", str(config)]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    said = done.stdout
    (version,) = read_export(home)
    assert version.status == "STAGING"
    assert f"version {version.version}, STAGING" in said
    assert version.digest in said
    asked = re.findall(r"curl -s http://127\.0\.0\.1:(\d+)/(\w+) .* -d @(\S+)", said)
    assert [name for _, name, _ in asked] == ["features", "sizing", "narratives"]
    assert all(port != "8100" and Path(body).is_file() for port, _, body in asked)
    assert "31 features from 1,000 bars" in said
    assert '"model_status": "STAGING"' in said
    told = re.search(r"narrative\.json\n(.+)", said)
    assert told
    assert "SYNTHETIC trade" in told[1]
    (report,) = (home / "reports").glob("*.html")
    assert str(report) in said
    assert "serve --staging" in said
    assert "\x1b" not in said, "a file gets no cursor movements"
    assert processes_of(home) == []


@pytest.mark.parametrize("words", [["demo", "--port"], ["serve", "--port"]])
def test_a_port_in_use_is_refused_before_the_work(words: list[str], home: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        command = [sys.executable, "-m", "ballast", *words, port]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=os.environ)
    assert done.returncode == 2
    assert f"port: got {port}; {port} is in use: give another port" in done.stderr
    assert not (home / "runs").exists()
