from __future__ import annotations

import random

from hypothesis import given
from hypothesis import strategies as st

from octavo.readers.zones import Item, order_zones
from octavo.types import Box


def item(name: str, left: float, top: float, right: float, bottom: float) -> Item[str]:
    return Item(Box(left, top, right, bottom), f"{name} words", name)


def column(name: str, left: float, top: float, count: int, width: float = 200) -> list[Item[str]]:
    return [
        item(f"{name}{i}", left, top + 12 * i, left + width, top + 12 * i + 10)
        for i in range(count)
    ]


def order(items: list[Item[str]], *, rtl: bool = False) -> list[str]:
    random.Random(3).shuffle(items)
    return [i.value for zone in order_zones(items, 10, rtl=rtl) for i in zone.items]


def names(items: list[Item[str]]) -> list[str]:
    return [i.value for i in items]


def test_columns_are_read_to_their_foot_under_a_spanning_head() -> None:
    head = item("head", 50, 50, 470, 70)
    left, right = column("a", 50, 100, 10), column("b", 270, 105, 10)
    assert order([head, *left, *right]) == ["head", *names(left), *names(right)]


def test_a_head_across_the_page_divides_two_sets_of_columns() -> None:
    first = column("a", 50, 100, 6) + column("b", 270, 100, 6)
    head = item("head", 50, 200, 470, 215)
    second = column("c", 50, 240, 6) + column("d", 270, 240, 6)
    assert order([*first, head, *second]) == [*names(first), "head", *names(second)]


def test_a_rule_under_all_columns_ends_them() -> None:
    above = column("a", 50, 100, 6) + column("b", 270, 100, 6)
    below = column("c", 50, 190, 6) + column("d", 270, 190, 6)
    items = [*above, *below]
    random.Random(5).shuffle(items)
    bar = Box(45, 180, 480, 181)
    zones = order_zones(items, 10, bars=[bar])
    assert [i.value for zone in zones for i in zone.items] == names([*above, *below])
    short = [Box(45, 180, 240, 181)]
    found = [i.value for zone in order_zones(items, 10, bars=short) for i in zone.items]
    assert found.index("c0") < found.index("b0")


def test_three_columns_with_a_picture_over_two_of_them() -> None:
    picture = Item(Box(240, 100, 630, 200), "", "picture")
    a = column("a", 40, 100, 20, 180)
    b, c = column("b", 240, 212, 10, 180), column("c", 450, 212, 10, 180)
    assert order([picture, *a, *b, *c]) == [*names(a), "picture", *names(b), *names(c)]


def test_columns_from_the_right_for_right_to_left_pages() -> None:
    left, right = column("a", 50, 100, 8), column("b", 270, 100, 8)
    assert order([*left, *right], rtl=True) == [*names(right), *names(left)]


def test_page_numbers_of_a_table_of_contents_stay_in_their_rows() -> None:
    items: list[Item[str]] = []
    for i in range(8):
        top = 100 + 14 * i
        items.append(Item(Box(50, top, 200, top + 10), f"Chapter {i}", f"t{i}"))
        items.append(Item(Box(440, top, 455, top + 10), f"{i}", f"n{i}"))
    assert order(items) == [f"{kind}{i}" for i in range(8) for kind in "tn"]


def test_interlocked_boxes_are_sorted_from_above() -> None:
    wide = Item(Box(50, 100, 300, 160), "", "wide")
    tall = Item(Box(310, 120, 400, 300), "", "tall")
    low = Item(Box(50, 170, 305, 300), "", "low")
    foot = Item(Box(120, 290, 400, 340), "", "foot")
    found = order([wide, tall, low, foot])
    assert found.index("wide") < found.index("low") < found.index("foot")
    assert found.index("tall") < found.index("foot")


boxes = st.tuples(
    st.floats(0, 500), st.floats(0, 700), st.floats(1, 300), st.floats(1, 60), st.booleans()
)


@given(st.lists(boxes, max_size=30), st.booleans())
def test_nothing_is_lost_or_doubled(
    drawn: list[tuple[float, float, float, float, bool]], rtl: bool
) -> None:
    items = [
        Item(Box(x, y, x + w, y + h), "some text" if text else "", str(i))
        for i, (x, y, w, h, text) in enumerate(drawn)
    ]
    found = [i.value for zone in order_zones(items, 10, rtl=rtl) for i in zone.items]
    assert sorted(found) == sorted(i.value for i in items)


def test_the_short_end_of_a_paragraph_over_columns_stays_with_it() -> None:
    wide = [item(f"w{i}", 50, 60 + 12 * i, 470, 70 + 12 * i) for i in range(3)]
    end = item("end", 50, 96, 150, 106)
    columns = column("a", 50, 118, 8) + column("b", 270, 118, 8)
    zones = order_zones([*wide, end, *columns], 10)
    assert [i.value for i in zones[0].items] == ["w0", "w1", "w2", "end"]
