"""What is wrong with a free text about facts: numbers of its own, directions they do not have, gaps.

Knows nothing of who wrote it. The check is strict where it cannot understand: a word of direction must stand
in one clause, or in one sentence after it, with the subject whose direction it tells. It knows the words that
narratives.subjects lists; a synonym beyond them is not found.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

from narratives.choices import first
from narratives.facts import Facts, ungrounded_numbers
from narratives.rule_words import rule_words
from narratives.subjects import LONG, SHORT, WORDS, Subject, subjects_of
from narratives.template import wordings

_DIRECTION: Final = re.compile(
    "|".join(rf"(?P<{kind}>\b(?:{words})\b)" for kind, words in WORDS.items()), re.IGNORECASE
)
# What holds such a word without telling a direction.
_NEUTRAL: Final = re.compile(
    r"\b(?:up to|tak(?:es?|en|ing) up|at (?:the )?(?:least|most)|no more than|no farther away|rule against|"
    r"guard against|(?:up|down|short|long)-term|rounded down|on the other side|no reading .{,20}for this|"
    r"no reading clearly supports this|(?:never lets|does not let) such input raise)\b",
    re.IGNORECASE,
)
_NEGATION: Final = re.compile(r"\b(?:not?|never|neither|nor|without|hardly|\w+n't)\b", re.IGNORECASE)
_CLAUSE: Final = re.compile(
    r"[,;:()]|\s[-–—]\s|\b(?:and|but|while|whereas|although|though|because|since|as|so|which|that|yet)\b",
    re.IGNORECASE,
)
_SENTENCE: Final = re.compile(r"(?<=[.!?])\s+")


def faults(text: str, facts: Facts) -> list[str]:
    """What `text`, its figures still placeholders, says that `facts` do not, and what it leaves out."""
    names = re.findall(r"\$(\w+)", text)
    needed = [name for name in _needed(facts) if f"${name}" in first(wordings(facts))]
    found = [f"${name}" for name in names if name not in facts]
    found += ungrounded_numbers(re.sub(r"\$\w+", " ", text), Facts(kind=facts.kind, facts=()))
    found += re.findall(r"[$\\<>{}\[\]*#|`]", re.sub(r"\$\w+", "", text))
    found += [f"${name} is not told" for name in needed if name not in names]
    if facts.kind in ("trade_rationale", "risk_assessment"):
        rule = facts.text("binding_rule")
        told = rule_words(rule) in text.lower() or "$binding_rule" in text
        found += [] if told or rule == "none" else ["the binding rule is not told"]
    subjects = tuple(subjects_of(facts))
    for sentence in _SENTENCE.split(text):
        found += _misdirected(_without_true_phrases(sentence, facts), subjects, facts)
    return found


def _without_true_phrases(sentence: str, facts: Facts) -> str:
    """`sentence` without phrases that deny a direction, where the facts deny it."""
    if "rsi" in facts and 30 < facts.number("rsi") < 70:
        sentence = sentence.replace("neither overbought nor oversold", " ")
    if "win_rate" in facts and facts.number("win_rate") == 0:
        sentence = re.sub(r"none of them (?:at|with) a profit|without a profit", " ", sentence)
    return _NEUTRAL.sub(" ", sentence)


def _misdirected(sentence: str, subjects: tuple[Subject, ...], facts: Facts) -> Iterable[str]:
    """Words of direction that are not their subject's, and placeholders away from their subject."""
    nouns = _nouns(sentence, subjects)
    for name in re.findall(r"\$(\w+)", sentence):
        owners = [subject for subject in subjects if name in subject.names]
        if owners and not any(subject in owners for _, subject in nouns):
            yield f"${name} is away from what it is the figure of"
    start = 0
    carried: Subject | None = None
    for clause in [*_CLAUSE.finditer(sentence), None]:
        end = clause.start() if clause else len(sentence)
        inside = sorted((place, subject) for place, subject in nouns if start <= place < end)
        for word in _DIRECTION.finditer(sentence, start, end):
            kind = str(word.lastgroup)
            if kind in (LONG, SHORT):
                if "side" not in facts or kind != facts.text("side"):
                    yield word.group()
                continue
            before = [subject for place, subject in inside if place <= word.start()]
            after = [(place - word.end(), subject) for place, subject in inside if place > word.start()]
            next_to_it = [subject for distance, subject in after if distance < 3]
            last = [carried] if carried else []
            subject = next(iter([*before[-1:], *next_to_it, *last, *(each for _, each in after)]), None)
            negated = _NEGATION.search(sentence, start, end) is not None
            if subject is None or negated or kind not in subject.directions:
                yield word.group()
        carried = inside[-1][1] if inside else carried
        start = clause.end() if clause else end


def _nouns(sentence: str, subjects: tuple[Subject, ...]) -> list[tuple[int, Subject]]:
    """Where which subject is named; "open risk" names no other subject by its "risk"."""
    found = [
        (match.start(), match.end(), subject)
        for subject in subjects
        for match in re.finditer(rf"\b(?:{subject.nouns})\b", sentence, re.IGNORECASE)
    ]
    return [
        (start, subject)
        for start, end, subject in found
        if not any(a <= start and end <= b and (a, b) != (start, end) for a, b, _ in found)
    ]


def _needed(facts: Facts) -> Iterable[str]:
    """The figures that a text of this kind is nothing without, where the template has them."""
    if facts.kind == "market_narrative":
        return ("symbol", "mom_20")
    if facts.kind == "performance_summary":
        return ("trades", "total_r")
    readings = {"risk_reward_ratio": "reward_to_risk"}
    reasons = (readings.get(reason.field, reason.field) for reason in facts.reasons)
    return ("symbol", "multiplier", *(reasons if facts.kind == "trade_rationale" else ()))
