"""Quantized layers read from a copy on disk: the same answer as quantized layers in memory."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from safetensors import safe_open  # noqa: E402
from safetensors.torch import save_file  # noqa: E402
from torch import nn  # noqa: E402

import octavo  # noqa: E402
from octavo.errors import BudgetExceeded, TierError, TierFull  # noqa: E402
from octavo.hardware.plan import Workload, plan  # noqa: E402
from octavo.hardware.spec import ComponentSpec, Precision  # noqa: E402
from octavo.memory.ledger import Ledger  # noqa: E402
from octavo.models import opening, streaming_copies  # noqa: E402
from octavo.models.checkpoint import Checkpoint  # noqa: E402
from octavo.models.loading import ReaderPool  # noqa: E402
from octavo.models.quantized import swap  # noqa: E402
from octavo.models.registry import family_of  # noqa: E402
from octavo.models.streaming import LayerStream  # noqa: E402
from octavo.models.streaming_copies import CopyMaker  # noqa: E402
from octavo.requests import Part, Request  # noqa: E402


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("OCTAVO_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


class Case:
    """The language layers of a tiny checkpoint, and a maker of their copies."""

    def __init__(self, folder: Path, home: Path) -> None:
        self.folder = folder
        self.home = home
        self.ledger = Ledger({"host": 1 << 30})

    def maker(self, precision: Precision = Precision.INT8, **options: Any) -> CopyMaker:
        checkpoint = Checkpoint.at(self.folder)
        family = family_of(checkpoint)
        self.module = family.build(checkpoint)
        self.part = family.describe(checkpoint).component("language")
        options = {"ledger": self.ledger, "home": self.home} | options
        return CopyMaker(
            self.folder,
            self.part,
            family.sources(checkpoint, self.module),
            self.module,
            self.readers,
            precision=precision,
            compute=Precision.BF16,
            convert=family.convert,
            **options,
        )

    def open(self, precision: Precision = Precision.INT8, **options: Any) -> Any:
        with ReaderPool(threads=2) as self.readers:
            return self.maker(precision, **options).open(range(2))

    def files(self) -> list[Path]:
        return sorted(path for path in self.home.rglob("*") if path.is_file())

    def copies(self) -> list[Path]:
        return [path for path in self.files() if path.suffix == ".safetensors"]


@pytest.fixture
def case(tiny: Callable[[str], Path], tmp_path: Path, home: Path) -> Case:
    folder = tmp_path / "model"
    shutil.copytree(tiny("text"), folder)
    return Case(folder, home)


@pytest.mark.parametrize("family", ["text", "qwen3-vl"])
@pytest.mark.parametrize("precision", ["int8", "int4"])
def test_the_same_tokens_as_quantized_layers_in_memory(
    tiny: Callable[[str], Path],
    family: str,
    precision: str,
    picture: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    parts = ["read this"] if family == "text" else [Part.image(picture), "read this"]
    request = Request.of(*parts, max_new_tokens=10)  # type: ignore[arg-type]
    with octavo.load(str(tiny(family)), precision=precision) as model:
        assert model.components["language"].streamed_layers == 0
        (wanted,) = model.generate([request])
    plain = opening.make_plan

    def streamed(*args: Any, **options: Any) -> Any:
        made = plain(*args, **options | {"stream": True})
        assert made.component("language").streamed
        none_stays = [
            replace(held, resident=(), slots=2) if held.component == "language" else held
            for held in made.components
        ]
        return replace(made, components=tuple(none_stays))

    monkeypatch.setattr(opening, "make_plan", streamed)
    for _ in ("made", "found"):
        with octavo.load(str(tiny(family)), precision=precision) as model:
            held = model.components["language"]
            assert held.streamed_layers == model.plan.component("language").layers > 1
            assert held.precision is Precision(precision)
            (made,) = model.generate([request])
            (again,) = model.generate([request])
        assert made.check().tokens == wanted.check().tokens == again.check().tokens


def test_a_copy_holds_what_the_quantized_layers_hold(case: Case) -> None:
    """Against quantizing the stored weight as a whole, without this module."""
    from octavo.models.quantized import QuantizedLinear

    case.open()
    (copy,) = case.copies()
    tensors = {tensor.name: tensor for tensor in case.part.tensors}
    seen = 0
    with safe_open(copy, "pt") as held, safe_open(case.folder / "model.safetensors", "pt") as own:
        for layer in case.part.layers:
            for name in layer:
                weight = own.get_tensor(name)
                if not tensors[name].matrix:
                    assert torch.equal(held.get_tensor(name), weight.to(torch.bfloat16))
                    continue
                rows, columns = weight.shape
                linear = QuantizedLinear.empty(rows, columns, False, Precision.INT8, torch.bfloat16)
                linear.fill(0, weight)
                for part, value in linear.named_buffers():
                    assert torch.equal(held.get_tensor(f"{name}.{part}"), value)
                seen += 1
    assert seen >= 7 * len(case.part.layers)


@pytest.mark.parametrize("chunk", [4096, 8 << 20])
def test_a_copy_is_made_once(case: Case, chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streaming_copies, "_CHUNK", chunk)
    first = case.open()
    before = [path.stat().st_mtime_ns for path in case.copies()]
    again = case.open()
    assert (again.folder, again.names) == (first.folder, first.names)
    assert [path.stat().st_mtime_ns for path in case.copies()] == before
    assert case.ledger.used("host") == 0
    # What was held to make it is two of the largest tensor, never a layer.
    largest = max(tensor.nbytes for tensor in case.part.tensors if tensor.matrix)
    assert 0 < case.ledger.state("host").peak <= max(2 * (largest + 8192), 17 << 20)


@pytest.mark.parametrize("change", ["weights", "precision"])
def test_another_copy_for_whatever_changes_its_bytes(case: Case, change: str) -> None:
    first = case.open().folder
    precision = Precision.INT8
    if change == "weights":
        os.utime(case.folder / "model.safetensors", ns=(1, 1))
    else:
        precision = Precision.INT4
    assert case.open(precision).folder != first
    assert len(case.copies()) == 2


@pytest.mark.parametrize("harm", ["cut", "flip", "header", "names", "sums", "gone", "empty"])
def test_a_broken_copy_is_made_again(case: Case, harm: str) -> None:
    case.open()
    (copy,) = case.copies()
    whole = copy.read_bytes()
    broken = {
        "cut": whole[: len(whole) // 2],
        "flip": whole[:-5000] + bytes([whole[-5000] ^ 1]) + whole[-4999:],
        "header": whole[:8] + b"{" + whole[8:-1],
        "names": whole.replace(b"weight_q", b"weight_p"),
        "sums": whole.replace(b'"crc32"', b'"crc33"'),
        "empty": b"",
    }
    if harm == "gone":
        copy.unlink()
    else:
        copy.write_bytes(broken[harm])
    if harm == "flip":
        # Only layers that will be read are looked at.
        with ReaderPool(threads=2) as case.readers:
            case.maker().open([len(case.part.layers) - 1])
    else:
        case.open()
    assert copy.read_bytes() == whole


def test_a_full_disk_leaves_nothing(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage(case.folder)
    with monkeypatch.context() as patched:
        patched.setattr(shutil, "disk_usage", lambda _: usage._replace(free=1000))
        with pytest.raises(TierFull, match="no room"):
            case.open()
    assert not case.copies()
    with monkeypatch.context() as patched:
        refused = OSError(errno.ENOSPC, "No space left on device")
        patched.setattr(streaming_copies.os, "fsync", _raising(refused))
        with pytest.raises(TierFull, match="no room"):
            case.open()
    assert [path.name for path in case.files()] == ["lock"]
    assert case.ledger.used("host") == 0
    case.open()
    assert len(case.copies()) == 1


def test_a_folder_that_may_not_be_written(case: Case, tmp_path: Path) -> None:
    (tmp_path / "home").write_text("a file where the folder should be")
    with pytest.raises(TierError, match="cannot be written") as failure:
        case.open()
    assert "OCTAVO_HOME" in str(failure.value.next_step)


def test_what_an_ended_process_left_is_written_over(case: Case) -> None:
    place = case.open().folder
    (copy,) = case.copies()
    whole = copy.read_bytes()
    copy.rename(place / "layers.safetensors.part")
    (place / "layers.safetensors.part").write_bytes(whole + b"more")
    case.open()
    assert [path.name for path in case.files() if path.suffix != ""] == ["layers.safetensors"]
    assert copy.read_bytes() == whole


def test_no_memory_to_make_one(case: Case) -> None:
    with pytest.raises(BudgetExceeded):
        case.open(ledger=Ledger({"host": 300_000}))
    assert [path.name for path in case.files()] == ["lock"]


class Odd(nn.Module):
    """Two layers whose tensors end nowhere near a cache line."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            nn.Sequential(nn.Linear(20, 27), nn.Tanh(), nn.Linear(27, 20, bias=False))
            for _ in range(2)
        )

    def forward(self, x: Any) -> Any:
        for layer in self.layers:
            x = x + layer(x)
        return x


def test_layers_of_odd_sizes(tmp_path: Path, home: Path) -> None:
    torch.manual_seed(0)
    whole = Odd().to(torch.bfloat16).eval()
    weights = whole.state_dict()
    save_file({"a": torch.zeros(3), **weights}, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text("{}")
    found = Checkpoint.at(tmp_path).tensors
    tensors = tuple(
        replace(found[name], matrix=name.endswith("weight")) for name in found if name != "a"
    )
    layers = [[name for name in weights if name.startswith(f"layers.{at}.")] for at in (0, 1)]
    part = ComponentSpec("language", tensors, tuple(map(tuple, layers)))
    swap(whole, [name for name in weights if name.endswith("weight")], Precision.INT8,
         torch.bfloat16)  # fmt: skip
    ledger = Ledger({"host": 1 << 30})
    for _ in ("made", "found"):
        with torch.device("meta"):
            module = Odd().to(torch.bfloat16).eval()
        with ReaderPool(threads=2) as readers:
            made = CopyMaker(
                tmp_path, part, {name: name for name in weights}, module, readers,
                precision=Precision.INT8, compute=Precision.BF16, ledger=ledger, home=home,
            ).open([0, 1])  # fmt: skip
            written = (made.folder / "layers.safetensors").stat().st_mtime_ns
            stream = LayerStream(
                made.folder, made.part, dict(enumerate(module.layers)), made.names, module,
                readers, slots=2, ledger=ledger,
            )  # fmt: skip
            x = torch.randn(3, 20, dtype=torch.bfloat16)
            with torch.inference_mode():
                assert torch.equal(module(x), whole(x))
                assert torch.equal(module(x), whole(x))
            stream.close()
    assert (made.folder / "layers.safetensors").stat().st_mtime_ns == written
    assert ledger.used("host") == 0


def test_only_a_precision_that_was_asked_for_is_streamed_from_a_copy(
    tiny: Callable[[str], Path],
) -> None:
    checkpoint = Checkpoint.at(tiny("text"))
    spec = family_of(checkpoint).describe(checkpoint)
    options: dict[str, Any] = {"budget": 1 << 30, "stream": True}
    asked = plan(spec, Workload(), precisions={"language": Precision.INT8}, **options)
    assert asked.component("language").streamed
    assert asked.component("language").precision is Precision.INT8
    assert asked.component("language").slot_bytes < spec.component("language").nbytes / 4
    # On a device the bytes lie in another order than the copy has them.
    on_device = plan(
        spec, Workload(), precisions={"language": Precision.INT8}, device="cuda", **options
    )
    assert not on_device.component("language").streamed
    cast = plan(spec, Workload(), precisions={"language": Precision.FP32}, **options)
    assert not cast.component("language").streamed


def _raising(error: OSError) -> Callable[..., None]:
    def refuse(*_: Any) -> None:
        raise error

    return refuse
