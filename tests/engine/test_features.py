"""Features by content: what is found again and what never is, and the same answers with them."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from octavo.engine import features_answer  # noqa: E402
from octavo.engine.features import FeatureCache, FeatureKey  # noqa: E402
from octavo.engine.features_answer import answer_with_features, fed, see  # noqa: E402
from octavo.engine.features_mark import ModelMark, mark_of, revision_of  # noqa: E402
from octavo.engine.tower import Medium, TowerBudget, tower_of  # noqa: E402
from octavo.errors import BudgetExceeded  # noqa: E402
from octavo.memory import MemoryManager  # noqa: E402
from octavo.models.checkpoint import Checkpoint  # noqa: E402
from octavo.models.family import Guard  # noqa: E402
from octavo.models.registry import family_of  # noqa: E402
from octavo.requests import Part, Request, Sampling  # noqa: E402
from tests.models.conftest import held, tiny  # noqa: E402, F401
from tests.models.families.filling import filled  # noqa: E402

Tiny = Callable[[str], Path]
FAMILIES = ("qwen3-vl", "qwen2.5-vl", "dots.ocr", "llava", "llava-next", "gemma3n")
MARK = ModelMark("llava", b"revision", b"settings", b"precision")
ANSWER: Any = {"max_new_tokens": 6, "sampling": Sampling(), "guard": Guard()}
MB = 1 << 20


def _drawn(high: int, wide: int, seed: int) -> Any:
    return np.random.default_rng(seed).integers(0, 255, (high, wide, 3), dtype=np.uint8)


PICTURES = [_drawn(100, 140, 1), _drawn(60, 200, 2), _drawn(150, 70, 3)]


class Opened:
    """A tiny model with a count of what its tower was asked for."""

    def __init__(self, folder: Path) -> None:
        self.checkpoint = Checkpoint.at(folder)
        self.family = family_of(self.checkpoint)
        self.module = filled(self.family, folder)
        self.processor = self.family.processor(self.checkpoint)
        self.tower = tower_of(self.family)
        self.mark = mark_of(self.checkpoint, self.family, self.module)
        self.runs = 0
        model = self.module if hasattr(self.module, "vision_tower") else self.module.model
        part = getattr(model, "visual", None) or model.vision_tower
        part.register_forward_pre_hook(self._ran)

    def _ran(self, *_given: Any) -> None:
        self.runs += 1

    def prepared(self, held: Any, *parts: Any) -> Any:  # noqa: F811
        pieces = [part if isinstance(part, str) else Part.image(part) for part in parts]
        return self.processor.prepare(Request.of(*pieces), held)

    def plain(self, prepared: Any) -> Any:
        return self.family.generate(self.module, self.processor, prepared, **ANSWER)

    def cached(self, prepared: Any, cache: FeatureCache, **options: Any) -> Any:
        return answer_with_features(
            self.family, self.module, self.processor, prepared, cache, self.mark,
            **ANSWER, **options,
        )  # fmt: skip


@pytest.fixture(scope="module")
def opened(tiny: Tiny) -> Callable[[str], Opened]:  # noqa: F811
    made: dict[str, Opened] = {}

    def of(name: str) -> Opened:
        if name not in made:
            made[name] = Opened(tiny(name))
        made[name].runs = 0
        return made[name]

    return of


@pytest.fixture
def cache() -> Iterator[FeatureCache]:
    with MemoryManager(device=64 * MB, level="minimal", on="cpu") as memory:
        yield FeatureCache(memory)


# Keys.


def _medium(**changed: Any) -> Medium:
    torch.manual_seed(0)
    given: dict[str, Any] = {
        "kind": "image", "pixels": torch.randn(16, 12), "grid": (1, 4, 4), "patches": 16,
        "tokens": 4,
    }  # fmt: skip
    return Medium(**given | changed)


def test_equal_content_has_an_equal_key() -> None:
    view = torch.cat([torch.zeros(3, 12), _medium().pixels])[3:]
    column = _medium().pixels.t().contiguous().t()  # the same numbers, laid out otherwise
    keys = {FeatureKey.of(_medium(pixels=one), MARK) for one in (_medium().pixels, view, column)}
    assert len(keys) == 1
    assert len(keys.pop().digest) == 32


def test_whatever_features_follow_from_is_in_the_key() -> None:
    pixels = _medium().pixels
    nudged, swapped = pixels.clone(), pixels.clone()
    nudged[7, 5] = torch.nextafter(nudged[7, 5], torch.tensor(9.0))
    swapped[[0, 1]] = swapped[[1, 0]]
    media = [
        _medium(),
        _medium(pixels=nudged),
        _medium(pixels=swapped),
        _medium(pixels=pixels.double()),
        _medium(pixels=pixels.view(torch.int32)),
        _medium(pixels=pixels.reshape(12, 16)),
        _medium(pixels=pixels[:12]),
        _medium(grid=(1, 2, 8)),
        _medium(grid=(1, 44)),
        _medium(kind="video"),
    ]
    marks = [dataclasses.replace(MARK, **{name.name: b"other"}) for name in dataclasses.fields(MARK)
             if name.name != "family"]  # fmt: skip
    marks.append(dataclasses.replace(MARK, family="llava-next"))
    keys = [FeatureKey.of(medium, MARK) for medium in media]
    keys += [FeatureKey.of(_medium(), mark) for mark in marks]
    assert len(set(keys)) == len(media) + 4


def _copied(folder: Path, to: Path) -> Path:
    shutil.copytree(folder, to)
    return to


def test_the_mark_is_of_content_and_not_of_a_place(tiny: Tiny, tmp_path: Path) -> None:  # noqa: F811
    folder = tiny("llava")
    other = _copied(folder, tmp_path / "elsewhere")
    marks = []
    for place, name in ((folder, None), (other, None), (other, "renamed")):
        checkpoint = Checkpoint.at(place, name)
        family = family_of(checkpoint)
        marks.append(mark_of(checkpoint, family, filled(family, place)))
    assert marks[0] == marks[1] == marks[2]


@pytest.mark.parametrize("name", FAMILIES)
def test_a_changed_weight_of_the_tower_is_another_revision(
    tiny: Tiny,  # noqa: F811
    tmp_path: Path,
    name: str,
) -> None:
    """One bit, in place, in a file whose header stays the same."""
    folder = _copied(tiny(name), tmp_path / "model")
    checkpoint = Checkpoint.at(folder)
    family = family_of(checkpoint)
    before = revision_of(checkpoint, family)
    for component, part in (("vision", -1), ("projector", 0)):
        tensors = [
            tensor
            for tensor in checkpoint.tensors.values()
            if family.component_of(tensor.name) == component
        ]
        tensor = tensors[part]
        place = tensor.offset + tensor.nbytes - 1
        file = folder / tensor.file
        content = bytearray(file.read_bytes())
        content[place] ^= 1
        file.write_bytes(content)
        after = revision_of(Checkpoint.at(folder), family)
        assert after != before
        content[place] ^= 1
        file.write_bytes(content)
    assert revision_of(Checkpoint.at(folder), family) == before


def test_changed_settings_and_precisions_are_other_marks(tiny: Tiny, tmp_path: Path) -> None:  # noqa: F811
    folder = _copied(tiny("llava"), tmp_path / "model")
    family = family_of(Checkpoint.at(folder))

    def mark(**types: Any) -> ModelMark:
        return mark_of(Checkpoint.at(folder), family, filled(family, folder, **types))

    plain = mark()
    half = torch.bfloat16
    found = {plain, mark(vision=half), mark(projector=half), mark(vision=half, projector=half)}
    assert len(found) == 4
    assert mark(language=half) == plain  # features do not go through the decoder
    for name in ("preprocessor_config.json", "config.json"):
        before = (folder / name).read_text()
        (folder / name).write_text(json.dumps({**json.loads(before), "another": 1}))
        assert mark() not in found
        (folder / name).write_text(before)
    assert mark() == plain


# Answers.


@pytest.mark.parametrize("name", FAMILIES)
def test_a_second_question_is_answered_without_the_tower(
    opened: Callable[[str], Opened],
    cache: FeatureCache,
    held: Any,  # noqa: F811
    name: str,
) -> None:
    model = opened(name)
    first = model.prepared(held, PICTURES[0], "what is it")
    second = model.prepared(held, PICTURES[0], "and how many are there then")
    wanted = model.plain(second)
    assert wanted.tokens
    model.runs = 0
    made = model.cached(first, cache)
    assert (model.runs, cache.stats.hits, cache.stats.misses) == (1, 0, 1)
    if name != "gemma3n":  # its tower is a slow one
        assert model.plain(first) == made
        model.runs = 1
    assert model.cached(second, cache) == wanted
    assert (model.runs, cache.stats.hits, cache.stats.misses) == (1, 1, 1)
    assert cache.stats.hit_bytes == cache.stats.put_bytes > 0


@pytest.mark.parametrize("name", FAMILIES[:-1])
def test_logits_are_those_of_pixels(
    opened: Callable[[str], Opened],
    cache: FeatureCache,
    held: Any,  # noqa: F811
    name: str,
) -> None:
    """Tokens of models so small may not tell features from others; logits do."""
    model = opened(name)
    prepared = model.prepared(held, PICTURES[1], "and", PICTURES[0], "what is it")
    with torch.inference_mode():
        wanted = model.module(**prepared.inputs).logits
        for _ in range(2):
            seen = see(model.tower, model.module, prepared, cache, model.mark)
            with fed(model.tower, model.module, prepared, seen) as given:
                assert torch.equal(model.module(**given.inputs).logits, wanted)
    assert seen.hits == 2


@pytest.mark.parametrize("name", ["qwen3-vl", "dots.ocr", "llava-next"])
def test_one_of_several_pictures_is_shared(
    opened: Callable[[str], Opened],
    cache: FeatureCache,
    held: Any,  # noqa: F811
    name: str,
) -> None:
    model = opened(name)
    alone = TowerBudget(patches=0)
    both = model.prepared(held, PICTURES[0], PICTURES[1], "which is it")
    # The third has more tiles or other sizes, so what surrounds the shared one differs.
    other = model.prepared(held, PICTURES[2], PICTURES[1], PICTURES[2], "what are these")
    wanted = [model.plain(both), model.plain(other)]
    model.runs = 0
    assert model.cached(both, cache, budget=alone) == wanted[0]
    assert (model.runs, cache.stats.misses) == (2, 2)
    assert model.cached(other, cache, budget=alone) == wanted[1]
    # One is known, and one that is there twice is made once.
    assert (model.runs, cache.stats.misses, cache.stats.hits) == (3, 3, 1)


def test_a_changed_pixel_is_seen_anew(
    opened: Callable[[str], Opened],
    cache: FeatureCache,
    held: Any,  # noqa: F811
) -> None:
    model = opened("qwen3-vl")
    changed = PICTURES[0].copy()
    changed[50, 70, 1] ^= 1
    for picture in (PICTURES[0], changed):
        prepared = model.prepared(held, picture, "what is it")
        seen = see(model.tower, model.module, prepared, cache, model.mark)
        assert seen.hits == 0
    assert (model.runs, cache.stats.misses) == (2, 2)


def test_another_mark_is_seen_anew(
    opened: Callable[[str], Opened],
    cache: FeatureCache,
    held: Any,  # noqa: F811
) -> None:
    model = opened("llava")
    prepared = model.prepared(held, PICTURES[0], "what is it")
    marks = [model.mark] + [
        dataclasses.replace(model.mark, **{name: b"other"})
        for name in ("revision", "settings", "precision")
    ]
    for mark in marks:
        assert see(model.tower, model.module, prepared, cache, mark).hits == 0
    assert model.runs == 4
    assert see(model.tower, model.module, prepared, cache, model.mark).hits == 1


def test_films_and_pictures_together(
    opened: Callable[[str], Opened],
    cache: FeatureCache,
    held: Any,  # noqa: F811
) -> None:
    model = opened("qwen3-vl")
    film = [_drawn(80, 120, seed) for seed in range(4)]
    request = Request.of(Part.image(PICTURES[0]), Part.video(film), "what happens")
    prepared = model.processor.prepare(request, held)
    wanted = model.plain(prepared)
    assert model.cached(prepared, cache) == wanted
    model.runs = 0
    assert model.cached(prepared, cache) == wanted
    assert model.runs == 0
    assert cache.stats.hits == 2


def test_words_alone_pass_through(
    opened: Callable[[str], Opened],
    cache: FeatureCache,
    held: Any,  # noqa: F811
) -> None:
    model = opened("qwen3-vl")
    prepared = model.prepared(held, "hello")
    assert model.cached(prepared, cache) == model.plain(prepared)
    seen = see(model.tower, model.module, prepared, cache, model.mark)
    with fed(model.tower, model.module, prepared, seen) as given:
        assert given is prepared
    assert (model.runs, cache.stats.hits, cache.stats.misses) == (0, 0, 0)


@pytest.mark.parametrize("name", ["qwen3-vl", "qwen2.5-vl", "llava", "llava-next"])
def test_a_library_that_takes_no_features_gets_them_all_the_same(
    opened: Callable[[str], Opened],
    cache: FeatureCache,
    held: Any,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
    name: str,
) -> None:
    monkeypatch.setattr(features_answer, "TAKEN_BY_KIND", "no_such_argument")
    model = opened(name)
    prepared = model.prepared(held, PICTURES[0], PICTURES[1], "what is it")
    wanted = model.plain(prepared)
    model.runs = 0
    for _ in range(2):
        assert model.cached(prepared, cache, budget=TowerBudget(patches=0)) == wanted
    assert model.runs == 2
    assert not any(name.startswith("get_") for name in vars(model.module.model))
    assert model.plain(prepared) == wanted
    assert model.runs == 3


# Tiers and faults.


def _features(seed: int, nbytes: int = MB) -> Any:
    torch.manual_seed(seed)
    return torch.randn(1, nbytes // 4096, 1024)


def _key(seed: int) -> FeatureKey:
    return FeatureKey(seed.to_bytes(32, "little"))


def test_features_go_down_three_tiers_and_come_back_exact(tmp_path: Path) -> None:
    with MemoryManager(
        device=3 * MB, host=3 * MB, disk=(tmp_path, 64 * MB), level="minimal", on="cpu"
    ) as memory:
        cache = FeatureCache(memory)
        for seed in range(12):
            assert cache.put(_key(seed), _features(seed), seconds=1.0)
        held_in = memory.ledger.state
        assert held_in("disk").used >= 5 * MB
        cache.prefetch([_key(0), _key(99)])
        for seed in range(12):
            assert _key(seed) in cache
            found = cache.get(_key(seed))
            assert found is not None
            assert torch.equal(found, _features(seed))
            del found
        assert (cache.stats.hits, cache.stats.misses) == (12, 0)
        assert cache.stats.hit_bytes == cache.stats.put_bytes == 12 * MB
        assert memory.ledger.used("device") <= 3 * MB


def test_the_oldest_is_dropped_when_all_tiers_are_full() -> None:
    with MemoryManager(device=4 * MB, level="minimal", on="cpu") as memory:
        cache = FeatureCache(memory)
        for seed in range(20):
            assert cache.put(_key(seed), _features(seed), seconds=1.0)
        there = [seed for seed in range(20) if _key(seed) in cache]
        assert there
        assert there[-1] == 19
        assert 0 not in there
        assert cache.get(_key(0)) is None
        assert (cache.stats.misses, cache.stats.lost, cache.stats.crowded) == (1, 0, 0)


def test_what_is_larger_than_every_tier_is_not_kept() -> None:
    with MemoryManager(device=MB // 2, level="minimal", on="cpu") as memory:
        cache = FeatureCache(memory)
        assert not cache.put(_key(1), _features(1), seconds=1.0)
        assert (cache.stats.refused, cache.stats.put_bytes) == (1, 0)
        assert cache.get(_key(1)) is None


def test_a_device_without_room_is_a_miss() -> None:
    with MemoryManager(device=2 * MB, host=8 * MB, level="minimal", on="cpu") as memory:
        cache = FeatureCache(memory)
        cache.put(_key(1), _features(1), seconds=1.0)
        # As when all of the device is held by others, and the value lies on the disk.
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(MemoryManager, "__getitem__", _no_room)
            assert cache.get(_key(1)) is None
        assert (cache.stats.crowded, cache.stats.misses, cache.stats.lost) == (1, 1, 0)
        assert cache.get(_key(1)) is not None  # it stayed where it was


def _no_room(_memory: Any, _key: Any) -> Any:
    raise BudgetExceeded("no room", where="device")


def test_answers_do_not_depend_on_a_disk_that_loses_bytes(
    opened: Callable[[str], Opened],
    held: Any,  # noqa: F811
    tmp_path: Path,
) -> None:
    model = opened("llava")
    prepared = model.prepared(held, PICTURES[0], "what is it")
    wanted = model.plain(prepared)
    with MemoryManager(device=MB, disk=(tmp_path, 64 * MB), level="minimal", on="cpu") as memory:
        cache = FeatureCache(memory)
        assert model.cached(prepared, cache) == wanted
        memory.flush()
        memory._store.relieve("device", MB)  # nothing is left above the disk
        for file in (path for path in tmp_path.rglob("*") if path.is_file()):
            if file.stat().st_size >= 4096:
                content = np.fromfile(file, dtype=np.uint8)
                (content ^ 0x55).tofile(file)
        model.runs = 0
        assert model.cached(prepared, cache) == wanted
        assert (model.runs, cache.stats.lost, cache.stats.hits) == (1, 1, 0)
        assert model.cached(prepared, cache) == wanted
        assert (model.runs, cache.stats.hits) == (1, 1)


def test_clear_leaves_what_others_keep() -> None:
    with MemoryManager(device=8 * MB, level="minimal", on="cpu") as memory:
        cache = FeatureCache(memory)
        memory[("text", 1)] = torch.ones(4)
        for seed in range(3):
            cache.put(_key(seed), _features(seed), seconds=1.0)
        cache.clear()
        assert list(memory) == [("text", 1)]
        assert cache.get(_key(1)) is None
        assert memory.ledger.used("device") < MB
