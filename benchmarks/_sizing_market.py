"""What the serving benchmark sizes: signals of a sample market, and a bundle that fits them.

Knows nothing of servers. Outcome model, ranks and support are fitted; the network, which costs the same
whatever it says, is random.
"""

import itertools
import json
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np

from features.spec import FEATURE_NAMES, fingerprint, index
from market.bars import iso
from market.samples import load_samples
from policies.bundle import BundleMeta, PolicyBundle
from policies.hybrid import Network
from policies.support import Support
from signals.fields import POOLED
from signals.outcome_model import OutcomeModel
from signals.outcomes import Costs, label
from signals.rules import rule
from signals.signal_frame import checked
from signals.trades import Trades, trade_fields, trade_ranks

BODIES: Final = 512  # that are written out; all others differ from them in their signal's name and time alone
BEGIN: Final = 1_767_571_200_000_000_000  # ns, 2026-01-05T00:00Z
AT_ONCE: Final = 16  # signals of one bar, as a desk of so many markets has them; the next come a second later
WIDTHS: Final = (12, 64, 32, 6)  # as `train` makes it by default


class SizingMarket(NamedTuple):
    """Settled trades of one market, and what was fitted on them."""

    trades: Trades
    bundle: PolicyBundle

    def requests(self, count: int) -> list[dict[str, Any]]:
        """Bodies of POST /sizing, no two about the same signal."""
        return [self._request(number) for number in range(count)]

    def bodies(self) -> Iterator[bytes]:
        """`requests` without end, as JSON; threads may share them."""
        parts = []
        for number, body in enumerate(self.requests(BODIES)):
            before, time, rest = json.dumps(body).partition(_time(number))
            between, name, after = rest.partition(_name(number))
            assert time
            assert name
            parts.append((before, between, after))

        def written(number: int) -> bytes:
            before, between, after = parts[number % BODIES]
            return f"{before}{_time(number)}{between}{_name(number)}{after}".encode()

        return map(written, itertools.count())

    def _request(self, number: int) -> dict[str, Any]:
        trades, row = self.trades, number % len(self.trades)
        return {
            "signal": {
                "symbol": trades.symbols[trades.symbol[row]],
                "side": "long" if trades.side[row] > 0 else "short",
                "timestamp": _time(number),
                "price": float(trades.close[row]),
                "stop": float(trades.stop[row]),
                "take_profit": float(trades.take_profit[row]),
                "entry": float(trades.level[row]),
                "confidence": number % 997 / 997,
                "strategy_id": _name(number),  # by which it differs from all others
            },
            "market": {"features": dict(zip(FEATURE_NAMES, trades.features[row].tolist(), strict=True))},
            "account": {
                "equity": 100_000.0,
                "peak_equity": 104_000.0,
                "open_risk_pct": 0.001 * (number % 40),
                "daily_risk_used_pct": 0.001 * (number % 30),
                "open_trades": number % 5,
            },
        }


def _name(number: int) -> str:
    return f"benchmark-{number}."


def _time(number: int) -> str:
    return _second(number // AT_ONCE)


@lru_cache(4)  # requests of one bar follow one another
def _second(number: int) -> str:
    return iso(BEGIN + number * 1_000_000_000)


def sizing_market(seed: int = 0) -> SizingMarket:
    """The sample market and a bundle for it; another seed gives another network."""
    (bars,) = load_samples("eurusd")
    costs = Costs()
    trades = label(bars, checked(rule("donchian").generate(bars), bars), costs)
    ranks = trade_ranks(trades)
    fields = trade_fields(trades, ranks)
    outcome_r = trades.gross_r - trades.cost_r
    model = OutcomeModel.fit(fields, outcome_r, trades.signal_time, trades.exit_time)
    median = float(np.median(trades.features[:, index("atr_ratio")]))
    meta = BundleMeta(
        algo="dqn",
        feature_fingerprint=fingerprint(),
        rule="donchian",
        symbols=trades.symbols,
        costs=costs.model_dump(),
        base_risk=0.01,
        k=8.0,
        k_from="a benchmark",
        session_days=28.0,
        prior_win_rate=float((trades.net_r > 0.0).mean()),
        volatility_median={POOLED: median},
        training_limits={},
        training={"seed": seed},
        calibration={},
    )
    plain = PolicyBundle(meta, model, ranks, Support.fit(trades.features), _network(seed), {})
    return SizingMarket(trades, plain.with_golden(plain.table_of(trades), fields))


def saved(market: SizingMarket, home: Path) -> Path:
    """The folder of the market's bundle below `home`."""
    root = home / "bundles"
    return root / market.bundle.save(root)


def _network(seed: int) -> Network:
    random = np.random.default_rng(seed)
    layers = list(zip(WIDTHS[1:], WIDTHS[:-1], strict=True))
    return Network(
        mean=np.zeros(WIDTHS[0], dtype=np.float32),
        scale=np.ones(WIDTHS[0], dtype=np.float32),
        weights=tuple((random.normal(size=shape) / shape[1] ** 0.5).astype(np.float32) for shape in layers),
        biases=tuple(random.normal(size=rows).astype(np.float32) for rows, _ in layers),
    )
