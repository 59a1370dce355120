"""What a period's closed trades came to, in every way that may be told.

Knows nothing of who chooses. The first option of every choice is the template's; no digit is written here.
"""

from __future__ import annotations

from collections.abc import Iterable

from narratives.facts import Facts


def performance_summary(facts: Facts) -> Iterable[str]:
    """Trades, win rate, result, size, drawdown."""
    opening = "[Results|The record] for $subject ($period):"
    trades = facts.number("trades")
    if trades == 0:
        yield f"{opening} no trades were closed."
        return
    rate = facts.number("win_rate")
    if trades == 1:
        yield f"{opening} $trades was closed, {'at a profit' if rate > 0 else 'without a profit'}."
        yield "The result was $total_r."
    else:
        share = "all of them" if rate == 1 else "none of them" if rate == 0 else "$win_rate of them"
        yield f"{opening} $trades were closed, {share} [at|with] a profit."
        yield (
            "[The result was|They came to] $total_r in total, [$mean_r a trade on average|an average "
            "of $mean_r a trade]."
        )
    drawn = facts.number("max_drawdown") > 0
    fall = "the [largest|deepest] drawdown was $max_drawdown of equity" if drawn else "there was no drawdown"
    yield f"[The average size was|On average, the size was] $average_multiplier, and {fall}."
