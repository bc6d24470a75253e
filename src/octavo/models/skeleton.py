"""A transformers model without its weights: every parameter on the meta device, nothing drawn.

What no checkpoint holds (rotary frequencies, position ids, scales: buffers that are not
persistent) is computed, on the CPU. It is what ``from_pretrained`` does before it reads weights.
"""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any, Final

import torch
from torch import nn

from octavo.errors import UnsupportedFormat

GENERATION: Final = "generation_config.json"
#: transformers changes functions of torch for the whole process while it builds a model.
_one_at_a_time: Final = threading.Lock()


def skeleton(config: Any, model_class: Any, folder: Path | None = None) -> nn.Module:
    """A model in evaluation mode: parameters and persistent buffers are on the meta device,
    all other buffers real; tied weights are one parameter; attention is SDPA where there is.

    Args:
        config: a ``PreTrainedConfig``; ``AutoConfig.from_pretrained(folder)``.
        model_class: a class of models, or an ``AutoModel...`` that picks one for ``config``.
        folder: where ``generation_config.json`` may lie.

    Raises:
        UnsupportedFormat: ``model_class`` has no model for ``config``, or transformers does not
            compute one of its buffers.
    """
    from transformers import GenerationConfig
    from transformers.utils.generic import ContextManagers

    chosen = _class_for(config, model_class)
    with _one_at_a_time:
        with ContextManagers(chosen.get_init_context(torch.float32, False, False, False)):
            module = chosen(config)
        module.tie_weights()
        _compute_buffers(module)
    if folder is not None and (folder / GENERATION).is_file() and chosen.can_generate():
        module.generation_config = GenerationConfig.from_pretrained(folder)
    model: nn.Module = module.eval()
    return model


def _class_for(config: Any, model_class: Any) -> Any:
    mapping = getattr(model_class, "_model_mapping", None)
    if mapping is None:
        return model_class
    from transformers.models.auto.auto_factory import _get_model_class

    if type(config) not in mapping:
        raise UnsupportedFormat(
            f"transformers has no {model_class.__name__} of the type {config.model_type!r}",
            next_step="pip install --upgrade transformers",
        )
    return _get_model_class(config, mapping)


def _compute_buffers(module: Any) -> None:
    """Has the model compute its non-persistent buffers; parameters are left alone."""
    for tensor in module.state_dict(keep_vars=True).values():
        tensor._is_hf_initialized = True
    placed = []
    for name, buffer in list(module.named_non_persistent_buffers()):
        parent, _, key = name.rpartition(".")
        # Something that no model computes, so that one that was left out is seen.
        real = torch.full_like(buffer, _unset(buffer.dtype), device="cpu")
        module.get_submodule(parent)._buffers[key] = real
        placed.append((name, real))
    module.initialize_weights()
    for name, real in placed:
        if real.numel() and real.dtype is not torch.bool and _is_unset(real):
            raise UnsupportedFormat(
                f"transformers does not compute {name} of {type(module).__name__}",
                next_step="pip install --upgrade transformers",
            )


def _unset(dtype: torch.dtype) -> float | int | bool:
    if dtype is torch.bool:
        return False
    if dtype.is_floating_point or dtype.is_complex:
        return float("nan")
    return torch.iinfo(dtype).min


def _is_unset(real: torch.Tensor) -> bool:
    if real.is_floating_point() or real.is_complex():
        return bool(real.isnan().all())
    return bool((real == torch.iinfo(real.dtype).min).all())
