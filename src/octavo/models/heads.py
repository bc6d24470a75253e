"""The output head, fed with what torch multiplies fast.

The hidden state of the last token is a slice: one row whose batch stride is that of the whole
prompt. For such an input torch 2.13 hands a half-precision product on a CPU to a path that copies
the whole matrix and is tens of times slower; the same row as a matrix of its own is not.
"""

from __future__ import annotations

from types import MethodType
from typing import Final

import torch
from torch import nn
from torch.nn import functional

#: Smaller layers are not worth it.
_LARGE: Final = 1 << 22


def flatten_heads(module: nn.Module) -> None:
    """Has large linear layers of ``module`` take their input as a matrix."""
    for child in module.modules():
        if type(child) is nn.Linear and child.weight.numel() > _LARGE:
            child.forward = MethodType(_forward, child)  # type: ignore[method-assign]


def _forward(self: nn.Linear, x: torch.Tensor) -> torch.Tensor:
    out = functional.linear(x.reshape(-1, x.shape[-1]), self.weight, self.bias)
    return out.view(*x.shape[:-1], out.shape[-1])
