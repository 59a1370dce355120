"""A real PostgreSQL server of its own for the tests that need one; `conftest.py` imports the fixture."""

import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

USER, PASSWORD = "ballast", "s3cret-w0rd"
START_SECONDS = 60


@pytest.fixture(scope="session")
def postgres_url() -> Iterator[str]:
    """The URL (superuser, with password) of an empty server on a free port, gone after the session."""
    programs = _programs()
    if programs is None:
        pytest.skip("PostgreSQL's initdb and postgres are not installed")
    account = _account()
    folder = Path(tempfile.mkdtemp(prefix="ballast-pg-", dir="/tmp"))  # a socket's path is short
    try:
        secret = folder / "password"
        secret.write_text(PASSWORD)
        # A clean environment: PGDATA, PGPORT and the like are not ours.
        environment = {"PATH": os.defpath, "LC_ALL": "C", "HOME": str(folder)}
        process: dict[str, Any] = {"cwd": folder, "env": environment, "stdin": subprocess.DEVNULL}
        if account is not None:
            os.chown(folder, account.pw_uid, account.pw_gid)
            process |= {"user": account.pw_uid, "group": account.pw_gid, "extra_groups": []}
        made = subprocess.run(
            [programs / "initdb", "-D", folder / "data", "-U", USER, f"--pwfile={secret}", "--no-sync",
             "--auth=scram-sha-256", "--encoding=UTF8", "--locale=C"],
            capture_output=True, text=True, timeout=120, **process,
        )  # fmt: skip
        assert made.returncode == 0, made.stderr
        server, port = _started(programs / "postgres", folder, process)
        try:
            yield f"postgresql+psycopg://{USER}:{PASSWORD}@127.0.0.1:{port}/postgres"
        finally:
            server.send_signal(signal.SIGINT)  # a fast shutdown: clients are disconnected
            try:
                server.wait(20)
            except subprocess.TimeoutExpired:
                server.kill()
                server.wait()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _programs() -> Path | None:
    """The folder of initdb and postgres; Debian keeps them off the PATH, one folder per version."""
    on_path = shutil.which("initdb")
    folders = [Path(on_path).resolve().parent] if on_path else []
    folders += sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    whole = [path for path in folders if (path / "initdb").exists() and (path / "postgres").exists()]
    return whole[0] if whole else None


def _account() -> pwd.struct_passwd | None:
    """PostgreSQL refuses to run as root: then the account to run it as."""
    if os.geteuid() != 0:
        return None
    accounts = {account.pw_name: account for account in pwd.getpwall()}
    for name in ("postgres", "nobody"):
        if name in accounts:
            return accounts[name]
    pytest.skip("PostgreSQL does not run as root, and there is neither a postgres nor a nobody account")


def _started(program: Path, folder: Path, process: dict[str, Any]) -> tuple[subprocess.Popen[bytes], int]:
    """The server and its port, once it answers."""
    log = folder / "log"
    for _ in range(3):  # another program may take the port between our look and the server's start
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        command: list[str | Path] = [
            program,
            "-D",
            folder / "data",
            "-k",
            folder,
            "-h",
            "127.0.0.1",
            "-p",
            str(port),
            "-F",
        ]
        with log.open("ab") as output:
            server = subprocess.Popen(command, stdout=output, stderr=output, **process)
        login = (
            f"host=127.0.0.1 port={port} user={USER} password={PASSWORD} dbname=postgres connect_timeout=5"
        )
        deadline = time.monotonic() + START_SECONDS
        while server.poll() is None and time.monotonic() < deadline:
            try:
                psycopg.connect(login).close()
                return server, port
            except psycopg.OperationalError:
                time.sleep(0.1)
        server.kill()
        server.wait()
    pytest.fail(f"PostgreSQL did not start:\n{log.read_text()[-2000:]}")
