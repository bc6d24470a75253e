"""Where a module keeps its tensors: filling them all, or putting all back as they were."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import nn

from octavo.errors import InputError


@dataclass(frozen=True, slots=True, eq=False)
class Place:
    """A tensor of a module and every attribute that names it: more than one when it is tied."""

    name: str
    tensor: torch.Tensor
    holders: tuple[tuple[nn.Module, str], ...]

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.tensor.shape)

    @property
    def linear(self) -> nn.Linear | None:
        """The linear layer whose weight this is; None for other tensors and tied ones."""
        owner, attribute = self.holders[0]
        alone = len(self.holders) == 1 and type(owner) is nn.Linear and attribute == "weight"
        return owner if alone and isinstance(owner, nn.Linear) else None

    def fill(self, value: torch.Tensor) -> None:
        """Puts ``value`` in all its attributes, a parameter as one that wants no gradient."""
        if isinstance(self.tensor, nn.Parameter):
            value = nn.Parameter(value, requires_grad=False)
        self._put(value)

    def empty(self) -> None:
        """Puts back what was there."""
        self._put(self.tensor)

    def _put(self, value: torch.Tensor) -> None:
        for owner, attribute in self.holders:
            held = owner._parameters if attribute in owner._parameters else owner._buffers
            held[attribute] = value  # type: ignore[assignment]


class Places:
    """The tensors of ``module``, by every name that they go by."""

    def __init__(self, module: nn.Module) -> None:
        self.module = module
        holders: dict[int, dict[tuple[int, str], tuple[nn.Module, str]]] = {}
        self._tensors: dict[str, torch.Tensor] = {}
        for prefix, owner in module.named_modules(remove_duplicate=False):
            for attribute, tensor in [*owner._parameters.items(), *owner._buffers.items()]:
                if tensor is not None:
                    name = f"{prefix}.{attribute}" if prefix else attribute
                    self._tensors[name] = tensor
                    found = holders.setdefault(id(tensor), {})
                    found[id(owner), attribute] = (owner, attribute)
        self._holders = {key: tuple(found.values()) for key, found in holders.items()}

    def __getitem__(self, name: str) -> Place:
        """Raises InputError when the module has no tensor of this name."""
        if name not in self._tensors:
            raise InputError(f"the model has no parameter {name}")
        tensor = self._tensors[name]
        return Place(name, tensor, self._holders[id(tensor)])

    def replace_modules(self, swaps: Iterable[tuple[nn.Module, nn.Module]]) -> None:
        """Puts the second of each pair wherever the first is."""
        new = {id(old): (old, made) for old, made in swaps}
        for owner in list(self.module.modules()):
            for attribute, child in owner._modules.items():
                if id(child) in new:
                    owner._modules[attribute] = new[id(child)][1]
