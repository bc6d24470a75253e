"""``octavo plan`` on a tiny checkpoint."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from .conftest import Program

LLAMA = {
    "model_type": "llama", "architectures": ["LlamaForCausalLM"], "hidden_size": 64,
    "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "vocab_size": 512, "max_position_embeddings": 4096,
    "tie_word_embeddings": True,
}  # fmt: skip
KINDS = {"q_proj": (64, 64), "k_proj": (32, 64), "v_proj": (32, 64), "o_proj": (64, 64)}
MLP = {"gate_proj": (128, 64), "up_proj": (128, 64), "down_proj": (64, 128)}


@pytest.fixture
def model(tmp_path: Path) -> str:
    """A Llama of two layers: its header is real, its numbers are zeros."""
    shapes: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (512, 64)}
    for layer in range(2):
        head = f"model.layers.{layer}"
        shapes |= {f"{head}.self_attn.{name}.weight": shape for name, shape in KINDS.items()}
        shapes |= {f"{head}.mlp.{name}.weight": shape for name, shape in MLP.items()}
        shapes |= {f"{head}.input_layernorm.weight": (64,)}
        shapes |= {f"{head}.post_attention_layernorm.weight": (64,)}
    shapes["model.norm.weight"] = (64,)
    header, offset = {}, 0
    for name, shape in shapes.items():
        nbytes = 2 * shape[0] * (shape[1] if len(shape) > 1 else 1)
        header[name] = {
            "dtype": "BF16",
            "shape": list(shape),
            "data_offsets": [offset, offset + nbytes],
        }
        offset += nbytes
    text = json.dumps(header).encode()
    folder = tmp_path / "llama"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(LLAMA))
    (folder / "model.safetensors").write_bytes(
        len(text).to_bytes(8, "little") + text + bytes(offset)
    )
    return str(folder)


def test_a_plan_in_words(program: Program, model: str) -> None:
    ended = program("plan", model, "--memory", "1GB", "--workload", "prompt=100,new=50")
    assert ended.code == 0, ended.err
    assert "prompt of 100 tokens, 50 new" in ended.out
    assert "language weights (bf16)" in ended.out
    assert ": fits," in ended.out


def test_a_plan_as_json_counts_the_weights(program: Program, model: str) -> None:
    ended = program(
        "plan", model, "--memory", "1GB", "--llm-precision", "fp32", "--json", "--device", "cpu"
    )
    facts = json.loads(ended.out)
    (held,) = facts["components"]
    stored = (Path(model) / "model.safetensors").stat().st_size
    assert held["precision"] == "fp32"
    assert abs(held["total_bytes"] - 2 * stored) < 10_000
    assert facts["peak"] <= facts["budget"] == 10**9


def test_what_is_free_here_is_the_default(program: Program, model: str) -> None:
    assert program("plan", model).code == 0


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--memory", "10MB"], "memory="),
        (["--memory", "much"], "not an amount of memory"),
        (["--workload", "pagse=2"], "did you mean pages?"),
        (["--workload", "pages=2"], "do not see"),
        (["--llm-precision", "int3"], "no precision 'int3'"),
        (["--device", "abacus"], "no device 'abacus'"),
        (["--device", "cuda"], "give --memory"),
    ],
)
def test_what_is_wrong_is_one_line(
    program: Program, model: str, options: list[str], words: str
) -> None:
    ended = program("plan", model, *options)
    assert ended.code == 2
    assert words in ended.err
    assert ended.err.count("\n") == 1


def test_a_folder_without_a_model(program: Program, tmp_path: Path) -> None:
    ended = program("plan", str(tmp_path), "--memory", "1GB")
    assert ended.code == 2
    assert "config.json" in ended.err
