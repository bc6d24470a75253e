"""Size classes."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from octavo.memory.disk.classes import SMALL, STEP, class_of


def test_the_first_classes_are_these() -> None:
    mib = 1 << 20
    sizes = {class_of(nbytes) for nbytes in range(0, 60 * mib + 1, 4096)}
    assert sorted(sizes) == [*SMALL, *(n * mib for n in (4, 8, 12, 16, 20, 24, 28, 32, 40, 48, 60))]


@given(st.integers(0, 1 << 36))
def test_a_class_holds_its_values_and_is_not_much_larger(nbytes: int) -> None:
    size = class_of(nbytes)
    assert size >= nbytes
    assert class_of(size) == size
    assert size % 4096 == 0
    if nbytes > SMALL[-1]:
        assert size % STEP == 0
    if nbytes > 4 * STEP:
        assert size <= nbytes * 1.25 + 1
