import errno
import hashlib
import multiprocessing
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from journal.records import ModelRecord
from journal.store import Journal
from market.errors import InputError
from market.home import write_atomically
from mlops import mlflow_store
from mlops.changes import BY_HAND
from mlops.evidence import Evidence, Verdict
from mlops.registry import KEEP, Lineage, Registry, read_export
from policies.bundle import BundleError

# Imports once, for all processes it starts, what MLflow imports on its first use.
STORES = ("mlflow.store.tracking.sqlalchemy_store", "mlflow.store.model_registry.sqlalchemy_store")
SERVER = multiprocessing.get_context("forkserver")
SERVER.set_forkserver_preload(["mlflow.tracking", *STORES, __name__])


def bundle(home, name):
    """The digest and folder of a bundle; what is in it is no business of the registry."""
    digest = hashlib.sha256(name.encode()).hexdigest()
    folder = home / "bundles" / digest
    folder.mkdir(parents=True, exist_ok=True)
    return digest, folder


def register(registry, *names, **more):
    return [registry.register(*bundle(registry.home, name), **more) for name in names]


def evidence(version, champion=None, passed=True):
    verdict = Verdict(passed=passed, reasons=() if passed else ("lost to the rule",))
    live = champion.digest if champion else None
    return Evidence(bundle=version.digest, figures={"vs_rule": 0.1}, verdict=verdict, champion=live)


def evidence_of(version):
    """The digest of the evidence kept for a version."""
    folder = next(parent for parent in version.path.parents if (parent / "registry").is_dir())
    kept = [Evidence.load(path) for path in (folder / "registry" / "evidence").iterdir()]
    return next(one.digest for one in kept if one.bundle == version.digest)


def opened(home):
    """A registry whose bundles are empty folders, and all open."""
    return Registry(home, opens=lambda root, digest: (root / digest).stat())


def journaled(registry):
    """The model changes in the journal, oldest first: action, version, the version replaced."""
    records = [ModelRecord.of(record) for record in Journal(url(registry), "reader").read("model")]
    return [(record.action, record.version, record.replaced_version) for record in records]


def url(registry):
    return f"sqlite:///{registry.home / 'journal' / 'journal.db'}"


def state(registry):
    """Number -> status and aliases, the same from MLflow and from the export."""
    versions = registry.versions()
    assert read_export(registry.home) == versions
    return {version.version: (version.status, *version.aliases) for version in versions}


@pytest.fixture(scope="module")
def empty(tmp_path_factory):
    """A registry that was used once: MLflow takes seconds to make its tables."""
    home = tmp_path_factory.mktemp("template")
    assert Registry(home).versions() == []
    return home


@pytest.fixture
def registry(empty, tmp_path):
    home = tmp_path / "home of Ballast"  # a blank in the path is nobody's problem
    shutil.copytree(empty, home)
    return opened(home)


def test_a_registered_bundle_is_found_by_number_and_by_digest(registry):
    digest, folder = bundle(registry.home, "one")
    version = registry.register(digest, folder, {"seed": 7, "algo": "dqn"}, metrics={"skill": 0.25})
    assert (version.version, version.digest, version.path) == (1, digest, folder)
    assert (version.status, version.aliases, version.evidence) == ("STAGING", ("staging",), None)
    assert (version.tags, version.metrics) == ({"seed": "7", "algo": "dqn"}, {"skill": 0.25})
    assert version.created.utcoffset().total_seconds() == 0
    assert registry.version(1) == registry.by_digest(digest) == version
    assert registry.by_digest("0" * 64) is None
    assert read_export(registry.home) == [version]


def test_mlflow_holds_the_metrics_and_a_run_for_its_own_pages(registry):
    digest, folder = bundle(registry.home, "one")
    registry.register(digest, folder, {"seed": 7}, metrics={"skill": 0.25})
    with mlflow_store.opened(registry.home / "registry") as client:
        run = client.get_run(client.get_model_version("ballast-sizer", "1").run_id)
    assert run.data.metrics == {"skill": 0.25}
    assert run.info.status == "FINISHED"
    assert run.data.tags["ballast.digest"] == digest


def test_the_same_bundle_registered_twice_is_one_version(registry):
    first = register(registry, "one", metrics={"skill": 0.25})[0]
    again = register(registry, "one", metrics={"skill": 0.99})[0]
    assert again == first
    assert len(registry.versions()) == 1


def test_nothing_is_written_outside_the_home(registry, tmp_path, monkeypatch):
    work = tmp_path / "work"
    work.mkdir()
    monkeypatch.chdir(work)
    register(registry, "one", metrics={"skill": 1.0})
    assert list(work.iterdir()) == []


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"digest": "abc"}, "digest: got 'abc'; give the bundle's SHA-256"),
        ({"bundle_path": Path("bundles/x")}, "bundle_path: got 'bundles/x'; give the absolute folder"),
        ({"bundle_path": Path("/no/such/bundle")}, "give the absolute folder of a bundle that exists"),
        ({"status": "PRODUCTION"}, "status: got 'PRODUCTION'; register as TRAINING or STAGING"),
        ({"tags": {"ballast.status": "PRODUCTION"}}, "tags: got 'ballast.status'"),
        ({"tags": {"a:b": 1}}, "tags: got 'a:b'; give a name"),
        ({"metrics": {"skill": float("nan")}}, r"metrics\.skill: got nan; give a finite number"),
    ],
)
def test_a_bad_registration_is_refused_and_nothing_is_registered(registry, change, message):
    digest, folder = bundle(registry.home, "one")
    arguments = {"digest": digest, "bundle_path": folder} | change
    with pytest.raises(InputError, match=message):
        registry.register(**arguments)
    assert registry.versions() == []


def test_a_relative_home_is_refused():
    with pytest.raises(InputError, match="home: got 'state'; give an absolute folder"):
        Registry(Path("state"))


def test_an_unknown_version_is_refused_with_those_there_are(registry):
    with pytest.raises(InputError, match="version: got 3; register a bundle first"):
        registry.version(3)
    register(registry, "one", "two")
    with pytest.raises(InputError, match="version: got 3; give one of 1, 2"):
        registry.promote(3, override="because")


def test_the_newest_staging_version_holds_the_alias(registry):
    register(registry, "one", "two")
    register(registry, "three", status="TRAINING")
    assert state(registry) == {1: ("STAGING",), 2: ("STAGING", "staging"), 3: ("TRAINING",)}
    registry.transition(3, "STAGING")
    assert state(registry) == {1: ("STAGING",), 2: ("STAGING",), 3: ("STAGING", "staging")}
    registry.transition(3, "ARCHIVED")
    assert state(registry) == {1: ("STAGING",), 2: ("STAGING", "staging"), 3: ("ARCHIVED",)}


def test_promotion_on_evidence_moves_statuses_and_aliases_together(registry):
    one, two = register(registry, "one", "two")
    first = registry.promote(1, evidence(one))
    assert (first.version.version, first.replaced, first.version.override) == (1, None, None)
    assert first.version.evidence == evidence_of(one)
    assert state(registry) == {1: ("PRODUCTION", "production"), 2: ("STAGING", "staging")}
    second = registry.promote(2, evidence(two, champion=one))
    assert (second.version.version, second.replaced.version, second.replaced.status) == (2, 1, "ARCHIVED")
    assert state(registry) == {1: ("ARCHIVED", "previous"), 2: ("PRODUCTION", "production")}


def test_the_evidence_is_kept_where_its_digest_tells(registry):
    (one,) = register(registry, "one")
    given = evidence(one)
    registry.promote(1, given)
    folder = registry.home / "registry" / "evidence"
    assert Evidence.load(folder / f"{registry.version(1).evidence}.json", bundle=one.digest) == given


def test_promotion_without_support_is_refused_and_changes_nothing(registry):
    one, two = register(registry, "one", "two")
    refused = {
        "give passing evidence for bundle": (2, None, None),
        "override: got ' '; give the reason": (2, None, " "),
        "evidence.verdict: got .*lost to the rule": (2, evidence(two, passed=False), None),
        "evidence.bundle: got": (2, evidence(one), None),
        "give the evidence for bundle": (2, evidence(one), "whatever"),
        "evidence.champion: got .*in production now is no model": (2, evidence(two, champion=one), None),
    }
    before = state(registry)
    for message, (number, given, override) in refused.items():
        with pytest.raises(InputError, match=message):
            registry.promote(number, given, override=override)
    assert state(registry) == before
    assert not (registry.home / "registry" / "evidence").exists()


def test_an_override_opens_a_shut_gate_and_stays_with_the_version(registry):
    (one,) = register(registry, "one")
    promoted = registry.promote(1, evidence(one, passed=False), override="the desk head said so").version
    assert promoted.override == "the desk head said so"
    assert promoted.evidence == evidence_of(one)
    assert state(registry) == {1: ("PRODUCTION", "production")}


def test_of_two_promotions_against_the_same_champion_only_the_first_succeeds(registry):
    one, two, three = register(registry, "one", "two", "three")
    registry.promote(1, evidence(one))
    judged_at_once = [evidence(two, champion=one), evidence(three, champion=one)]
    registry.promote(2, judged_at_once[0])
    with pytest.raises(InputError, match=f"in production now is {two.digest}: evaluate against that"):
        registry.promote(3, judged_at_once[1])


def test_promoting_what_is_live_changes_nothing(registry):
    one, two = register(registry, "one", "two")
    registry.promote(1, evidence(one))
    registry.promote(2, evidence(two, champion=one))
    before = state(registry)
    again = registry.promote(2, evidence(two, champion=one))
    assert (again.version.version, again.replaced) == (2, None)
    assert state(registry) == before


def test_a_version_in_training_cannot_be_promoted_even_by_override(registry):
    register(registry, "one", status="TRAINING")
    with pytest.raises(InputError, match="version 1 is TRAINING: from there only STAGING or ARCHIVED"):
        registry.promote(1, override="in a hurry")
    with pytest.raises(InputError, match="version 1 is TRAINING"):
        registry.transition(1, "PRODUCTION")


def test_staging_reaches_production_by_promotion_alone(registry):
    register(registry, "one")
    with pytest.raises(InputError, match="promote the version, on evidence"):
        registry.transition(1, "PRODUCTION")


def test_rollback_brings_the_previous_version_back_and_is_its_own_undoing(registry):
    one, two = register(registry, "one", "two")
    registry.promote(1, evidence(one))
    registry.promote(2, evidence(two, champion=one))
    back = registry.rollback()
    assert (back.version.version, back.replaced.version) == (1, 2)
    assert state(registry) == {1: ("PRODUCTION", "production"), 2: ("ARCHIVED", "previous")}
    registry.rollback()
    assert state(registry) == {1: ("ARCHIVED", "previous"), 2: ("PRODUCTION", "production")}


def test_rollback_without_an_earlier_version_is_refused(registry):
    (one,) = register(registry, "one")
    registry.promote(1, evidence(one))
    with pytest.raises(InputError, match="no earlier production version"):
        registry.rollback()


def test_archiving_the_live_version_leaves_production_empty_and_can_be_rolled_back(registry):
    (one,) = register(registry, "one")
    registry.promote(1, evidence(one))
    registry.transition(1, "ARCHIVED")
    assert state(registry) == {1: ("ARCHIVED", "previous")}
    assert registry.rollback().replaced is None
    assert state(registry) == {1: ("PRODUCTION", "production")}


def test_pruning_keeps_the_newest_and_whatever_an_alias_names(registry):
    versions = register(registry, "one", "two", "three", "four", "five")
    registry.promote(1, evidence(versions[0]))
    registry.promote(2, evidence(versions[1], champion=versions[0]))
    assert [version.version for version in registry.prune(1)] == [3, 4]
    assert state(registry) == {
        1: ("ARCHIVED", "previous"),
        2: ("PRODUCTION", "production"),
        5: ("STAGING", "staging"),
    }
    assert [version.version for version in registry.prune(0)] == []
    assert all(version.path.exists() for version in versions)
    assert registry.prune(10) == []
    with pytest.raises(InputError, match="keep: got -1"):
        registry.prune(-1)


def test_a_pruned_bundle_can_be_registered_anew_under_a_new_number(registry):
    register(registry, "one", "two")
    registry.prune(1)
    assert register(registry, "one")[0].version == 3


class Killed(BaseException):
    """The process dies here."""


def mortal(function, writes_left):
    def write(*arguments):
        if next(writes_left, None) is None:
            raise Killed
        return function(*arguments)

    return write


CHANGES = {  # the write that decides, counted from 1; what is done; what must come of it; what is journaled
    "promote": (
        3,  # the alias `production`, after the tags of the evidence and of the override
        lambda registry, versions: registry.promote(3, evidence(versions[2], champion=versions[1])),
        {1: ("ARCHIVED",), 2: ("ARCHIVED", "previous"), 3: ("PRODUCTION", "production")},
        ("promoted", 3, 2),
    ),
    "rollback": (
        1,
        lambda registry, versions: registry.rollback(),
        {1: ("PRODUCTION", "production"), 2: ("ARCHIVED", "previous"), 3: ("STAGING", "staging")},
        ("rolled_back", 1, 2),
    ),
    "archive": (
        1,
        lambda registry, versions: registry.transition(2, "ARCHIVED"),
        {1: ("ARCHIVED",), 2: ("ARCHIVED", "previous"), 3: ("STAGING", "staging")},
        ("archived", 2, None),
    ),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_change_that_died_halfway_is_undone_or_finished_on_next_use(
    registry, tmp_path, monkeypatch, change
):
    one, two, three = register(registry, "one", "two", "three")
    registry.promote(1, evidence(one))
    registry.promote(2, evidence(two, champion=one))
    decisive, act, after, told = CHANGES[change]
    before, exported = state(registry), read_export(registry.home)
    survived = 0
    while True:
        copy = opened(tmp_path / f"copy {survived}")
        shutil.copytree(registry.home, copy.home)
        writes_left = iter(range(survived))
        with monkeypatch.context() as patch:
            for owner, name in [
                (mlflow_store, "set_alias"),
                (mlflow_store, "drop_alias"),
                (mlflow_store, "set_tag"),
                (sys.modules["mlops.registry"], "write_export"),
                (sys.modules["mlops.changes"], "write_atomically"),
                (Journal, "append_many"),
            ]:
                patch.setattr(owner, name, mortal(getattr(owner, name), writes_left))
            try:
                act(copy, (one, two, three))
            except Killed:
                assert read_export(copy.home) == exported
            else:
                break
        assert state(copy) == (after if survived >= decisive else before)
        assert journaled(copy)[5:] == ([told] if survived >= decisive else [])
        survived += 1
    assert survived > decisive + 2
    assert state(copy) == after


def test_a_version_that_someone_made_by_hand_is_named(registry):
    with mlflow_store.opened(registry.home / "registry") as client:
        client.create_model_version("ballast-sizer", source="/somewhere")
    with pytest.raises(InputError, match="got 1; was not registered by Ballast: delete it in MLflow"):
        registry.versions()


def test_a_broken_database_is_refused_at_once_and_the_export_still_reads(registry):
    (one,) = register(registry, "one")
    (registry.home / "registry" / "mlflow.db").write_bytes(b"no database at all " * 200)
    with pytest.raises(InputError, match="put a copy back in its place"):
        registry.versions()
    assert read_export(registry.home) == [one]


def test_what_mlflow_refuses_is_a_clear_error(registry):
    with (
        pytest.raises(InputError, match=r"MLflow refused it: .*not found"),
        mlflow_store.opened(registry.home / "registry") as client,
    ):
        client.get_model_version("ballast-sizer", "9")


def test_a_registry_held_too_long_is_a_clear_error(registry, monkeypatch):
    monkeypatch.setattr(mlflow_store, "LOCK_SECONDS", 0.1)
    with (
        mlflow_store.opened(registry.home / "registry"),
        pytest.raises(InputError, match="another process has held the registry"),
    ):
        registry.versions()


def test_every_change_is_journaled_in_one_chain(registry):
    one, two = register(registry, "one", "two")
    registry.promote(1, evidence(one))
    registry.promote(2, override="the desk head said so")
    registry.promote(2)  # is live already
    registry.rollback()
    registry.transition(1, "ARCHIVED")
    journal = Journal(url(registry), "reader")
    support = evidence_of(one)
    told = {"replaced_version": None, "replaced_digest": None, "evidence": None, "override": None}
    first, second = ({"version": one.version, "digest": one.digest} for one in (one, two))
    after = {"replaced_version": 1, "replaced_digest": one.digest}
    before = {"replaced_version": 2, "replaced_digest": two.digest}
    assert [dict(record.payload) for record in journal.read()] == [
        told | first | {"action": "registered"},
        told | second | {"action": "registered"},
        told | first | {"action": "promoted", "evidence": support},
        told | second | after | {"action": "promoted", "override": "the desk head said so"},
        told | first | before | {"action": "rolled_back", "evidence": support},
        told | first | {"action": "archived"},
    ]
    assert {record.writer for record in journal.read()} == {"registry"}
    assert journal.verify() == []


def test_a_change_whose_process_died_is_journaled_even_if_the_next_use_undoes_it(registry, monkeypatch):
    one, two = register(registry, "one", "two")
    registry.promote(1, evidence(one))
    with monkeypatch.context() as patch:
        patch.setattr("mlops.registry._made_live", mortal(Registry._opened, iter(())))
        with pytest.raises(Killed):
            registry.promote(2, evidence(two, champion=one))
    with mlflow_store.opened(registry.home / "registry") as client:
        mlflow_store.set_alias(client, "production", 2)  # the one write that it came to
    registry.rollback()
    assert journaled(registry)[2:] == [("promoted", 1, None), ("promoted", 2, 1), ("rolled_back", 1, 2)]


def test_a_change_that_the_journal_refuses_stands_and_is_journaled_by_the_next_use(registry):
    one, two = register(registry, "one", "two")
    aside = (registry.home / "journal").rename(registry.home / "elsewhere")
    (registry.home / "journal").write_text("a file where the folder should be")
    registry.promote(1, evidence(one))
    registry.promote(2, evidence(two, champion=one))
    assert "journal: got" in registry.unjournaled
    assert state(registry) == {1: ("ARCHIVED", "previous"), 2: ("PRODUCTION", "production")}
    (registry.home / "journal").unlink()
    aside.rename(registry.home / "journal")
    for _ in range(2):
        registry.versions()
        assert registry.unjournaled is None
        assert journaled(registry)[2:] == [("promoted", 1, None), ("promoted", 2, 1)]


def test_what_somebody_made_live_in_mlflow_itself_is_journaled_as_an_override(registry):
    one, _ = register(registry, "one", "two")
    registry.promote(1, evidence(one))
    with mlflow_store.opened(registry.home / "registry") as client:
        mlflow_store.set_alias(client, "production", 2)
    assert state(registry) == {1: ("ARCHIVED", "previous"), 2: ("PRODUCTION", "production")}
    assert journaled(registry)[2:] == [("promoted", 1, None), ("promoted", 2, 1)]
    *_, told = Journal(url(registry), "reader").read()
    assert told.payload["override"] == BY_HAND


def test_a_bundle_that_does_not_open_never_goes_live(registry):
    one, two, three = register(registry, "one", "two", "three")
    registry.promote(1, evidence(one))
    registry.promote(2, evidence(two, champion=one))
    before = state(registry)
    strict = Registry(registry.home)  # opens bundles in earnest: here are empty folders
    with pytest.raises(BundleError, match="give the digest of a bundle that is there"):
        strict.promote(3, evidence(three, champion=two))
    with pytest.raises(BundleError, match="give the digest of a bundle that is there"):
        strict.promote(3, override="in a hurry")
    with pytest.raises(BundleError, match="give the digest of a bundle that is there"):
        strict.rollback()
    assert state(registry) == before


def test_lineage_is_kept_and_mlflow_can_search_by_it(registry):
    (one,) = register(registry, "one")
    lineage = Lineage("d" * 64, "f" * 64, "c" * 64, (0, 1, 2), parent=one.digest)
    (two,) = register(registry, "two", lineage=lineage)
    assert (one.lineage, two.lineage) == (None, lineage)
    assert [version.lineage for version in read_export(registry.home)] == [None, lineage]
    with mlflow_store.opened(registry.home / "registry") as client:
        found = client.search_model_versions(f"tags.`ballast.lineage.parent` = '{one.digest}'")
    assert [version.version for version in found] == [2]


def test_registering_prunes_all_but_so_many_as_are_kept(registry):
    assert registry.keep() == KEEP
    registry.set_keep(2)
    assert opened(registry.home).keep() == 2
    one, *_ = register(registry, "one", "two")
    registry.promote(1, evidence(one))
    register(registry, "three", status="TRAINING")
    register(registry, "four", "five", "six")
    assert state(registry) == {
        1: ("PRODUCTION", "production"),
        3: ("TRAINING",),  # somebody is still at it
        5: ("STAGING",),
        6: ("STAGING", "staging"),
    }
    assert (registry.home / "registry" / "evidence" / f"{evidence_of(one)}.json").exists()
    assert len(list((registry.home / "bundles").iterdir())) == 6
    with pytest.raises(InputError, match="keep: got -1"):
        registry.set_keep(-1)


@pytest.mark.parametrize("lost", ["gone", "empty", "torn"])
def test_a_lost_database_is_no_new_registry(registry, lost):
    (one,) = register(registry, "one")
    database = registry.home / "registry" / "mlflow.db"
    content = database.read_bytes()
    if lost == "gone":
        database.unlink()
    else:
        torn = content[:20_000] + bytes(len(content) // 2) + content[20_000 + len(content) // 2 :]
        database.write_bytes(b"" if lost == "empty" else torn)
    with pytest.raises(InputError, match="put a copy back in its place"):
        register(registry, "two")
    assert read_export(registry.home) == [one]
    database.write_bytes(content)
    assert registry.versions() == [one]


@pytest.mark.parametrize("file", ["changes.json", "export.json", "evidence"])
def test_a_full_disk_is_a_clear_error_and_what_was_begun_is_ended_later(registry, monkeypatch, file):
    one, two = register(registry, "one", "two")
    registry.promote(1, evidence(one))

    def full(path, content):
        if file in str(path):
            raise OSError(errno.ENOSPC, "No space left on device", str(path))
        write_atomically(path, content)

    with monkeypatch.context() as patch:
        # MLflow has a database of its own, which says itself that the disk is full.
        for module in ("changes", "versions", "evidence"):
            patch.setattr(f"mlops.{module}.write_atomically", full)
        with pytest.raises(InputError, match=r"registry: .*see to the disk \(No space left on device"):
            registry.promote(2, evidence(two, champion=one))
        assert read_export(registry.home)[0].aliases == ("production",)
    live = 1 if file == "evidence" else 2
    assert state(registry)[live] == ("PRODUCTION", "production")
    assert journaled(registry)[2:] == [("promoted", 1, None), ("promoted", 2, 1)][:live]


def test_a_broken_file_of_changes_is_named_with_its_mend(registry):
    (one,) = register(registry, "one")
    registry.promote(1, evidence(one))
    path = registry.home / "registry" / "changes.json"
    path.write_text("{")
    with pytest.raises(InputError, match="remove it, and all versions are journaled anew"):
        registry.versions()
    assert read_export(registry.home)[0].status == "PRODUCTION"
    path.unlink()
    registry.versions()
    assert journaled(registry) == [("registered", 1, None), ("promoted", 1, None)] * 2


def test_telemetry_is_off_before_mlflow_is_imported(registry):
    program = (
        "import os, pathlib, sys\n"
        "from mlops.registry import Registry\n"
        "assert 'mlflow' not in sys.modules\n"
        f"Registry(pathlib.Path({str(registry.home)!r})).versions()\n"
        "from mlflow.telemetry.utils import is_telemetry_disabled\n"
        "assert is_telemetry_disabled()\n"
        "assert '_MLFLOW_TELEMETRY_SESSION_ID' not in os.environ"
    )
    # MLflow also keeps quiet under pytest and in CI, which would hide a mistake of ours.
    hidden = ("MLFLOW", "PYTEST", "CI", "GITHUB", "DO_NOT_TRACK")
    environment = {name: value for name, value in os.environ.items() if not name.startswith(hidden)}
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=environment)
    assert (run.returncode, run.stderr) == (0, "")


def register_both(home, name, start):
    start.wait()
    register(opened(home), name, "shared")


def test_six_processes_that_register_at_once_lose_nothing(tmp_path):
    start = SERVER.Barrier(6)
    names = [f"bundle {n}" for n in range(6)]
    processes = [
        SERVER.Process(target=register_both, args=(tmp_path, name, start), daemon=True) for name in names
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0] * 6
    versions = Registry(tmp_path).versions()
    digests = [bundle(tmp_path, name)[0] for name in [*names, "shared"]]
    assert sorted(version.digest for version in versions) == sorted(digests)
    assert [version.version for version in versions] == list(range(1, 8))
    assert [version.aliases for version in versions] == [()] * 6 + [("staging",)]
    assert read_export(tmp_path) == versions
