"""Retraining with a made-up launcher and judge: every way a check can end, and every place to die."""

import json
from datetime import UTC, datetime, timedelta

import pytest
from filelock import FileLock

from market.errors import InputError
from market.home import write_atomically
from mlops.evidence import Evidence, Verdict
from mlops.retraining import STARTS, Plan, Retraining, Source, Unfinished, volume
from mlops.versions import ModelVersion, read_export, write_export

START = datetime(2026, 1, 5, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)


class Killed(BaseException):
    """The process dies here."""


class Shelf:
    """A registry of made-up versions, whose aliases do not matter here; the real one has tests of its own."""

    def __init__(self, home):
        self.home = home
        self.promotions = []

    def add(self, status="TRAINING", created=START):
        versions = read_export(self.home)
        number = len(versions) + 1
        digest = f"{number:064x}"
        write_export(self.home, [*versions, made(number, digest, self.home / digest, status, created)])
        return number

    def version(self, number):
        found = [version for version in read_export(self.home) if version.version == number]
        if not found:
            raise InputError("version", number, "register a bundle first")
        return found[0]

    def transition(self, number, status):
        versions = read_export(self.home)
        changed = [
            made(
                one.version,
                one.digest,
                one.path,
                status if one.version == number else one.status,
                one.created,
            )
            for one in versions
        ]
        write_export(self.home, changed)

    def promote(self, number, evidence):
        live = [version for version in read_export(self.home) if version.status == "PRODUCTION"]
        if live and live[0].version == number:
            return
        if evidence.champion != (live[0].digest if live else None):
            raise InputError("evidence.champion", evidence.champion, "evaluate against that")
        for version in live:
            self.transition(version.version, "ARCHIVED")
        self.transition(number, "PRODUCTION")
        self.promotions.append(number)

    def statuses(self):
        return [version.status for version in read_export(self.home)]


def made(number, digest, path, status, created):
    aliases = ("production",) if status == "PRODUCTION" else ()
    return ModelVersion(number, digest, path, status, created, aliases=aliases)


class Desk:
    """Everything that is passed in, remembered; a process that dies is a new Retraining on the same home."""

    def __init__(self, home, plan=None, **more):
        self.registry = Shelf(home)
        self.plan, self.more = plan or Plan(minimum=HOUR), more
        self.now = START
        self.launched, self.judged, self.journal, self.heard, self.reports = [], [], {}, [], []
        self.passed, self.reasons, self.training = True, (), None
        self.dies_at, self.runs = None, {}

    def launch(self, attempt):
        self.launched.append(attempt)
        self.dies("launch")
        if isinstance(self.training, BaseException):
            raise self.training
        if attempt not in self.runs:  # a run folder that is there already is gone on with
            self.runs[attempt] = self.training or self.registry.add(created=self.now)
        return self.runs[attempt]

    def judge(self, version):
        self.judged.append(version.version)
        self.dies("judge")
        verdict = Verdict(passed=self.passed, reasons=() if self.passed else ("lost to the rule",))
        live = [one.digest for one in read_export(self.registry.home) if one.status == "PRODUCTION"]
        champion = live[0] if live else None
        return Evidence(bundle=version.digest, figures={"vs_rule": 0.1}, verdict=verdict, champion=champion)

    def append(self, entries):
        for kind, record_id, payload in entries:
            assert kind == "trigger"
            assert self.journal.setdefault(record_id, payload) == payload  # as the journal itself insists
            self.dies(payload["event"])

    def dies(self, place):
        if self.dies_at == place:
            raise Killed

    def retraining(self):
        source = Source("drift", lambda since: self.reasons)
        settings = {"sources": [source], "callbacks": [self.heard.append]} | self.more
        return Retraining(
            self.registry, self.plan, self.launch, self.judge, self.append,
            report=self.reports.append, clock=lambda: self.now, **settings,
        )  # fmt: skip

    def check(self, **more):
        return self.retraining().check(**more)

    def told(self):
        return [(payload["cause"], payload["event"]) for payload in self.journal.values()]


@pytest.fixture
def desk(tmp_path):
    desk = Desk(tmp_path)
    desk.registry.add("PRODUCTION", START - 10 * HOUR)
    return desk


def test_nothing_is_done_where_nothing_calls_for_training(desk):
    outcome = desk.check()
    assert (outcome.result, outcome.good) == ("nothing", True)
    assert (desk.launched, desk.journal) == ([], {})


def test_a_drifted_model_is_trained_again_judged_and_staged_while_the_old_one_serves(desk):
    desk.reasons = ["rsi_14 drifted", "atr_ratio drifted"]
    outcome = desk.check()
    assert (outcome.result, outcome.version, outcome.good) == ("passed", 2, True)
    assert desk.registry.statuses() == ["PRODUCTION", "STAGING"]
    assert desk.told() == [("drift", "started"), ("drift", "started"), ("drift", "succeeded")]
    last = list(desk.journal.values())[-1]
    assert (last["bundle"], last["trained"]) == (f"{1:064x}", f"{2:064x}")
    assert last["figures"] == {"vs_rule": 0.1}
    assert [record.event for record in desk.heard] == ["started", "started", "succeeded"]


def test_a_shut_gate_changes_nothing_live_and_puts_the_candidate_away(desk):
    desk.plan = Plan(minimum=HOUR, promote=True)
    desk.reasons, desk.passed = ["drifted"], False
    outcome = desk.check()
    assert (outcome.result, outcome.good) == ("shut", False)
    assert "lost to the rule" in outcome.detail
    assert desk.registry.statuses() == ["PRODUCTION", "ARCHIVED"]
    assert desk.told()[-1] == ("drift", "refused")


def test_what_passes_goes_live_only_where_that_was_asked_for(desk):
    desk.plan = Plan(minimum=HOUR, promote=True)
    assert desk.check(asked=True).result == "promoted"
    assert desk.registry.statuses() == ["ARCHIVED", "PRODUCTION"]
    assert desk.told() == [("manual", "started"), ("manual", "succeeded")]


def test_a_champion_that_changed_meanwhile_is_not_replaced(desk):
    desk.plan = Plan(minimum=HOUR, promote=True)
    judge = desk.judge

    def slow(version):
        evidence = judge(version)
        desk.registry.transition(1, "ARCHIVED")  # somebody archives what is live
        return evidence

    desk.judge = slow
    outcome = desk.check(asked=True)
    assert (outcome.result, outcome.good) == ("refused", False)
    assert "evidence.champion" in outcome.detail
    assert desk.registry.promotions == []


@pytest.mark.parametrize("place", ["launch", "judge", "unknown version", "another bundle"])
def test_what_fails_is_told_and_changes_nothing_live(desk, place):
    desk.plan = Plan(minimum=HOUR, promote=True)
    if place == "launch":
        desk.training = RuntimeError("out of memory\nat line 3")
    elif place == "unknown version":
        desk.training = 99
    else:
        desk.judge = lambda version: 1 / 0 if place == "judge" else forged
        forged = Evidence(bundle="f" * 64, figures={}, verdict=Verdict(passed=True))
    outcome = desk.check(asked=True)
    assert (outcome.result, outcome.good) == ("failed", False)
    trained = place in ("judge", "another bundle")
    assert desk.registry.statuses() == (["PRODUCTION", "ARCHIVED"] if trained else ["PRODUCTION"])
    assert desk.registry.promotions == []
    assert desk.told()[-1] == ("manual", "failed")
    said = {
        "launch": "RuntimeError: out of memory",
        "judge": "ZeroDivisionError",
        "another bundle": "evidence.bundle",
    }
    assert said.get(place, "register a bundle first") in outcome.detail
    desk.reasons = ["drifted"]
    assert desk.check().result == "waiting"


def test_training_that_gives_the_live_model_again_needs_no_verdict(desk):
    desk.training = 1
    assert desk.check(asked=True).result == "unchanged"
    assert desk.judged == []


def test_a_bundle_put_away_before_may_pass_later(desk):
    desk.training = desk.registry.add("ARCHIVED")
    assert desk.check(asked=True).result == "passed"
    assert desk.registry.statuses() == ["PRODUCTION", "STAGING"]


def test_the_minimum_interval_holds_drift_back_and_says_so_once(desk):
    desk.reasons = ["drifted"]
    desk.check()
    for _ in range(3):
        desk.now += timedelta(minutes=19)
        outcome = desk.check()
        assert (outcome.result, outcome.good) == ("waiting", True)
    assert len(desk.launched) == 1
    assert desk.told()[-1] == ("drift", "skipped")
    assert desk.told().count(("drift", "skipped")) == 1
    desk.now += timedelta(minutes=3)
    assert desk.check().result == "passed"
    assert len(desk.launched) == 2


def test_who_asks_does_not_wait_for_the_interval(desk):
    desk.check(asked=True)
    assert desk.check(asked=True).result == "passed"
    assert len(desk.launched) == 2


def test_a_schedule_counts_from_the_last_training_by_whomever(desk):
    desk.plan = Plan(every=24 * HOUR, minimum=HOUR)
    assert desk.check().result == "nothing"  # version 1 is ten hours old
    desk.now = START + 14 * HOUR
    assert desk.check().result == "passed"
    assert desk.told()[0] == ("schedule", "started")
    desk.now += 20 * HOUR
    desk.registry.add("STAGING", desk.now)  # somebody trains by hand
    desk.now += 20 * HOUR
    assert desk.check().result == "nothing"
    desk.now += 4 * HOUR
    assert desk.check().result == "passed"


def test_a_home_without_any_model_is_trained_on_schedule_at_once(tmp_path):
    desk = Desk(tmp_path, Plan(every=24 * HOUR))
    assert desk.check().result == "passed"


def test_new_data_is_counted_since_the_last_training(desk):
    bars = [START + n * HOUR for n in range(100)]
    ask = volume(lambda since: sum(since < bar <= desk.now for bar in bars), 50, "bars")
    desk.more = {"sources": [Source("new_data", ask)]}
    desk.now = START + 30 * HOUR
    assert desk.check().result == "nothing"
    desk.now = START + 49 * HOUR
    assert desk.check().result == "passed"
    assert next(iter(desk.journal.values()))["detail"] == "50 new bars since the last training, of 50"
    desk.now = START + 98 * HOUR
    assert desk.check().result == "nothing"
    desk.now = START + 99 * HOUR
    assert desk.check().result == "passed"


def test_a_source_that_cannot_be_asked_is_told_and_others_still_count(desk):
    def broken(since):
        raise InputError("bars", "gone.csv", "give a file that exists")

    desk.more = {"sources": [Source("new_data", broken)]}
    for _ in range(3):
        outcome = desk.check()
        assert (outcome.result, outcome.good) == ("failed", False)
        assert "new_data: bars: got 'gone.csv'" in outcome.detail
    assert desk.told() == [("new_data", "failed")]
    assert desk.check(asked=True).result == "passed"


def test_a_callback_that_fails_stops_nothing_and_is_reported(desk):
    def broken(record):
        raise OSError("no pager")

    desk.more = {"callbacks": [broken, desk.heard.append]}
    assert desk.check(asked=True).result == "passed"
    assert len(desk.heard) == 2
    assert len(desk.reports) == 2
    assert "broken failed: OSError: no pager" in desk.reports[0]


def test_only_one_process_trains(desk):
    desk.reasons = ["drifted"]
    (desk.registry.home / "retraining").mkdir()
    with FileLock(desk.registry.home / "retraining" / "lock"):
        outcome = desk.check()
    assert (outcome.result, outcome.good, desk.launched) == ("busy", True, [])
    assert desk.check().result == "passed"


def test_a_clock_that_steps_back_neither_trains_at_once_nor_waits_for_ever(desk):
    desk.plan = Plan(every=24 * HOUR, minimum=HOUR)
    desk.check(asked=True)
    desk.now = START - 300 * 24 * HOUR
    assert desk.check().result == "nothing"
    assert "stepped back" in desk.reports[0]
    desk.now += 23 * HOUR
    assert desk.check().result == "nothing"
    desk.now += HOUR
    assert desk.check().result == "passed"
    assert len(desk.reports) == 1


PLACES = [
    ("launch", None),
    ("judge", None),
    ("started", None),
    ("succeeded", None),
    ("promoted", None),
    ("write", 0), ("write", 1), ("write", 2), ("write", 3), ("write", 4), ("write", 5), ("write", 6),
]  # fmt: skip


@pytest.mark.parametrize(("place", "number"), PLACES)
def test_a_process_that_dies_anywhere_is_taken_up_by_the_next_and_nothing_is_done_twice(
    desk, monkeypatch, place, number
):
    desk.plan = Plan(minimum=HOUR, promote=True)
    desk.reasons = ["drifted"]
    with monkeypatch.context() as patch:
        if place == "write":
            writes = iter(range(number))

            def mortal(path, content):
                if next(writes, None) is None:
                    raise Killed
                write_atomically(path, content)

            patch.setattr("mlops.retraining.write_atomically", mortal)
        elif place == "promoted":
            promote = desk.registry.promote

            def dies(*arguments):
                promote(*arguments)
                raise Killed

            patch.setattr(desk.registry, "promote", dies)
        desk.dies_at = place
        with pytest.raises(Killed):
            desk.check()
    desk.dies_at, desk.reasons = None, []
    desk.now += timedelta(minutes=5)
    begun = (place, number) not in [("write", 0), ("write", 1)]  # the second is the attempt itself
    assert desk.check().result == ("promoted" if begun else "nothing")
    assert desk.registry.statuses() == (["ARCHIVED", "PRODUCTION"] if begun else ["PRODUCTION"])
    assert desk.registry.promotions == ([2] if begun else [])
    assert len(set(desk.launched)) <= 1
    assert len(desk.launched) <= 2
    assert len(desk.judged) <= 2
    assert desk.told() == ([("drift", "started"), ("drift", "succeeded")] if begun else [])
    assert desk.check().result == "nothing"


def test_a_training_whose_process_dies_every_time_is_given_up(desk):
    desk.reasons = ["drifted"]
    desk.dies_at = "launch"
    for _ in range(STARTS):
        with pytest.raises(Killed):
            desk.check()
    outcome = desk.check()
    assert (outcome.result, len(desk.launched)) == ("failed", STARTS)
    assert "its process died each time" in outcome.detail


def test_a_training_lost_sight_of_or_stopped_is_asked_for_again_as_often_as_it_takes(desk):
    desk.reasons = ["drifted"]
    for _ in range(STARTS + 1):
        desk.training = Unfinished("the cluster does not answer")
        outcome = desk.check()
        assert (outcome.result, outcome.good) == ("unfinished", False)
        desk.training = SystemExit(143)
        with pytest.raises(SystemExit):
            desk.check()
    desk.training = None
    assert desk.check().result == "passed"
    assert len(set(desk.launched)) == 1


def test_nothing_is_launched_that_cannot_be_journaled(desk):
    def refuse(entries):
        raise InputError("journal", "here", "free some disk space")

    desk.append = refuse
    with pytest.raises(InputError, match="free some disk space"):
        desk.check(asked=True)
    assert desk.launched == []


def test_a_full_disk_or_a_broken_state_is_a_clear_error_and_launches_nothing(desk, monkeypatch):
    def full(path, content):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("mlops.retraining.write_atomically", full)
        with pytest.raises(InputError, match=r"retraining state: .*No space left on device"):
            desk.check(asked=True)
    path = desk.registry.home / "retraining" / "state.json"
    path.write_text(json.dumps({"last": "yesterday"}))
    with pytest.raises(InputError, match=r"retraining state: .*remove it"):
        desk.check(asked=True)
    assert desk.launched == []
    path.unlink()
    assert desk.check(asked=True).result == "passed"
