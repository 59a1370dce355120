"""Questions that tasks ask at once, settled together in one thread.

Knows nothing of what is asked. While the thread is busy questions gather, and are its next ones: the more
there are, the less each costs, and none waits for others to come.
"""

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Generic, TypeVar

Question = TypeVar("Question")
Answer = TypeVar("Answer")


class Gathering(Generic[Question, Answer]):
    """`settle` gives each of the questions that gathered its answer, or its error.

    What it raises is raised to all who asked. It runs in one thread at a time, that of the loop never.
    """

    def __init__(self, settle: Callable[[Sequence[Question]], Sequence[Answer | Exception]]) -> None:
        self._settle = settle
        self._waiting: list[tuple[Question, asyncio.Future[Answer]]] = []
        self._settling: asyncio.Task[None] | None = None
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="gathering")

    async def ask(self, question: Question) -> Answer:
        """The answer to `question`, as soon as it is settled."""
        answer: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._waiting.append((question, answer))
        if self._settling is None or self._settling.done():
            self._settling = asyncio.create_task(self._settle_all())
        return await answer

    async def _settle_all(self) -> None:
        """Settle all that waits, and what has gathered meanwhile."""
        loop = asyncio.get_running_loop()
        while self._waiting:
            asked, self._waiting = self._waiting, []
            answers: Sequence[Answer | Exception]
            try:
                questions = [question for question, _ in asked]
                answers = await loop.run_in_executor(self._thread, self._settle, questions)
            except Exception as error:
                answers = [error] * len(asked)
            for (_, future), answer in zip(asked, answers, strict=True):
                if future.done():  # whoever asked has gone
                    continue
                if isinstance(answer, Exception):
                    future.set_exception(answer)
                else:
                    future.set_result(answer)
