"""Tensors by name inside one buffer, and what has to end before a buffer is used again."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

import torch

from octavo.errors import ConfigError


class Fence(Protocol):
    """Work of an accelerator that must end first. Any ``torch.Event`` that was recorded is one."""

    def wait(self) -> object:
        """Has the current stream wait for it."""

    def synchronize(self) -> object:
        """Waits for it."""


@dataclass(frozen=True, slots=True)
class Part:
    """Where one tensor lies in a buffer.

    Attributes:
        offset: bytes from the start; a multiple of the dtype's size.
    """

    offset: int
    shape: tuple[int, ...]
    dtype: torch.dtype

    def of(self, buffer_b: torch.Tensor, name: str) -> torch.Tensor:
        """The tensor in ``buffer_b`` (1-D ``uint8``). Nothing is copied.

        Raises:
            ConfigError: it does not fit, or its offset is no multiple of the dtype's size.
        """
        end = self.offset + math.prod(self.shape) * self.dtype.itemsize
        if self.offset < 0 or self.offset % self.dtype.itemsize or end > buffer_b.numel():
            raise ConfigError(
                f"bytes {self.offset} to {end} cannot be {self.dtype} values of a buffer of "
                f"{buffer_b.numel()} bytes",
                where=name,
                next_step="align offsets to the dtype, and make the buffer as long as the layout",
            )
        return buffer_b[self.offset : end].view(self.dtype).view(self.shape)
