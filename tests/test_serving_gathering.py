import asyncio
import threading

import pytest

from serving.gathering import Gathering


def settling(free: threading.Event, batches: list[list[int]]) -> Gathering[int, int]:
    """Doubles even numbers and refuses odd ones, but holds its first batch until it is `free`."""

    def settle(asked):
        batches.append(list(asked))
        assert free.wait(30)
        return [ValueError(number) if number % 2 else 2 * number for number in asked]

    return Gathering(settle)


def test_what_comes_while_it_is_busy_is_settled_together_each_with_its_own_answer():
    free, batches = threading.Event(), []

    async def all_of_them():
        gathering = settling(free, batches)
        first = asyncio.create_task(gathering.ask(0))
        while not batches:
            await asyncio.sleep(0)
        others = [asyncio.create_task(gathering.ask(number)) for number in range(1, 6)]
        await asyncio.sleep(0)
        others.pop().cancel()  # its client is gone
        free.set()
        return await asyncio.gather(first, *others, return_exceptions=True)

    answers = asyncio.run(all_of_them())
    assert batches == [[0], [1, 2, 3, 4, 5]]
    assert [str(answer) if isinstance(answer, ValueError) else answer for answer in answers] == [
        0,
        "1",
        4,
        "3",
        8,
    ]


def test_what_the_settling_raises_is_raised_to_all_and_the_next_are_settled():
    calls = []

    def settle(asked):
        calls.append(len(asked))
        if len(calls) == 1:
            raise OSError("no disk")
        return asked

    async def twice():
        gathering = Gathering(settle)
        first = await asyncio.gather(gathering.ask(1), gathering.ask(2), return_exceptions=True)
        return first, await gathering.ask(3)

    first, then = asyncio.run(twice())
    assert [str(error) for error in first] == ["no disk"] * 2
    assert (calls, then) == ([2, 1], 3)


def test_it_serves_one_loop_after_another():
    gathering = Gathering(list)
    assert [asyncio.run(gathering.ask(number)) for number in range(3)] == [0, 1, 2]


@pytest.mark.parametrize("count", [1, 40])
def test_many_at_once_are_all_answered(count):
    async def many():
        gathering = Gathering(lambda asked: [-number for number in asked])
        return await asyncio.gather(*(gathering.ask(number) for number in range(count)))

    assert asyncio.run(many()) == [-number for number in range(count)]
