"""From bars to features: at the last of a row of bars, or along a stream that any replica may carry on.

Knows nothing of Ray or HTTP: the arithmetic is the pipeline's, the streams' rest the store's.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import numpy.typing as npt

from features.pipeline import FeaturePipeline
from features.spec import FEATURE_NAMES, WARMUP, fingerprint
from features.stream import FeatureStream
from market.bars import Bars, iso
from market.errors import DataError, InputError
from serving.desk import Deployed, Desk
from serving.position_sizer import feature_row
from serving.refusals import Conflict, NotFound, OutOfStep, Unavailable
from serving.schemas import FeaturesRequest, StreamUpdate, bars_of
from serving.stream_store import Kept, StreamStore, TooMany, open_streams


class FeatureDesk(Desk):
    """A desk with feature streams. They rest in the home's store, so that no replica holds any state."""

    def __init__(self) -> None:
        super().__init__("features")
        self._streams: StreamStore | None = None

    def take(self, deployed: Deployed) -> None:
        """See `Desk.take`."""
        before = self._home
        super().take(deployed)
        if self._home != before:
            self._streams = None

    @property
    def streams(self) -> StreamStore:
        """The feature streams of this home."""
        if self._streams is None:
            self._streams = open_streams(self.home, os.environ)
        return self._streams

    def features(self, request: FeaturesRequest) -> dict[str, Any]:
        """The features at the last bar of the request."""
        bars = bars_of(request.symbol, request.bars)
        return _told(bars, feature_row(bars), len(bars))

    def feed(self, owner: str, stream_id: str, update: StreamUpdate) -> dict[str, Any]:
        """The features at the last bar of `update`, which carries on the owner's stream.

        The latest update, sent again, changes nothing and is answered as it was. OutOfStep where other bars
        have been seen than the update says; Conflict where the stream is another symbol's, another version's,
        or one too many; DataError for bars that are bad or do not follow. Then the stream is as before.
        """
        bars = bars_of(update.symbol, update.bars)
        digest = hashlib.sha256(f"{update.seen} {bars.digest()}".encode()).hexdigest()
        with _store_told():
            kept = self.streams.find(owner, stream_id)
            stream = _opened(stream_id, bars.symbol, kept)
            if kept is not None and kept.latest == digest:
                return _answer(kept)
            if update.seen != stream.bars_seen:
                raise _out_of_step(update, stream.bars_seen)
            row = stream.extend(bars)[-1]
            answer = {"stream_id": stream_id} | _told(
                bars, row if stream.bars_seen >= WARMUP else None, stream.bars_seen
            )
            answer["bars_needed"] = max(WARMUP - stream.bars_seen, 0)
            fed = Kept(stream.bars_seen, digest, json.dumps(answer), stream.snapshot())
            if self.streams.put(owner, stream_id, kept, fed):
                return answer
            quicker = self.streams.find(owner, stream_id)
        if quicker is not None and quicker.latest == digest:  # the same update, sent twice at once
            return _answer(quicker)
        raise _out_of_step(update, 0 if quicker is None else quicker.seen)

    def stream(self, owner: str, stream_id: str) -> dict[str, Any]:
        """What the owner's stream last answered; NotFound without one, Conflict for another version's."""
        with _store_told():
            kept = self.streams.find(owner, stream_id)
        if kept is None:
            raise NotFound("stream_id", stream_id, "there is no such stream of this key: POST its first bars")
        answer = _answer(kept)
        _opened(stream_id, answer["symbol"], kept)
        return answer

    def drop(self, owner: str, stream_id: str) -> None:
        """Forget the owner's stream, whether there is one or not."""
        with _store_told():
            self.streams.drop(owner, stream_id)

    def health(self) -> dict[str, Any]:
        """See `Desk.health`."""
        return super().health() | {"fingerprint": fingerprint()}


def _told(bars: Bars, row: npt.NDArray[np.float64] | None, seen: int) -> dict[str, Any]:
    """As answers have it."""
    return {
        "symbol": bars.symbol,
        "timestamp": iso(int(bars.time[-1])),
        "features": None if row is None else dict(zip(FEATURE_NAMES, row.tolist(), strict=True)),
        "bars_seen": seen,
        "fingerprint": fingerprint(),
    }


def _answer(kept: Kept) -> dict[str, Any]:
    answer: dict[str, Any] = json.loads(kept.answer)  # its floats were written to the last bit
    return answer


def _opened(stream_id: str, symbol: str, kept: Kept | None) -> FeatureStream:
    """The stream where it rests, or a new one of `symbol`."""
    stream = FeaturePipeline().stream(symbol)
    if kept is not None:
        if (known := _answer(kept)["symbol"]) != symbol:
            raise Conflict("symbol", symbol, f"this stream is of {known}: give another one an id of its own")
        try:
            stream.restore(kept.state)
        except DataError as error:
            what = (
                "the features are defined otherwise since"
                if error.field == "snapshot fingerprint"
                else f"its state cannot be used ({error.field})"
            )
            raise Conflict(
                "stream_id", stream_id, f"{what}: DELETE it and send its bars again from seen 0"
            ) from error
    return stream


def _out_of_step(update: StreamUpdate, seen: int) -> OutOfStep:
    mend = f"the stream has seen {seen} bars: send those that follow them, with seen {seen}"
    return OutOfStep("seen", update.seen, mend, seen)


@contextmanager
def _store_told() -> Iterator[None]:
    """Have the store's refusals told as this service tells them."""
    try:
        yield
    except TooMany as error:
        raise Conflict(error.field, error.value, error.mend) from error
    except InputError as error:
        if error.field == "streams":
            raise Unavailable("streams", error.mend) from error
        raise
