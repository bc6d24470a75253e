"""The paged cache for a model that answers one request at a time."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, get_args

from octavo.engine.kv_layout import KvPrecision
from octavo.errors import ConfigError
from octavo.hardware.spec import Precision

if TYPE_CHECKING:
    import torch

    from octavo.models.model import Model

PRECISIONS: Final[tuple[KvPrecision, ...]] = get_args(KvPrecision)


def use_paged_cache(
    model: Model, precision: str | None = None, max_length: int | None = None
) -> None:
    """Has ``model`` keep keys and values in blocks from now on.

    Args:
        precision: ``exact``, ``int8`` or ``int4``: of all but the newest tokens; ``exact`` by
            default.
        max_length: tokens of prompt and answer at most; a longer request fails, and says so.

    Raises:
        ConfigError: the model has no decoder, or one that is not served.
    """
    kind = precision or "exact"
    if kind not in PRECISIONS:
        raise ConfigError(
            f"no precision {kind!r} of keys and values", next_step=f"use {', '.join(PRECISIONS)}"
        )
    if max_length is not None and max_length < 1:
        raise ConfigError("kv_cache_max_length must be at least 1")
    if not model.family.paged:
        raise ConfigError(
            f"{model.family.name} models have no paged cache",
            where=model.spec.name,
            next_step="leave kv_precision and kv_cache_max_length out",
        )
    from octavo.engine.cache import ATTENTION, OctavoCache, shape_of

    module: Any = model.module
    dtype, device = _computes_in(model)
    shape_of(module.config, dtype)
    module.set_attn_implementation(ATTENTION)

    def cache(tokens: int) -> OctavoCache:
        if max_length is not None and tokens > max_length:
            raise ConfigError(
                f"prompt and answer are {tokens} tokens, kv_cache_max_length is {max_length}",
                where=model.spec.name,
                next_step="ask for fewer new tokens, give less, or load with more",
            )
        return OctavoCache.of(
            module.config,
            kind,
            max_length=tokens,
            dtype=dtype,
            device=device,
        )

    model.cache = cache


def _computes_in(model: Model) -> tuple[torch.dtype, str]:
    """The type in which the decoder computes, and where."""
    import torch

    types = {
        Precision.FP32: torch.float32,
        Precision.BF16: torch.bfloat16,
        Precision.FP16: torch.float16,
    }
    plan = model.plan
    assert plan is not None, "only families that are loaded by component have a paged cache"
    return types[plan.component("language").compute], model.device
