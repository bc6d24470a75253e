"""Layers on their way to a device: with buffers on the CPU and streams that only note what is asked
of them, for the order of events and the same answers."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")

import torch

from octavo.memory.ledger import Ledger
from octavo.models import streaming, streaming_device
from tests.models.test_streaming import LAYERS, WIDE, Case


class Stream:
    """Notes what waits for what, and in which order events are recorded."""

    def __init__(self, device: Any = None, name: str = "copies") -> None:
        del device
        self.name = name
        self.log: list[tuple[str, str]] = []
        self._events = 0

    def wait_event(self, event: Event) -> None:
        self.log.append(("waits", event.name))

    def record_event(self) -> Event:
        self._events += 1
        return Event(f"{self.name} {self._events}", self)


class Event:
    def __init__(self, name: str, stream: Stream) -> None:
        self.name, self.stream = name, stream

    def synchronize(self) -> None:
        self.stream.log.append(("synchronized", self.name))


@pytest.mark.parametrize("slots", [2, 3, LAYERS])
def test_layers_travel_while_others_compute(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, slots: int
) -> None:
    compute = Stream(name="compute")
    monkeypatch.setattr(torch.cuda, "Stream", Stream)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda _device: compute)
    monkeypatch.setattr(torch.cuda, "stream", lambda _stream: contextlib.nullcontext())
    case = Case(tmp_path)
    ledger = Ledger({"host": 1 << 30, "device": 1 << 30})
    stream = streaming.LayerStream(
        case.folder,
        case.part,
        {number: case.module.layers[number] for number in range(LAYERS)},
        case.names,
        case.module,
        case.readers,
        slots=slots,
        ledger=ledger,
    )
    largest = max(layer.nbytes for layer in stream._layers.values())
    there = streaming_device.DeviceSlots(torch.device("cpu"), largest, ledger, "language")
    stream._there = there
    x = torch.randn(4, WIDE)
    with torch.inference_mode():
        wanted = case.whole(x)
        for _ in range(3):
            assert torch.equal(case.module(x), wanted)
        once = stream.read_bytes
        assert torch.equal(case.module.layers[5](x), case.whole.layers[5](x))
        assert torch.equal(case.module(x), wanted)
    # As many slots as layers: each was read once and stays in main memory.
    assert (stream.read_bytes == once) == (slots == LAYERS)
    # What is computed waits for the copy, and a buffer is written when nobody computes with it.
    assert [entry for entry in compute.log if entry[0] == "waits"]
    copies: Any = there._stream
    assert next(name for what, name in copies.log if what == "waits").startswith("compute")
    assert [entry for entry in copies.log if entry[0] == "synchronized"]
    stream.close()
    assert ledger.holdings() == []
