"""transformers' own models over the paged cache, against ``DynamicCache``."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import (
    DynamicCache,
    Gemma2Config,
    Gemma2ForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3VLConfig,
    Qwen3VLForConditionalGeneration,
)

from octavo.engine.cache import ATTENTION, OctavoCache, paged_mask, shape_of
from octavo.engine.kv_layout import PRECISIONS, KvPrecision
from octavo.errors import BudgetExceeded, ConfigError
from octavo.memory.ledger import Ledger
from tests.engine.test_kv_tiers import Shelf

TEXT: dict[str, Any] = {
    "vocab_size": 300,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 1024,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": None,
}


def _llama() -> Any:
    return LlamaForCausalLM(LlamaConfig(**TEXT))


def _qwen2() -> Any:
    """Layers with and without a window."""
    more = {"use_sliding_window": True, "sliding_window": 24, "max_window_layers": 1}
    return Qwen2ForCausalLM(Qwen2Config(**TEXT, **more))


def _qwen3_vl() -> Any:
    rope = {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [4, 2, 2]}
    text = {**TEXT, "head_dim": 16, "rope_parameters": {**rope, "mrope_interleaved": True}}
    vision = {
        "depth": 2,
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_heads": 2,
        "patch_size": 16,
        "spatial_merge_size": 2,
        "temporal_patch_size": 2,
        "out_hidden_size": 64,
        "num_position_embeddings": 64,
        "deepstack_visual_indexes": [0],
    }
    ids = {"image_token_id": 290, "video_token_id": 291, "vision_start_token_id": 292}
    config = Qwen3VLConfig(text_config=text, vision_config=vision, vision_end_token_id=293, **ids)
    return Qwen3VLForConditionalGeneration(config)


MODELS = {"llama": _llama, "qwen2": _qwen2, "qwen3_vl": _qwen3_vl}


@pytest.fixture(scope="module", params=MODELS)
def model(request: pytest.FixtureRequest) -> Any:
    torch.manual_seed(0)
    made = MODELS[request.param]().eval()
    made.generation_config.eos_token_id = None
    made.generation_config.pad_token_id = 0
    return made


def _prompt(model: Any, rows: int = 1, tokens: int = 90) -> dict[str, torch.Tensor]:
    random = torch.Generator().manual_seed(rows)
    ids = torch.randint(3, 280, (rows, tokens), generator=random)
    inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    if isinstance(model, Qwen3VLForConditionalGeneration) and rows == 1:
        ids[0, 10], ids[0, 11:27] = 292, 290
        inputs["pixel_values"] = torch.randn(64, 3 * 2 * 16 * 16, generator=random)
        inputs["image_grid_thw"] = torch.tensor([[1, 8, 8]])
        inputs["mm_token_type_ids"] = (ids == 290).int()
    return inputs


def _generated(model: Any, cache: Any, inputs: dict[str, torch.Tensor], **more: Any) -> Any:
    model.set_attn_implementation("sdpa" if isinstance(cache, DynamicCache) else ATTENTION)
    options = {"max_new_tokens": 24, "do_sample": False, **more}
    return model.generate(**inputs, past_key_values=cache, **options)


def _paged(model: Any, precision: KvPrecision, batch: int = 1, **more: Any) -> OctavoCache:
    options: dict[str, Any] = {"max_length": 160, "block_tokens": 8, "recent": 16, **more}
    dtype = options.pop("dtype", torch.float32)
    return OctavoCache.of(model.config, precision, batch=batch, dtype=dtype, **options)


def test_exact_blocks_give_the_same_tokens(model: Any) -> None:
    inputs = _prompt(model)
    truth = _generated(model, DynamicCache(config=model.config), inputs)
    cache = _paged(model, "exact")
    assert torch.equal(_generated(model, cache, inputs), truth)
    assert cache.get_seq_length() == cache.sequences[0].length == 90 + 23
    cache.reset()
    assert cache.kv.full.stats().used == 0
    assert torch.equal(_generated(model, cache, inputs), truth)


@pytest.mark.parametrize("precision", PRECISIONS)
def test_logits_are_near(model: Any, precision: KvPrecision) -> None:
    """In passes, so that nearly all attention is over full blocks."""
    far = {"exact": 2e-5, "int8": 0.02, "int4": 0.25}[precision]
    ids = _prompt(model, tokens=120)["input_ids"].clamp(max=280)
    logits = {}
    for cache in (DynamicCache(config=model.config), _paged(model, precision)):
        model.set_attn_implementation("sdpa" if isinstance(cache, DynamicCache) else ATTENTION)
        with torch.inference_mode():
            parts = [
                model(input_ids=ids[:, first : first + 17], past_key_values=cache).logits
                for first in range(0, 119, 17)
            ]
        logits[type(cache)] = torch.cat(parts, 1)
    theirs, ours = logits[DynamicCache], logits[OctavoCache]
    assert (ours - theirs).norm() <= far * theirs.norm()
    if precision != "exact":
        assert (ours - theirs).norm() > 1e-6 * theirs.norm()


def test_bfloat16_is_near(model: Any) -> None:
    inputs = _prompt(model)
    model.bfloat16()
    try:
        if "pixel_values" in inputs:
            inputs["pixel_values"] = inputs["pixel_values"].bfloat16()
        shown: dict[str, Any] = {"output_logits": True, "return_dict_in_generate": True}
        truth = _generated(model, DynamicCache(config=model.config), inputs, **shown)
        cache = _paged(model, "exact", dtype=torch.bfloat16)
        found = _generated(model, cache, inputs, **shown)
    finally:
        model.float()
    for step, (ours, theirs) in enumerate(zip(found.logits, truth.logits, strict=True)):
        assert (ours - theirs).norm() <= 0.03 * theirs.norm()
        if found.sequences[0, 90 + step] != truth.sequences[0, 90 + step]:
            # Only a tie may fall otherwise.
            top = theirs[0].float().topk(2).values
            assert top[0] - top[1] < 0.05 * theirs.float().abs().max()
            break


@pytest.mark.parametrize("pads", [7, 60])
def test_rows_padded_on_the_left(model: Any, pads: int) -> None:
    inputs = _prompt(model, rows=2)
    inputs["attention_mask"][0, :pads] = 0
    truth = _generated(model, DynamicCache(config=model.config), inputs)
    cache = _paged(model, "exact", batch=2)
    assert torch.equal(_generated(model, cache, inputs), truth)
    assert [sequence.length for sequence in cache.sequences] == [113 - pads, 113]
    cache.reset()
    chunked = _generated(model, cache, inputs, prefill_chunk_size=13)
    assert torch.equal(chunked, truth)


@pytest.mark.parametrize("precision", PRECISIONS)
def test_beams_share_blocks(model: Any, precision: KvPrecision) -> None:
    inputs = _prompt(model, rows=2)
    more = {"num_beams": 3, "max_new_tokens": 12}
    cache = _paged(model, precision, batch=6)
    found = _generated(model, cache, inputs, **more)
    if precision == "exact":
        truth = _generated(model, DynamicCache(config=model.config), inputs, **more)
        assert torch.equal(found, truth)
    cache.reset()
    assert cache.kv.full.stats().used == cache.kv.exact.stats().used == 0
    assert cache.kv.full.stats().leaked == {}


def test_a_turn_goes_on_from_the_turn_before(model: Any) -> None:
    ids = _prompt(model, rows=2)["input_ids"][:1]
    truth = _generated(
        model, DynamicCache(config=model.config), {"input_ids": ids}, max_new_tokens=10
    )
    cache = _paged(model, "exact")
    with torch.inference_mode():
        model.set_attn_implementation(ATTENTION)
        model(input_ids=ids[:, :50], past_key_values=cache)
    if isinstance(model, Qwen3VLForConditionalGeneration):
        model.model.rope_deltas = None
    found = _generated(model, cache, {"input_ids": ids}, max_new_tokens=10)
    assert torch.equal(found, truth)


def test_without_a_cache_it_is_plain_attention(model: Any) -> None:
    inputs = _prompt(model, rows=2)
    inputs["attention_mask"][0, :9] = 0
    truth = _generated(model, DynamicCache(config=model.config), inputs, max_new_tokens=4)
    model.set_attn_implementation(ATTENTION)
    found = model.generate(**inputs, max_new_tokens=4, do_sample=False, use_cache=False)
    assert torch.equal(found, truth)


def test_a_lower_tier_gives_the_same_tokens(model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("octavo.engine.kv_layout._TILE_TOKENS", (16, 16))
    inputs = _prompt(model)
    truth = _generated(model, DynamicCache(config=model.config), inputs)
    shelf = Shelf()
    cache = _paged(model, "exact", max_length=92, store=shelf)
    cache.kv.max_length = None
    assert torch.equal(_generated(model, cache, inputs), truth)
    assert shelf.held
    assert shelf.prefetched
    cache.reset()
    assert shelf.held == {}


def test_a_refused_pass_leaves_the_cache_usable(model: Any) -> None:
    ids = _prompt(model, rows=2)["input_ids"][:1]
    model.set_attn_implementation(ATTENTION)
    cache, plain = _paged(model, "int8", max_length=60), _paged(model, "int8", max_length=60)
    with torch.inference_mode():
        for one in (cache, plain):
            model(input_ids=ids[:, :50], past_key_values=one)
        with pytest.raises(BudgetExceeded, match="60 are allowed"):
            model(input_ids=ids[:, 50:], past_key_values=cache)
        cache.kv.max_length = None
        with pytest.raises(BudgetExceeded, match="do not fit"):
            model(input_ids=ids[:, 50:].repeat(1, 3), past_key_values=cache)
        assert cache.get_seq_length() == cache.sequences[0].length == 50
        ours, truth = (
            model(input_ids=ids[:, 50:55], past_key_values=one).logits for one in (cache, plain)
        )
    assert torch.equal(ours, truth)


def test_it_keeps_no_graph() -> None:
    model = _llama()
    model.set_attn_implementation(ATTENTION)
    cache, ids = _paged(model, "exact"), torch.arange(3, 33)[None]
    for _ in range(2):
        model(input_ids=ids, past_key_values=cache)
    (tile, *_) = cache.sequences[0].layers[0].tiles(0)
    keys = tile.layout.view(tile.rows_nb, "keys")
    assert not keys.requires_grad


def test_the_ledger_counts_the_slabs() -> None:
    model = _llama()
    ledger = Ledger({"device": 10**8})
    cache = _paged(model, "int8", batch=3, ledger=ledger)
    state = ledger.state("device")
    assert state.used == state.by_kind["kv"] == cache.kv.nbytes
    cache.kv.close()
    assert ledger.used("device") == 0


def test_sizes_come_from_the_configuration() -> None:
    found = shape_of(_qwen2().config, torch.bfloat16)
    assert (found.layers, found.kv_heads, found.head_dim) == (3, 2, 16)
    assert found.windows == (None, 24, 24)
    assert shape_of(_llama().config, torch.float32).windows == ()


def test_what_is_not_served_is_refused() -> None:
    model = _llama().eval()
    model.set_attn_implementation(ATTENTION)
    ids = torch.arange(3, 13)[None].repeat(2, 1)
    mask = torch.ones_like(ids)
    with torch.inference_mode():
        mask[0, -2:] = 0
        with pytest.raises(ConfigError, match="padded elsewhere"):
            model(input_ids=ids, attention_mask=mask, past_key_values=_paged(model, "int8", 2))
        whole = torch.ones(2, 1, 10, 10, dtype=torch.bool)
        with pytest.raises(ConfigError, match="mask of your own"):
            model(input_ids=ids, attention_mask=whole, past_key_values=_paged(model, "int8", 2))
        cache = _paged(model, "int8", 2)
        model(input_ids=ids, past_key_values=cache)
        with pytest.raises(ConfigError, match="1 rows"):
            model(input_ids=ids[:1], past_key_values=cache)
        model.set_attn_implementation("sdpa")
        with pytest.raises((TypeError, AttributeError)):
            # Never an answer that leaves the history out.
            model(input_ids=ids, past_key_values=cache)


@pytest.mark.parametrize("odd", [{"use_vmap": True}, {"allow_is_causal_skip": False}])
def test_masks_of_other_kinds_are_refused(odd: dict[str, bool]) -> None:
    """transformers says so where a mask is more than causal: pictures seen whole, packed rows."""
    assert paged_mask(batch_size=2).skipped(3, 4) == [0, 0]
    with pytest.raises(ConfigError, match="not just causal"):
        paged_mask(batch_size=2, **odd).skipped(3, 4)


def test_attention_of_other_kinds_is_refused() -> None:
    more = {"head_dim": 16, "sliding_window": 8, "query_pre_attn_scalar": 16}
    model = Gemma2ForCausalLM(Gemma2Config(**TEXT, **more)).eval()
    model.set_attn_implementation(ATTENTION)
    with torch.inference_mode(), pytest.raises(ConfigError, match="softcap"):
        model(input_ids=torch.arange(3, 13)[None], past_key_values=_paged(model, "int8"))


def test_layers_of_other_kinds_are_refused() -> None:
    config = LlamaConfig(**TEXT)
    config.layer_types = ["full_attention", "linear_attention", "full_attention"]
    with pytest.raises(ConfigError, match="linear_attention"):
        shape_of(config, torch.float32)


def test_a_pass_that_broke_off_is_noticed() -> None:
    model = _llama().eval()
    model.set_attn_implementation(ATTENTION)
    cache, ids = _paged(model, "int8"), torch.arange(3, 13)[None]
    broken = model.model.layers[1].mlp.register_forward_hook(_fail)
    with torch.inference_mode():
        with pytest.raises(RuntimeError, match="injected"):
            model(input_ids=ids, past_key_values=cache)
        broken.remove()
        with pytest.raises(ConfigError, match="broken off"):
            model(input_ids=ids, past_key_values=cache)
        cache.reset()
        model(input_ids=ids, past_key_values=cache)
    assert cache.get_seq_length() == 10


def _fail(*_: Any) -> None:
    raise RuntimeError("injected")
