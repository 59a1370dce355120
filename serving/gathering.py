"""Questions that tasks ask at once, settled together: the more there are, the less each costs.

Knows nothing of what is asked. Where nothing must be waited for they are settled in the thread of the loop:
to wake another takes longer than an answer. Where something must, a thread waits, the loop goes on, and what
gathers meanwhile is settled next.
"""

import asyncio
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Final, Generic, Protocol, TypeVar

Question = TypeVar("Question")
Answer = TypeVar("Answer")
Asked = TypeVar("Asked", contravariant=True)
Answered = TypeVar("Answered", covariant=True)

PATIENCE: Final = 2  # turns of the loop that brought no question more, of those that are on their way


class Settle(Protocol[Asked, Answered]):
    """How questions are settled."""

    def __call__(self, questions: Sequence[Asked], /, *, wait: bool) -> Sequence[Answered | Exception] | None:
        """The answer to each or its error; None, and nothing done, where `wait` is False and it must be."""
        ...


class Gathering(Generic[Question, Answer]):
    """`settle` gives each of the questions that gathered its answer, or its error.

    What it raises is raised to all who asked. It runs once at a time.
    """

    def __init__(self, settle: Settle[Question, Answer]) -> None:
        self._settle = settle
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
        answers = self._answers([question for question, _ in asked], wait=False)
        if answers is None:
            self._settling = asyncio.create_task(self._settle_in_thread(asked))
            return
        _tell(asked, answers)
        self._due = False

    async def _settle_in_thread(self, asked: Sequence[tuple[Question, asyncio.Future[Answer]]]) -> None:
        questions = [question for question, _ in asked]
        run = asyncio.get_running_loop().run_in_executor
        try:
            answers = await run(self._thread, lambda: self._answers(questions, wait=True))
        finally:
            self._due = False
        assert answers is not None
        _tell(asked, answers)
        self._settle_soon()

    def _answers(self, questions: Sequence[Question], *, wait: bool) -> Sequence[Answer | Exception] | None:
        try:
            return self._settle(questions, wait=wait)
        except Exception as error:
            return [error] * len(questions)


def _tell(
    asked: Sequence[tuple[object, asyncio.Future[Answer]]], answers: Sequence[Answer | Exception]
) -> None:
    for (_, future), answer in zip(asked, answers, strict=True):
        if future.done():  # whoever asked has gone
            continue
        if isinstance(answer, Exception):
            future.set_exception(answer)
        else:
            future.set_result(answer)
