"""Group commit: what many threads ask for at once is settled together, by whichever of them comes first.

Knows nothing of what is asked, nor of databases.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

Question = TypeVar("Question")
Answer = TypeVar("Answer")


class WouldWait(Exception):
    """What was asked for at once has to wait for others, and nothing of it was done."""


class _Asked(Generic[Question, Answer]):
    """One thread's question and, once it is settled, its answer."""

    def __init__(self, question: Question) -> None:
        self.question = question
        self.answer: Answer | Exception | None = None
        self.rung = False
        self._bell = threading.Lock()
        self._bell.acquire()

    def wait(self) -> None:
        """Until another thread rings: the question is settled, or this thread is the next to settle."""
        self._bell.acquire()

    def ring(self) -> None:
        """End the wait."""
        self.rung = True
        self._bell.release()


class Group(Generic[Question, Answer]):
    """`settle` gets the questions that gathered while it was busy and gives each an answer, or its error.

    What it raises is raised to all whose questions it was given. It runs in one thread at a time. A thread
    whose question is settled leaves at once: one that asks again and again does not hold the others up.
    `settle` is also told whether it may wait; where it may not and must, it raises WouldWait.
    """

    def __init__(self, settle: Callable[[Sequence[Question], bool], Sequence[Answer | Exception]]) -> None:
        self._settle = settle
        self._waiting: deque[_Asked[Question, Answer]] = deque()
        self._deepest = 0  # that were settled at once since somebody asked
        self._settling = False  # whether a thread settles, or was rung to
        self._lock = threading.Lock()  # of these three

    def ask(self, question: Question, *, wait: bool = True) -> Answer:
        """The answer to `question`, as soon as it is settled; WouldWait, without `wait`, if not now."""
        if not wait:
            return self._at_once(question)
        asked: _Asked[Question, Answer] = _Asked(question)
        with self._lock:
            self._waiting.append(asked)
            first, self._settling = not self._settling, True
        if not first:
            try:
                asked.wait()
            except BaseException:
                self._leave(asked)
                raise
        if asked.answer is None:
            self._settle_all()
        if isinstance(asked.answer, Exception):
            raise asked.answer
        assert asked.answer is not None
        return asked.answer

    def _at_once(self, question: Question) -> Answer:
        """The answer to `question` where no other thread settles or waits."""
        with self._lock:
            if self._settling:
                raise WouldWait
            self._settling = True
            self._deepest = max(self._deepest, 1)
        try:
            (answer,) = self._settle([question], False)
        finally:
            self._hand_over()
        if isinstance(answer, Exception):
            raise answer
        return answer

    def deepest(self) -> int:
        """The most questions that were settled at once since the last call of this."""
        with self._lock:
            found, self._deepest = self._deepest, 0
        return found

    def _settle_all(self) -> None:
        """Settle all that waits, this thread's own question included, and let the next one begin."""
        with self._lock:
            batch = list(self._waiting)
            self._waiting.clear()
            self._deepest = max(self._deepest, len(batch))
        own = batch[0]  # whoever is first, or was rung, stands there
        try:
            answers = self._settle([asked.question for asked in batch], True)
        except Exception as error:
            answers = [error] * len(batch)
        except BaseException:  # this thread is being ended, the others' questions are not
            self._pass_on(batch[1:])
            raise
        for asked, answer in zip(batch, answers, strict=True):
            asked.answer = answer
            if asked is not own:
                asked.ring()
        self._hand_over()

    def _pass_on(self, others: Sequence[_Asked[Question, Answer]]) -> None:
        """Leave what this thread was about to settle of others to them."""
        with self._lock:
            self._waiting.extendleft(reversed(others))
        self._hand_over()

    def _hand_over(self) -> None:
        with self._lock:
            if self._waiting:
                self._waiting[0].ring()
            else:
                self._settling = False

    def _leave(self, asked: _Asked[Question, Answer]) -> None:
        """Take back the question of a thread that is being ended while it waits."""
        with self._lock:
            if asked not in self._waiting:
                return
            self._waiting.remove(asked)
            rung = asked.rung
        if rung:
            self._hand_over()
