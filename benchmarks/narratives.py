"""How true and how quick narratives are: `python -m benchmarks.narratives [--quick]`.

Prints progress to stderr and one JSON line to stdout. Every text is judged by a check that shares no code
with what wrote it (benchmarks/_narrative_check.py); that the check can see is shown by faults planted into
the same texts. Times are by the clock; `whole_cpu_ms` is what one text costs, however crowded the machine is.
Without the language model (`make llm`) its figures are null and the template's texts are judged.
"""

import argparse
import json
import re
import sys
import time
from statistics import median
from typing import Any, Final

import numpy as np

from benchmarks._narrated import Context, decision, market, performance
from benchmarks._narrative_check import incomplete, wrong
from market.errors import ConfigError
from narratives import template
from narratives.chooser import Chooser
from narratives.facts import Kind
from narratives.free_writer import FreeWriter
from narratives.language_model import LanguageModel, packaged
from narratives.llama_model import LlamaModel
from narratives.narrator import Narrator

PATIENT: Final = 120.0  # seconds: here texts are judged; how many are late for the default is counted apart
FLIPS: Final = {
    "long": "short", "rising": "falling", "above": "below", "high": "low", "clear": "weak",
    "more than the": "less than the", "upward": "downward", "overbought": "oversold",
    "widening": "narrowing", "with the trade": "against the trade",
}  # fmt: skip
BOTH_WAYS: Final = FLIPS | {new: old for old, new in FLIPS.items()}


def say(text: str) -> None:
    """Progress."""
    print(text, file=sys.stderr, flush=True)


def told(count: int) -> list[tuple[Kind, Context]]:
    """`count` decisions, each as a rationale or, one in five, as a risk assessment; markets, periods too."""
    draw = np.random.default_rng(0)
    chosen: list[tuple[Kind, Context]] = [
        ("risk_assessment" if place % 5 == 4 else "trade_rationale", decision(draw)) for place in range(count)
    ]
    more = max(count // 10, 1)
    chosen += [("market_narrative", market(draw)) for _ in range(more)]
    return chosen + [("performance_summary", performance(draw)) for _ in range(more)]


def planted(text: str, context: Context) -> tuple[int, int]:
    """How many faults were planted into `text`, one at a time, and how many of them the check found."""
    changed = [
        f"{text[: match.start()]}{float(match[0]) + 3.3:g}{text[match.end() :]}"
        for match in [re.search(r"[\d.]+(?=%)", text)]
        if match
    ]
    for old, new in BOTH_WAYS.items():
        if (match := re.search(rf"\b{old}\b(?! nor)", text)) is not None:
            changed.append(f"{text[: match.start()]}{new}{text[match.end() :]}")
    return len(changed), sum(bool(wrong(each, context)) for each in changed)


def template_ms(chosen: list[tuple[Kind, Context]]) -> float:
    """The median time from a context to the template's text."""
    template_only, times = Narrator(), []
    for kind, context in chosen:
        started = time.perf_counter()
        template_only.generate(kind, context)
        times.append(time.perf_counter() - started)
    return round(1e3 * median(times), 3)


def narrate(narrator: Narrator, chosen: list[tuple[Kind, Context]], show: bool) -> dict[str, Any]:
    """Every text told and judged."""
    first, whole, cpu = [], [], []
    ungrounded = lacking = faults = found = 0
    texts = []
    for place, (kind, context) in enumerate(chosen):
        started, spent = time.perf_counter(), time.process_time()
        telling = narrator.tell(kind, context)
        next(iter(telling))
        first.append(time.perf_counter() - started)
        narrative = telling.whole()
        whole.append(time.perf_counter() - started)
        cpu.append(time.process_time() - spent)
        if errors := wrong(narrative.text, context):
            say(f"wrong: {errors} in {narrative.text}")
            ungrounded += len(errors)
        lacking += kind == "trade_rationale" and incomplete(narrative.text, context)
        count, seen = planted(narrative.text, context)
        faults, found = faults + count, found + seen
        texts.append(narrative.text != template.write(narrative.facts))
        if show:
            print(f"{kind} · {narrative.writer}\n{narrative.text}\n")
        if place % 50 == 49:
            say(f"{place + 1} of {len(chosen)} told, {ungrounded} ungrounded")
    late = LanguageModel().seconds
    return {
        "texts": len(chosen),
        "ungrounded": ungrounded,
        "incomplete": lacking,
        "planted_found": round(found / max(faults, 1), 4),
        "fallback_share": round(sum(narrator.fallbacks.values()) / len(chosen), 4),
        "late_share": round(sum(took > late for took in whole) / len(chosen), 4),
        "unlike_template_share": round(sum(texts) / len(texts), 3),
        "first_token_ms": round(1e3 * median(first), 1),
        "whole_ms": round(1e3 * median(whole)),
        "whole_cpu_ms": round(1e3 * median(cpu)),
    }


def free_fallback_share(model: LlamaModel, chosen: list[tuple[Kind, Context]]) -> float:
    """How often a model that writes freely is given up for the template; a small one nearly always."""
    narrator = Narrator(FreeWriter(model), PATIENT)
    for kind, context in chosen:
        narrator.generate(kind, context)
    say(f"free mode: {dict(narrator.fallbacks)} of {len(chosen)}")
    return round(sum(narrator.fallbacks.values()) / len(chosen), 3)


def main() -> None:
    """Run all measurements and print their figures as one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="12 decisions instead of 500")
    parser.add_argument("--show", type=int, metavar="N", help="print N decisions' texts, to be read")
    parser.add_argument("--threads", type=int, default=1, help="of the language model")
    options = parser.parse_args()
    chosen = told(options.show or (12 if options.quick else 500))
    figures: dict[str, Any] = {"template_ms": template_ms(chosen)}
    path = packaged()
    if path is None:
        say("the language model is not built (make llm): the template's texts are judged")
        figures |= narrate(Narrator(), chosen, bool(options.show))
        figures |= dict.fromkeys(("first_token_ms", "whole_ms", "whole_cpu_ms", "free_fallback_share"))
        print(json.dumps(figures))
        return
    narrator = Narrator(Chooser(LlamaModel(path, options.threads)), PATIENT)
    narrator.generate(*told(1)[-1])  # reads the instructions, once
    figures |= narrate(narrator, chosen, bool(options.show))
    figures["writer"] = None if narrator.writer is None else narrator.writer.name
    figures["threads"] = options.threads
    if not options.show:
        free = LlamaModel(path, options.threads)
        figures["free_fallback_share"] = free_fallback_share(free, chosen[: 2 if options.quick else 20])
    print(json.dumps(figures))


if __name__ == "__main__":
    try:
        main()
    except ConfigError as error:
        sys.exit(str(error))
