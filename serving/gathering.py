"""Questions that tasks ask at once, settled together: the more there are, the less each costs.

Knows nothing of what is asked. Where nothing must be waited for they are settled in the thread of the loop:
to wake another takes longer than an answer. Where something must, a thread waits, the loop goes on, and what
gathers meanwhile is settled next.
"""

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Final, Generic, Protocol, TypeVar

Question = TypeVar("Question")
Answer = TypeVar("Answer")
WorkedOut = TypeVar("WorkedOut")
Finished = TypeVar("Finished", contravariant=True)
Answered = TypeVar("Answered", covariant=True)

PATIENCE: Final = 2  # turns of the loop that brought no question more, of those that are on their way


class Finish(Protocol[Finished, Answered]):
    """How what was worked out becomes answers."""

    def __call__(self, worked_out: Finished, /, *, wait: bool) -> Sequence[Answered] | None:
        """The answer to each question; None, and nothing done, where `wait` is False and it must be."""
        ...


class Gathering(Generic[Question, WorkedOut, Answer]):
    """Each question gets its answer: `work_out` is given all that gathered, `finish` what it made of them.

    The first never waits for anything, the second only where it may. What they raise is raised to all who
    asked. One gathering at a time is settled. For the tasks of one event loop.
    """

    def __init__(
        self, work_out: Callable[[Sequence[Question]], WorkedOut], finish: Finish[WorkedOut, Answer]
    ) -> None:
        self._work_out, self._finish = work_out, finish
        self._waiting: list[tuple[Question, asyncio.Future[Answer]]] = []
        self._due = False  # whether what waits is settled without anybody's doing
        self._together = 1  # questions that were settled at once last
        self._settling: asyncio.Task[None] | None = None
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="gathering")

    async def ask(self, question: Question) -> Answer:
        """The answer to `question`, as soon as it is settled."""
        answer: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._waiting.append((question, answer))
        self._settle_soon()
        return await answer

    def _settle_soon(self) -> None:
        """Settle what waits once all that this turn of the loop brings has come."""
        if self._waiting and not self._due:
            self._due = True
            asyncio.get_running_loop().call_soon(self._settle_now)

    def _settle_now(self, known: int = 0, turns: int = 0) -> None:
        """Settle what waits, which was `known` in the turn before: after so many `turns` without another.

        One that is asked alone, as the last was, waits for nobody.
        """
        count = len(self._waiting)
        turns = turns + 1 if count == known else 0
        if turns < PATIENCE and max(count, self._together) > 1:
            asyncio.get_running_loop().call_soon(self._settle_now, count, turns)
            return
        self._together = count
        asked, self._waiting = self._waiting, []
        futures = [future for _, future in asked]
        try:
            worked_out = self._work_out([question for question, _ in asked])
            answers = self._finish(worked_out, wait=False)
        except Exception as error:
            _tell_all(futures, error)
        else:
            if answers is None:
                self._settling = asyncio.create_task(self._finish_in_thread(worked_out, futures))
                return
            _tell(futures, answers)
        self._due = False

    async def _finish_in_thread(
        self, worked_out: WorkedOut, futures: Sequence[asyncio.Future[Answer]]
    ) -> None:
        run = asyncio.get_running_loop().run_in_executor
        try:
            answers = await run(self._thread, lambda: self._finish(worked_out, wait=True))
            assert answers is not None
            _tell(futures, answers)
        except Exception as error:
            _tell_all(futures, error)
        finally:
            self._due = False
        self._settle_soon()


def _tell(futures: Sequence[asyncio.Future[Answer]], answers: Sequence[Answer]) -> None:
    for future, answer in zip(futures, answers, strict=True):
        if not future.done():  # else whoever asked has gone
            future.set_result(answer)


def _tell_all(futures: Sequence[asyncio.Future[Answer]], error: Exception) -> None:
    for future in futures:
        if not future.done():
            future.set_exception(error)
