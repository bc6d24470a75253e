"""Writes ``qwen_films.json``: what transformers' own processors make of films.

They need torchvision, which the project does without. With a CPU build of torch, torchvision from
PyPI lacks two operators; declaring them is enough for its transforms:

    pip install --target FOLDER --no-deps torchvision==0.28.0
    PYTHONPATH=.:FOLDER python tests/golden/qwen_films.py
"""

from __future__ import annotations

import hashlib
import json
import re
import tempfile
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray

HERE: Final = Path(__file__).parent
FAMILIES: Final = ("qwen3-vl", "qwen2.5-vl")
#: Name → frames, height, width, frames a second, which frames of the film they are.
FILMS: Final[dict[str, tuple[int, int, float, list[int]]]] = {
    "even": (60, 80, 4.0, [0, 2, 4, 6, 8, 10]),
    "odd": (70, 50, 8.0, [0, 4, 8, 12, 16]),
    "large": (200, 320, 2.0, [0, 1, 2, 3, 4, 5, 6, 7]),
    "square": (300, 291, 2.0, [0, 1, 2, 3]),
    "thin": (12, 300, 2.0, [0, 1, 2, 3]),
}
EVERY: Final = 997
#: Values of ``max_video_tokens``.
CAPS: Final = (1, 6, 40, 768)


def frames(name: str) -> NDArray[np.uint8]:
    """Frames of a film: waves with noise, shape (f, h, w, 3)."""
    high, wide, _, numbers = FILMS[name]
    random = np.random.default_rng(high)
    time, down, right = np.meshgrid(numbers, np.arange(high), np.arange(wide), indexing="ij")
    waves = [np.sin(down / (5 + c) + right / 9 + time * (1 + c)) for c in range(3)]
    noise = random.integers(-20, 20, (len(numbers), high, wide, 3))
    made = 128 + 100 * np.stack(waves, axis=-1) + noise
    return made.clip(0, 255).astype(np.uint8)


def shortened(text: str) -> str:
    """``<|video_pad|>`` forty times as ``<|video_pad|>*40``."""
    return re.sub(
        r"(<\|(\w+_pad)\|>)(\1)*", lambda run: f"{run[1]}*{len(run[0]) // len(run[1])}", text
    )


def facts(values: NDArray[np.float32]) -> dict[str, Any]:
    """Enough of an array to know it again."""
    return {
        "shape": list(values.shape),
        "sum": float(values.astype(np.float64).sum()),
        "some": [float(value) for value in values.reshape(-1)[::EVERY]][:40],
        "sha256": hashlib.sha256(np.ascontiguousarray(values).tobytes()).hexdigest(),
    }


def _stock(family: str, folder: Path) -> dict[str, Any]:
    from transformers import AutoProcessor

    processor = AutoProcessor.from_pretrained(folder)
    found = {}
    for name, (_, _, rate, numbers) in FILMS.items():
        message = {"role": "user", "content": [{"type": "video"}, {"type": "text", "text": "what"}]}
        prompt = processor.apply_chat_template([message], add_generation_prompt=True)
        metadata = {"fps": rate, "total_num_frames": numbers[-1] + 1, "frames_indices": numbers}
        if len(numbers) > 1:
            metadata["total_num_frames"] = len(numbers) * (numbers[1] - numbers[0])
        made = processor(
            text=[prompt],
            videos=[frames(name)],
            video_metadata=[metadata],
            do_sample_frames=False,
            return_tensors="pt",
        )
        found[name] = {
            "prompt": shortened(processor.tokenizer.decode(made["input_ids"][0])),
            "kinds": int((made["mm_token_type_ids"] == 2).sum()),
            "grid": made["video_grid_thw"].tolist(),
            "pixels": facts(made["pixel_values_videos"].numpy()),
            "keys": sorted(made),
        }
        found[name]["capped"] = {
            str(tokens): _capped(processor.video_processor, name, tokens) for tokens in CAPS
        }
        if "second_per_grid_ts" in made:
            found[name]["pace"] = [float(value) for value in made["second_per_grid_ts"]]
    return {"family": family, "films": found}


def _capped(processor: Any, name: str, tokens: int) -> list[int]:
    """The grid with pixels held down to ``tokens``."""
    usual, processor.max_video_tokens = processor.max_video_tokens, tokens
    made = processor(
        [frames(name)], do_sample_frames=False, cap_pixels_per_frame=True, return_tensors="pt"
    )
    processor.max_video_tokens = usual
    grid: list[int] = made["video_grid_thw"][0].tolist()
    return grid


def main() -> None:
    library = torch.library.Library("torchvision", "DEF")
    for operator in ("nms", "qnms"):
        library.define(f"{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    import torchvision  # type: ignore[import-not-found]  # noqa: F401
    import transformers
    from benchmarks.checkpoints import make

    with tempfile.TemporaryDirectory() as folder:
        made = {
            family: _stock(family, make(family, Path(folder) / family))["films"]
            for family in FAMILIES
        }
    made["versions"] = {"transformers": transformers.__version__, "torch": torch.__version__}
    (HERE / "qwen_films.json").write_text(json.dumps(made) + "\n")


if __name__ == "__main__":
    main()
