"""Streamed layers on their way from main memory to a CUDA device, while another one computes.

Order of what touches a buffer there: the copy into it waits for the computation that read it last;
the computation waits for the copy; and the slot in main memory is read into again only when the
copy out of it is over.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import torch

from octavo.memory.ledger import Ledger

#: One is computed with while the next arrives.
BUFFERS: Final = 2


@dataclass(frozen=True, slots=True, eq=False)
class Sent:
    """A layer in a buffer of the device, or on its way there: ``ready`` is behind its copy."""

    buffer: int
    nbytes: int
    ready: Any


class DeviceSlots:
    """
    Args:
        device: CUDA.
        nbytes: of the largest layer.
        ledger: the buffers are reserved here, as weights in ``device``.
        owner: for refusals.

    Raises:
        BudgetExceeded: there is no room for the buffers.
    """

    def __init__(self, device: torch.device, nbytes: int, ledger: Ledger, owner: str) -> None:
        self._device = device
        self._reservation = ledger.reserve(
            "device", "weights", BUFFERS * nbytes, f"{owner} ring on the device"
        )
        try:
            with torch.inference_mode(mode=False):
                self._buffers = [
                    torch.empty(nbytes, dtype=torch.uint8, device=device) for _ in range(BUFFERS)
                ]
            self._stream = torch.cuda.Stream(device)
        except BaseException:
            self._reservation.release()
            raise
        # Behind the last computation with each buffer.
        self._read: list[Any] = [None] * BUFFERS
        self._next = 0

    def send(self, layer_b: torch.Tensor) -> Sent:
        """Begins to copy pinned ``layer_b`` into the buffer that was used longest ago."""
        buffer, self._next = self._next, (self._next + 1) % BUFFERS
        if self._read[buffer] is not None:
            self._stream.wait_event(self._read[buffer])
        with torch.cuda.stream(self._stream), torch.inference_mode(mode=False):
            self._buffers[buffer][: len(layer_b)].copy_(layer_b, non_blocking=True)
            ready = self._stream.record_event()
        return Sent(buffer, len(layer_b), ready)

    def arrived(self, sent: Sent) -> torch.Tensor:
        """The layer's bytes; what is computed from now on waits for them."""
        torch.cuda.current_stream(self._device).wait_event(sent.ready)
        return self._buffers[sent.buffer][: sent.nbytes]

    def left(self, sent: Sent) -> None:
        """Nothing more is computed with it; returns when its bytes in main memory may change."""
        self._read[sent.buffer] = torch.cuda.current_stream(self._device).record_event()
        sent.ready.synchronize()

    def close(self) -> None:
        """Gives the buffers back. Harmless when repeated."""
        self._buffers = []
        self._reservation.release()
