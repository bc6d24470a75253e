"""Loaded values against safetensors' own reader, by precision, component and device of reading."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from octavo.errors import BrokenFile, BudgetExceeded, ConfigError, InputError, SourceNotFound
from octavo.hardware.spec import ComponentSpec, Precision
from octavo.memory.buffers import PAGE
from octavo.memory.ledger import Ledger
from octavo.models.checkpoint import Checkpoint
from octavo.models.loading import Loader, LoadProgress, ReaderPool
from octavo.models.quantized import QuantizedLinear
from tests.models.loading.small import Saved, on_meta, save

FLOATS = {
    Precision.FP32: torch.float32,
    Precision.BF16: torch.bfloat16,
    Precision.FP16: torch.float16,
}
STORED = [torch.float32, torch.bfloat16, torch.float16]


def cast(value: torch.Tensor, dtype: torch.dtype | None) -> torch.Tensor:
    return value if dtype is None or not value.is_floating_point() else value.to(dtype)


def loaded_state(module: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: value for name, value in module.state_dict().items() if not value.is_meta}


@pytest.mark.parametrize("staging", [8192, 1 << 20], ids=["rows-span-chunks", "one-chunk"])
@pytest.mark.parametrize("precision", [None, *FLOATS])
@pytest.mark.parametrize("dtype", STORED)
def test_values_are_those_of_safetensors(
    tmp_path: Path, dtype: torch.dtype, precision: Precision | None, staging: int
) -> None:
    saved = save(tmp_path, dtype)
    module = on_meta()
    with Loader(saved.folder, staging_bytes=staging) as loader:
        for part in saved.parts:
            saved.start(loader, module, part, precision=precision).wait()
    wanted = FLOATS[precision] if precision else None
    state = module.state_dict()
    for name, value in saved.values.items():
        expected = cast(value, wanted)
        assert state[name].dtype == expected.dtype
        assert torch.equal(state[name], expected), name
    assert module.head.weight is module.embed.weight
    assert not any(parameter.requires_grad for parameter in module.parameters())
    assert torch.equal(module.text.own, torch.arange(3.0))


@pytest.mark.parametrize("staging", [8192, 1 << 20], ids=["rows-span-chunks", "one-chunk"])
@pytest.mark.parametrize("precision", [Precision.INT8, Precision.INT4])
@pytest.mark.parametrize("dtype", STORED)
def test_quantized_as_from_the_whole_matrix(
    tmp_path: Path, dtype: torch.dtype, precision: Precision, staging: int
) -> None:
    saved = save(tmp_path, dtype)
    module = on_meta()
    with Loader(saved.folder, staging_bytes=staging) as loader:
        saved.start(loader, module, "text", precision=precision).wait()
    layer = module.text.up
    assert isinstance(layer, QuantizedLinear)
    reference = QuantizedLinear.empty(*saved.values["text.up.weight"].shape, True, precision,
                                      torch.bfloat16)  # fmt: skip
    reference.fill(0, saved.values["text.up.weight"])
    for name, value in reference.named_buffers():
        assert torch.equal(value, layer.get_buffer(name)), name
    assert torch.equal(layer.bias, saved.values["text.up.bias"].bfloat16())
    assert module.text.norm.running_var.dtype == torch.bfloat16
    assert module.text.norm.num_batches_tracked.dtype == torch.int64
    # 700 inputs are no multiple of 64; tied embeddings are no linear layer of their own.
    assert isinstance(module.text.down, QuantizedLinear) == (precision is Precision.INT8)
    assert type(module.head) is torch.nn.Linear
    assert torch.equal(module.embed.weight, saved.values["embed.weight"].bfloat16())
    x = torch.randn(2, 256).bfloat16()
    reference.bias = torch.nn.Parameter(layer.bias.detach(), requires_grad=False)
    assert torch.equal(layer(x), reference(x))


def test_compute_is_the_type_of_what_is_not_quantized(saved: Saved) -> None:
    module = on_meta()
    with Loader(saved.folder) as loader:
        saved.start(loader, module, "text", precision=Precision.INT8, compute=Precision.FP32).wait()
        with pytest.raises(ConfigError, match="compute"):
            saved.start(loader, on_meta(), "text", precision=None, compute=Precision.INT8)
    assert module.text.up.bias.dtype == torch.float32
    assert module.text.up(torch.ones(1, 256)).dtype == torch.float32


def test_components_load_beside_each_other_in_their_own_precision(saved: Saved) -> None:
    module = on_meta()
    seen: list[LoadProgress] = []
    ledger = Ledger({"host": 10**9})
    with ReaderPool() as readers:
        with Loader(
            saved.folder, ledger=ledger, readers=readers, on_progress=seen.append
        ) as loader:
            text = saved.start(loader, module, "text", precision=Precision.FP32)
            vision = saved.start(loader, module, "vision", precision=Precision.INT8)
            text.wait()
            vision.wait()
        assert text.done
        assert readers.read(saved.shards[0], 0, torch.empty(8, dtype=torch.uint8)).result() is None
    assert module.text.up.weight.dtype == torch.float32
    assert isinstance(module.vision.up, QuantizedLinear)
    for loading in (text, vision):
        mine = [progress for progress in seen if progress.component == loading.component]
        assert [progress.finished for progress in mine] == [False] * (len(mine) - 1) + [True]
        done = [progress.done_bytes for progress in mine]
        assert done == sorted(done)
        assert done[-1] == mine[-1].total_bytes > 0
    assert ledger.used("host") == text.nbytes + vision.nbytes
    assert ledger.state("host").by_kind["staging"] == 0


def test_a_component_that_is_not_started_stays_on_meta_until_it_is(saved: Saved) -> None:
    module = on_meta()
    with Loader(saved.folder) as loader:
        saved.start(loader, module, "text").wait()
        assert all(parameter.is_meta for parameter in module.vision.parameters())
        assert not any(parameter.is_meta for parameter in module.text.parameters())
        saved.start(loader, module, "vision").wait()
    assert not any(tensor.is_meta for tensor in module.state_dict().values())


@pytest.mark.parametrize("precision", [None, Precision.FP32, Precision.INT8])
def test_skipped_tensors_are_left_alone(saved: Saved, precision: Precision | None) -> None:
    module = on_meta()
    with Loader(saved.folder) as loader:
        saved.start(
            loader, module, "text", precision=precision, skip={"text.up.weight", "text.up.bias"}
        ).wait()
    assert module.text.up.weight.is_meta
    assert type(module.text.up) is torch.nn.Linear
    assert not module.text.down.weight.is_meta if precision is None else True


def test_stored_as_wanted_is_read_in_place(saved: Saved) -> None:
    """No copy: neighbours in the file are neighbours in memory, at the file's distance."""
    tensors = {tensor.name: tensor for tensor in saved.parts["text"].tensors}
    module = on_meta()
    with Loader(saved.folder) as loader:
        saved.start(loader, module, "text").wait()
    weight = module.text.up.weight
    assert weight.data_ptr() % PAGE == tensors["text.up.weight"].offset % PAGE
    same = [
        name
        for name, tensor in tensors.items()
        if tensor.file == tensors["text.up.weight"].file
        and module.state_dict()[name].untyped_storage().data_ptr()
        == weight.untyped_storage().data_ptr()
    ]
    assert len(same) > 1


def test_the_ledger_holds_what_is_loaded_and_two_chunks_more(saved: Saved) -> None:
    ledger = Ledger({"host": 10**9})
    part = saved.parts["text"]
    module = on_meta()
    with Loader(saved.folder, ledger=ledger, staging_bytes=65536) as loader:
        loading = saved.start(loader, module, "text", precision=Precision.FP32)
        loading.wait()
    needed = part.bytes_at(Precision.FP32)
    assert needed <= loading.nbytes <= needed + 64 * 1024
    assert ledger.state("host").peak == loading.nbytes + 2 * 65536
    loading.unload()
    loading.unload()
    assert ledger.used("host") == 0
    assert all(parameter.is_meta for parameter in module.parameters())


def test_what_no_budget_has_room_for_is_refused_whole(saved: Saved) -> None:
    module = on_meta()
    for room in (1000, saved.parts["text"].bytes_at(Precision.FP32) + 100_000):
        ledger = Ledger({"host": room})
        with Loader(saved.folder, ledger=ledger) as loader, pytest.raises(BudgetExceeded):
            saved.start(loader, module, "text", precision=Precision.FP32)
        assert ledger.used("host") == 0
        assert all(parameter.is_meta for parameter in module.parameters())


def test_convert_brings_tensors_into_the_modules_layout(tmp_path: Path) -> None:
    saved = save(tmp_path)
    turned = {"text.up.weight", "text.norm.weight"}
    for path in saved.shards:
        values = {
            name: value.t().contiguous() if name == "text.up.weight" else value
            for name, value in saved.values.items()
            if name in {t.name for t in Checkpoint.at(tmp_path).tensors.values()
                        if t.file == path.name}
        }  # fmt: skip
        save_file(values, path)
    matrices = {tensor.name for tensor in saved.parts["text"].tensors if tensor.matrix}
    part = ComponentSpec(
        "text",
        tuple(
            replace(tensor, matrix=tensor.name in matrices)
            for tensor in Checkpoint.at(tmp_path).tensors.values()
            if not tensor.name.startswith("vision")
        ),
    )

    def convert(name: str, stored: torch.Tensor) -> torch.Tensor:
        if name not in turned:
            return stored
        return stored.t() if stored.ndim == 2 else stored + 1

    for precision in (None, Precision.FP32, Precision.INT8):
        module = on_meta()
        with Loader(tmp_path, staging_bytes=8192) as loader:
            loader.start(module, part, saved.sources, precision=precision, convert=convert).wait()
        expected = saved.values["text.up.weight"]
        if precision is Precision.INT8:
            reference = QuantizedLinear.empty(*expected.shape, False, precision, torch.bfloat16)
            reference.fill(0, expected)
            assert torch.equal(module.text.up.dequantized(), reference.dequantized())
        else:
            assert torch.equal(module.text.up.weight, expected.to(module.text.up.weight.dtype))
        assert torch.equal(module.text.norm.weight.float(),
                           (saved.values["text.norm.weight"] + 1).float())  # fmt: skip


def test_empty_and_oddly_placed_tensors(tmp_path: Path) -> None:
    """A header of odd length puts numbers at odd offsets."""
    import json
    import struct

    values = torch.arange(40, dtype=torch.float32).view(8, 5)
    header = {
        "weight": {"dtype": "F32", "shape": [8, 5], "data_offsets": [0, 160]},
        "bias": {"dtype": "F32", "shape": [0], "data_offsets": [160, 160]},
    }
    text = json.dumps(header).encode()
    text += b" " * ((1 - len(text)) % 2)
    raw = struct.pack("<Q", len(text)) + text + values.numpy().tobytes()
    (tmp_path / "model.safetensors").write_bytes(raw)
    (tmp_path / "config.json").write_text("{}")
    tensors = Checkpoint.at(tmp_path).tensors
    assert tensors["weight"].offset % 2 == 1
    module = torch.nn.Module()
    module.weight = torch.nn.Parameter(torch.empty(8, 5, device="meta"))
    module.bias = torch.nn.Parameter(torch.empty(0, device="meta"))
    with Loader(tmp_path) as loader:
        part = ComponentSpec("all", tuple(tensors.values()))
        loader.start(module, part, {name: name for name in tensors}, precision=None).wait()
    assert torch.equal(module.weight, values)
    assert module.bias.shape == (0,)
    assert not module.bias.is_meta


def test_inference_mode_is_no_hindrance(saved: Saved) -> None:
    module = on_meta()
    with torch.inference_mode(), Loader(saved.folder, staging_bytes=8192) as loader:
        saved.start(loader, module, "text", precision=Precision.INT8).wait()
    assert not module.text.up.weight_q.is_inference()


def test_wrong_shapes_names_and_files_are_refused_at_once(own: Saved) -> None:
    ledger = Ledger({"host": 10**9})
    with Loader(own.folder, ledger=ledger) as loader:
        module = on_meta()
        module.text.up.weight = torch.nn.Parameter(torch.empty(5, 5, device="meta"))
        with pytest.raises(InputError, match=r"text\.up\.weight .* wants \(5, 5\)"):
            own.start(loader, module, "text")
        with pytest.raises(InputError, match="no parameter nothing"):
            loader.start(
                on_meta(), own.parts["text"], {"nothing": "text.up.weight"}, precision=None
            )
        for path in own.shards:
            path.write_bytes(path.read_bytes()[:4096])
        with pytest.raises(BrokenFile, match="cut short"):
            own.start(loader, on_meta(), "text")
        own.shards[0].unlink()
        with pytest.raises(SourceNotFound):
            own.start(loader, on_meta(), "text")
    assert ledger.used("host") == 0
