import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from journal.group import Group, WouldWait


class Settler:
    """Doubles numbers, refuses 13, and holds the first batch back until it is let go."""

    def __init__(self):
        self.batches = []
        self.started, self.go = threading.Event(), threading.Event()

    def __call__(self, questions, wait):
        self.batches.append(list(questions))
        if len(self.batches) == 1:
            self.started.set()
            assert self.go.wait(30)
        return [ValueError("unlucky") if question == 13 else 2 * question for question in questions]


def asked_meanwhile(group, settler, questions):
    """The futures of `questions`, asked while the question 1 is being settled, and that of 1."""
    pool = ThreadPoolExecutor(1 + len(questions))
    first = pool.submit(group.ask, 1)
    assert settler.started.wait(30)
    futures = [pool.submit(group.ask, question) for question in questions]
    while len(group._waiting) < len(questions):
        pass
    settler.go.set()
    pool.shutdown()
    return [first, *futures]


def test_what_gathers_while_one_batch_is_settled_is_the_next_batch():
    settler = Settler()
    futures = asked_meanwhile(Group(settler), settler, range(2, 12))
    assert [future.result() for future in futures] == [2 * n for n in range(1, 12)]
    assert settler.batches[0] == [1]
    assert sorted(settler.batches[1]) == list(range(2, 12))
    assert len(settler.batches) == 2


def test_threads_that_ask_again_and_again_share_batches():
    batches = []

    def settle(questions, wait):
        batches.append(len(questions))
        time.sleep(0.001)
        return questions

    group = Group(settle)
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda n: [group.ask(n + 1) for _ in range(20)][-1], range(8)))
    assert answers == list(range(1, 9))
    assert sum(batches) == 160
    assert len(batches) <= 80


def test_one_refused_question_refuses_no_other():
    settler = Settler()
    futures = asked_meanwhile(Group(settler), settler, [12, 13, 14])
    assert [future.exception() is None for future in futures] == [True, True, False, True]
    assert str(futures[2].exception()) == "unlucky"


def test_an_error_reaches_all_whose_questions_it_took_and_the_next_is_settled():
    calls = []

    def settle(questions, wait):
        calls.append(questions)
        if len(calls) == 1:
            raise OSError("disk")
        return questions

    group = Group(settle)
    with pytest.raises(OSError, match="disk"):
        group.ask(1)
    assert group.ask(2) == 2


@pytest.mark.parametrize(("end", "wait"), [(KeyboardInterrupt, True), (WouldWait, False)])
def test_a_thread_that_is_ended_or_would_have_to_wait_leaves_the_others_their_questions(end, wait):
    started, go = threading.Event(), threading.Event()
    batches = []

    def settle(questions, may_wait):
        batches.append((list(questions), may_wait))
        if 1 in questions and len(batches) == 1:
            started.set()
            assert go.wait(30)
            raise end
        return questions

    group = Group(settle)
    with ThreadPoolExecutor(2) as pool:
        ended = pool.submit(group.ask, 1, wait=wait)
        assert started.wait(30)
        other = pool.submit(group.ask, 2)
        while not group._waiting:
            pass
        go.set()
        assert isinstance(ended.exception(), end)
        assert other.result() == 2
    assert group.ask(3) == 3
    assert batches == [([1], wait), ([2], True), ([3], True)]


def test_who_does_not_wait_asks_only_where_nobody_else_is_settled():
    settler = Settler()
    group = Group(settler)
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(group.ask, 1)
        assert settler.started.wait(30)
        with pytest.raises(WouldWait):
            group.ask(2, wait=False)
        settler.go.set()
        assert first.result() == 2
    assert group.ask(3, wait=False) == 6
    assert settler.batches == [[1], [3]]
