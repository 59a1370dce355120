import multiprocessing
import os
import signal
import tempfile
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from decimal import Decimal

import pytest
from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

import journal.budget
from benchmarks._budget import DAILY, EACH, hammer
from envs.guardrails import Limits
from journal.budget import OverBudget, RiskBudget, _tables
from journal.database import NothingWritten
from journal.store import Journal
from market.errors import InputError

SPAWN = multiprocessing.get_context("spawn")
SECOND = 1_000_000_000
DAY = 86_400 * SECOND
LIMITS = Limits(max_daily_risk=0.05, max_exposure=0.03)


def url(folder):
    return f"sqlite:///{folder}/budget/budget.db"


class Clock:
    """A clock that a test turns."""

    def __init__(self, now=1_000 * DAY):
        self.now = now

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def budget(tmp_path, clock):
    with closing(RiskBudget(url(tmp_path), clock=clock)) as budget:
        yield budget


def reserve(budget, key, risk=0.01, exposure=0.01, account="desk", **others):
    return budget.reserve(account, key, risk=risk, exposure=exposure, **{"limits": LIMITS, **others})


def used(budget, account="desk"):
    found = budget.used(account)
    return float(found.daily_risk), float(found.exposure)


def test_a_reservation_holds_risk_and_exposure_at_once(budget):
    held = reserve(budget, "t1", risk=0.02, exposure=0.01)
    assert (held.state, held.risk, held.exposure, held.day) == (
        "reserved",
        Decimal("0.02"),
        Decimal("0.01"),
        1_000,
    )
    assert used(budget) == (0.02, 0.01)


def test_settling_frees_the_exposure_but_not_the_days_risk(budget):
    reserve(budget, "t1")
    assert budget.commit("t1").state == "committed"
    assert used(budget) == (0.01, 0.01)
    assert budget.settle("t1").state == "settled"
    assert used(budget) == (0.01, 0.0)


def test_a_released_reservation_gives_all_of_it_back(budget):
    reserve(budget, "t1")
    assert budget.release("t1").state == "released"
    assert used(budget) == (0.0, 0.0)


def test_the_last_unit_fits_exactly_and_one_grain_more_does_not(budget):
    for n in range(3):
        reserve(budget, f"t{n}")
    for n in range(3):
        budget.commit(f"t{n}")
        budget.settle(f"t{n}")
    reserve(budget, "t3", risk=0.02)
    with pytest.raises(OverBudget, match=r"risk: got '1E-12'; at most 0 is left of 0.05 for 1972-09-27 UTC"):
        reserve(budget, "t4", risk=1e-12)
    assert used(budget) == (0.05, 0.01)


def test_exposure_has_a_limit_of_its_own(budget):
    reserve(budget, "t1", exposure=0.025)
    with pytest.raises(OverBudget, match=r"exposure: got '0.01'; at most 0.005 is left of 0.03"):
        reserve(budget, "t2")
    assert used(budget) == (0.01, 0.025)


def test_a_hundred_small_amounts_add_up_exactly(budget):
    wide = Limits(max_daily_risk=0.1, max_exposure=1.0)
    assert sum([0.001] * 100) != 0.1
    for n in range(100):
        reserve(budget, f"t{n}", risk=0.001, exposure=0.0, limits=wide)
    assert budget.used("desk").daily_risk == Decimal("0.1")
    with pytest.raises(OverBudget):
        reserve(budget, "one more", risk=1e-12, limits=wide)


def test_a_refused_key_may_be_used_once_there_is_room(budget):
    reserve(budget, "t1", exposure=0.03)
    with pytest.raises(OverBudget):
        reserve(budget, "t2")
    budget.release("t1")
    assert reserve(budget, "t2").state == "reserved"


def test_a_tightened_limit_holds_from_the_next_reservation_on(budget):
    reserve(budget, "t1")
    with pytest.raises(OverBudget, match=r"at most 0 is left of 0.005"):
        reserve(budget, "t2", risk=0.001, limits=Limits(max_daily_risk=0.005))


def test_the_next_utc_day_has_a_budget_of_its_own(budget, clock):
    clock.now = 1_001 * DAY - 1
    reserve(budget, "t1", risk=0.05)
    clock.now += 1
    reserve(budget, "t2", risk=0.05)
    budget.commit("t1")
    assert budget.used("desk") == (1_001, Decimal("0.05"), Decimal("0.02"))


def test_accounts_do_not_share_a_budget(budget):
    reserve(budget, "t1", risk=0.05)
    reserve(budget, "t2", risk=0.05, account="other")
    assert used(budget) == used(budget, "other") == (0.05, 0.01)


def test_the_same_reservation_twice_spends_once(budget, clock):
    first = reserve(budget, "t1", seconds=60)
    clock.now += SECOND
    assert reserve(budget, "t1", seconds=90) == first
    budget.commit("t1")
    assert reserve(budget, "t1").state == "committed"
    assert used(budget) == (0.01, 0.01)


@pytest.mark.parametrize("other", [{"risk": 0.02}, {"exposure": 0.02}, {"account": "another"}])
def test_a_key_for_something_else_is_refused(budget, other):
    reserve(budget, "t1")
    with pytest.raises(
        InputError, match=r"key: got 't1'; is already there for risk 0.01 and exposure 0.01 of"
    ):
        reserve(budget, "t1", **other)
    assert used(budget) == (0.01, 0.01)


@pytest.mark.parametrize("step", ["commit", "release", "settle"])
def test_a_step_taken_twice_is_taken_once(budget, step):
    reserve(budget, "t1")
    if step == "settle":
        budget.commit("t1")
    first = getattr(budget, step)("t1")
    before = budget.used("desk")
    assert getattr(budget, step)("t1") == first
    assert budget.used("desk") == before


def test_a_late_retry_of_a_commit_does_not_open_a_closed_trade(budget):
    reserve(budget, "t1")
    budget.commit("t1")
    budget.settle("t1")
    assert budget.commit("t1").state == "settled"
    assert used(budget) == (0.01, 0.0)


@pytest.mark.parametrize(
    ("steps", "message"),
    [
        (["settle"], "cannot be settled: it is only reserved; commit it first"),
        (["commit", "release"], "cannot be released: its trade is open; settle it"),
        (["release", "commit"], "cannot be committed: it was released; reserve under a new key"),
        (["release", "settle"], "cannot be settled: it was released"),
        (["commit", "settle", "release"], "cannot be released: its trade is closed"),
    ],
)
def test_a_step_out_of_turn_is_refused(budget, steps, message):
    reserve(budget, "t1")
    for step in steps[:-1]:
        getattr(budget, step)("t1")
    before = budget.used("desk")
    with pytest.raises(InputError, match=message):
        getattr(budget, steps[-1])("t1")
    assert budget.used("desk") == before


@pytest.mark.parametrize("step", ["commit", "release", "settle"])
def test_an_unknown_key_is_refused(budget, step):
    with pytest.raises(InputError, match="key: got 'nobody'; give the key of a reservation"):
        getattr(budget, step)("nobody")


def test_an_expired_reservation_gives_its_budget_back_and_cannot_be_committed(budget, clock):
    reserve(budget, "t1", risk=0.05, exposure=0.03, seconds=60)
    clock.now += 60 * SECOND - 1
    assert used(budget) == (0.05, 0.03)
    clock.now += 1
    assert used(budget) == (0.0, 0.0)
    reserve(budget, "t2", risk=0.05, exposure=0.03)
    with pytest.raises(InputError, match=r"it expired at 1972-09-27T00:01:00.00:00 and its budget went back"):
        budget.commit("t1")
    with pytest.raises(InputError, match="cannot be reserved again: it expired"):
        reserve(budget, "t1", risk=0.05, exposure=0.03)
    assert budget.release("t1").state == "expired"
    assert used(budget) == (0.05, 0.03)


def test_a_committed_trade_does_not_expire(budget, clock):
    reserve(budget, "t1", seconds=60)
    budget.commit("t1")
    clock.now += 3_600 * SECOND
    assert used(budget) == (0.01, 0.01)


def test_a_clock_that_goes_back_a_day_opens_no_second_budget(budget, clock):
    reserve(budget, "t1", risk=0.05)
    clock.now -= DAY
    with pytest.raises(OverBudget, match="for 1972-09-27 UTC; the clock is behind what the account has seen"):
        reserve(budget, "t2")
    assert budget.used("desk").day == 1_000


def test_a_clock_that_goes_back_revives_no_expired_reservation(budget, clock):
    reserve(budget, "t1", seconds=60)
    clock.now += 61 * SECOND
    reserve(budget, "t2", exposure=0.03)
    clock.now -= 61 * SECOND
    with pytest.raises(InputError, match="expired"):
        budget.commit("t1")
    assert used(budget) == (0.01, 0.03)


def test_a_clock_that_goes_back_and_forth_over_midnight_frees_nothing(budget, clock):
    for n, step in enumerate([0, -DAY, DAY, -3 * DAY, 3 * DAY]):
        clock.now += step
        reserve(budget, f"t{n}", exposure=0.0)
    assert used(budget) == (0.05, 0.0)


@pytest.mark.parametrize("field", ["risk", "exposure"])
@pytest.mark.parametrize(
    "value", [float("nan"), float("inf"), -0.01, 1.01, True, "0.01", Decimal("NaN"), None]
)
def test_an_amount_that_is_no_fraction_is_refused_at_the_door(tmp_path, budget, field, value):
    with pytest.raises(InputError, match=f"{field}: got .*; give a (finite )?fraction of equity"):
        reserve(budget, "t1", **{field: value})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("seconds", [0, -1, float("nan"), float("inf"), 86_401])
def test_a_time_to_hold_that_is_none_is_refused(budget, seconds):
    with pytest.raises(InputError, match="seconds: got"):
        reserve(budget, "t1", seconds=seconds)


@pytest.mark.parametrize("name", ["account", "key"])
@pytest.mark.parametrize("value", ["", " ", "a\nb", "x" * 201, 7])
def test_a_name_that_is_none_is_refused(budget, name, value):
    names = {"account": "desk", "key": "t1", name: value}
    with pytest.raises(InputError, match=f"{name}: got"):
        budget.reserve(**names, risk=0.01, exposure=0.01, limits=LIMITS)


def test_limits_that_are_no_numbers_grant_nothing(budget):
    with pytest.raises(InputError, match=r"limits.max_daily_risk: got nan"):
        reserve(budget, "t1", limits=Limits.model_construct(max_daily_risk=float("nan"), max_exposure=0.1))


def test_another_database_is_refused():
    with pytest.raises(InputError, match="budget: got 'mysql'; give the URL of a SQLite or PostgreSQL"):
        RiskBudget("mysql://somewhere/budget")


def test_budget_and_journal_may_share_a_database(tmp_path, budget):
    reserve(budget, "t1")
    with closing(Journal(url(tmp_path), "w")) as journal:
        journal.append("decision", "d1", {})
        assert journal.verify() == []
    assert used(budget) == (0.01, 0.01)


def test_a_budget_outlives_its_process(tmp_path, budget, clock):
    reserve(budget, "t1")
    with closing(RiskBudget(url(tmp_path), clock=clock)) as again:
        assert again.commit("t1").state == "committed"


class AgainstAPlainModel(RuleBasedStateMachine):
    """Two doors to one account, each with a clock of its own, beside a dictionary that does as told."""

    def __init__(self):
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.clocks = [Clock(), Clock()]
        self.doors = [RiskBudget(url(self.folder.name), clock=clock) for clock in self.clocks]
        self.latest = 0
        self.trades = {}  # key -> [risk, exposure, day, expires, state], in grains

    def teardown(self):
        for door in self.doors:
            door.close()
        self.folder.cleanup()

    doors_of = st.integers(0, 1)
    keys = st.sampled_from("abcdefgh")
    grains = st.integers(0, 30)

    def now(self, door):
        self.latest = max(self.latest, self.clocks[door].now)
        return self.latest

    def state(self, key):
        *_, expires, state = self.trades[key]
        return "expired" if state == "reserved" and expires <= self.latest else state

    def counted(self, *states, day=None):
        chosen = [trade for key, trade in self.trades.items() if self.state(key) in states]
        return [trade for trade in chosen if day is None or trade[2] == day]

    @rule(door=doors_of, seconds=st.integers(-200_000, 200_000))
    def turn_the_clock(self, door, seconds):
        self.clocks[door].now += seconds * SECOND

    @rule(door=doors_of, key=keys, risk=grains, exposure=grains, seconds=st.sampled_from([1, 60, 86_400]))
    def reserve(self, door, key, risk, exposure, seconds):
        def call():
            amounts = {"risk": risk / 1_000, "exposure": exposure / 1_000}
            return self.doors[door].reserve("desk", key, **amounts, limits=LIMITS, seconds=seconds)

        before = self.latest
        now = self.now(door)
        day = now // DAY
        if key in self.trades:
            same = tuple(self.trades[key][:2]) == (risk, exposure)
            if same and self.state(key) not in ("released", "expired"):
                assert call().state == self.state(key)
                return
            with pytest.raises(InputError):
                call()
            self.latest = before  # what is refused moves no time either
            return
        of_today = self.counted("reserved", "committed", "settled", day=day)
        daily = sum(trade[0] for trade in of_today) + risk
        open_now = sum(trade[1] for trade in self.counted("reserved", "committed")) + exposure
        if daily > 50 or open_now > 30:
            with pytest.raises(OverBudget):
                call()
            self.latest = before
            return
        call()
        self.trades[key] = [risk, exposure, day, now + seconds * SECOND, "reserved"]

    @rule(door=doors_of, key=keys, step=st.sampled_from(["commit", "release", "settle"]))
    def step(self, door, key, step):
        source, target, done = {
            "commit": ("reserved", "committed", ("committed", "settled")),
            "release": ("reserved", "released", ("released", "expired")),
            "settle": ("committed", "settled", ("settled",)),
        }[step]
        call = getattr(self.doors[door], step)
        before = self.latest
        self.now(door)
        if key in self.trades and self.state(key) in done:
            assert call(key).state == self.state(key)
        elif key in self.trades and self.state(key) == source:
            assert call(key).state == target
            self.trades[key][4] = target
        else:
            with pytest.raises(InputError):
                call(key)
            self.latest = before

    @invariant()
    def both_doors_tell_what_the_model_does_and_no_day_is_overspent(self):
        if not self.trades:
            return
        for day in {trade[2] for trade in self.trades.values()}:
            spent = self.counted("reserved", "committed", "settled", day=day)
            assert sum(trade[0] for trade in spent) <= 50
        assert sum(trade[1] for trade in self.counted("reserved", "committed")) <= 30
        kept = self.latest
        for door, clock in zip(self.doors, self.clocks, strict=True):
            self.latest = max(kept, clock.now)  # reading moves no time
            day = self.latest // DAY
            spent = self.counted("reserved", "committed", "settled", day=day)
            exposure = self.counted("reserved", "committed")
            assert door.used("desk") == (
                day,
                Decimal(sum(trade[0] for trade in spent)) / 1_000,
                Decimal(sum(trade[1] for trade in exposure)) / 1_000,
            )
        self.latest = kept


TestAgainstAPlainModel = AgainstAPlainModel.TestCase
TestAgainstAPlainModel.settings = settings(
    max_examples=25,
    stateful_step_count=30,
    deadline=None,
    phases=[Phase.explicit, Phase.reuse, Phase.generate],  # to shrink one takes minutes
)


@pytest.fixture(params=["sqlite", "postgresql"])
def shared_url(request, tmp_path):
    """The URL of an empty database."""
    if request.param == "sqlite":
        return url(tmp_path)
    server = request.getfixturevalue("postgres_url")
    with closing(RiskBudget(server)) as budget:
        _tables.drop_all(budget._database.engine)
    return server


def test_processes_that_hammer_one_account_spend_all_of_its_budget_and_no_more(shared_url):
    done = hammer(seconds=120.0, processes=4, url=shared_url, accounts=4)
    assert done.overspent == 0
    assert done.refused == 4 * 4
    with closing(RiskBudget(shared_url)) as budget:
        first = budget.used("account 0")
    assert first.daily_risk == Decimal(DAILY) * Decimal(
        str(EACH)
    )  # the limit was met, not merely never reached


def test_nobody_looks_at_a_budget_that_another_is_about_to_spend(shared_url, monkeypatch):
    both, look = threading.Barrier(2), journal.budget._sums

    def look_and_wait(*arguments):
        found = look(*arguments)
        with suppress(threading.BrokenBarrierError):
            both.wait(0.5)  # for the other one, if it gets as far as this
        return found

    def spend(key):
        try:
            return reserve(budget, key, risk=0.05).key
        except OverBudget:
            return None

    with closing(RiskBudget(shared_url)) as budget, ThreadPoolExecutor(2) as pool:
        reserve(budget, "first", risk=0.0, exposure=0.0)
        monkeypatch.setattr(journal.budget, "_sums", look_and_wait)
        answers = list(pool.map(spend, ["a", "b"]))
    assert sorted(map(bool, answers)) == [False, True]


def trade_and_tell(address, told):
    wide = Limits(max_daily_risk=1.0, max_exposure=1.0)
    with closing(RiskBudget(address)) as budget:
        for n in range(1_000_000):
            amounts = {"risk": 1e-6, "exposure": 1e-6, "limits": wide, "seconds": 86_400}
            told.send(reserve(budget, f"t{n}", **amounts))
            told.send(budget.commit(f"t{n}"))
            if n % 2:
                told.send(budget.settle(f"t{n}"))


def test_nothing_that_was_answered_is_lost_when_the_process_is_killed(shared_url):
    with closing(RiskBudget(shared_url)) as budget:
        heard, told = SPAWN.Pipe(duplex=False)
        process = SPAWN.Process(target=trade_and_tell, args=(shared_url, told))
        process.start()
        answered = [heard.recv() for _ in range(50)]
        os.kill(process.pid, signal.SIGKILL)
        process.join(60)
        told.close()
        while heard.poll():
            try:
                answered.append(heard.recv())
            except EOFError:
                break
        last = {answer.key: answer for answer in answered}
        ranks = {"reserved": 0, "committed": 1, "settled": 2}
        for key, answer in last.items():
            again = reserve(budget, key, risk=1e-6, exposure=1e-6)
            assert ranks[again.state] >= ranks[answer.state]
        # What was cut off in the middle is one call: it happened whole, or not at all.
        risk, exposure = used(budget)
        kept = sum(answer.state != "settled" for answer in last.values())
        assert len(last) * 1e-6 - 1e-12 <= risk <= (len(last) + 1) * 1e-6 + 1e-12
        assert (kept - 1) * 1e-6 - 1e-12 <= exposure <= (kept + 1) * 1e-6 + 1e-12


def test_a_file_whose_tables_are_just_being_made_holds_nothing_yet(tmp_path):
    (tmp_path / "budget").mkdir()
    (tmp_path / "budget" / "budget.db").touch()
    with closing(RiskBudget(url(tmp_path))) as budget:
        with pytest.raises(NothingWritten):
            budget.used("desk")
        reserve(budget, "EURUSD-1")
        assert budget.find("EURUSD-1").state == "reserved"


def test_a_reservation_is_found_as_it_stands_now(budget, clock):
    reserve(budget, "EURUSD-1", seconds=60.0)
    assert budget.find("EURUSD-1").state == "reserved"
    clock.now += 61 * SECOND
    assert budget.find("EURUSD-1").state == "expired"
    assert budget.find("GOOGL-1") is None
