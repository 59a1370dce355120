import json
import random
import sqlite3
from contextlib import ExitStack, closing

import pytest
from hypothesis import given
from hypothesis import strategies as st

import journal.store
from journal.chain import Finding
from journal.group import WouldWait
from journal.schema import GENESIS, chained_hash
from journal.store import Journal
from market.errors import InputError

SEEDS = 60


def write(file, rounds=3, writers=("a", "b", "c")):
    """Every writer in turn appends two records, `rounds` times, and looks at the others in between."""
    with ExitStack() as stack:
        journals = [stack.enter_context(closing(Journal(f"sqlite:///{file}", name))) for name in writers]
        for number in range(rounds):
            for journal in journals:
                journal._anchor_after = 0.0
                names = [f"{journal.writer}{number}{half}" for half in "xy"]
                journal.append_many([("decision", name, {"n": number}) for name in names])


def inspect(file):
    with closing(Journal(f"sqlite:///{file}", "reader")) as journal:
        return journal.inspect()


def table(file):
    with closing(sqlite3.connect(file)) as connection:
        return [list(row) for row in connection.execute("SELECT * FROM records ORDER BY writer, sequence")]


def rewrite(file, rows):
    """What somebody who owns the file can do: any rows whatsoever in the place of those there."""
    with closing(sqlite3.connect(file)) as connection, connection:
        for change in ("update", "delete"):
            connection.execute(f"DROP TRIGGER IF EXISTS records_refuse_{change}")
        connection.execute("DELETE FROM records")
        connection.executemany(f"INSERT INTO records VALUES ({','.join('?' * 8)})", rows)


def rechained(rows, writer, first):
    """The rows with the chain of `writer` made whole again from number `first` on."""
    previous = GENESIS
    for row in rows:
        if row[0] == writer:
            if row[1] >= first:
                row[6] = previous
                row[7] = chained_hash(*row[:7])
            previous = row[7]
    return rows


def seen_of(rows, writer):
    """The highest number of `writer` that others anchored in `rows`."""
    said = [json.loads(row[5])["heads"] for row in rows if row[2] == "anchor" and row[0] != writer]
    return max((heads[writer]["sequence"] for heads in said if writer in heads), default=0)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    file = tmp_path_factory.mktemp("whole") / "journal.db"
    write(file)
    return table(file)


@pytest.fixture(scope="module")
def scratch(tmp_path_factory, whole):
    """A journal file to be rewritten again and again."""
    file = tmp_path_factory.mktemp("scratch") / "journal.db"
    write(file)
    return file


def test_a_whole_journal_has_no_finding_and_its_unseen_records_are_counted(tmp_path):
    file = tmp_path / "journal.db"
    write(file)
    found = inspect(file)
    rows = table(file)
    assert found.findings == ()
    assert found.records == len(rows)
    assert {name: head.sequence for name, head in found.heads.items()} == {
        name: max(row[1] for row in rows if row[0] == name) for name in "abc"
    }
    # They were closed in the order c, b, a: only what a wrote last was seen by nobody after.
    assert found.unanchored.keys() == {"a"}
    assert found.unanchored["a"] == found.heads["a"].sequence - seen_of(rows, "a")


@pytest.mark.parametrize("kept", [0, 1, 3])
def test_a_tail_cut_off_is_found_with_its_witness(scratch, whole, kept):
    rewrite(scratch, [row for row in whole if row[0] != "b" or row[1] <= kept])
    last = seen_of(whole, "b")
    (found,) = inspect(scratch).faults
    assert (found.kind, found.writer, found.sequence) == ("missing", "b", kept + 1)
    assert found.detail.startswith(f"no records have numbers {kept + 1} to {last}: writer ")
    assert found.detail.endswith(f"saw number {last}")


def test_a_chain_rewritten_from_its_middle_is_found_though_it_holds_in_itself(scratch, whole):
    rows = [list(row) for row in whole]
    for row in rows:
        if row[0] == "b" and row[1] == 4:
            row[5] = '{"n":99}'
    rewrite(scratch, rechained(rows, "b", 4))
    faults = inspect(scratch).faults
    assert faults
    assert {(found.kind, found.writer) for found in faults} == {("altered", "b")}
    assert all("saw another record here" in found.detail for found in faults)


def test_a_cut_tail_grown_again_is_found(tmp_path):
    file = tmp_path / "journal.db"
    write(file)
    rewrite(file, [row for row in table(file) if row[0] != "b" or row[1] <= 2])
    with closing(Journal(f"sqlite:///{file}", "b")) as journal:
        journal.append_many([("decision", f"new{n}", {}) for n in range(12)])
    assert {(found.kind, found.writer) for found in inspect(file).faults} == {("altered", "b")}


@given(st.data())
def test_whatever_is_changed_of_what_others_have_seen_is_found(scratch, whole, data):
    rows = [list(row) for row in whole]
    covered = [row for row in rows if row[1] <= seen_of(whole, row[0])]
    victim = data.draw(st.sampled_from(covered), label="victim")
    act = data.draw(st.sampled_from(["field", "delete", "cut", "swap", "forge", "move"]), label="act")
    if act == "field":
        place = data.draw(st.sampled_from(range(2, 8)), label="column")
        victim[place] = victim[place] + 1 if place == 4 else victim[place][:-1] + "~"
    elif act == "delete":
        rows.remove(victim)
    elif act == "cut":
        rows = [row for row in rows if row[0] != victim[0] or row[1] < victim[1]]
    elif act == "swap":
        other = data.draw(
            st.sampled_from([row for row in covered if row[0] == victim[0] and row is not victim])
        )
        victim[1], other[1] = other[1], victim[1]
    elif act == "forge":  # the content is new and every later hash of the chain fits
        victim[5] = '{"heads":{}}' if victim[2] == "anchor" else '{"n":99}'
        rows = rechained(rows, victim[0], victim[1])
    else:  # to the end of another writer's chain, with a hash that fits there
        other = data.draw(st.sampled_from([name for name in "abc" if name != victim[0]]))
        last = max(row[1] for row in rows if row[0] == other)
        victim[0], victim[1] = other, last + 1
        rows = rechained(sorted(rows), other, last + 1)
    rewrite(scratch, rows)
    assert inspect(scratch).faults


def test_an_altered_anchor_accuses_nobody_but_its_own_writer(scratch, whole):
    rows = [list(row) for row in whole]
    victim = next(row for row in rows if row[2] == "anchor")
    victim[5] = victim[5].replace(victim[5][-70:-10], "0" * 60)
    rewrite(scratch, rows)
    assert {found.writer for found in inspect(scratch).faults} == {victim[0]}


def test_a_writer_looks_at_the_others_with_its_first_record_then_by_count_and_at_the_end(
    tmp_path, monkeypatch
):
    monkeypatch.setattr(journal.store, "ANCHOR_RECORDS", 3)
    file = tmp_path / "journal.db"
    with closing(Journal(f"sqlite:///{file}", "a")) as a, closing(Journal(f"sqlite:///{file}", "b")) as b:
        a.append("decision", "a1", {})
        for number in range(1, 6):
            b.append("decision", f"b{number}", {})
            a.append("decision", f"a{number + 1}", {})
    kinds = [row[2] for row in table(file) if row[0] == "b"]
    assert kinds == ["decision", "anchor", *["decision"] * 3, "anchor", *["decision"], "anchor"]
    assert seen_of(table(file), "a") == max(row[1] for row in table(file) if row[0] == "a") - 1


def test_a_writer_that_only_reads_writes_nothing_at_its_end(tmp_path):
    file = tmp_path / "journal.db"
    write(file)
    before = table(file)
    inspect(file)
    assert table(file) == before


def test_a_clock_that_went_back_is_told_and_is_no_fault(tmp_path):
    ticks = iter([5_000_000_000, 3_000_000_000, 6_000_000_000])
    with closing(Journal(f"sqlite:///{tmp_path}/journal.db", "w", clock=lambda: next(ticks))) as journal:
        for number in range(3):
            journal.append("decision", f"d{number}", {})
        found = journal.inspect()
    assert found.faults == []
    detail = "the clock stood 2 s behind an earlier record"
    assert found.findings == (Finding("clock", "w", 2, "d1", detail),)


def test_a_damaged_file_never_passes_for_whole(tmp_path, whole):
    """Bytes of the file are overwritten: it is refused, found altered, or reads as it was written."""
    file = tmp_path / "journal.db"
    write(file)
    sound, content = file.read_bytes(), table(file)
    outcomes = set()
    for seed in range(SEEDS):
        dice = random.Random(seed)
        damaged = bytearray(sound)
        start = dice.randrange(len(damaged))
        alphabet = range(32, 127) if seed % 2 else range(256)
        damaged[start : start + 16] = bytes(dice.choices(alphabet, k=len(damaged[start : start + 16])))
        file.write_bytes(damaged)
        try:
            faults = inspect(file).faults
        except InputError:
            outcomes.add("refused")
            continue
        outcomes.add("found" if faults else "unharmed")
        if not faults:
            assert table(file) == content
    assert outcomes == {"refused", "found", "unharmed"}


def test_an_anchor_that_went_with_its_transaction_is_still_due(tmp_path, monkeypatch):
    """Every hour two writers meet in one signal: the second is not let in at once, and looks."""
    now = [1_000.0]
    monkeypatch.setattr("journal.store.time.monotonic", lambda: now[0])
    url = f"sqlite:///{tmp_path / 'journal.db'}"
    with closing(Journal(url, "a")) as first, closing(Journal(url, "b")) as second:
        first.append("decision", "a", {})
        second.append("decision", "b", {})
        for hour in range(5):
            now[0] += 3_600.0
            first.append_many([("signal", f"s{hour}", {}), ("decision", f"a{hour}", {})])
            shared = [("signal", f"s{hour}", {}), ("decision", f"b{hour}", {})]
            with pytest.raises(WouldWait):
                second.append_many(shared, wait=False)
            second.append_many(shared)
            assert second.get(f"anchor-b-{2 * hour + 4}").kind == "anchor"
