"""Text with choices in it: `[one|another]` stands for either, and may hold choices again.

Knows nothing of facts or models. What may be said is written once: its first options are one text, all of it
what a language model may be held to.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache


@dataclass(frozen=True)
class Choice:
    """Options of which one is told; no beginning of one is the whole beginning of another."""

    options: tuple[Phrase, ...]

    @property
    def heads(self) -> tuple[str, ...]:
        """How each option begins, up to its own first choice, with an X for every $name."""
        return _heads(self.options)


Part = str | Choice
Phrase = tuple[Part, ...]
Pick = Callable[[Choice], int]


@lru_cache(maxsize=4096)
def parse(text: str) -> Phrase:
    """`text` as words and choices; ValueError where brackets or options are not as they should be."""
    pieces = [piece for piece in re.split(r"([\[|\]])", text) if piece]
    return tuple(_parts(iter([*pieces, ""]), "", text))


def one_of(*options: Phrase) -> Phrase:
    """Any one of `options`."""
    return options[0] if len(options) == 1 else (_checked(options, "one_of"),)


def in_either_order(one: Sequence[str], other: Sequence[str]) -> Phrase:
    """Two sentences in this order or the other, each in any of its variants."""
    first_one, then_one = [parse(text) for text in one], one_of(*map(parse, one))
    first_other, then_other = [parse(text) for text in other], one_of(*map(parse, other))
    return one_of(
        *((*sentence, " ", *then_other) for sentence in first_one),
        *((*sentence, " ", *then_one) for sentence in first_other),
    )


def first(phrase: Phrase) -> str:
    """The text of all first options."""
    return "".join(spoken(phrase, lambda choice: 0))


def spoken(phrase: Phrase, pick: Pick) -> Iterator[str]:
    """The words piece by piece, as `pick` chooses."""
    for part in phrase:
        if isinstance(part, str):
            yield part
        else:
            yield from spoken(part.options[pick(part)], pick)


def grammar_of(texts: Iterable[str]) -> str:
    """A GBNF grammar, which llama.cpp samples under, of these texts and no other."""
    return f"root ::= {' | '.join(map(_literal, texts))}\n"


def count(phrase: Phrase) -> int:
    """How many ways there are to tell `phrase`."""
    ways = 1
    for part in phrase:
        if isinstance(part, Choice):
            ways *= sum(map(count, part.options))
    return ways


def without_figures(text: str) -> str:
    """`text` with an X for every $name: what a model reads, and all it needs to choose words."""
    return re.sub(r"\$\w+", "X", text)


def _parts(pieces: Iterator[str], end: str, text: str) -> list[Part]:
    """The parts up to the closing bracket, or up to the end of the text."""
    options: list[list[Part]] = [[]]
    for piece in pieces:
        if piece == "[":
            options[-1].append(_choice(pieces, text))
        elif piece == "|" and end == "]":
            options.append([])
        elif piece == end:
            return [_checked(options, text)] if end else options[0]
        elif piece in ("|", "]", ""):
            raise ValueError(f"brackets do not match in {text!r}")
        else:
            options[-1].append(piece)
    raise ValueError(f"brackets do not match in {text!r}")


def _choice(pieces: Iterator[str], text: str) -> Part:
    return _parts(pieces, "]", text)[0]


def _checked(options: Sequence[Sequence[Part]], text: str) -> Choice:
    if any(not option or not isinstance(option[0], str) for option in options):
        raise ValueError(f"an option does not begin with words in {text!r}")
    heads = _heads(options)
    for place, head in enumerate(heads):
        if any(other.startswith(head) for at, other in enumerate(heads) if at != place):
            raise ValueError(f"{head!r} begins another option in {text!r}")
    return Choice(tuple(tuple(option) for option in options))


def _heads(options: Sequence[Sequence[Part]]) -> tuple[str, ...]:
    return tuple(without_figures(str(option[0])) for option in options)


def _literal(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
