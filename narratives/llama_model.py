"""A GGUF language model through llama.cpp, one thread at a time.

Knows nothing of facts. Imports llama_cpp only when a model is loaded: everything else works without it.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Lock
from typing import Any, Final

from market.errors import ConfigError
from narratives.choices import grammar_of

CONTEXT: Final = 2048  # tokens; a narrative and its prompt take some 600
TEMPERATURE: Final = 1.5  # a small model is too sure of one wording to be read every day


class LlamaModel:
    """The model in `path`. It serves one mode for its life: `talk` and `tell` leave it in different states.

    One thread is the default because llama.cpp's threads wait for each other without sleeping: two of them on
    cores that others use are slower than one.
    """

    def __init__(self, path: Path, threads: int = 1) -> None:
        try:
            from llama_cpp import Llama
        except ImportError as error:
            raise ConfigError("llm", str(path), f"run `make llm` first ({error})") from error
        if not path.is_file():
            raise ConfigError("llm", str(path), "give the path of a GGUF file, or `none`")
        try:
            self._llama: Any = Llama(
                str(path),
                n_ctx=CONTEXT,
                n_batch=256,
                n_threads=threads,
                n_threads_batch=threads,
                verbose=False,
            )
        except Exception as error:
            raise ConfigError("llm", str(path), f"give a sound GGUF file ({error})") from error
        self.name = re.sub(r"[._-]i?(q\d\w*|b?f(16|32))$", "", path.stem.lower())  # without its quantisation
        self._lock = Lock()
        self._read: tuple[str, list[int]] | None = None  # the instructions read last, and their tokens

    @contextmanager
    def talk(self, instructions: str, seed: int, deadline: float) -> Iterator[_Talk]:
        """Choices after `instructions`, which are read once for all talks."""
        with self._alone(deadline):
            if self._read is None or self._read[0] != instructions:
                tokens = self._llama.tokenize(
                    self._prompt(instructions).encode(), add_bos=False, special=True
                )
                self._llama.reset()
                self._llama.eval(tokens[:-1])
                self._read = instructions, tokens
            # The last token is read again: what comes next is known only right after a reading.
            self._llama.n_tokens = len(self._read[1]) - 1
            self._llama.eval(self._read[1][-1:])
            yield _Talk(self._llama, seed, deadline)

    def tell(self, prompt: str, most: int, seed: int, deadline: float) -> Iterator[str]:
        """Up to `most` tokens of free text; TimeoutError once the time is up."""
        with self._alone(deadline):
            told = self._llama.create_chat_completion(
                [{"role": "user", "content": prompt}],
                max_tokens=most,
                temperature=0.3,
                seed=seed,
                stream=True,
            )
            for piece in told:
                _in_time(deadline)
                yield piece["choices"][0]["delta"].get("content") or ""

    @contextmanager
    def _alone(self, deadline: float) -> Iterator[None]:
        if not self._lock.acquire(timeout=max(deadline - time.monotonic(), 0.0)):
            raise TimeoutError
        try:
            _in_time(deadline)
            yield
        finally:
            self._lock.release()

    def _prompt(self, instructions: str) -> str:
        """The conversation up to the answer, in the model's own form."""
        template = self._llama.metadata.get("tokenizer.chat_template")
        if template is None:
            return f"{instructions}\n\n"
        from llama_cpp.llama_chat_format import Jinja2ChatFormatter

        first, last = (
            self._llama.detokenize([token], special=True).decode(errors="replace")
            for token in (self._llama.token_bos(), self._llama.token_eos())
        )
        message: Any = {"role": "user", "content": instructions}
        return str(Jinja2ChatFormatter(template, last, first)(messages=[message]).prompt)


class _Talk:
    """One text in the making: what is said is read in whole stretches, and only choices are sampled."""

    def __init__(self, llama: Any, seed: int, deadline: float) -> None:
        self._llama, self._seed, self._deadline = llama, seed, deadline
        self._read = 0  # characters of what is said

    def choose(self, said: str, heads: tuple[str, ...]) -> int:
        """Which head goes on after `said`: sampled under a grammar of the heads until it can be but one."""
        from llama_cpp import LlamaGrammar

        self._eval(self._llama.tokenize(said[self._read :].encode(), add_bos=False))
        self._read, start, written = len(said), self._llama.n_tokens, b""
        left = dict(enumerate(head.encode() for head in heads))
        while True:
            self._seed += 1  # each draw its own: the sampler begins anew with it
            self._llama.set_seed(self._seed % 2**32)
            rest = (head[len(written) :].decode(errors="ignore") for head in left.values())
            token = self._llama.sample(
                temp=TEMPERATURE,
                top_k=0,
                top_p=1.0,
                min_p=0.0,
                grammar=LlamaGrammar.from_string(grammar_of(rest), verbose=False),
            )
            written += self._llama.detokenize([token])
            left = {place: head for place, head in left.items() if head.startswith(written)}
            if len(left) < 2:
                break
            self._eval([token])
        # What was sampled is read again with what follows it, in the tokens the model is used to.
        self._llama.n_tokens = start
        (place,) = left
        return place

    def _eval(self, tokens: list[int]) -> None:
        _in_time(self._deadline)
        if tokens:
            self._llama.eval(tokens)


def _in_time(deadline: float) -> None:
    if time.monotonic() >= deadline:
        raise TimeoutError
