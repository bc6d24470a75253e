"""From the names of a checkpoint to those of a module.

Checkpoints keep the names of the transformers release that wrote them. What has been renamed
since is in transformers' own table (``conversion_mapping``), which is asked here, so that one
truth serves both loaders.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

from octavo.errors import InputError, UnsupportedFormat
from octavo.models.checkpoint import Checkpoint


def match_names(checkpoint: Checkpoint, module: nn.Module) -> Mapping[str, str]:
    """Parameter or persistent buffer of ``module`` → the tensor that fills it.

    Args:
        module: a transformers model, on any device.

    Raises:
        InputError: a parameter that nothing fills, or a tensor of another shape.
        UnsupportedFormat: a tensor that has to be computed from several stored ones.
    """
    from transformers.conversion_mapping import get_model_conversion_mapping
    from transformers.core_model_loading import (
        WeightConverter,
        WeightRenaming,
        rename_source_key,
    )

    wanted: dict[str, Any] = dict(module.state_dict())
    transforms = get_model_conversion_mapping(module)  # type: ignore[arg-type]
    renamings = [t for t in transforms if isinstance(t, WeightRenaming)]
    converters = [t for t in transforms if isinstance(t, WeightConverter)]
    prefix = getattr(module, "base_model_prefix", None)
    found: dict[str, str] = {}
    for name in sorted(checkpoint.tensors):
        renamed, pattern = rename_source_key(name, renamings, converters, prefix, wanted)
        if pattern is not None and renamed in wanted:
            raise UnsupportedFormat(
                f"tensor {name} is stored in parts that have to be joined", where=checkpoint.name
            )
        if renamed in wanted:
            found.setdefault(renamed, name)
    check_filled(checkpoint, module, found)
    return _once(module, found)


def _once(module: nn.Module, found: Mapping[str, str]) -> Mapping[str, str]:
    """Of tied parameters the first; some checkpoints store every copy."""
    first: dict[int, str] = {}
    for name, tensor in _named(module):
        if name in found:
            first.setdefault(id(tensor), name)
    return {name: found[name] for name in first.values()}


def check_filled(checkpoint: Checkpoint, module: nn.Module, found: Mapping[str, str]) -> None:
    """Raises InputError for the first parameter of ``module`` that ``found`` does not fill.

    Tied parameters need one source between them; persistent buffers need none when they are real.
    """
    filled = {id(tensor) for name, tensor in _named(module) if name in found}
    for name, tensor in _named(module):
        if name in found:
            shape = checkpoint.tensors[found[name]].shape
            if shape != tuple(tensor.shape):
                raise InputError(
                    f"tensor {found[name]} has the shape {shape}, the model wants "
                    f"{tuple(tensor.shape)}",
                    where=checkpoint.name,
                    next_step="config.json and weights are of different models; download again",
                )
        elif id(tensor) not in filled and (isinstance(tensor, nn.Parameter) or tensor.is_meta):
            raise InputError(
                f"no tensor for {name}",
                where=checkpoint.name,
                next_step="the weights are incomplete; download the model again",
            )


def _named(module: nn.Module) -> list[tuple[str, Any]]:
    return list(module.state_dict(keep_vars=True).items())
