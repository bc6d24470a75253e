"""Streams whose slots lie over each other: each finds its own layers, whoever ran before."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

import octavo  # noqa: E402
from octavo.errors import BudgetExceeded  # noqa: E402
from octavo.memory.ledger import Ledger  # noqa: E402
from octavo.models.streaming_ring import Ring  # noqa: E402

from .test_streaming import LAYERS, WIDE, Case  # noqa: E402


class Pair:
    """Two stacks of different weights whose streams share a ring, and a third beside the second."""

    def __init__(self, folder: Path, slots: int) -> None:
        self.ledger = Ledger({"host": 1 << 30})
        self.ring = Ring(self.ledger, "ring")
        self.cases, self.streams = [], []
        for number, group in enumerate(("decoder", "media", "media")):
            place = folder / str(number)
            place.mkdir()
            case = Case(place)
            for value in case.whole.parameters():
                value.data.add_(number)
            # What is on disk is what the whole stack holds.
            case = _rewritten(case, place)
            case.ledger = self.ledger
            self.cases.append(case)
            self.streams.append(
                case.stream([0, 2, 3, 6], slots, ring=self.ring, group=group if number else None)
            )

    def close(self) -> None:
        for stream in self.streams:
            stream.close()
        for case in self.cases:
            case.readers.close()


def _rewritten(case: Case, folder: Path) -> Case:
    from safetensors.torch import save_file

    weights = case.whole.state_dict()
    for shard, extra in (("model-1", ("a", 3)), ("model-2", ("b", 5))):
        mine = {name: t for name, t in weights.items() if ("up" in name) == (shard == "model-1")}
        save_file({extra[0]: torch.zeros(extra[1]), **mine}, folder / f"{shard}.safetensors")
    return case


@pytest.mark.parametrize("slots", [2, 3])
def test_each_has_its_own_layers_whoever_ran_before(tmp_path: Path, slots: int) -> None:
    pair = Pair(tmp_path, slots)
    pair.ring.open()
    for number in (0, 1, 2, 1, 0, 0, 2, 0):
        assert pair.cases[number].same(), number
    pair.close()
    assert pair.ledger.used("host") == 0


def test_it_takes_as_much_as_the_largest_group(tmp_path: Path) -> None:
    pair = Pair(tmp_path, 2)
    pair.ring.open()
    one = pair.streams[0]._slot_bytes
    assert pair.ring.nbytes == 4 * one
    assert pair.ledger.used("host") == 4 * one
    pair.streams[1].close()
    assert pair.cases[0].same()
    assert pair.cases[2].same()
    pair.close()
    assert pair.ledger.used("host") == 0


def test_streams_of_one_group_do_not_disturb_each_other(tmp_path: Path) -> None:
    pair = Pair(tmp_path, 2)
    pair.ring.open()
    one, other = pair.cases[1:]
    x = torch.randn(3, WIDE)
    with torch.inference_mode():
        here, there, wanted, there_wanted = x, x, x, x
        layers: Any = [case.module.layers for case in (one, other)]
        whole: Any = [case.whole.layers for case in (one, other)]
        for number in range(LAYERS):
            here, there = layers[0][number](here), layers[1][number](there)
            wanted, there_wanted = whole[0][number](wanted), whole[1][number](there_wanted)
    assert torch.equal(here, wanted)
    assert torch.equal(there, there_wanted)
    # Layer by layer in turn, and still each layer was read once.
    read = [stream.read_bytes for stream in pair.streams[1:]]
    layer = sum(one.tensors[name].nbytes for name in one.part.layers[0])
    assert all(nbytes < 4.5 * layer for nbytes in read)
    pair.close()


def test_no_room(tmp_path: Path) -> None:
    pair = Pair(tmp_path, 2)
    small = Ring(Ledger({"host": 1000}), "ring")
    small.join(pair.streams[0], "decoder", 2000)
    with pytest.raises(BudgetExceeded):
        small.open()
    pair.ring.open()
    pair.close()


def test_a_seeing_model_streamed_as_a_whole(tiny: Any) -> None:
    """Tower, mergers of each tap and decoder through one ring: the same answers, turn by turn."""
    import numpy as np

    from octavo.hardware.plan import plan
    from octavo.models import opening
    from octavo.requests import Part, Request

    def forced(*args: Any, **named: Any) -> Any:
        return plan(*args, **{**named, "stream": True})

    folder = str(tiny("qwen3-vl"))
    pictures = [np.random.default_rng(n).integers(0, 255, (96, 128, 3), np.uint8) for n in (1, 2)]

    def asked(model: Any) -> list[Any]:
        requests = [
            Request.of(Part.image(pictures[0]), "what?", max_new_tokens=5, id="0"),
            Request.of("hi", max_new_tokens=9, id="1"),
            Request.of(Part.image(pictures[1]), "and this?", max_new_tokens=5, id="2"),
        ]
        made = {done.request_id: done.check().tokens for done in model.generate(requests)}
        return [made[key] for key in sorted(made)]

    with octavo.load(folder, device="cpu") as model:
        wanted = asked(model)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(opening, "make_plan", forced)
        model = octavo.load(folder, device="cpu")
    with model:
        assert model.plan is not None
        streamed = {held.component for held in model.plan.components if held.streamed}
        assert streamed == {"vision", "projector", "language"}
        assert asked(model) == wanted
        assert asked(model) == wanted
