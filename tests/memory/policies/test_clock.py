"""Clock beside an array with a hand."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from octavo.memory.policies import Clock

from .contract import PolicyContract


class TestContract(PolicyContract):
    make = staticmethod(Clock)


class Frames:
    """The textbook: frames with a bit each, a hand that goes round."""

    def __init__(self, count: int) -> None:
        self.pages: list[int | None] = [None] * count
        self.bits = [False] * count
        self.hand = 0

    def use(self, page: int) -> int | None:
        """The page that had to go."""
        if page in self.pages:
            self.bits[self.pages.index(page)] = True
            return None
        while self.bits[self.hand]:
            self.bits[self.hand] = False
            self.hand = (self.hand + 1) % len(self.pages)
        gone = self.pages[self.hand]
        self.pages[self.hand] = page
        self.hand = (self.hand + 1) % len(self.pages)
        return gone


@given(st.integers(1, 6), st.lists(st.integers(0, 9), max_size=150))
@settings(deadline=None)
def test_takes_the_page_that_the_hand_takes(count: int, pages: list[int]) -> None:
    policy, frames = Clock(count), Frames(count)
    for page in pages:
        gone = frames.use(page)
        if page in policy:
            policy.touch(page)
            continue
        if len(policy) == count:
            victim = next(policy.victims())
            assert victim == gone
            policy.evict(victim)
        policy.insert(page, 1)


def test_one_that_cannot_go_does_not_stop_the_hand() -> None:
    policy = Clock(4)
    for key in "abcd":
        policy.insert(key, 1)
    policy.touch("c")
    policy.evict("b")  # "a" is in use
    assert list(policy.victims()) == ["d", "a", "c"]


def test_a_new_value_is_a_use() -> None:
    policy = Clock(4)
    for key in "aba":
        policy.insert(key, 1)
    assert list(policy.victims()) == ["b", "a"]
