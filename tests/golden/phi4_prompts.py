"""Makes ``phi4_prompts.json``: ids and greedy tokens of transformers' own Phi-4-multimodal, with
its own processor on torchvision, on the tiny checkpoint of ``benchmarks.checkpoints``.

``python -m tests.golden.phi4_prompts [--define-ops]``; see ``phi4_pictures.py`` for the option.
"""

from __future__ import annotations

import json
import sys
import tempfile
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tests.golden.phi4_pictures import drawn

NEW_TOKENS = 12
#: Contents of one message: words, or what kind of medium and which.
CASES: dict[str, list[Any]] = {
    "text": ["The quick brown fox"],
    "picture": [("image", 140, 100), "what is in this picture"],
    "two pictures": [("image", 500, 460), "table", ("image", 37, 500), "or figure?"],
    "sound": [("audio", 16000), "describe"],
    "two sounds": [("audio", 9000), ("audio", 16123), "total?"],
    "both": ["A", ("image", 900, 300), "and", ("audio", 12345), "invoice"],
}


def noise(samples: int) -> Any:
    """Sound of whole numbers, the same everywhere."""
    t = np.arange(samples, dtype=np.int64)
    return (((t * t * 31 + t * 7919) % 2003 - 1001) / 5000.0).astype(np.float32)


def loud(folder: Path) -> Path:
    """Scales matrices, so that answers hang on every part of the prompt: with small random weights
    a model repeats its last token."""
    from safetensors.torch import load_file, save_file

    path = folder / "model.safetensors"
    tensors = {
        name: value * 6 if value.ndim > 1 else value for name, value in load_file(path).items()
    }
    save_file(tensors, path, metadata={"format": "pt"})
    return folder


def runs(ids: list[int]) -> list[list[int]]:
    """Ids as pairs of id and how often it follows itself."""
    return [[token, len(list(same))] for token, same in groupby(ids)]


def main() -> None:
    if "--define-ops" in sys.argv:
        library = torch.library.Library("torchvision", "DEF")
        for name in ("nms", "qnms"):
            library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    import transformers
    from benchmarks.checkpoints import make
    from PIL import Image
    from transformers import (
        AutoTokenizer,
        Phi4MultimodalFeatureExtractor,
        Phi4MultimodalForCausalLM,
        Phi4MultimodalImageProcessor,
        Phi4MultimodalProcessor,
    )

    folder = loud(make("phi4-multimodal", Path(tempfile.mkdtemp())))
    processor = Phi4MultimodalProcessor(
        Phi4MultimodalImageProcessor.from_pretrained(folder),
        Phi4MultimodalFeatureExtractor.from_pretrained(folder),
        AutoTokenizer.from_pretrained(folder),
    )
    model = Phi4MultimodalForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    cases = {}
    for name, content in CASES.items():
        pictures = [Image.fromarray(drawn(*one[1:])) for one in content if one[0] == "image"]
        sounds = [noise(one[1]) for one in content if one[0] == "audio"]
        words = "".join(one if isinstance(one, str) else f"<|{one[0]}|>" for one in content)
        inputs = processor(
            text=f"<|user|>{words}<|end|><|assistant|>",
            images=pictures or None,
            audio=sounds or None,
            return_tensors="pt",
            **({"audio_kwargs": {"sampling_rate": 16000}} if sounds else {}),
        )
        inputs.pop("token_type_ids", None)
        given = inputs["input_ids"].shape[1]
        with torch.inference_mode():
            made = model.generate(**inputs, max_new_tokens=NEW_TOKENS, do_sample=False)
        cases[name] = {
            "prompt": runs(inputs["input_ids"][0].tolist()),
            "tokens": made[0, given:].tolist(),
        }
    found = {"torch": torch.__version__, "transformers": transformers.__version__, "cases": cases}
    Path(__file__).with_suffix(".json").write_text(json.dumps(found) + "\n")


if __name__ == "__main__":
    main()
