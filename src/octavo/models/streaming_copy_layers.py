"""What each layer of a quantized component is made of: as stored, and as a copy holds it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from octavo.errors import UnsupportedFormat
from octavo.hardware.spec import ComponentSpec, Precision, TensorSpec
from octavo.models.loading.places import Place, Places
from octavo.models.loading.wanted import STORED
from octavo.models.streaming_copy_file import NAMES

if TYPE_CHECKING:
    from octavo.models.quantized import QuantizedLinear

_MORE = "give more memory, so that all layers stay in it, or ask for no other precision"


@dataclass(frozen=True, slots=True)
class Source:
    """One stored tensor of a layer and what it is held as.

    Attributes:
        parameters: of the whole model, that it fills.
        shape: of those.
        dtype: of a tensor that stays float or whole.
        parts: attribute of a quantized layer → shape and type; empty for other tensors.
    """

    tensor: TensorSpec
    parameters: tuple[str, ...]
    dtype: torch.dtype
    shape: tuple[int, ...]
    parts: Mapping[str, tuple[tuple[int, ...], torch.dtype]]

    def outputs(self) -> Iterator[tuple[str, tuple[int, ...], torch.dtype]]:
        """Names in the copy, in the order in which they are written."""
        if not self.parts:
            yield self.tensor.name, self.shape, self.dtype
        for attribute, (shape, dtype) in self.parts.items():
            yield f"{self.tensor.name}.{attribute}", shape, dtype


class Describer:
    """Decides what is quantized, as :class:`octavo.models.loading.Loader` does.

    Args:
        module: the whole model, on the meta device.
        precision, compute: of quantized weights, and of what else is float.
    """

    def __init__(self, module: nn.Module, precision: Precision, compute: torch.dtype) -> None:
        self._places = Places(module)
        self._precision = precision
        self._compute = compute

    def layers(self, part: ComponentSpec, sources: Mapping[str, str]) -> list[list[Source]]:
        """Of each layer of ``part`` the tensors that the model has a place for.

        Args:
            sources: parameter → stored tensor.

        Raises:
            UnsupportedFormat: a tensor of a type that no copy holds.
        """
        filled: dict[str, list[str]] = {}
        for parameter, stored in sources.items():
            filled.setdefault(stored, []).append(parameter)
        specs = {tensor.name: tensor for tensor in part.tensors}
        return [
            [self._source(specs[name], filled[name]) for name in layer if name in filled]
            for layer in part.layers
        ]

    def empty(self, shape: Sequence[int], device: str = "cpu") -> QuantizedLinear:
        """A layer to be filled."""
        from octavo.models.quantized import QuantizedLinear

        rows, columns = shape
        return QuantizedLinear.empty(rows, columns, False, self._precision, self._compute, device)

    def _source(self, tensor: TensorSpec, parameters: list[str]) -> Source:
        place = self._places[parameters[0]]
        stored = STORED[tensor.dtype]
        dtype = self._compute if stored.is_floating_point else stored
        if dtype not in NAMES:
            raise UnsupportedFormat(
                f"tensor {tensor.name} of type {tensor.dtype} cannot be streamed",
                where=tensor.file,
                next_step=_MORE,
            )
        parts = {}
        if len(parameters) == 1 and self._quantized(tensor, place):
            held = self.empty(place.shape, "meta")
            parts = {
                name: (tuple(value.shape), value.dtype) for name, value in held.named_buffers()
            }
        return Source(tensor, tuple(parameters), dtype, place.shape, parts)

    def _quantized(self, tensor: TensorSpec, place: Place) -> bool:
        return (
            STORED[tensor.dtype].is_floating_point
            and tensor.quantizable(self._precision)
            and place.linear is not None
        )


def said(source: Source) -> list[Any]:
    """All that its bytes in a copy depend on, for JSON."""
    tensor = source.tensor
    parts = [(name, shape, str(dtype)) for name, (shape, dtype) in source.parts.items()]
    stored = (tensor.name, tensor.file, tensor.offset, tensor.dtype, tensor.shape)
    return [stored, source.parameters, source.shape, str(source.dtype), parts]
