"""Which parameters a component fills, and what each has to become."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Final

import torch

from octavo.errors import ConfigError, InputError
from octavo.hardware.spec import ComponentSpec, Precision, TensorSpec
from octavo.models.loading.fill import Convert
from octavo.models.loading.layout import Wanted, Way
from octavo.models.loading.places import Place, Places

DTYPES: Final[Mapping[Precision, torch.dtype]] = {
    Precision.FP32: torch.float32,
    Precision.BF16: torch.bfloat16,
    Precision.FP16: torch.float16,
}
STORED: Final[Mapping[str, torch.dtype]] = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
}
_CAST: Final = frozenset({"F64", "F32", "F16", "BF16"})


def wanted_of(
    places: Places,
    component: ComponentSpec,
    sources: Mapping[str, str],
    *,
    folder: Path,
    precision: Precision | None,
    compute: Precision,
    on_cpu: bool,
    skip: Collection[str],
    convert: Convert | None,
) -> list[Wanted]:
    """Every parameter that the component's tensors fill.

    Raises:
        InputError: a parameter that the module lacks, or a tensor of another shape.
        ConfigError: ``compute`` is no float type.
    """
    if compute not in DTYPES:
        raise ConfigError(f"cannot compute in {compute}", next_step=f"use {', '.join(DTYPES)}")
    tensors = {tensor.name: tensor for tensor in component.tensors}
    found = []
    for name, source in sources.items():
        tensor = tensors.get(source)
        if tensor is not None and source not in skip:
            place = places[name]
            quantized = _is_quantized(place, tensor, precision)
            shape = _shape(tensor, convert)
            if (shape or tensor.shape) != place.shape:
                raise InputError(
                    f"tensor {source} has the shape {shape or tensor.shape}, the model wants "
                    f"{place.shape}",
                    where=str(folder / tensor.file),
                    next_step="config.json and weights are of different models; download again",
                )
            stored, dtype = STORED[tensor.dtype], _dtype(tensor, precision, compute)
            stays = on_cpu and stored == dtype and tensor.offset % stored.itemsize == 0
            if shape is not None:
                way = Way.CONVERT
            elif quantized:
                way = Way.QUANTIZE
            else:
                way = Way.VIEW if stays and tensor.nbytes else Way.CAST
            found.append(Wanted(name, tensor, stored, dtype, place.shape, way, quantized))
    return found


def _dtype(tensor: TensorSpec, precision: Precision | None, compute: Precision) -> torch.dtype:
    if precision is None or tensor.dtype not in _CAST:
        return STORED[tensor.dtype]
    return DTYPES[compute if precision.quantized else precision]


def _is_quantized(place: Place, tensor: TensorSpec, precision: Precision | None) -> bool:
    return (
        precision is not None
        and precision.quantized
        and tensor.dtype in _CAST
        and tensor.quantizable(precision)
        and place.linear is not None
    )


def _shape(tensor: TensorSpec, convert: Convert | None) -> tuple[int, ...] | None:
    """The shape that ``convert`` gives a tensor; None where it leaves it as it is.

    Asked on the meta device, so nothing is computed.
    """
    if convert is None:
        return None
    stored = torch.empty(tensor.shape, dtype=STORED[tensor.dtype], device="meta")
    made = convert(tensor.name, stored)
    return None if made is stored else tuple(made.shape)
