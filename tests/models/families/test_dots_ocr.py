"""dots.ocr against a float64 version written from its description, and against Qwen2 itself."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from safetensors.torch import load_file  # noqa: E402

from octavo.errors import InputError  # noqa: E402
from octavo.models.checkpoint import Checkpoint  # noqa: E402
from octavo.models.families.dots_ocr import DotsOCR  # noqa: E402
from octavo.models.family import Guard  # noqa: E402
from octavo.models.native.dots_ocr import VisionSettings, VisionTower  # noqa: E402
from octavo.requests import InputMode, Message, Part, Request, Sampling  # noqa: E402

Tiny = Callable[[str], Path]


def _loaded(folder: Path) -> tuple[DotsOCR, Checkpoint, Any]:
    family, checkpoint = DotsOCR(), Checkpoint.at(folder)
    module = family.build(checkpoint)
    stored = load_file(folder / "model.safetensors")
    sources = family.sources(checkpoint, module)
    module.load_state_dict({name: stored[key] for name, key in sources.items()}, assign=True)
    return family, checkpoint, module


def _rms(x: Any, weight: Any, eps: float) -> Any:
    return x / np.sqrt((x * x).mean(-1, keepdims=True) + eps) * weight


def _tower64(weights: dict[str, Any], pixels: Any, grids: Any, heads: int) -> Any:
    """The tower in float64, patch by patch and picture by picture."""
    w = {name: tensor.double().numpy() for name, tensor in weights.items()}
    x = pixels @ w["patch_embed.patchifier.proj.weight"].reshape(-1, pixels.shape[1]).T
    x = _rms(
        x + w["patch_embed.patchifier.proj.bias"], w["patch_embed.patchifier.norm.weight"], 1e-5
    )
    width = x.shape[1]
    head = width // heads
    angles = []
    for _, high, wide in grids:
        for top in range(0, high, 2):
            for left in range(0, wide, 2):
                for row, column in ((0, 0), (0, 1), (1, 0), (1, 1)):
                    turn = [1 / 10_000 ** (2 * n / (head // 2)) for n in range(head // 4)]
                    angle = [(top + row) * f for f in turn] + [(left + column) * f for f in turn]
                    angles.append(angle + angle)
    cos, sin = np.cos(angles), np.sin(angles)
    lengths = [high * wide for _, high, wide in grids]
    number = 0
    while f"blocks.{number}.norm1.weight" in w:
        at = f"blocks.{number}."
        y = _rms(x, w[at + "norm1.weight"], 1e-5) @ w[at + "attn.qkv.weight"].T
        seen = np.zeros_like(x)
        for h in range(heads):
            q, k, v = (
                y[:, part * width + h * head : part * width + (h + 1) * head] for part in range(3)
            )
            q, k = (
                z * cos + np.concatenate((-z[:, head // 2 :], z[:, : head // 2]), 1) * sin
                for z in (q, k)
            )
            start = 0
            for length in lengths:
                rows = slice(start, start + length)
                scores = q[rows] @ k[rows].T / math.sqrt(head)
                shares = np.exp(scores - scores.max(1, keepdims=True))
                shares /= shares.sum(1, keepdims=True)
                seen[rows, h * head : (h + 1) * head] = shares @ v[rows]
                start += length
        x = x + seen @ w[at + "attn.proj.weight"].T
        z = _rms(x, w[at + "norm2.weight"], 1e-5)
        gate = z @ w[at + "mlp.fc1.weight"].T
        x = (
            x
            + (gate / (1 + np.exp(-gate)) * (z @ w[at + "mlp.fc3.weight"].T))
            @ w[at + "mlp.fc2.weight"].T
        )
        number += 1
    x = _rms(x, w["post_trunk_norm.weight"], 1e-5)
    mean, spread = x.mean(-1, keepdims=True), x.var(-1, keepdims=True)
    x = (x - mean) / np.sqrt(spread + 1e-6) * w["merger.ln_q.weight"] + w["merger.ln_q.bias"]
    x = x.reshape(-1, 4 * width) @ w["merger.mlp.0.weight"].T + w["merger.mlp.0.bias"]
    x = x * 0.5 * (1 + np.vectorize(math.erf)(x / math.sqrt(2)))
    return x @ w["merger.mlp.2.weight"].T + w["merger.mlp.2.bias"]


@pytest.mark.parametrize(("dtype", "bound"), [("float64", 1e-6), ("float32", 1e-4)])
def test_the_tower_is_what_its_description_says(dtype: str, bound: float) -> None:
    torch.manual_seed(1)
    settings = VisionSettings(
        embed_dim=32, intermediate_size=48, num_hidden_layers=3, num_attention_heads=2
    )
    tower = VisionTower(settings, out_features=20)
    for parameter in tower.parameters():  # norms of 1 and small weights would hide mistakes
        torch.nn.init.normal_(parameter, std=0.4)
    grids = torch.tensor([[1, 4, 6], [1, 2, 2], [1, 6, 4]])
    pixels = torch.randn(int(grids.prod(1).sum()), 3 * 14 * 14, dtype=torch.float64)
    wanted = _tower64(tower.state_dict(), pixels.numpy(), grids.tolist(), 2)
    with torch.inference_mode():
        made = tower.to(getattr(torch, dtype))(pixels, grids).double().numpy()
    assert np.abs(made - wanted).max() / np.abs(wanted).max() < bound


def test_greedy_tokens_are_those_of_qwen2_fed_with_the_features(
    tiny: Tiny, held: Any, picture: Any
) -> None:
    from transformers import Qwen2ForCausalLM

    family, checkpoint, module = _loaded(tiny("dots.ocr"))
    processor = family.processor(checkpoint)
    request = Request.of(Part.image(picture), "read", Part.image(picture[:56, :84]), "and this")
    prepared = processor.prepare(request, held)
    made = family.generate(
        module, processor, prepared, max_new_tokens=12, sampling=Sampling(), guard=Guard()
    )
    plain = Qwen2ForCausalLM(module.config).eval()
    plain.load_state_dict(
        {k: v for k, v in module.state_dict().items() if not k.startswith("vision_tower.")}
    )
    ids = prepared.inputs["input_ids"]
    with torch.inference_mode():
        embeds = plain.get_input_embeddings()(ids).clone()
        features = module.vision_tower(
            prepared.inputs["pixel_values"], prepared.inputs["image_grid_thw"]
        )
        at = 0
        for place, token in enumerate(ids[0].tolist()):
            if token == module.config.image_token_id:
                embeds[0, place] = features[at]
                at += 1
        wanted = plain.generate(
            inputs_embeds=embeds,
            attention_mask=torch.ones_like(ids),
            max_new_tokens=12,
            do_sample=False,
        )
    assert at == len(features)
    assert list(made.tokens) == wanted[0].tolist()[: len(made.tokens)]
    assert len(made.tokens) == 12 or made.stopped


def test_the_prompt_and_the_count_of_tokens(tiny: Tiny, held: Any, picture: Any) -> None:
    family, checkpoint = DotsOCR(), Checkpoint.at(tiny("dots.ocr"))
    processor: Any = family.processor(checkpoint)
    request = Request.of(Part.image(picture), "read", system="be exact")
    prepared = processor.prepare(request, held)
    text = processor.tokenizer.decode(prepared.inputs["input_ids"][0])
    places = "<|imgpad|>" * (10 * 8 // 4)  # 140 x 112 pixels in patches of 14, four to a token
    assert text == (
        "<|system|>be exact<|endofsystem|>"
        f"<|user|><|img|>{places}<|endofimg|>read<|endofuser|><|assistant|>"
    )
    assert prepared.media_tokens == 20
    spec = family.describe(checkpoint)
    assert spec.vision is not None
    cost = spec.vision.picture.cost(140, 100)
    assert (cost.patches, cost.tokens) == (80, 22)  # with <|img|> and <|endofimg|>


def test_an_a4_page_at_200_dpi_is_4956_tokens(tiny: Tiny) -> None:
    spec = DotsOCR().describe(Checkpoint.at(tiny("dots.ocr")))
    assert spec.vision is not None
    cost = spec.vision.picture.cost(1654, 2339)
    assert (cost.width, cost.height, cost.patches // 4) == (1652, 2352, 4956)


def test_the_published_shape_has_the_published_size(tmp_path: Path) -> None:
    from benchmarks.checkpoints.dots_ocr import _sizes
    from transformers import Qwen2Config

    from octavo.models.native.dots_ocr import DotsOCRModel

    text, vision = _sizes("3b", 0)
    config: Any = Qwen2Config(**text)
    config.vision_config = vision
    with torch.device("meta"):
        module = DotsOCRModel(config)
    tower = sum(p.numel() for p in module.vision_tower.parameters())
    total = sum(p.numel() for p in module.parameters())
    assert round(tower / 1e9, 3) == 1.262
    assert round((total - tower) / 1e9, 3) == 1.777
    assert 2 * 28 * 2 * 128 * 2 == 28_672  # bytes of keys and values a token


def test_the_old_spelling_of_the_rotary_base_counts(tiny: Tiny) -> None:
    checkpoint = Checkpoint.at(tiny("dots.ocr"))
    assert "rope_parameters" not in checkpoint.config
    module: Any = DotsOCR().build(checkpoint)
    frequencies = module.model.rotary_emb.inv_freq
    wanted = 1.0 / 1e6 ** (torch.arange(0, 16, 2).double() / 16)
    assert torch.allclose(frequencies.double(), wanted, rtol=1e-6)


def test_words_alone_never_touch_the_tower(tiny: Tiny, held: Any) -> None:
    family, checkpoint, module = _loaded(tiny("dots.ocr"))
    processor = family.processor(checkpoint)
    prepared = processor.prepare(Request.of("hello"), held)
    whole = family.generate(
        module, processor, prepared, max_new_tokens=5, sampling=Sampling(), guard=Guard()
    )
    module.vision_tower.to("meta")
    again = family.generate(
        module, processor, prepared, max_new_tokens=5, sampling=Sampling(), guard=Guard()
    )
    assert again == whole
    assert family.components_for(InputMode.LANGUAGE) == {"language", "projector"}


def test_every_tensor_has_its_component(tiny: Tiny) -> None:
    spec = DotsOCR().describe(Checkpoint.at(tiny("dots.ocr")))
    sizes = {part.name: (len(part.tensors), len(part.layers)) for part in spec.components}
    assert sizes == {"vision": (18, 2), "projector": (6, 0), "language": (39, 3)}
    matrices = {t.name for part in spec.components for t in part.tensors if t.matrix}
    assert "vision_tower.blocks.0.attn.qkv.weight" in matrices
    assert "vision_tower.merger.mlp.0.weight" in matrices
    assert "model.embed_tokens.weight" not in matrices
    assert "vision_tower.patch_embed.patchifier.proj.weight" not in matrices


def test_save_and_load_again(tiny: Tiny, tmp_path: Path, held: Any, picture: Any) -> None:
    family, checkpoint, module = _loaded(tiny("dots.ocr"))
    prepared = family.processor(checkpoint).prepare(Request.of(Part.image(picture), "x"), held)
    for path in tiny("dots.ocr").iterdir():
        if path.suffix != ".safetensors":
            shutil.copy(path, tmp_path)
    from safetensors.torch import save_file

    save_file(
        {name: t.to(torch.bfloat16).clone() for name, t in module.state_dict().items()},
        tmp_path / "model.safetensors",
        metadata={"format": "pt"},
    )
    _, _, narrow = _loaded(tmp_path)
    inputs = dict(prepared.inputs)
    with torch.inference_mode():
        wanted = module(**inputs).logits
        made = narrow(**inputs).logits.float()
    assert narrow.dtype is torch.bfloat16
    assert (made - wanted).abs().max() < 0.05 * wanted.abs().max()


@pytest.mark.parametrize(
    ("request_", "words"),
    [
        (Request.of("look at <|imgpad|>"), "stands for a picture"),
        (Request.of(Part.audio(([0.0], 16000)), "hear"), "no audio"),
        (Request((Message("user", (Part.image(np.zeros((2, 900, 3), np.uint8)),)),)), "narrow"),
    ],
)
def test_what_it_does_not_take(tiny: Tiny, held: Any, request_: Request, words: str) -> None:
    processor = DotsOCR().processor(Checkpoint.at(tiny("dots.ocr")))
    with pytest.raises(InputError, match=words):
        processor.prepare(request_, held)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"vision_config": 3}, "not an object"),
        ({"vision_config": {"embed_dim": 30, "num_attention_heads": 4}}, "no dots.ocr"),
    ],
)
def test_a_configuration_that_is_none(
    tiny: Tiny, tmp_path: Path, change: dict[str, Any], words: str
) -> None:
    shutil.copytree(tiny("dots.ocr"), tmp_path, dirs_exist_ok=True)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | change))
    with pytest.raises(InputError, match=words):
        DotsOCR().build(Checkpoint.at(tmp_path))


def test_a_damaged_tokenizer(tiny: Tiny, tmp_path: Path) -> None:
    shutil.copytree(tiny("dots.ocr"), tmp_path, dirs_exist_ok=True)
    (tmp_path / "tokenizer.json").write_text("{")
    with pytest.raises(InputError, match=r"tokenizer\.json"):
        DotsOCR().processor(Checkpoint.at(tmp_path))
    (tmp_path / "tokenizer.json").unlink()
    with pytest.raises(InputError, match=r"tokenizer\.json"):
        DotsOCR().processor(Checkpoint.at(tmp_path))


def test_only_the_last_token_goes_through_the_head(tiny: Tiny, held: Any, picture: Any) -> None:
    family, checkpoint, module = _loaded(tiny("dots.ocr"))
    processor = family.processor(checkpoint)
    prepared = processor.prepare(Request.of(Part.image(picture), "read"), held)
    rows: list[int] = []
    module.lm_head.register_forward_hook(lambda _m, _i, out: rows.append(out.shape[1]))
    family.generate(
        module, processor, prepared, max_new_tokens=3, sampling=Sampling(), guard=Guard()
    )
    assert rows == [1] * len(rows)
