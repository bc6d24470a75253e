"""Keys as JSON."""

from __future__ import annotations

import enum
import json
import math
from collections.abc import Hashable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from octavo.errors import CodecError
from octavo.memory.disk.keys import key_from_json, key_to_json

PLAIN = st.one_of(
    st.none(), st.booleans(), st.integers(), st.text(), st.binary(), st.floats(allow_nan=False)
)
KEYS = st.recursive(PLAIN, lambda inner: st.lists(inner, max_size=4).map(tuple), max_leaves=8)


def typed(key: Hashable) -> object:
    """The key with the type of each part: ``1 == 1.0 == True`` otherwise."""
    if isinstance(key, tuple):
        return ("tuple", *map(typed, key))
    return type(key), math.copysign(1, key) if isinstance(key, float) else 0, key


@given(KEYS)
def test_a_key_comes_back_with_its_types(key: Hashable) -> None:
    assert typed(key_from_json(json.loads(json.dumps(key_to_json(key))))) == typed(key)


@given(KEYS, KEYS)
def test_different_keys_are_written_differently(one: Hashable, two: Hashable) -> None:
    same = json.dumps(key_to_json(one)) == json.dumps(key_to_json(two))
    assert same == (typed(one) == typed(two))


class Colour(enum.IntEnum):
    RED = 1


@pytest.mark.parametrize("key", [frozenset({1}), Colour.RED, ("a", object())])
def test_other_keys_are_refused(key: Hashable) -> None:
    with pytest.raises(CodecError, match="cannot be kept"):
        key_to_json(key)


@pytest.mark.parametrize("coded", [[], ["list", 1], {"a": 1}, ["bytes", 3], 1.5])
def test_what_was_never_written_is_refused(coded: object) -> None:
    with pytest.raises(CodecError):
        key_from_json(coded)
