"""Outlooks against pipelines whose truth is known; references against a plain count."""

from __future__ import annotations

import random
import threading
from collections import Counter

import pytest

from octavo.errors import ReleasedError
from octavo.memory.lifetimes import Leak, Lifetimes, class_of

MIB = 1 << 20


def vision(page: int) -> tuple[str, int]:
    return ("vision", page)


def documents(lives: Lifetimes, pages: int, *, deleted: bool = False) -> None:
    """Features: born and used twice on the page, used once in the summary, never after.
    A prompt's embedding: used in every layout."""
    for page in range(pages):
        with lives.phase("page"):
            lives.born(vision(page), MIB)
            lives.used(vision(page))
            lives.used(vision(page))
        with lives.phase("layout"):
            lives.used(("prompt", "layout"))
        with lives.phase("summary"):
            lives.used(vision(page))
        if deleted:
            lives.died(vision(page))


@pytest.mark.parametrize("deleted", [True, False])
def test_learns_the_last_use_of_a_class(deleted: bool) -> None:
    lives = Lifetimes()
    documents(lives, 30, deleted=deleted)
    new = vision(1000)
    lives.enter_phase("page")
    lives.born(new, MIB)
    assert lives.expects(new).horizon == "soon"
    assert lives.advice(new) == "keep"
    lives.used(new)
    assert lives.expects(new).horizon == "soon"
    lives.used(new)
    after_page = lives.expects(new)
    assert (after_page.horizon, after_page.steps) == ("later", 2.0)
    assert after_page.confidence > 0.8
    assert lives.advice(new) == "demote"
    lives.enter_phase("layout")
    assert lives.expects(new).steps == 1.0
    assert lives.advice(new) == "keep", "needed in the very next phase"
    lives.enter_phase("summary")
    assert lives.expects(new).horizon == "soon"
    lives.used(new)
    assert lives.expects(new).horizon == "done"
    assert lives.advice(new) == "drop-first"


def test_a_class_used_in_every_cycle_is_never_done() -> None:
    lives = Lifetimes()
    documents(lives, 30)
    prompt = ("prompt", "layout")
    expected = {"page": ("later", 1.0), "layout": ("soon", 0.0), "summary": ("later", 2.0)}
    for phase, outlook in expected.items():
        lives.enter_phase(phase)
        found = lives.expects(prompt)
        assert (found.horizon, found.steps) == outlook
        assert found.confidence > 0.8
        if phase == "layout":
            lives.used(prompt)
            assert lives.expects(prompt).steps == 3.0
            assert lives.advice(prompt) == "demote"


def test_nothing_is_known_at_first() -> None:
    lives = Lifetimes()
    lives.enter_phase("page")
    lives.born("a", 1)
    lives.used("a")
    for key in ("a", "never seen"):
        assert lives.expects(key).horizon is None
        assert lives.expects(key).confidence == 0.0
        assert lives.advice(key) == "keep"


def test_few_lives_are_not_certain() -> None:
    lives = Lifetimes()
    certain = []
    for page in range(8):
        lives.enter_phase("page")
        lives.born(vision(page), 1)
        lives.used(vision(page))
        certain.append(lives.advice(vision(page)) == "drop-first")
        lives.died(vision(page))
    assert certain == [False] * 6 + [True] * 2


def test_late_use_beyond_patience_unlearns_the_end() -> None:
    """A pause longer than patience looks like an end until the use after it comes."""
    lives = Lifetimes(patience=4)
    for turn in range(20):
        lives.enter_phase("turn")
        lives.born(("kv", turn), 1)
        lives.used(("kv", turn))
        for _ in range(9):
            lives.enter_phase("other")
        waiting = "kv used 1 times in turn: next use 100% 10 phases on" in lives.explain()
        assert waiting or turn == 0, "such a pause is known now, and no end"
        lives.enter_phase("reply")
        lives.used(("kv", turn))
        lives.died(("kv", turn))
    lives.enter_phase("turn")
    lives.born(("kv", 99), 1)
    lives.used(("kv", 99))
    found = lives.expects(("kv", 99))
    assert (found.horizon, found.steps) == ("later", 10.0)
    assert found.confidence == 20 / 22


def test_an_end_counts_once() -> None:
    """Silence for long and the death after it are one end."""
    lives = Lifetimes(patience=2)
    for number in range(10):
        lives.enter_phase("a")
        lives.born(number, 1)
        lives.used(number)
        if number % 2:
            lives.used(number)
        for _ in range(4):
            lives.enter_phase("b")
        lives.died(number)
    lines = lives.explain().splitlines()
    assert "int used 1 times in a: next use 50% in it again, 50% never" in lines


def test_few_like_lives_are_judged_by_all_uses_in_the_phase() -> None:
    """One life was used in four cycles before; what counts is what mostly happens."""
    lives = Lifetimes()

    def live(name: str, cycles: int) -> None:
        lives.born(("emb", name), 1)
        for _ in range(cycles):
            lives.enter_phase("a")
            lives.used(("emb", name))
            lives.enter_phase("b")

    for number in range(30):
        live(f"short {number}", 3)
        lives.died(("emb", f"short {number}"))
    live("long", 5)
    live("new", 4)
    found = lives.expects(("emb", "new"))
    assert found.horizon == "later"
    assert found.confidence > 0.5


def test_forgets_the_one_unused_longest() -> None:
    lives = Lifetimes(max_keys=10)
    lives.born("often", 1)
    for number in range(100):
        lives.born(number, 1)
        lives.used("often")
    assert lives._lives["often"].nbytes == 1, "never forgotten and met anew"
    assert len(lives) == 10


def test_values_made_room_for_say_nothing() -> None:
    lives = Lifetimes()
    for page in range(40):
        lives.enter_phase("page")
        lives.born(vision(page), 1)
        lives.used(vision(page))
        lives.forget(vision(page))
    lives.born(vision(99), 1)
    lives.used(vision(99))
    assert lives.expects(vision(99)).horizon is None


@pytest.mark.parametrize("becomes", ["later", "done"])
def test_habits_change(becomes: str) -> None:
    lives = Lifetimes()
    for page in range(2400):
        lives.enter_phase("page")
        lives.born(vision(page), 1)
        lives.used(vision(page))
        lives.enter_phase("summary")
        if (page > 1600) == (becomes == "later"):
            lives.used(vision(page))
        lives.died(vision(page))
    lives.enter_phase("page")
    lives.born(vision(5000), 1)
    lives.used(vision(5000))
    assert lives.expects(vision(5000)).horizon == becomes


def test_a_wrong_guess_frees_nothing() -> None:
    freed: list[object] = []
    lives = Lifetimes(freed.append)
    documents(lives, 30, deleted=True)
    lives.enter_phase("page")
    lives.born(vision(99), MIB)
    lives.acquire(vision(99), "reader")
    for _ in range(2):
        lives.used(vision(99))
    lives.enter_phase("layout")
    lives.enter_phase("summary")
    lives.used(vision(99))
    assert lives.advice(vision(99)) == "drop-first"
    assert freed == []
    assert lives.references(vision(99)) == 1
    lives.used(vision(99))
    assert lives.references(vision(99)) == 1
    assert lives.release(vision(99), "reader") == 0
    assert freed == [], "released, but nobody asked to free it"


def test_freed_with_the_last_reference() -> None:
    freed: list[object] = []
    lives = Lifetimes(freed.append)
    lives.born("a", 1)
    lives.acquire("a", "x")
    lives.acquire("a", "x")
    lives.acquire("a", "y")
    assert not lives.free_when_unreferenced("a")
    assert [lives.release("a", owner) for owner in "xyx"] == [2, 1, 0]
    assert freed == ["a"]
    assert len(lives) == 0
    assert lives.free_when_unreferenced("b")
    assert freed == ["a", "b"]


def test_held_releases_after_an_error() -> None:
    lives = Lifetimes()
    seen = []

    def fail() -> None:
        with lives.held("a", "x"):
            seen.append(lives.references("a"))
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert seen == [1]
    assert lives.references("a") == 0


def test_a_new_value_is_not_freed_for_the_old_one() -> None:
    freed: list[object] = []
    lives = Lifetimes(freed.append)
    lives.born("a", 1)
    lives.acquire("a", "x")
    lives.free_when_unreferenced("a")
    lives.born("a", 2)
    lives.release("a", "x")
    assert freed == []


def test_releasing_too_often_is_refused() -> None:
    lives = Lifetimes()
    lives.acquire("a", "x")
    with pytest.raises(ReleasedError, match="more often"):
        lives.release("a", "y")
    assert lives.references("a") == 1
    lives.release("a", "x")
    with pytest.raises(ReleasedError):
        lives.release("a", "x")


def test_nobody_acquires_what_is_being_freed() -> None:
    seen: list[str] = []

    def free(key: object) -> None:
        with pytest.raises(ReleasedError, match="being freed"):
            lives.acquire(key, "late")
        assert not lives.free_when_unreferenced(key), "freed once"
        seen.append(str(key))

    lives = Lifetimes(free)
    assert lives.free_when_unreferenced("a")
    assert seen == ["a"]
    lives.acquire("a", "again")
    assert lives.references("a") == 1


def test_an_error_while_freeing_reaches_the_caller_and_blocks_nothing() -> None:
    def free(key: object) -> None:
        raise OSError("no")

    lives = Lifetimes(free)
    lives.acquire("a", "x")
    lives.free_when_unreferenced("a")
    with pytest.raises(OSError, match="no"):
        lives.release("a", "x")
    lives.acquire("a", "x")


def test_leaks_are_named_by_owner() -> None:
    lives = Lifetimes()
    documents(lives, 20, deleted=True)
    lives.acquire(("prompt", "layout"), "reader")
    for page in range(100, 103):
        with lives.phase("page"):
            lives.born(vision(page), MIB)
            lives.acquire(vision(page), "summaries")
            lives.used(vision(page))
            lives.used(vision(page))
        with lives.phase("layout"):
            lives.used(("prompt", "layout"))
        with lives.phase("summary"):
            lives.used(vision(page))
            if page == 100:
                lives.release(vision(page), "summaries")
    assert lives.leaks(1000) == [Leak("summaries", "vision", 1, MIB, 3)], "the last is in use"
    lives.enter_phase("page")
    assert lives.leaks(1000) == [Leak("summaries", "vision", 2, 2 * MIB, 4)]


def test_old_references_without_a_known_outlook_are_leaks() -> None:
    lives = Lifetimes()
    lives.enter_phase("a")
    lives.born("blob", 7)
    lives.acquire("blob", "x")
    lives.acquire("unborn", "y")
    for step in range(1, 6):
        lives.enter_phase("b")
        expected = [Leak("x", "str", 1, 7, step), Leak("y", "str", 1, 0, step)]
        assert lives.leaks(3) == (expected if step > 3 else [])
    lives.used("blob")
    assert [leak.owner for leak in lives.leaks(3)] == ["y"]


def test_phases_nest_and_are_recorded() -> None:
    lives = Lifetimes()
    assert lives.current == ""
    with lives.phase("page"):
        with lives.phase("layout"):
            assert lives.current == "layout"
        assert lives.current == "page"
    assert lives.recent == ("page", "layout")


def test_explains_what_it_learned() -> None:
    lives = Lifetimes()
    documents(lives, 10, deleted=True)
    lines = lives.explain().splitlines()
    assert "vision born in page: next use 100% in it again" in lines
    assert "vision used 2 times in page: next use 100% 2 phases on" in lines
    assert "vision used 1 times in summary: next use 100% never" in lines
    assert "prompt used 1 times in layout: next use 100% 3 phases on" in lines


def test_classes() -> None:
    assert class_of(("vision", 3)) == "vision"
    assert class_of("abc") == "str"
    assert class_of(()) == "tuple"
    lives = Lifetimes(key_class=lambda key: str(key)[0])
    lives.acquire("abc", "x")
    lives.enter_phase("a")
    assert lives.leaks(0)[0].key_class == "a"


def sizes(lives: Lifetimes) -> tuple[int, ...]:
    """How much is kept, whatever it is."""
    groups = lives._classes.values()
    return (
        len(lives._lives),
        len(lives._references),
        len(groups),
        max(len(group._situations) for group in groups),
        sum(len(group._waiting) for group in groups),
        max((len(use.gaps) for group in groups for use in group._situations.values()), default=0),
    )


@pytest.mark.parametrize(("keys", "deleted"), [(20_000, True), (100_000, False)])
def test_memory_is_bounded(keys: int, deleted: bool) -> None:
    """So many keys, of ever new classes, in ever new phases, with ever other gaps."""
    lives = Lifetimes(max_keys=1000)
    chance = random.Random(1)
    for number in range(keys):
        if number % 16 == 0:
            lives.enter_phase(f"phase {number}")
        key = (f"class {number % 1000}", number)
        lives.born(key, 1)
        lives.used(("class 0", chance.randrange(number + 1)))
        if deleted:
            lives.died(key)
    live, references, classes, situations, waiting, gaps = sizes(lives)
    assert live <= 1000
    assert references == 0
    assert classes <= 257
    assert situations <= 512
    assert waiting <= live
    assert gaps < 64
    if deleted:
        # Only values "used" after their death are still watched.
        assert live < 1001


def test_dead_keys_leave_nothing() -> None:
    lives = Lifetimes()
    documents(lives, 5)
    before = sizes(lives)
    for page in range(100, 2100):
        with lives.phase("page"):
            lives.born(vision(page), 1)
            with lives.held(vision(page), "reader"):
                lives.used(vision(page))
        lives.died(vision(page))
    after = sizes(lives)
    assert after[0] == before[0]
    assert after[1] == 0


def test_a_referenced_key_is_never_forgotten() -> None:
    lives = Lifetimes(max_keys=10)
    for number in range(1000):
        lives.born(("a", number), 1)
        lives.acquire(("a", number), "x")
    assert all(lives.references(("a", number)) == 1 for number in range(1000))
    lives.enter_phase("b")
    assert lives.leaks(0)[0].count == 1000


def test_threads_count_references_right() -> None:
    """Each key is freed exactly once, after its last release, whoever releases."""
    freed: Counter[object] = Counter()
    held: Counter[object] = Counter()
    guard = threading.Lock()
    faults: list[str] = []

    def free(key: object) -> None:
        with guard:
            freed[key] += 1
            if held[key]:
                faults.append(f"{key} freed while held")

    lives = Lifetimes(free)
    keys = [("k", number) for number in range(50)]
    for key in keys:
        lives.born(key, 1)
        lives.acquire(key, "main")
    start = threading.Barrier(8)

    def work(seed: int) -> None:
        chance = random.Random(seed)
        start.wait()
        for _ in range(200):
            key = chance.choice(keys)
            with guard:
                held[key] += 1
            lives.acquire(key, f"thread {seed}")
            lives.used(key)
            lives.enter_phase(chance.choice("abc"))
            lives.advice(key)
            with guard:
                held[key] -= 1
            lives.release(key, f"thread {seed}")

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(8)]
    for thread in threads:
        thread.start()
    for key in keys:
        lives.free_when_unreferenced(key)
    for thread in threads:
        thread.join()
    assert not freed
    enders = [
        threading.Thread(target=lambda: [lives.acquire(keys[0], "x"), lives.release(keys[0], "x")])
        for _ in range(4)
    ]
    for thread in enders:
        thread.start()
    for thread in enders:
        thread.join()
    for key in keys:
        lives.release(key, "main")
    assert faults == []
    assert freed == Counter(keys)
    assert len(lives) == 0
