"""What would have to be otherwise for another size: one field of a journaled request at a time.

Knows nothing of how flips are searched, nor of where requests come from.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Final

from envs.guardrails import LARGEST_SIZE, TIGHTENABLE
from features.spec import FEATURE_NAMES, FEATURES, index
from policies.flips import nearest_flip
from serving.again import Request
from serving.limits_file import OperatorLimits
from serving.position_sizer import DEFAULT_CONFIDENCE

ATR_RATIO: Final = index("atr_ratio")
FAR: Final = 4.0  # training deviations that a feature, and times its value that a stop or target, may move


@dataclass(frozen=True)
class Change:
    """One field that flips the tier: from `now` to `value` it becomes `action`."""

    field: str
    now: float
    value: float
    action: str
    share: float  # of the field's range that this is


@dataclass(frozen=True)
class _Field:
    """A field that may be otherwise, the range it is looked at in, and the request with another value."""

    name: str
    now: float
    low: float
    high: float
    put: Callable[[float], Request]
    whole: bool = False


def changes(request: Request) -> list[Change]:
    """For every field the smallest change that alone flips the tier, the smallest share of its range first.

    Fields that flip nothing within their range are left out. The ranges: features as far as `FAR` deviations
    from their training mean (without a bundle they count for nothing), prices of stop and target a quarter to
    `FAR` times as far away, the reference level within two ATR, account and limits from nothing to twice as
    much, at least what the largest size needs.
    """
    found = []
    for field in _fields(request):
        low, high = min(field.low, field.now), max(field.high, field.now)

        def choose(value: float, put: Callable[[float], Request] = field.put) -> str:
            return str(put(value).size()["action"])

        flip = nearest_flip(choose, field.now, low, high, whole=field.whole) if low < high else None
        if flip is not None:
            share = abs(flip.value - field.now) / (high - low)
            found.append(Change(field.name, field.now, flip.value, flip.choice, share))
    return sorted(found, key=lambda change: change.share)


def _fields(request: Request) -> Iterator[_Field]:
    if request.sizer.bundle is not None:
        yield from _features(request)
        yield from _signal(request)
    yield from _account(request)
    yield from _limits(request)


def _features(request: Request) -> Iterator[_Field]:
    assert request.sizer.bundle is not None
    support = request.sizer.bundle.support
    for number, (name, feature) in enumerate(zip(FEATURE_NAMES, FEATURES, strict=True)):
        reach = FAR * float(support.scale[number])
        mean = float(support.mean[number])

        def put(value: float, number: int = number) -> Request:
            row = request.row.copy()
            row[number] = value
            return replace(request, row=row)

        low, high = max(mean - reach, feature.low), min(mean + reach, feature.high)
        yield _Field(f"features.{name}", float(request.row[number]), low, high, put)


def _signal(request: Request) -> Iterator[_Field]:
    signal = request.signal
    price, side = signal.price, signal.direction

    def put(name: str) -> Callable[[float], Request]:
        return lambda value: replace(request, signal=signal.model_copy(update={name: value}))

    for name, now, to in (("stop", signal.stop, -side), ("take_profit", signal.take_profit, side)):
        away = abs(now - price)
        ends = (max(price + to * away * times, price * 1e-6) for times in (1 / FAR, FAR))
        low, high = sorted(ends)
        yield _Field(f"signal.{name}", now, low, high, put(name))
    level = price if signal.entry is None else signal.entry
    reach = 2.0 * max(float(request.row[ATR_RATIO]), 0.0) * price
    yield _Field("signal.entry", level, max(price - reach, price * 1e-6), price + reach, put("entry"))
    confidence = DEFAULT_CONFIDENCE if signal.confidence is None else signal.confidence
    yield _Field("signal.confidence", confidence, 0.0, 1.0, put("confidence"))


def _account(request: Request) -> Iterator[_Field]:
    account, limits = request.account, request.limits.limits

    def put(name: str) -> Callable[[float], Request]:
        return lambda value: replace(request, account=account._replace(**{name: value}))

    equity, peak = float(account.equity), float(account.peak_equity)  # type: ignore[arg-type]
    left = 1.0 if limits is None else 1.0 - limits.max_drawdown
    yield _Field("account.equity", equity, left * peak, peak, put("equity"))
    yield _Field("account.peak_equity", peak, equity, equity / left, put("peak_equity"))
    for field, name, most in (
        ("open_risk_pct", "open_risk", 1.0 if limits is None else limits.max_exposure),
        ("daily_risk_used_pct", "daily_risk_used", 1.0 if limits is None else limits.max_daily_risk),
    ):
        yield _Field(f"account.{field}", float(getattr(account, name)), 0.0, most, put(name))
    most_trades = 1 if limits is None else limits.max_open_trades
    trades = float(account.open_trades)  # type: ignore[arg-type]
    yield _Field("account.open_trades", trades, 0.0, most_trades, put("open_trades"), whole=True)
    bundle = request.sizer.bundle
    if bundle is not None:
        rate = bundle.meta.prior_win_rate if request.win_rate_recent is None else request.win_rate_recent
        yield _Field(
            "account.win_rate_recent", rate, 0.0, 1.0, lambda value: replace(request, win_rate_recent=value)
        )


def _limits(request: Request) -> Iterator[_Field]:
    """The operator's limits; a request's own tighter ones stay as they are."""
    limits = request.limits.limits
    if limits is None:
        return

    def put(name: str) -> Callable[[float], Request]:
        def changed(value: float) -> Request:
            number = round(value) if name == "max_open_trades" else value
            operator = OperatorLimits.of(limits.model_copy(update={name: number}), request.limits.source)
            return replace(request, limits=operator)

        return changed

    largest = LARGEST_SIZE * limits.base_risk
    for name in ("base_risk", *TIGHTENABLE):
        now = float(getattr(limits, name))
        low, high = 0.0, min(2.0 * max(now, largest), 1.0)
        if name == "base_risk":
            low, high = 0.1 * now, min(2.0 * now, 0.5)
        elif name == "max_drawdown":
            low, high = 0.001, min(2.0 * now, 0.99)
        elif name == "rule_cap":
            high = LARGEST_SIZE
        elif name == "max_open_trades":
            low, high = 1.0, 2.0 * now
        yield _Field(f"limits.{name}", now, low, high, put(name), whole=name == "max_open_trades")
