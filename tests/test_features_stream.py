"""Streams: one bar at a time, snapshots that restore to the bit, and snapshots that must not be restored."""

import hashlib
import struct
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from features import step, stream
from features.pipeline import FeaturePipeline
from features.stream import HEAD, Bar, FeatureStream
from market.errors import DataError
from market.synthetic import regimes

BARS = regimes(700, seed=3, symbol="EURUSD")
WHOLE = FeaturePipeline().matrix(BARS)


def bar(at: int) -> Bar:
    columns = (BARS.open, BARS.high, BARS.low, BARS.close, BARS.volume)
    return Bar(int(BARS.time[at]), *(float(column[at]) for column in columns))


def fed(bars: int) -> FeatureStream:
    filled = FeatureStream("EURUSD")
    filled.extend(BARS.window(0, bars))
    return filled


def sealed(body: bytes) -> bytes:
    return body + hashlib.sha256(body).digest()


def test_updates_give_the_bits_of_the_batch_and_none_before_101_bars():
    running = FeaturePipeline().stream("EURUSD")
    for at in range(300):
        row = running.update(bar(at))
        assert running.bars_seen == at + 1
        if at < 100:
            assert row is None
        else:
            assert row is not None
            assert row.tobytes() == WHOLE[at].tobytes()


def test_a_row_that_was_handed_out_is_not_written_again():
    running = fed(200)
    first = running.update(bar(200))
    copy = first.copy()
    running.update(bar(201))
    assert first.tobytes() == copy.tobytes()


def test_extend_gives_the_bits_of_the_batch_after_any_number_of_updates():
    running = FeatureStream("EURUSD")
    for at in range(130):
        running.update(bar(at))
    assert running.extend(BARS.window(130, 700)).tobytes() == WHOLE[130:].tobytes()
    assert running.bars_seen == 700


@settings(max_examples=25)
@given(st.integers(0, 600))
def test_a_restored_stream_goes_on_to_the_bit(at: int):
    running = FeatureStream("EURUSD")
    if at:
        running.extend(BARS.window(0, at))
    other = FeatureStream("EURUSD")
    other.restore(running.snapshot())
    assert other.bars_seen == at
    assert other.snapshot() == running.snapshot()
    assert other.extend(BARS.window(at, 700)).tobytes() == WHOLE[at:].tobytes()


def test_a_snapshot_is_small_and_a_copy():
    running = fed(300)
    taken = running.snapshot()
    assert len(taken) < 4096
    running.extend(BARS.window(300, 400))
    running.restore(taken)
    assert running.bars_seen == 300
    assert running.update(bar(300)).tobytes() == WHOLE[300].tobytes()


def test_the_same_bars_give_the_same_snapshot_on_every_run():
    one_by_one = FeatureStream("EURUSD")
    for at in range(250):
        one_by_one.update(bar(at))
    assert one_by_one.snapshot() == fed(250).snapshot()


@pytest.mark.parametrize("at", [0, 9, 12, 40, 45, 60, 300, 2000, -33, -1])
def test_a_snapshot_with_one_changed_byte_is_refused_and_changes_nothing(at: int):
    running, other = fed(300), fed(200)
    taken = bytearray(running.snapshot())
    taken[at] ^= 1
    before = other.snapshot()
    with pytest.raises(DataError, match="snapshot"):
        other.restore(bytes(taken))
    assert other.snapshot() == before


CORRUPTIONS: dict[str, tuple[Callable[[bytes], bytes], str]] = {
    "empty": (lambda taken: b"", "snapshot"),
    "pickle": (lambda taken: b"\x80\x04K\x01." * 900, "give the bytes"),
    "cut": (lambda taken: taken[:-40], "snapshot"),
    "cut in the head": (lambda taken: taken[:20], "snapshot"),
    "padded": (lambda taken: taken + b"\0", "snapshot"),
    "other version": (lambda taken: sealed(taken[:8] + b"\2\0" + taken[10:-32]), "version"),
    "other features": (lambda taken: sealed(taken[:10] + bytes(32) + taken[42:-32]), "fingerprint"),
    "other length": (lambda taken: sealed(taken[:44] + b"\1\0\0\0" + taken[48:-32]), "length"),
    "resealed cut": (lambda taken: sealed(taken[:-40]), "length"),
}


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_bytes_that_are_no_whole_snapshot_of_these_features_are_refused(name: str):
    corrupt, complaint = CORRUPTIONS[name]
    with pytest.raises(DataError, match=complaint):
        FeatureStream("EURUSD").restore(corrupt(fed(300).snapshot()))


def test_a_snapshot_of_another_symbol_is_refused():
    with pytest.raises(DataError, match="snapshot symbol: got 'EURUSD'; this stream is of GOOGL"):
        FeatureStream("GOOGL").restore(fed(300).snapshot())


@pytest.mark.parametrize(
    ("slot", "value"),
    [
        (step.SEEN, -1.0),
        (step.SEEN, 1e300),
        (step.SEEN, 200.5),
        (step.DAY, 1e9),
        (step.NANOSECOND, -1.0),
        (step.ATR, np.nan),
        (step.TAILS + 7, np.inf),
        (step.PEAKS + step.SWINGS, -1e9),
        (step.TROUGHS + step.SWINGS, 5.0),
    ],
)
def test_a_forged_state_with_a_correct_digest_is_refused(slot: int, value: float):
    body = bytearray(fed(300).snapshot()[:-32])
    struct.pack_into("<d", body, HEAD.size + len("EURUSD") + 8 * slot, value)
    with pytest.raises(DataError, match="snapshot state"):
        FeatureStream("EURUSD").restore(sealed(bytes(body)))


def test_snapshots_are_a_plain_struct():
    taken = fed(300).snapshot()
    mark, version, _, letters, numbers = HEAD.unpack_from(taken)
    assert (mark, version, letters, numbers) == (stream.MARK, stream.VERSION, 6, step.SIZE)
    assert np.frombuffer(taken, "<f8", numbers, HEAD.size + letters)[step.SEEN] == 300.0


def test_a_bar_may_be_a_mapping_a_series_a_list_or_have_no_volume():
    expected = [fed(300).update(bar(300)).tobytes(), fed(300).update(bar(300)._replace(volume=0.0)).tobytes()]
    values = bar(300)._asdict()
    without = {name: value for name, value in values.items() if name != "volume"}
    assert fed(300).update(values).tobytes() == expected[0]
    series = pd.Series(values | {"timestamp": pd.Timestamp(values["timestamp"])})
    assert fed(300).update(series[::-1]).tobytes() == expected[0]  # by name, not by place
    assert fed(300).update(list(bar(300))).tobytes() == expected[0]
    assert fed(300).update(without).tobytes() == expected[1]
    assert fed(300).update(bar(300)[:5]).tobytes() == expected[1]


@pytest.mark.parametrize("how", ["datetime", "eastern", "naive", "timestamp", "text", "numpy"])
def test_a_timestamp_may_be_any_instant_and_naive_means_utc(how: str):
    instant = datetime.fromtimestamp(int(BARS.time[300]) // 10**9, tz=UTC)
    forms = {
        "datetime": instant,
        "eastern": instant.astimezone(timezone(timedelta(hours=-5))),
        "naive": instant.replace(tzinfo=None),
        "timestamp": pd.Timestamp(instant),
        "text": instant.isoformat(),
        "numpy": np.datetime64(int(BARS.time[300]), "ns"),
    }
    row = fed(300).update(bar(300)._replace(timestamp=forms[how]))
    assert row.tobytes() == WHOLE[300].tobytes()


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"close": float("nan")}, "EURUSD row 300, column close: got nan"),
        ({"high": float("inf")}, "EURUSD row 300, column high: got inf"),
        ({"low": -1.0}, "EURUSD row 300, column low: got -1.0"),
        ({"volume": -5.0}, "EURUSD row 300, column volume: got -5.0"),
        ({"open": None}, "EURUSD row 300, column open: got None"),
        ({"open": "1.5"}, "EURUSD row 300, column open: got '1.5'"),
        ({"open": 10**400}, "EURUSD row 300, column open"),
        ({"high": 1.0}, "EURUSD row 300, column high: got 1.0"),
        ({"timestamp": int(BARS.time[299])}, "EURUSD row 300, column timestamp"),
        ({"timestamp": None}, "EURUSD row 300, column timestamp: got None"),
        ({"timestamp": 1.7e18}, "EURUSD row 300, column timestamp"),
        ({"timestamp": "yesterday-ish"}, "EURUSD row 300, column timestamp: got 'yesterday-ish'"),
        ({"timestamp": 2**70}, "EURUSD row 300, column timestamp"),
    ],
)
def test_a_bad_bar_is_refused_with_row_column_and_value_and_the_stream_goes_on(change: dict, complaint: str):
    running = fed(300)
    with pytest.raises(DataError, match=complaint):
        running.update(bar(300)._replace(**change))
    assert running.bars_seen == 300
    assert running.update(bar(300)).tobytes() == WHOLE[300].tobytes()


@pytest.mark.parametrize("nothing", [None, 5, "bar", (), (1, 2.0), {"close": 1.0}, b"123456"])
def test_what_is_no_bar_is_refused(nothing: object):
    with pytest.raises(DataError, match="EURUSD row 300"):
        fed(300).update(nothing)


def test_a_bad_chunk_is_refused_and_the_stream_goes_on():
    running = fed(300)
    with pytest.raises(DataError, match="EURUSD row 0, column timestamp"):
        running.extend(BARS.window(299, 400))
    assert running.extend(BARS.window(300, 700)).tobytes() == WHOLE[300:].tobytes()


def test_symbols_are_checked_and_upper_case():
    assert FeatureStream(" eurusd ").symbol == "EURUSD"
    with pytest.raises(DataError, match="symbol"):
        FeatureStream("")
