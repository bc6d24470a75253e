"""Qwen's towers in chunks against transformers' own ``forward`` over all patches at once."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from octavo.engine.features import FeatureCache  # noqa: E402
from octavo.engine.features_answer import answer_with_features  # noqa: E402
from octavo.engine.features_mark import mark_of  # noqa: E402
from octavo.engine.tower import TowerBudget, run, tower_of  # noqa: E402
from octavo.engine.tower_chunks import Run, runs_of  # noqa: E402
from octavo.engine.tower_chunks_qwen import see_in_chunks  # noqa: E402
from octavo.memory import MemoryManager  # noqa: E402
from octavo.models.checkpoint import Checkpoint  # noqa: E402
from octavo.models.family import Guard  # noqa: E402
from octavo.models.registry import family_of  # noqa: E402
from octavo.requests import Part, Request, Sampling  # noqa: E402
from tests.models.conftest import held, tiny  # noqa: E402, F401
from tests.models.families.filling import filled  # noqa: E402

GENERATIONS = ("qwen2", "qwen2.5", "qwen3")
#: Frames, patches high and wide; windows of 4 x 4 patches: some are cut at the edges.
GRIDS = ((1, 6, 10), (1, 2, 2), (3, 4, 6), (1, 8, 8))
#: Sums in another order, as a share of the largest feature.
ROUNDING = {"float64": 1e-12, "float32": 1e-5, "bfloat16": 0.05}


def _visual(generation: str, dtype: str) -> Any:
    """transformers' tower with weights that would show mistakes; its own would hide them."""
    torch.manual_seed(1)
    sizes: dict[str, Any] = {"depth": 4, "num_heads": 2, "patch_size": 4}
    if generation == "qwen2":
        from transformers.models.qwen2_vl.modeling_qwen2_vl import (
            Qwen2VisionTransformerPretrainedModel,
            Qwen2VLVisionConfig,
        )

        config: Any = Qwen2VLVisionConfig(**sizes, embed_dim=32, hidden_size=20, mlp_ratio=2)
        made: Any = Qwen2VisionTransformerPretrainedModel
    elif generation == "qwen2.5":
        from transformers.models.qwen2_5_vl.modeling_qwen2_5_vl import (
            Qwen2_5_VisionTransformerPretrainedModel,
            Qwen2_5_VLVisionConfig,
        )

        config = Qwen2_5_VLVisionConfig(
            **sizes, hidden_size=32, intermediate_size=40, out_hidden_size=20, window_size=16,
            fullatt_block_indexes=[2],
        )  # fmt: skip
        made = Qwen2_5_VisionTransformerPretrainedModel
    else:
        from transformers.models.qwen3_vl.modeling_qwen3_vl import (
            Qwen3VLVisionConfig,
            Qwen3VLVisionModel,
        )

        config = Qwen3VLVisionConfig(
            **sizes, hidden_size=32, intermediate_size=40, out_hidden_size=20,
            num_position_embeddings=49, deepstack_visual_indexes=[0, 2],
        )  # fmt: skip
        made = Qwen3VLVisionModel
    config._attn_implementation = "sdpa"
    visual = made(config).eval()
    for parameter in visual.parameters():
        torch.nn.init.normal_(parameter, std=0.4)
    return visual.to(getattr(torch, dtype))


def _pixels(grids: Any = GRIDS) -> list[Any]:
    torch.manual_seed(2)
    return [torch.randn(int(np.prod(grid)), 3 * 2 * 4 * 4) for grid in grids]


def _theirs(visual: Any, pixels: Any, grids: Any = GRIDS) -> Any:
    with torch.inference_mode():
        made = visual(torch.cat(pixels).to(visual.dtype), torch.tensor(grids))
    return torch.stack([made.pooler_output, *(getattr(made, "deepstack_features", None) or ())])


@pytest.mark.parametrize("chunk", [1, 8, 20, 64, 10_000])
@pytest.mark.parametrize("generation", GENERATIONS)
@pytest.mark.parametrize("dtype", ["float64", "float32", "bfloat16"])
def test_chunks_change_nothing_but_rounding(dtype: str, generation: str, chunk: int) -> None:
    visual, pixels = _visual(generation, dtype), _pixels()
    wanted = _theirs(visual, pixels)
    found = see_in_chunks(visual, pixels, torch.tensor(GRIDS), chunk, lambda x: x.to(visual.dtype))
    assert found.dtype == wanted.dtype
    assert found.shape == wanted.shape == (3 if generation == "qwen3" else 1, 50, 20)
    for mine, theirs in zip(found.double(), wanted.double(), strict=True):  # tap by tap
        assert float((mine - theirs).abs().max() / theirs.abs().max()) < ROUNDING[dtype]


@pytest.mark.parametrize("generation", GENERATIONS)
def test_no_layer_sees_more_than_a_chunk(generation: str, monkeypatch: pytest.MonkeyPatch) -> None:
    grids = (*GRIDS, (20, 2, 2))  # more frames than a chunk has patches
    visual, pixels = _visual(generation, "float32"), _pixels(grids)
    rows: list[int] = []

    def counted(_part: Any, given: Any) -> None:
        rows.append(given[0].numel() // given[0].shape[-1])

    embedded: list[int] = []
    visual.patch_embed.register_forward_pre_hook(
        lambda _part, given: embedded.append(len(given[0]))
    )
    for block in visual.blocks:
        for part in (block.mlp, block.attn.qkv, block.attn.proj, block.norm1, block.norm2):
            part.register_forward_pre_hook(counted)
    queries: list[int] = []
    attend = torch.nn.functional.scaled_dot_product_attention

    def attended(q: Any, *others: Any) -> Any:
        queries.append(q.shape[0] * q.shape[-2])
        return attend(q, *others)

    monkeypatch.setattr(torch.nn.functional, "scaled_dot_product_attention", attended)
    see_in_chunks(visual, pixels, torch.tensor(grids), 16)
    assert max(rows) == max(embedded) == max(queries) == 16


def test_segments_of_equal_length_are_one_run() -> None:
    assert runs_of([4, 4, 4, 2, 2, 8, 4]) == [
        Run(0, 4, 3), Run(12, 2, 2), Run(16, 8, 1), Run(24, 4, 1),
    ]  # fmt: skip
    assert runs_of([]) == []


@pytest.mark.parametrize("generation", GENERATIONS)
def test_weights_that_come_with_a_layer_and_go_with_it(generation: str) -> None:
    """As :class:`octavo.models.streaming.LayerStream` brings and takes them."""
    visual, pixels = _visual(generation, "float32"), _pixels()
    wanted = _theirs(visual, pixels)
    order: list[int] = []
    for number, block in enumerate(visual.blocks):
        real = dict(block.named_parameters())

        def put(block: Any, weights: Any) -> None:
            for name, value in weights.items():
                path, _, key = name.rpartition(".")
                block.get_submodule(path)._parameters[key] = value

        gone = {
            name: torch.nn.Parameter(value.to("meta"), requires_grad=False)
            for name, value in real.items()
        }
        put(block, gone)

        def bring(block: Any, _given: Any, real: Any = real, number: int = number) -> None:
            order.append(number)
            put(block, real)

        def take(block: Any, _given: Any, _made: Any, gone: Any = gone) -> None:
            put(block, gone)

        block.register_forward_pre_hook(bring)
        block.register_forward_hook(take, always_call=True)
    for _ in range(2):
        found = see_in_chunks(visual, pixels, torch.tensor(GRIDS), 24)
        assert (found - wanted).abs().max() / wanted.abs().max() < ROUNDING["float32"]
    assert order == [*range(4), *range(4)]
    assert not any("forward" in vars(block) for block in visual.blocks)


def test_a_layer_that_fails_is_itself_again() -> None:
    visual, pixels = _visual("qwen3", "float32"), _pixels()
    wanted = _theirs(visual, pixels)

    def broken(_part: Any, _given: Any) -> None:
        raise RuntimeError("out of memory")

    hook = visual.blocks[1].mlp.register_forward_pre_hook(broken)
    with pytest.raises(RuntimeError, match="out of memory"):
        see_in_chunks(visual, pixels, torch.tensor(GRIDS), 24)
    hook.remove()
    assert torch.equal(_theirs(visual, pixels), wanted)


def test_hidden_states_are_changed_in_place() -> None:
    visual, pixels = _visual("qwen3", "float32"), _pixels()
    places: set[int] = set()
    for block in visual.blocks:
        block.register_forward_pre_hook(lambda _part, given: places.add(given[0].data_ptr()))
    before = [one.clone() for one in pixels]
    see_in_chunks(visual, pixels, torch.tensor(GRIDS), 24)
    assert len(places) == 1
    assert all(torch.equal(one, other) for one, other in zip(pixels, before, strict=True))


# Through a family.

Tiny = Callable[[str], Path]
ANSWER: Any = {"max_new_tokens": 8, "sampling": Sampling(), "guard": Guard()}


@pytest.fixture
def cache() -> Iterator[FeatureCache]:
    with MemoryManager(device=64 << 20, level="minimal", on="cpu") as memory:
        yield FeatureCache(memory)


@pytest.mark.parametrize("name", ["qwen3-vl", "qwen2.5-vl"])
def test_answers_are_the_same(
    tiny: Tiny,  # noqa: F811
    held: Any,  # noqa: F811
    cache: FeatureCache,
    name: str,
) -> None:
    checkpoint = Checkpoint.at(tiny(name))
    family = family_of(checkpoint)
    module = filled(family, tiny(name))
    processor = family.processor(checkpoint)
    noise = np.random.default_rng(0)
    pictures = [noise.integers(0, 255, (100 + 40 * n, 140, 3), dtype=np.uint8) for n in range(2)]
    film = [noise.integers(0, 255, (80, 120, 3), dtype=np.uint8) for _ in range(4)]
    request = Request.of(*map(Part.image, pictures), Part.video(film), "what is there")
    prepared = processor.prepare(request, held)
    tower = tower_of(family)
    media = tower.media(module, prepared.inputs)
    whole = [one for batch in run(tower, module, media, TowerBudget()) for one in batch]
    cut = [one for batch in run(tower, module, media, TowerBudget(chunk=24)) for one in batch]
    for medium, mine, theirs in zip(media, cut, whole, strict=True):
        assert mine.shape == theirs.shape == (theirs.shape[0], medium.tokens, theirs.shape[2])
        assert mine.untyped_storage().nbytes() == mine.nbytes
        assert (mine - theirs).abs().max() <= 2e-5
    wanted = family.generate(module, processor, prepared, **ANSWER)
    found = answer_with_features(
        family, module, processor, prepared, cache, mark_of(checkpoint, family, module),
        **ANSWER, budget=TowerBudget(chunk=24),
    )  # fmt: skip
    assert wanted.tokens
    assert found == wanted
