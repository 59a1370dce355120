"""What many tasks ask at once is settled together: at once where nothing holds it up, else in a thread."""

import asyncio
import threading

import pytest

from serving.gathering import Gathering


def gathered(finish) -> Gathering[int, list[int], int]:
    """What is asked is finished as it is."""
    return Gathering(list, finish)


def waiting(free: threading.Event, batches: list[list[int]]) -> Gathering[int, list[int], int]:
    """Doubles numbers, but must wait until it is `free`."""

    def finish(asked, *, wait):
        if not wait and not free.is_set():
            return None
        batches.append(asked)
        assert free.wait(30)
        return [2 * number for number in asked]

    return gathered(finish)


def test_what_comes_while_a_thread_waits_is_settled_together_each_with_its_own_answer():
    free, batches = threading.Event(), []

    async def all_of_them():
        gathering = waiting(free, batches)
        first = asyncio.create_task(gathering.ask(0))
        while not batches:
            await asyncio.sleep(0)
        others = [asyncio.create_task(gathering.ask(number)) for number in range(1, 6)]
        await asyncio.sleep(0)
        others.pop().cancel()  # its client is gone
        free.set()
        return await asyncio.gather(first, *others)

    assert asyncio.run(all_of_them()) == [0, 2, 4, 6, 8]
    assert batches == [[0], [1, 2, 3, 4, 5]]


@pytest.mark.parametrize("free", [True, False])
def test_the_thread_of_the_loop_settles_only_what_needs_no_wait(free):
    threads = []

    def finish(asked, *, wait):
        if not (wait or free):
            return None
        threads.append(threading.current_thread())
        return list(asked)

    async def twice():
        gathering = gathered(finish)
        together = await asyncio.gather(*(gathering.ask(number) for number in range(3)))
        return [*together, await gathering.ask(3)]

    assert asyncio.run(twice()) == [0, 1, 2, 3]
    assert len(threads) == 2  # the three came in one turn of the loop
    assert {thread is threading.main_thread() for thread in threads} == {free}


def test_what_must_wait_is_worked_out_once_in_the_thread_of_the_loop():
    worked_out = []

    def work_out(asked):
        worked_out.append((list(asked), threading.current_thread() is threading.main_thread()))
        return [3 * number for number in asked]

    gathering = Gathering(work_out, lambda made, *, wait: made if wait else None)
    assert asyncio.run(gathering.ask(4)) == 12
    assert worked_out == [([4], True)]


def test_what_the_working_out_raises_is_raised_to_all_and_the_next_are_settled():
    def work_out(asked):
        if len(asked) > 1:
            raise ValueError("too many")
        return asked

    async def twice():
        gathering = Gathering(work_out, lambda made, *, wait: made)
        first = await asyncio.gather(gathering.ask(1), gathering.ask(2), return_exceptions=True)
        return first, await gathering.ask(3)

    first, then = asyncio.run(twice())
    assert [str(error) for error in first] == ["too many"] * 2
    assert then == 3


@pytest.mark.parametrize("in_a_thread", [False, True])
def test_what_the_finishing_raises_is_raised_to_all_and_the_next_are_settled(in_a_thread):
    calls = []

    def finish(asked, *, wait):
        if in_a_thread and not wait:
            return None
        calls.append(len(asked))
        if len(calls) == 1:
            raise OSError("no disk")
        return asked

    async def twice():
        gathering = gathered(finish)
        first = await asyncio.gather(gathering.ask(1), gathering.ask(2), return_exceptions=True)
        return first, await gathering.ask(3)

    first, then = asyncio.run(twice())
    assert [str(error) for error in first] == ["no disk"] * 2
    assert (calls, then) == ([2, 1], 3)


def test_a_loop_that_ends_while_a_thread_waits_leaves_the_next_one_its_turn():
    free, batches = threading.Event(), []
    gathering = waiting(free, batches)

    async def left():
        asking = asyncio.create_task(gathering.ask(0))
        while not batches:
            await asyncio.sleep(0)
        asking.cancel()

    asyncio.run(left())
    free.set()
    assert asyncio.run(gathering.ask(2)) == 4


@pytest.mark.parametrize("count", [1, 40])
@pytest.mark.parametrize("in_a_thread", [False, True])
def test_many_at_once_are_all_answered(count, in_a_thread):
    def finish(asked, *, wait):
        return None if in_a_thread and not wait else [-number for number in asked]

    async def many():
        gathering = gathered(finish)
        return await asyncio.gather(*(gathering.ask(number) for number in range(count)))

    assert asyncio.run(many()) == [-number for number in range(count)]


def test_where_questions_came_together_those_on_their_way_are_waited_for_and_one_alone_never_is():
    batches = []

    def finish(asked, *, wait):
        batches.append(list(asked))
        return list(asked)

    async def turns_until(gathering, question, late=None):
        """How many turns of the loop `question` takes, where `late` is asked two turns after it."""
        asking = [asyncio.create_task(gathering.ask(question))]
        for turn in range(1, 20):
            await asyncio.sleep(0)
            if turn == 2 and late is not None:
                asking.append(asyncio.create_task(gathering.ask(late)))
            if asking[0].done():
                await asyncio.gather(*asking)
                return turn
        raise AssertionError("it is never settled")

    async def some():
        gathering = gathered(finish)
        alone = await turns_until(gathering, 1)
        await asyncio.gather(gathering.ask(2), gathering.ask(3))
        await turns_until(gathering, 4, late=5)
        await turns_until(gathering, 6)  # nobody came
        return alone, await turns_until(gathering, 7)

    first, last = asyncio.run(some())
    assert batches == [[1], [2, 3], [4, 5], [6], [7]]
    assert first == last
