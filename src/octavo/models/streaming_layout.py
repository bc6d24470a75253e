"""Where the bytes of a streamed layer lie: in its files, and in the slot they are read into."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import torch
from torch import nn

from octavo.errors import UnsupportedFormat
from octavo.hardware.spec import TensorSpec
from octavo.memory.buffers import PAGE

#: A hole between two tensors of a layer up to this is read along.
_HOLE: Final = 256 * 1024
#: What is used as it is stored.
DTYPES: Final = {
    "F32": torch.float32,
    "BF16": torch.bfloat16,
    "F16": torch.float16,
    "I8": torch.int8,
    "U8": torch.uint8,
}
#: Stored tensor → the attributes of modules that it fills.
Owners = Mapping[str, list[tuple[nn.Module, str]]]


@dataclass(frozen=True, slots=True)
class Run:
    """One range of a file that is read as one: whole pages ``low`` to ``high``, at ``place`` in
    the slot."""

    file: str
    low: int
    high: int
    place: int


@dataclass(frozen=True, slots=True, eq=False)
class Bound:
    """Where a stored tensor goes: ``start`` in the slot, and the attribute of a module, which
    holds ``empty`` while the layer is not there."""

    tensor: TensorSpec
    start: int
    owner: nn.Module
    attribute: str
    empty: torch.Tensor

    def put(self, value: torch.Tensor) -> None:
        # Past ``nn.Module.__setattr__``, which would look through all its members first.
        if self.attribute in self.owner._parameters:
            self.owner._parameters[self.attribute] = value  # type: ignore[assignment]
        else:
            self.owner._buffers[self.attribute] = value


@dataclass(frozen=True, slots=True, eq=False)
class Layer:
    """Ranges to read, what they fill, and how many bytes of a slot that takes."""

    runs: tuple[Run, ...]
    bound: tuple[Bound, ...]
    nbytes: int


def owners_of(module: nn.Module, names: Mapping[str, str]) -> Owners:
    """Who holds each stored tensor.

    Args:
        names: parameter of ``module`` → stored tensor.
    """
    found: dict[str, list[tuple[nn.Module, str]]] = {}
    for parameter, stored in names.items():
        path, _, attribute = parameter.rpartition(".")
        found.setdefault(stored, []).append((module.get_submodule(path), attribute))
    return found


def lay_out(tensors: list[TensorSpec], owners: Owners) -> Layer:
    """How one layer is read and where its tensors then lie.

    Raises:
        UnsupportedFormat: one that cannot be used where it comes to lie.
    """
    runs: list[Run] = []
    bound: list[Bound] = []
    place = 0
    wanted = sorted(
        (tensor for tensor in tensors if tensor.name in owners),
        key=lambda tensor: (tensor.file, tensor.offset),
    )
    for group in _groups(wanted):
        low = group[0].offset // PAGE * PAGE
        high = group[-1].offset + group[-1].nbytes
        runs.append(Run(group[0].file, low, high, place))
        for tensor in group:
            start = place + tensor.offset - low
            _check_usable(tensor, start)
            bound += [
                Bound(tensor, start, owner, attribute, _held(owner, attribute))
                for owner, attribute in owners[tensor.name]
            ]
        place += -(-(high - low) // PAGE) * PAGE
    return Layer(tuple(runs), tuple(bound), place)


def _held(owner: nn.Module, attribute: str) -> torch.Tensor:
    held: torch.Tensor | None = owner._parameters.get(attribute)
    if held is None:
        held = owner._buffers.get(attribute)
    assert held is not None, f"a stored tensor fills {attribute}, which is not there"
    return held


def _check_usable(tensor: TensorSpec, start: int) -> None:
    itemsize = DTYPES[tensor.dtype].itemsize if tensor.dtype in DTYPES else 0
    if not itemsize or start % itemsize:
        raise UnsupportedFormat(
            f"tensor {tensor.name} of type {tensor.dtype} at byte {tensor.offset} cannot "
            "be used where it is read to",
            where=tensor.file,
            next_step="give more memory, so that all layers stay in it",
        )


def _groups(tensors: list[TensorSpec]) -> list[list[TensorSpec]]:
    """Neighbours in a file, with no more than a small hole between."""
    groups: list[list[TensorSpec]] = []
    for tensor in tensors:
        last = groups[-1][-1] if groups else None
        near = (
            last is not None
            and last.file == tensor.file
            and 0 <= tensor.offset - last.offset - last.nbytes <= _HOLE
        )
        if near:
            groups[-1].append(tensor)
        else:
            groups.append([tensor])
    return groups
