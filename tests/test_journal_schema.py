import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from journal.schema import GENESIS, canonical, chained_hash
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
