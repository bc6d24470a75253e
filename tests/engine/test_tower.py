"""Towers run a few pictures at a time against transformers' own call with all of them at once."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from octavo.engine.tower import (  # noqa: E402
    Medium,
    Tower,
    TowerBudget,
    batches,
    budget_for,
    run,
    tower_of,
)
from octavo.engine.tower_budget import CHUNKED, chunked_working  # noqa: E402
from octavo.engine.tower_chunks import see_in_chunks  # noqa: E402
from octavo.engine.tower_families import TOWERS  # noqa: E402
from octavo.errors import BudgetExceeded, ConfigError, UnsupportedFormat  # noqa: E402
from octavo.hardware.plan_towers import vision_working  # noqa: E402
from octavo.models.checkpoint import Checkpoint  # noqa: E402
from octavo.models.native.dots_ocr import VisionSettings, VisionTower  # noqa: E402
from octavo.models.registry import families, family_of  # noqa: E402
from octavo.requests import Part, Request  # noqa: E402
from tests.models.conftest import held, tiny  # noqa: E402, F401
from tests.models.families.filling import filled  # noqa: E402

Tiny = Callable[[str], Path]
FAMILIES = ("qwen3-vl", "qwen2.5-vl", "dots.ocr", "llava", "llava-next", "gemma3n")
ALL = TowerBudget()
ALONE = TowerBudget(patches=0)
#: Sums in another order, in float32; features are of the order of 1.
ROUNDING = 2e-5


def _drawn(high: int, wide: int, seed: int) -> Any:
    return np.random.default_rng(seed).integers(0, 255, (high, wide, 3), dtype=np.uint8)


PICTURES = [_drawn(100, 140, 1), _drawn(60, 200, 2), _drawn(150, 70, 3)]


@pytest.fixture(scope="module")
def opened(tiny: Tiny) -> Callable[[str], Any]:  # noqa: F811
    """Family, checkpoint, module and processor by name; each filled once."""
    made: dict[str, Any] = {}

    def of(name: str) -> Any:
        if name not in made:
            checkpoint = Checkpoint.at(tiny(name))
            family = family_of(checkpoint)
            module = filled(family, tiny(name))
            made[name] = (family, checkpoint, module, family.processor(checkpoint))
        return made[name]

    return of


def _request(*pictures: Any, words: str = "what is it") -> Request:
    return Request.of(*(Part.image(picture) for picture in pictures), words, max_new_tokens=4)


def _theirs(name: str, module: Any, inputs: Any) -> list[Any]:
    """Taps of every picture, from one call of the model's own function with all pixels."""
    with torch.inference_mode():
        if name == "dots.ocr":
            made = module.vision_tower(inputs["pixel_values"], inputs["image_grid_thw"])
            lengths = (inputs["image_grid_thw"].prod(1) // 4).tolist()
            return [(part,) for part in made.split(lengths)]
        other = {key: inputs[key] for key in ("image_grid_thw", "image_sizes") if key in inputs}
        get = module.model.get_image_features
        made = get(inputs["pixel_values"], *other.values(), return_dict=True)
        taps = [made.pooler_output, *getattr(made, "deepstack_features", ())]
        lengths = [len(one) for one in made.pooler_output]
        # transformers 5.17 leaves deepstack features of all pictures in one tensor.
        taps[1:] = [tap.split(lengths) if torch.is_tensor(tap) else tap for tap in taps[1:]]
        return list(zip(*taps, strict=True))


@pytest.mark.parametrize("name", FAMILIES)
def test_pictures_alone_are_pictures_together(
    opened: Callable[[str], Any],
    held: Any,  # noqa: F811
    name: str,
) -> None:
    family, _, module, processor = opened(name)
    tower = tower_of(family)
    pictures = PICTURES[: 2 if name == "gemma3n" else 3]  # its tower is a slow one
    inputs = processor.prepare(_request(*pictures), held).inputs
    media = tower.media(module, inputs)
    wanted = _theirs(name, module, inputs)
    assert len(media) == len(wanted) == len(pictures)
    two = TowerBudget(patches=media[0].patches + media[1].patches)
    assert [len(batch) for batch in batches(media, two)] == [2, 1][: len(pictures) - 1]
    budgets = [(ALONE, ROUNDING), (ALL, 0.0), (two, ROUNDING)]
    for budget, bound in budgets[: 1 if name == "gemma3n" else 3]:
        found = [one for batch in run(tower, module, media, budget) for one in batch]
        for features_ltd, medium, taps in zip(found, media, wanted, strict=True):
            assert features_ltd.shape[:2] == (len(taps), medium.tokens)
            assert features_ltd.untyped_storage().nbytes() == features_ltd.nbytes
            for mine, theirs in zip(features_ltd, taps, strict=True):
                assert (mine - theirs).abs().max() <= bound


@pytest.mark.parametrize("name", FAMILIES)
def test_places_of_pictures_in_the_prompt(
    opened: Callable[[str], Any],
    held: Any,  # noqa: F811
    name: str,
) -> None:
    family, _, module, processor = opened(name)
    tower = tower_of(family)
    inputs = processor.prepare(_request(*PICTURES), held).inputs
    media = tower.media(module, inputs)
    ids = inputs["input_ids"]
    token = tower.placeholders(module)["image"]
    covered = torch.zeros_like(ids, dtype=torch.bool)
    for (start, end), medium in zip(tower.places(module, ids, media), media, strict=True):
        assert end - start == medium.tokens
        assert not covered[0, start:end].any()
        covered[0, start:end] = True
    assert torch.equal(covered, ids == token)


@pytest.mark.parametrize("name", ["qwen3-vl", "qwen2.5-vl"])
def test_films_are_media_too(
    opened: Callable[[str], Any],
    held: Any,  # noqa: F811
    name: str,
) -> None:
    family, _, module, processor = opened(name)
    tower = tower_of(family)
    film = [_drawn(80, 120, seed) for seed in range(4)]
    request = Request.of(Part.image(PICTURES[0]), Part.video(film), "what happens")
    inputs = processor.prepare(request, held).inputs
    media = tower.media(module, inputs)
    assert [medium.kind for medium in media] == ["image", "video"]
    made = [one for batch in run(tower, module, media, ALL) for one in batch]
    with torch.inference_mode():
        theirs = module.model.get_video_features(
            inputs["pixel_values_videos"], inputs["video_grid_thw"], return_dict=True
        )
    assert torch.equal(made[1][0], theirs.pooler_output[0])
    start, end = tower.places(module, inputs["input_ids"], media)[1]
    inside = inputs["input_ids"][0, start:end] == module.config.video_token_id
    assert int(inside.sum()) == media[1].tokens
    assert inside[0]
    assert inside[-1]


def test_words_alone_have_no_media(opened: Callable[[str], Any], held: Any) -> None:  # noqa: F811
    for name in FAMILIES:
        family, _, module, processor = opened(name)
        inputs = processor.prepare(_request(), held).inputs
        assert tower_of(family).media(module, inputs) == []


def test_a_family_without_a_tower_of_this_kind_is_refused() -> None:
    clip = next(family for family in families() if family.name == "clip")
    with pytest.raises(UnsupportedFormat, match="clip"):
        tower_of(clip)


def _medium(patches: int, kind: str = "image") -> Medium:
    return Medium(kind, torch.zeros(1), (), patches, 1)


def test_batches_keep_order_kind_and_budget() -> None:
    sizes = np.random.default_rng(0).integers(1, 40, 200).tolist()
    media = [_medium(size, "image" if index < 150 else "video") for index, size in enumerate(sizes)]
    for patches in (0, 1, 20, 64, 10**9):
        found = list(batches(media, TowerBudget(patches=patches)))
        assert [id(one) for batch in found for one in batch] == [id(one) for one in media]
        for batch in found:
            assert len({one.kind for one in batch}) == 1
            assert len(batch) == 1 or sum(one.patches for one in batch) <= patches
        for before, after in pairwise(found):  # none is smaller than need be
            fits = sum(one.patches for one in before) + after[0].patches <= patches
            assert not fits or before[0].kind != after[0].kind
    assert list(batches([], ALL)) == []


def test_a_budget_in_bytes_is_the_most_that_the_plan_allows(opened: Callable[[str], Any]) -> None:
    family, checkpoint, _, _ = opened("dots.ocr")
    spec = family.describe(checkpoint)
    for nbytes in (50_000, 1_000_000, 123_456_789):
        patches = TowerBudget.within(nbytes, spec, 2).patches
        assert vision_working(spec, patches, 2).nbytes <= nbytes
        assert vision_working(spec, patches + 1, 2).nbytes > nbytes
    with pytest.raises(BudgetExceeded, match="10 bytes"):
        TowerBudget.within(10, spec, 2)
    for wrong in ({"patches": -1}, {"chunk": 0}):
        with pytest.raises(ConfigError):
            TowerBudget(**wrong)


@pytest.mark.parametrize("name", ["dots.ocr", "qwen3-vl", "qwen2.5-vl"])
def test_a_tower_gets_the_largest_chunk_that_free_bytes_allow(
    opened: Callable[[str], Any], name: str
) -> None:
    family, checkpoint, _, _ = opened(name)
    spec = family.describe(checkpoint)
    chunks = []
    for nbytes in (60_000, 120_000, 1_000_000, 123_456_789, 10**11):
        budget = budget_for(spec, 2, nbytes)
        assert budget.chunk is not None
        chunks.append(budget.chunk)
        assert chunked_working(spec, budget.patches, budget.chunk, 2).nbytes <= nbytes
        assert chunked_working(spec, budget.patches + 1, budget.chunk, 2).nbytes > nbytes
        # Only what one chunk takes makes a smaller one worth its time.
        assert budget.patches >= budget.chunk or budget.chunk == 64
    assert chunks == sorted(chunks)
    assert chunks[0] < 512
    assert chunks[-1] == 512
    assert budget_for(spec, 2, 10**11, "cuda").chunk == 4096
    with pytest.raises(BudgetExceeded, match="in 100 bytes"):
        budget_for(spec, 2, 100)


def test_a_large_medium_makes_chunks_smaller(opened: Callable[[str], Any]) -> None:
    family, checkpoint, _, _ = opened("dots.ocr")
    spec = family.describe(checkpoint)
    need = chunked_working(spec, 4000, 128, 2).nbytes
    assert budget_for(spec, 2, need).chunk == 512
    found = budget_for(spec, 2, need, patches=4000)
    assert (found.chunk, found.patches) == (128, 4000)
    with pytest.raises(BudgetExceeded, match="40000 patches"):
        budget_for(spec, 2, need, patches=40_000)


def test_a_tower_that_knows_no_chunks_gets_whole_passes(opened: Callable[[str], Any]) -> None:
    family, checkpoint, _, _ = opened("llava")
    spec = family.describe(checkpoint)
    assert budget_for(spec, 2, 10_000_000) == TowerBudget.within(10_000_000, spec, 2)
    families_in_chunks = {
        name for name, tower in TOWERS.items() if tower.see_in_chunks is not Tower.see_in_chunks
    }
    assert families_in_chunks == CHUNKED


def _dots(dtype: Any) -> Any:
    torch.manual_seed(1)
    settings = VisionSettings(
        embed_dim=32, intermediate_size=48, num_hidden_layers=3, num_attention_heads=2
    )
    tower = VisionTower(settings, out_features=20)
    for parameter in tower.parameters():  # norms of 1 and small weights would hide mistakes
        torch.nn.init.normal_(parameter, std=0.4)
    return tower.to(dtype).eval()


@pytest.mark.parametrize(("dtype", "bound"), [("float64", 1e-6), ("float32", 1e-4)])
@pytest.mark.parametrize("chunk", [1, 4, 10, 24, 1000])
def test_chunks_change_nothing_but_rounding(dtype: str, bound: float, chunk: int) -> None:
    tower = _dots(getattr(torch, dtype))
    grids = torch.tensor([[1, 4, 6], [1, 2, 2], [1, 6, 4]])
    pixels = torch.randn(int(grids.prod(1).sum()), 3 * 14 * 14, dtype=torch.float64)
    with torch.inference_mode():
        wanted = tower(pixels, grids)
    found = see_in_chunks(tower, pixels.split(grids.prod(1).tolist()), grids, chunk)
    assert found.dtype == wanted.dtype
    assert float((found - wanted).abs().max() / wanted.abs().max()) < bound


def test_no_layer_sees_more_than_a_chunk(monkeypatch: pytest.MonkeyPatch) -> None:
    tower = _dots(torch.float32)
    rows: list[int] = []
    for block in tower.blocks:
        for part in (block.mlp, block.attn.qkv, block.attn.proj):
            part.register_forward_pre_hook(lambda _part, given: rows.append(len(given[0])))
    queries: list[int] = []
    attend = torch.nn.functional.scaled_dot_product_attention

    def counted(q: Any, *others: Any) -> Any:
        queries.append(q.shape[-2])
        return attend(q, *others)

    monkeypatch.setattr(torch.nn.functional, "scaled_dot_product_attention", counted)
    grids = torch.tensor([[1, 8, 6]])
    see_in_chunks(tower, [torch.randn(48, 588)], grids, 16)
    assert max(rows) == max(queries) == 16
    assert len(queries) == 9


@pytest.mark.parametrize("name", ["dots.ocr", "qwen3-vl", "llava"])  # the last knows no chunks
def test_a_budget_with_chunks_reaches_the_tower(
    opened: Callable[[str], Any],
    held: Any,  # noqa: F811
    name: str,
) -> None:
    family, _, module, processor = opened(name)
    tower = tower_of(family)
    media = tower.media(module, processor.prepare(_request(*PICTURES), held).inputs)
    layer = family.layers(module, "vision")[0].mlp
    rows: list[int] = []
    whole = [one for batch in run(tower, module, media, ALL) for one in batch]
    hook = layer.register_forward_pre_hook(lambda _part, given: rows.append(given[0].shape[-2]))
    cut = [one for batch in run(tower, module, media, TowerBudget(chunk=8)) for one in batch]
    hook.remove()
    assert max(rows) == (17 if name == "llava" else 8)
    for one, other in zip(whole, cut, strict=True):
        assert (one - other).abs().max() <= ROUNDING
