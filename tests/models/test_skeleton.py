"""Skeletons against the models that transformers builds in full."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from octavo.errors import UnsupportedFormat
from octavo.models.skeleton import skeleton

SMALL: dict[str, Any] = {
    "num_hidden_layers": 2,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "vocab_size": 100,
}


def _config(kind: str, **values: Any) -> Any:
    from transformers import AutoConfig

    return AutoConfig.for_model(kind, **values)


@pytest.mark.parametrize("kind", ["llama", "gemma3_text", "phi3"])
def test_buffers_that_no_file_holds_are_those_of_a_whole_model(kind: str) -> None:
    from transformers import AutoModelForCausalLM

    config = _config(kind, **SMALL, pad_token_id=0)
    whole = AutoModelForCausalLM.from_config(config)
    made: Any = skeleton(config, AutoModelForCausalLM)
    buffers = dict(made.named_non_persistent_buffers())
    assert buffers
    assert buffers.keys() == dict(whole.named_non_persistent_buffers()).keys()
    for name, real in whole.named_non_persistent_buffers():
        assert buffers[name].device.type == "cpu"
        assert torch.equal(buffers[name], real), name


def test_parameters_are_on_meta_and_tied_ones_are_one() -> None:
    from transformers import AutoModelForCausalLM

    made: Any = skeleton(_config("llama", **SMALL, tie_word_embeddings=True), AutoModelForCausalLM)
    assert all(parameter.is_meta for parameter in made.parameters())
    assert made.lm_head.weight is made.model.embed_tokens.weight
    assert not made.training
    assert made.config._attn_implementation == "sdpa"
    free: Any = skeleton(_config("llama", **SMALL, tie_word_embeddings=False), AutoModelForCausalLM)
    assert free.lm_head.weight is not free.model.embed_tokens.weight


def test_random_numbers_are_left_alone() -> None:
    from transformers import LlamaForCausalLM

    torch.manual_seed(7)
    state = torch.get_rng_state()
    skeleton(_config("llama", **SMALL), LlamaForCausalLM)
    assert torch.equal(torch.get_rng_state(), state)


def test_settings_of_generation_come_from_the_folder(tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM, GenerationConfig

    GenerationConfig(eos_token_id=[3, 4], do_sample=True, top_k=7).save_pretrained(tmp_path)
    made: Any = skeleton(_config("llama", **SMALL), AutoModelForCausalLM, tmp_path)
    assert made.generation_config.eos_token_id == [3, 4]
    assert made.generation_config.top_k == 7


def test_a_type_without_such_a_model_is_refused() -> None:
    from transformers import AutoModelForCausalLM

    with pytest.raises(UnsupportedFormat, match="no AutoModelForCausalLM of the type 'clip'"):
        skeleton(_config("clip"), AutoModelForCausalLM)


def test_a_buffer_that_the_model_does_not_compute_is_refused() -> None:
    from transformers import LlamaForCausalLM

    class Forgetful(LlamaForCausalLM):
        def __init__(self, config: Any) -> None:
            super().__init__(config)
            self.extra = nn.Module()
            self.extra.register_buffer("table", torch.arange(4.0), persistent=False)

    with pytest.raises(UnsupportedFormat, match=r"does not compute extra\.table of Forgetful"):
        skeleton(_config("llama", **SMALL), Forgetful)
