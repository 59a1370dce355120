import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from journal.schema import GENESIS, canonical, canonical_of_plain, chained_hash, gives_hash, say_the_same
from market.errors import InputError

JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


@given(st.dictionaries(st.text(), JSON_VALUES, max_size=6))
def test_canonical_text_reads_back_as_the_payload_and_is_a_fixed_point(payload):
    text = canonical(payload)
    assert json.loads(text) == payload
    assert canonical(json.loads(text)) == text
    assert canonical(dict(reversed(payload.items()))) == text
    assert text.isascii()


def test_canonical_text_is_this_one():
    assert canonical({"b": (1, 0.1), "a": {"é": None}}) == r'{"a":{"\u00e9":null},"b":[1,0.1]}'


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (1e-4, "0.0001"),
        (1e-5, "0.00001"),
        (1e-7, "1e-7"),
        (-0.0, "-0.0"),
        (5e-324, "5e-324"),
        (1e15, "1000000000000000.0"),
        (1e16, "1e+16"),
        (1.7976931348623157e308, "1.7976931348623157e+308"),
        (0.1 + 0.2, "0.30000000000000004"),
        (np.float64(0.1), "0.1"),
        (2**64 - 1, "18446744073709551615"),
        (-(10**30), "-1000000000000000000000000000000"),
        (True, "true"),
        ("\u2028 \U0001f600 \x7f/\x00\n", r'"\u2028 \ud83d\ude00 ' + "\x7f" + r'/\u0000\n"'),
        ("\ud800", r'"\ud800"'),
        ({}, "{}"),
        ([], "[]"),
    ],
)
def test_every_value_has_one_text_that_reads_back_as_it(value, text):
    assert canonical({"value": value}) == canonical_of_plain({"value": value}) == '{"value":' + text + "}"
    assert repr(json.loads(text)) == repr(value.item() if isinstance(value, np.float64) else value)
    assert canonical(json.loads(canonical({"value": value}))) == canonical({"value": value})


@given(st.dictionaries(st.text(), JSON_VALUES, max_size=6))
def test_plain_json_has_the_same_text_whether_it_is_checked_or_trusted(payload):
    assert canonical_of_plain(payload) == canonical(payload)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize(
    "nested", [lambda x: x, lambda x: [x], lambda x: (1, [x]), lambda x: {"a": {"b": x}}]
)
def test_a_number_that_is_none_is_refused_wherever_it_stands_in_what_is_trusted(nested, value):
    for number in (value, np.float64(value)):
        with pytest.raises(InputError, match="give a finite number"):
            canonical_of_plain({"first": 1.0, "place": nested(number), "last": None})


def test_texts_of_one_payload_say_the_same_and_others_do_not():
    assert say_the_same('{"a":1e-05,"b":"\\u00e9"}', '{"b":"é","a":0.00001}')
    for other in ('{"a":1}', '{"a":1.0000000000000002}', '{"a":true}', '{"a":"1.0"}', "[1.0]", '{"a":'):
        assert not say_the_same('{"a":1.0}', other)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_number_that_is_none_is_refused_with_its_place(value):
    with pytest.raises(InputError, match=r"payload\.ladder\[1\]\.value: got -?(nan|inf); give a finite"):
        canonical({"ladder": [{"value": 1.0}, {"value": value}]})


@pytest.mark.parametrize("value", [{1}, b"x", np.int64(3), np.float32(1.5), object()])
def test_a_value_that_json_has_no_type_for_is_refused_with_its_place(value):
    with pytest.raises(InputError, match=r"payload\.size: got"):
        canonical({"size": value})


def test_a_key_that_is_no_string_is_refused_instead_of_changed():
    with pytest.raises(InputError, match=r"payload\.a: got 1; give a string as key"):
        canonical({"a": {1: "one"}})


def test_a_payload_that_is_no_mapping_is_refused():
    with pytest.raises(InputError, match="give a mapping"):
        canonical([1, 2])


def test_the_hash_covers_every_field():
    fields = ["writer", 1, "decision", "id", 5, "{}", GENESIS]
    changed = ["writer2", 2, "outcome", "id2", 6, '{"a":1}', "1" * 64]
    hashes = {chained_hash(*fields)}
    for place, value in enumerate(changed):
        hashes.add(chained_hash(*fields[:place], value, *fields[place + 1 :]))
    assert len(hashes) == 8


def test_moving_a_character_across_fields_changes_the_hash():
    assert chained_hash("ab", 1, "decision", "c", 5, "{}", GENESIS) != chained_hash(
        "a", 1, "decision", "bc", 5, "{}", GENESIS
    )


def test_a_hash_of_the_first_format_is_still_one():
    fields = ["replica-1", 1, "decision", "d1", 1000, '{"size":1e-05}', GENESIS]
    digest = "dd9856dedd5a4508b7ab25504a75a811553d512e812a03d60b650325918dc841"
    assert gives_hash(digest, *fields)
    assert gives_hash(chained_hash(*fields), *fields)
    for place, value in enumerate(["replica-2", 2, "outcome", "d2", 1001, '{"size":2e-05}', "1" * 64]):
        assert not gives_hash(digest, *fields[:place], value, *fields[place + 1 :])
