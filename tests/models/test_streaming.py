"""Layers read while the model runs: the same answer, in fewer bytes, whatever goes wrong."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from safetensors.torch import load_file, save_file  # noqa: E402
from torch import nn  # noqa: E402

from octavo.errors import BrokenFile, BudgetExceeded, UnsupportedFormat  # noqa: E402
from octavo.hardware.spec import ComponentSpec, TensorSpec  # noqa: E402
from octavo.memory.buffers import holders_of  # noqa: E402
from octavo.memory.ledger import Ledger  # noqa: E402
from octavo.models.checkpoint import Checkpoint  # noqa: E402
from octavo.models.loading import ReaderPool  # noqa: E402
from octavo.models.streaming import LayerStream  # noqa: E402

LAYERS = 7
WIDE = 96


class Layer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.up = nn.Linear(WIDE, 3 * WIDE)
        self.down = nn.Linear(3 * WIDE, WIDE)
        self.norm = nn.LayerNorm(WIDE)

    def forward(self, x: Any) -> Any:
        return x + self.down(torch.tanh(self.up(self.norm(x))))


class Stack(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(Layer() for _ in range(LAYERS))

    def forward(self, x: Any) -> Any:
        for layer in self.layers:
            x = layer(x)
        return x


class Case:
    """A stack on disk, whole in memory, and with some layers streamed."""

    def __init__(self, folder: Path) -> None:
        torch.manual_seed(0)
        self.folder = folder
        self.whole = Stack().eval()
        weights = self.whole.state_dict()
        # Two files, so that a layer lies in both; the small ones first shift the others.
        first = {name: t for name, t in weights.items() if "up" in name}
        save_file({"a": torch.zeros(3), **first}, folder / "model-1.safetensors")
        rest = {name: t for name, t in weights.items() if "up" not in name}
        save_file({"b": torch.zeros(5), **rest}, folder / "model-2.safetensors")
        (folder / "config.json").write_text("{}")
        self.tensors = Checkpoint.at(folder).tensors
        self.part = ComponentSpec(
            "language",
            tuple(t for t in self.tensors.values() if t.name.startswith("layers")),
            tuple(
                tuple(name for name in self.tensors if name.startswith(f"layers.{number}."))
                for number in range(LAYERS)
            ),
        )
        with torch.device("meta"):
            self.module = Stack().eval()
        self.names = {name: name for name in weights}
        self.ledger = Ledger({"host": 1 << 30})
        self.readers = ReaderPool(threads=3)

    def stream(self, numbers: list[int], slots: int = 3, **options: Any) -> LayerStream:
        stored = {
            name: tensor
            for shard in ("model-1", "model-2")
            for name, tensor in load_file(self.folder / f"{shard}.safetensors").items()
        }
        layers: Any = self.module.layers
        for number in set(range(LAYERS)) - set(numbers):
            prefix = f"layers.{number}."
            layers[number].load_state_dict(
                {name.removeprefix(prefix): stored[name] for name in self.part.layers[number]},
                assign=True,
            )
        return LayerStream(
            self.folder,
            self.part,
            {number: layers[number] for number in numbers},
            self.names,
            self.module,
            self.readers,
            slots=slots,
            ledger=options.pop("ledger", self.ledger),
            **options,
        )

    def same(self) -> bool:
        x = torch.randn(4, WIDE)
        with torch.inference_mode():
            return torch.equal(self.module(x), self.whole(x))

    def on_meta(self, numbers: list[int]) -> bool:
        layers: Any = self.module.layers
        return all(p.is_meta for number in numbers for p in layers[number].parameters())


@pytest.fixture
def case(tmp_path: Path) -> Iterator[Case]:
    made = Case(tmp_path)
    yield made
    made.readers.close()


@pytest.mark.parametrize("slots", [2, 3, 9])
@pytest.mark.parametrize("numbers", [[0], [6], [1, 3, 5], list(range(LAYERS))])
def test_the_same_answer_pass_after_pass(case: Case, numbers: list[int], slots: int) -> None:
    stream = case.stream(numbers, slots)
    for _ in range(5):
        assert case.same()
        assert case.on_meta(numbers)
    stream.close()


def test_each_layer_is_read_once_a_pass(case: Case) -> None:
    numbers = [0, 2, 3, 4, 6]
    stream = case.stream(numbers, 2)
    case.same()
    case.same()
    layer = sum(case.tensors[name].nbytes for name in case.part.layers[0])
    read = stream.read_bytes / layer
    stream.close()
    # Two passes and one layer ahead, in whole pages.
    assert 2 * len(numbers) <= read < 2 * len(numbers) + 2.5


def test_slots_are_counted_and_given_back(case: Case) -> None:
    stream = case.stream([1, 2, 3], 2)
    layer = sum(case.tensors[name].nbytes for name in case.part.layers[0])
    held = case.ledger.state("host")
    assert 2 * layer <= held.used <= 2 * (layer + 8 * 4096)
    assert held.by_kind["weights"] == held.used
    assert case.same()
    stream.close()
    stream.close()
    assert case.ledger.used("host") == 0
    assert case.on_meta([1, 2, 3])
    with pytest.raises(BudgetExceeded):
        case.stream([1, 2, 3], 2, ledger=Ledger({"host": layer}))


def test_another_order_and_a_pass_that_ends_early(case: Case) -> None:
    stream = case.stream(list(range(LAYERS)), 3)
    layers: Any = case.module.layers
    whole: Any = case.whole.layers
    x = torch.randn(2, WIDE)
    with torch.inference_mode():
        for number in (4, 1, 6, 6, 0, 3):
            assert torch.equal(layers[number](x), whole[number](x))
    assert case.same()
    stream.close()


def test_an_error_in_a_layer_leaves_the_next_pass_whole(case: Case) -> None:
    stream = case.stream([1, 2, 4], 2)
    with pytest.raises(RuntimeError), torch.inference_mode():
        case.module(torch.randn(2, WIDE + 1))
    layers: Any = case.module.layers
    with pytest.raises(RuntimeError), torch.inference_mode():
        layers[2](torch.randn(2, WIDE + 1))
    assert case.on_meta([1, 2, 4])
    assert case.same()
    stream.close()


def test_a_file_that_is_cut_while_it_runs(case: Case) -> None:
    stream = case.stream(list(range(LAYERS)), 2)
    assert case.same()
    path = case.folder / "model-2.safetensors"
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 3])
    with pytest.raises(BrokenFile, match="model-2"):
        case.same()
    path.write_bytes(content)
    assert case.same()
    stream.close()
    assert case.ledger.used("host") == 0


def test_a_layer_converted_as_the_family_wants(case: Case) -> None:
    for name in case.whole.state_dict():
        if name.endswith("down.bias"):
            case.whole.get_parameter(name).data.mul_(2)

    def doubled(name: str, stored: Any) -> Any:
        return stored * 2 if name.endswith("down.bias") else stored

    stream = case.stream(list(range(LAYERS)), 2, convert=doubled)
    assert case.same()
    stream.close()


def test_what_was_converted_is_not_kept(case: Case) -> None:
    """Only views of the slots may stay: copies would soon be all layers."""
    copies: list[Any] = []

    def copied(name: str, stored: Any) -> Any:
        if not name.endswith("down.bias"):
            return stored
        copies.append(stored.clone())
        return copies[-1]

    stream = case.stream(list(range(LAYERS)), 2, convert=copied)
    assert case.same()
    assert case.same()
    assert len(copies) == 2 * LAYERS
    assert {holders_of(copy) for copy in copies} == {1}
    stream.close()


def test_closing_lets_go_of_the_slots(case: Case) -> None:
    stream = case.stream([1, 2, 3], 2)
    layers: Any = case.module.layers
    seen: list[Any] = []
    hook = layers[2].up.register_forward_pre_hook(lambda module, _: seen.append(module.weight))
    assert case.same()
    assert case.same()
    assert seen[0] is seen[1] or seen[0].data_ptr() != seen[1].data_ptr()
    hook.remove()
    last = seen.pop().detach()
    seen.clear()
    assert holders_of(last) > 1
    stream.close()
    assert holders_of(last) == 1


def test_it_can_be_used_in_and_out_of_inference_mode(case: Case) -> None:
    """What is bound is made once, in whatever mode that happens to be."""
    stream = case.stream(list(range(LAYERS)), 2)
    assert case.same()
    x = torch.randn(4, WIDE, requires_grad=True)
    assert torch.equal(case.module(x), case.whole(x))
    stream.close()


def test_tensors_that_cannot_be_used_where_they_lie(case: Case) -> None:
    tensors = tuple(
        TensorSpec(t.name, t.file, t.offset + 1, t.nbytes, t.dtype, t.shape)
        for t in case.part.tensors
    )
    case.part = ComponentSpec("language", tensors, case.part.layers)
    with pytest.raises(UnsupportedFormat, match="cannot be used where"):
        case.stream([1, 2])
    assert case.ledger.used("host") == 0


def test_closing_while_reads_are_under_way(case: Case) -> None:
    for _ in range(20):
        stream = case.stream(list(range(LAYERS)), 3)
        closer = threading.Thread(target=stream.close)
        closer.start()
        closer.join()
        assert case.ledger.used("host") == 0


@pytest.mark.parametrize("family", ["qwen3-vl", "dots.ocr", "text"])
def test_a_model_within_a_budget_that_does_not_hold_it(
    tiny: Callable[[str], Path], family: str, picture: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every layer streamed against everything resident, through ``octavo.load``."""
    import octavo
    from octavo.models import opening
    from octavo.requests import Part, Request

    parts = ["read this"] if family == "text" else [Part.image(picture), "read this"]
    request = Request.of(*parts, max_new_tokens=10)  # type: ignore[arg-type]
    with octavo.load(str(tiny(family))) as model:
        (wanted,) = model.generate([request])
    plain = opening.make_plan

    def streamed(*args: Any, **options: Any) -> Any:
        return plain(*args, **options | {"stream": True})

    monkeypatch.setattr(opening, "make_plan", streamed)
    with octavo.load(str(tiny(family))) as model:
        held = model.components["language"]
        assert held.streamed_layers > 0
        (made,) = model.generate([request])
        (again,) = model.generate([request])
    assert wanted.failure is None
    assert made.tokens == wanted.tokens == again.tokens
