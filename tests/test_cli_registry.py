"""`registry`: what its commands change, say and refuse, on real bundles."""

import copy
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import ballast
import cli.registry
from journal.records import ModelRecord
from journal.store import Journal
from mlops.evidence import Evidence, Verdict
from mlops.registry import Lineage, Registry
from mlops.versions import read_export
from policies.bundle import META_FILE
from tests.fake_serve import TOKEN, FakeServe, fake_serve
from tests.serving_bundles import saved


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home with three registered bundles; MLflow takes seconds to make its tables."""
    home = tmp_path_factory.mktemp("template")
    for seed in range(3):
        folder = saved(home, seed)
        lineage = Lineage("d" * 64, "f" * 64, "c" * 64, (seed, 9), _digests(home)[0] if seed else None)
        Registry(home).register(folder.name, folder, {"rule": "[bold]"}, lineage=lineage)
    return home


@pytest.fixture
def desk(template: Path, home: Path) -> Path:
    """BALLAST_HOME is a copy of that; the bundles themselves lie where they were registered."""
    shutil.copytree(template, home, dirs_exist_ok=True)
    return home


@pytest.fixture
def registry(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    """Run `registry WORDS`; gives the exit code, what was printed and what was complained of."""

    def run(*words: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["ballast", "registry", *words])
        monkeypatch.setenv("COLUMNS", "400")
        with pytest.raises(SystemExit) as stopped:
            ballast.main()
        said = capsys.readouterr()
        assert "Traceback" not in said.err
        assert isinstance(stopped.value.code, int)
        return stopped.value.code, said.out, said.err

    return run


def _digests(home: Path) -> list[str]:
    return [version.digest for version in read_export(home)]


def _evaluated(home: Path, number: int, champion: int | None = None, passed: bool = True) -> Path:
    """Evidence for a version, where evaluate leaves it."""
    digests = _digests(home)
    verdict = Verdict(passed=passed, reasons=() if passed else ("lost to the rule",))
    live = None if champion is None else digests[champion - 1]
    evidence = Evidence(bundle=digests[number - 1], figures={}, verdict=verdict, champion=live)
    path = home / "evidence" / f"{number}-{evidence.created:%H%M%S%f}.json"
    evidence.save(path)
    return path


def _live(home: Path) -> list[int]:
    return [version.version for version in read_export(home) if version.status == "PRODUCTION"]


def test_show_tells_what_a_version_was_made_of(desk, registry):
    code, out, _ = registry("show", "3")
    assert code == 0
    out = " ".join(out.split())  # however wide the terminal is
    digests = _digests(desk)
    for part in (
        "3 STAGING @staging", digests[2], "d" * 64, "f" * 64, "c" * 64, "2, 9", "[bold]",
        f"{digests[0]} (version 1)",
    ):  # fmt: skip
        assert part in out
    assert registry("show", "9") == (2, "", "refused version: got 9; give one of 1, 2, 3\n")


def test_promotion_takes_the_newest_evidence_for_the_bundle(desk, registry):
    _evaluated(desk, 1, passed=False)
    code, _, err = registry("promote", "1")
    assert code == 2
    assert "lost to the rule" in err
    assert _live(desk) == []
    newest = Evidence.load(_evaluated(desk, 1))
    code, out, _ = registry("promote", "1")
    assert code == 0
    assert "version 1 is in PRODUCTION; bundle" in out
    assert read_export(desk)[0].evidence == newest.digest
    assert registry("promote", "1", "--override", "again")[1].endswith("nothing was changed\n")
    assert newest.digest in registry("show", "1")[1]


def test_a_promotion_without_evidence_or_with_that_of_another_bundle_is_refused(desk, registry):
    other = _evaluated(desk, 2)
    code, _, err = registry("promote", "1")
    assert (code, _live(desk)) == (2, [])
    assert "evaluate it first" in err
    code, _, err = registry("promote", "1", "--evidence", str(other))
    assert (code, _live(desk)) == (2, [])
    assert "evidence.bundle" in err
    other.write_text("{")
    code, _, err = registry("promote", "1")
    assert (code, _live(desk)) == (2, [])
    assert str(other) in err


def test_an_override_is_journaled_and_rollback_brings_the_one_before_back(desk, registry):
    assert registry("promote", "1", "--override", "first of all")[0] == 0
    assert "in place of version 1" in registry("promote", "2", "--override", "in a hurry")[1]
    assert "version 1 is in PRODUCTION, in place of version 2" in registry("rollback")[1]
    assert _live(desk) == [1]
    journal = Journal(f"sqlite:///{desk / 'journal' / 'journal.db'}", "reader")
    told = [ModelRecord.of(record) for record in journal.read("model")]
    assert [(one.action, one.version, one.override) for one in told if one.action != "registered"] == [
        ("promoted", 1, "first of all"),
        ("promoted", 2, "in a hurry"),
        ("rolled_back", 1, "first of all"),
    ]


def test_a_journal_that_is_out_of_order_is_told_and_stops_no_rollback(desk, registry):
    registry("promote", "1", "--override", "first")
    registry("promote", "2", "--override", "second")
    database = desk / "journal" / "journal.db"
    content = database.read_bytes()
    for file in database.parent.iterdir():
        file.unlink()
    database.write_bytes(b"no database " * 1_000)
    code, out, err = registry("rollback")
    assert (code, _live(desk)) == (0, [1])
    assert "version 1 is in PRODUCTION" in out
    assert "not journaled yet" in err
    database.write_bytes(content)
    assert registry("export")[2] == ""


def test_a_bundle_that_was_altered_does_not_go_live(desk, registry, tmp_path):
    root = tmp_path / "bundles"
    folder = saved(tmp_path, 7)
    Registry(desk).register(folder.name, folder)
    registry("promote", "1", "--override", "first")
    meta = root / folder.name / META_FILE
    meta.write_bytes(meta.read_bytes().replace(b'"donchian"', b'"donchiam"'))
    code, _, err = registry("promote", "4", "--override", "in a hurry")
    assert (code, _live(desk)) == (2, [1])
    assert "bundle.digest" in err
    assert "altered" in err


def test_pruning_says_what_it_forgot_and_may_be_set_for_good(desk, registry):
    assert registry("prune", "--always")[0] == 2
    code, out, _ = registry("prune", "--keep", "2", "--always")
    assert (code, out) == (0, "forgotten 1; the newest 2 are kept when one is registered\n")
    assert Registry(desk).keep() == 2
    assert len(_digests(desk)) == 2


def test_mlflows_pages_are_opened_on_this_machine_alone_or_it_is_said_how_to_get_them(
    desk, registry, monkeypatch
):
    def missing(name):
        raise cli.registry.metadata.PackageNotFoundError(name)

    monkeypatch.setattr("cli.registry.metadata.version", missing)
    code, _, err = registry("ui")
    assert code == 2
    assert "pip install '.[ui]'" in err
    started = []
    monkeypatch.setattr("cli.registry.metadata.version", lambda name: "3.17.2")
    monkeypatch.setattr("cli.registry.os.execve", lambda *command: started.append(command))
    assert registry("ui", "--port", "5099")[0] == 0
    ((program, arguments, environment),) = started
    assert (program, arguments[0]) == (sys.executable, sys.executable)
    assert arguments[arguments.index("--host") + 1] == "127.0.0.1"
    assert arguments[arguments.index("--port") + 1] == "5099"
    assert f"sqlite:///{desk}/registry/mlflow.db" in arguments
    assert environment["MLFLOW_DISABLE_TELEMETRY"] == "true"


@pytest.fixture
def served(desk: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[str, FakeServe]]:
    """Two replicas that answer by the rule, and the address of their cluster."""
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    monkeypatch.setenv("RAY_AUTH_TOKEN", TOKEN)
    with fake_serve(desk) as running:
        yield running


def test_promotion_and_rollback_reach_every_replica_and_change_user_config_alone(desk, registry, served):
    url, serve = served
    before, digests = copy.deepcopy(serve.config), _digests(desk)
    for words, number in (
        (("promote", "1", "--override", "first"), 1),
        (("promote", "2", "--override", "second"), 2),
        (("rollback",), 1),
        (("promote", "1"), 1),  # what is live already is told again
    ):
        code, out, err = registry(*words, "--serve", url)
        assert (code, err) == (0, "")
        assert out.endswith("2 of 2 replicas answer from it\n")
        assert [one.sizer.digest for one in serve.desks] == [digests[number - 1]] * 2
        assert {one.sizer.status for one in serve.desks} == {"PRODUCTION"}
    config = copy.deepcopy(serve.config)
    sizing = config["applications"][1]["deployments"][0]
    assert sizing["user_config"]["digest"] == digests[0]
    sizing["user_config"] = before["applications"][1]["deployments"][0]["user_config"]
    assert {name: before[name] for name in config} == config


@pytest.mark.parametrize("file", [META_FILE, "policy.safetensors"])
def test_a_bundle_that_a_replica_refuses_leaves_the_old_one_answering(desk, registry, served, file):
    url, serve = served
    registry("promote", "1", "--override", "first", "--serve", url)
    folder = read_export(desk)[1].path
    whole = (folder / file).read_bytes()
    serve.on_its_way = lambda: (folder / file).write_bytes(
        whole[:-1] + b" "
    )  # once the registry has opened it
    try:
        code, _, err = registry("promote", "2", "--override", "in a hurry", "--serve", url)
    finally:
        (folder / file).write_bytes(whole)
    assert code == 2
    assert "a replica refused it and keeps its own" in err
    assert "altered" in err
    assert f"`registry promote 2 --serve {url}`" in err
    assert [one.sizer.digest for one in serve.desks] == [_digests(desk)[0]] * 2
    serve.on_its_way = lambda: None
    assert registry("rollback", "--serve", url)[0] == 0
    assert [one.refused for one in serve.desks] == [None, None]


def test_a_replica_that_hears_nothing_is_waited_for_and_counted(desk, registry, served, monkeypatch):
    url, serve = served
    monkeypatch.setattr("serving.rollout.SECONDS", 0.5)
    serve.deaf = serve.desks[1:]
    code, _, err = registry("promote", "1", "--override", "first", "--serve", url)
    assert code == 2
    assert "1 of 2 replicas answer from it after 0.5 s" in err


def test_where_nothing_is_served_nothing_is_promoted(desk, registry, served, monkeypatch):
    code, _, err = registry("promote", "1", "--override", "first", "--serve", "http://127.0.0.1:9")
    assert (code, _live(desk)) == (2, [])
    assert "running Ray dashboard" in err
    monkeypatch.setenv("RAY_AUTH_TOKEN", "another")
    code, _, err = registry("promote", "1", "--override", "first", "--serve", served[0])
    assert (code, _live(desk)) == (2, [])
    assert "its token (401)" in err


def test_endpoints_with_keys_are_asked_with_one(desk, registry, served, monkeypatch):
    with fake_serve(desk, key="secret") as (url, _):
        code, _, err = registry("promote", "1", "--override", "first", "--serve", url)
        assert code == 2
        assert "BALLAST_API_KEY" in err
        monkeypatch.setenv("BALLAST_API_KEY", "secret")
        assert registry("promote", "1", "--serve", url)[0] == 0


def test_a_challenger_is_started_and_stopped_on_every_replica_and_a_swap_keeps_it(
    desk, registry, served, monkeypatch, capsys
):
    def shadow(*words):
        monkeypatch.setattr(sys, "argv", ["ballast", "shadow", *words])
        with pytest.raises(SystemExit) as stopped:
            ballast.main()
        said = capsys.readouterr()
        return stopped.value.code, said.out, said.err

    url, serve = served
    assert shadow("start", "2", "--serve", url, "--share", "0.1") == (
        0,
        "2 of 2 replicas size by it too\n",
        "",
    )
    registry("promote", "1", "--override", "first", "--serve", url)
    for one in serve.desks:
        assert one.challenger.health() == {"digest": _digests(desk)[1], "status": "STAGING", "share": 0.1}
    assert shadow("start", "rule", "--serve", url)[0] == 0
    assert {one.challenger.sizer.digest for one in serve.desks} == {None}
    assert shadow("stop", "--serve", url)[1] == "2 of 2 replicas size by no challenger\n"
    assert [one.challenger for one in serve.desks] == [None, None]
    assert shadow("start", "9", "--serve", url)[0] == 2
