"""Endpoints that block, run in threads that stay.

Knows nothing of what they do. Starlette would run them in threads that end with the task they were first
needed in, and under Serve every request is a task of its own: a thread would begin and end with each.
"""

import asyncio
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial, wraps
from typing import Final, ParamSpec, TypeVar

Given = ParamSpec("Given")
Answer = TypeVar("Answer")

_THREADS: Final = ThreadPoolExecutor(32, thread_name_prefix="endpoint")  # as many as a replica has requests


def in_a_thread(endpoint: Callable[Given, Answer]) -> Callable[Given, Awaitable[Answer]]:
    """`endpoint` for a loop that awaits it and meanwhile goes on with others."""

    @wraps(endpoint)
    async def run(*given: Given.args, **named: Given.kwargs) -> Answer:
        call = partial(endpoint, *given, **named)
        return await asyncio.get_running_loop().run_in_executor(_THREADS, call)

    return run
