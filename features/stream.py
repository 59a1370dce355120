"""One symbol's features, bar by bar, with a state that can be taken away and put back. Knows nothing of where
bars come from.

A snapshot is little-endian: `HEAD` (mark, version, bars' fingerprint, lengths), the symbol in UTF-8, the
state as float64, and the SHA-256 of all that. It is checked whole before anything is restored; whoever ships
it through foreign hands must sign it.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from features import step as layout
from features.kernel import feed, new_state, refusal
from features.spec import WARMUP, fingerprint
from features.step import FEATURES, SEEN, step
from market.bars import Bars, symbol_name
from market.errors import DataError
from market.frames import UNNAMED

FloatArray = NDArray[np.float64]
HEAD = struct.Struct("<8sH32sHI")
MARK, VERSION = b"BALLASTF", 1
DIGEST_BYTES = 32
BAR = struct.Struct("=q5d")  # as `Bar`, timestamp in nanoseconds


class Bar(NamedTuple):
    """One closed bar: `timestamp` as int64 ns since the epoch (UTC) or anything `pandas.Timestamp` takes."""

    timestamp: object
    open: float
    high: float
    low: float
    close: float
    volume: float = 0.0


class FeatureStream:
    """The features of one symbol from its first bar on: the same bits as the batch, whatever the cuts.

    Not safe for use by several threads at once. `symbol` names the bars in errors and binds the snapshots.
    """

    def __init__(self, symbol: str = UNNAMED) -> None:
        self.symbol = symbol_name(symbol)
        self._state = new_state()
        self._buffer = bytearray(BAR.size)
        # Read-only views of the buffer, because arrays that cannot be written are what `step` is compiled
        # for.
        shared = memoryview(self._buffer).toreadonly()
        time = np.frombuffer(shared, dtype=np.int64, count=1)
        opened, high, low, close, volume = (
            np.frombuffer(shared, np.float64, 1, offset=8 * at) for at in range(1, 6)
        )
        self._arrays = (time, opened, high, low, close, volume)

    @property
    def bars_seen(self) -> int:
        """Bars fed so far; features exist from 101 on, and recursive ones have forgotten their start by about
        300."""
        return int(self._state[layout.SEEN])

    def update(self, bar: Bar | Sequence[Any] | Mapping[str, Any] | pd.Series) -> FloatArray | None:
        """Feed one closed bar (a `Bar`, six values in its order, or a mapping): float64[31], or None before
        101 bars.

        Raises DataError with the bar's number, column and value; the stream is then as before.
        """
        try:
            if not isinstance(bar, (tuple, list)):
                raise TypeError
            BAR.pack_into(self._buffer, 0, *bar)
        except (TypeError, struct.error, OverflowError):
            BAR.pack_into(self._buffer, 0, *self._read(bar))
        row = np.empty((1, FEATURES))
        fault = step(self._state, *self._arrays, row)
        if fault >= 0:
            raise refusal(self.symbol, fault, *self._arrays, first=self.bars_seen)
        return row[0] if self._state[SEEN] >= WARMUP else None

    def extend(self, bars: Bars) -> FloatArray:
        """Feed n bars: float64[n, 31], NaN where fewer than 101 bars were seen. Errors as for `update`."""
        arrays = (bars.time, bars.open, bars.high, bars.low, bars.close, bars.volume)
        return feed(self._state, *arrays, symbol=self.symbol)

    def snapshot(self) -> bytes:
        """All that the stream remembers, about 3 kB; see the module's docstring for the form."""
        name = self.symbol.encode()
        head = HEAD.pack(MARK, VERSION, bytes.fromhex(fingerprint()), len(name), layout.SIZE)
        body = head + name + self._state.astype("<f8").tobytes()
        return body + hashlib.sha256(body).digest()

    def restore(self, snapshot: bytes) -> None:
        """Put the stream where it was when `snapshot` was taken, to the bit.

        Raises DataError for bytes that are no whole, unchanged snapshot of this symbol taken by the same
        features; the stream is then as before.
        """
        self._state = _opened(bytes(snapshot), self.symbol)

    def _read(self, bar: object) -> tuple[int | float, ...]:
        """The six numbers of a bar that is not just six numbers in order, or the refusal that says why
        not."""
        if isinstance(bar, Mapping | pd.Series):
            given = [bar.get(name, 0.0 if name == "volume" else None) for name in Bar._fields]
        elif isinstance(bar, Sequence) and len(bar) in (len(Bar._fields) - 1, len(Bar._fields)):
            given = [*bar, 0.0][: len(Bar._fields)]
        else:
            raise DataError(f"{self.symbol} row {self.bars_seen}", bar, f"a bar is {', '.join(Bar._fields)}")
        numbers = zip(Bar._fields[1:], given[1:], strict=True)
        return self._instant(given[0]), *(self._number(name, value) for name, value in numbers)

    def _instant(self, stamp: object) -> int:
        try:
            if stamp is None or isinstance(stamp, bool | float | np.floating):
                raise TypeError
            instant = pd.Timestamp(stamp)  # type: ignore[arg-type]  # it refuses what is no instant
            return int(
                (instant.tz_localize("UTC") if instant.tzinfo is None else instant).as_unit("ns").value
            )
        except (TypeError, ValueError, OverflowError):
            mend = "give nanoseconds since the epoch or an ISO 8601 instant"
            raise DataError(self._where("timestamp"), stamp, mend) from None

    def _number(self, name: str, value: object) -> float:
        if isinstance(value, bool | np.bool_) or not isinstance(
            value, int | float | np.integer | np.floating
        ):
            raise DataError(self._where(name), value, "give a number")
        try:
            return float(value)
        except OverflowError:
            raise DataError(self._where(name), value, f"must be at most {layout.LARGEST}") from None

    def _where(self, name: str) -> str:
        return f"{self.symbol} row {self.bars_seen}, column {name}"


def _opened(snapshot: bytes, symbol: str) -> FloatArray:
    """The state in a snapshot of `symbol`, checked."""
    seen = f"{len(snapshot)} bytes"
    if len(snapshot) < HEAD.size + DIGEST_BYTES or not snapshot.startswith(MARK):
        raise DataError("snapshot", seen, "give the bytes that `snapshot()` returned")
    body, digest = snapshot[:-DIGEST_BYTES], snapshot[-DIGEST_BYTES:]
    _, version, definitions, letters, numbers = HEAD.unpack_from(body)
    if version != VERSION:
        raise DataError(
            "snapshot version", version, f"this program reads version {VERSION}: start from bars instead"
        )
    if definitions.hex() != fingerprint():
        raise DataError(
            "snapshot fingerprint", definitions.hex(), f"the features are {fingerprint()}: start from bars"
        )
    if numbers != layout.SIZE or len(body) != HEAD.size + letters + 8 * numbers:
        raise DataError("snapshot length", seen, "the snapshot is cut or padded: take another")
    if hashlib.sha256(body).digest() != digest:
        raise DataError("snapshot digest", digest.hex(), "the snapshot was changed: take another")
    name = body[HEAD.size : HEAD.size + letters].decode(errors="replace")
    if name != symbol:
        raise DataError("snapshot symbol", name, f"this stream is of {symbol}")
    state = np.frombuffer(body, dtype="<f8", offset=HEAD.size + letters).astype(np.float64)
    if not _possible(state):
        raise DataError("snapshot state", seen, "no bars lead to this state: take another")
    return state


def _possible(state: FloatArray) -> bool:
    """Whether `step` can go on from here: a forged state must not make it read or write beyond its arrays."""
    if not np.isfinite(state).all():
        return False
    counters = state[
        [layout.SEEN, layout.NANOSECOND, layout.PEAKS + layout.SWINGS, layout.TROUGHS + layout.SWINGS]
    ]
    highest = (2**53, layout.DAY_NS - 1, layout.LEVELS, layout.LEVELS)
    whole = (counters == np.floor(counters)).all() and (counters >= 0).all() and (counters <= highest).all()
    days_in_range = abs(state[layout.DAY]) <= 2**63 // layout.DAY_NS
    return bool(whole and days_in_range)
