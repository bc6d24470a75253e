"""Small models that answer unlike each other, many different requests, and what a process holds.

With the random weights of :mod:`benchmarks.checkpoints` a tiny model says the same word again and
again. Here matrices are eight times as large, so that every token of a prompt, and every pixel,
changes the answer: an answer that is right was computed from the right keys, values and features.
"""

from __future__ import annotations

import gc
import json
import random
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import psutil

from benchmarks.checkpoints import make
from octavo.requests import Part, Request, Sampling

if TYPE_CHECKING:
    from octavo.models.model import Model

FAMILIES: Final = ("text", "qwen3-vl")
GAIN: Final = 8.0
_WORDS: Final = "a photo of cat red chair table figure total invoice quick brown fox 7 9 is".split()


def checkpoint(family: str, folder: Path) -> Path:
    """A tiny one in float32 with large weights, written into ``folder``."""
    import torch
    from safetensors.torch import load_file, save_file

    if folder.exists():
        shutil.rmtree(folder)
    make(family, folder)
    weights = load_file(folder / "model.safetensors")
    large = {
        name: tensor.to(torch.float32) * (GAIN if tensor.ndim > 1 else 1.0)
        for name, tensor in weights.items()
    }
    save_file(large, folder / "model.safetensors", metadata={"format": "pt"})
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"dtype": "float32"}))
    return folder


@dataclass(frozen=True, slots=True)
class Drawn:
    """A question that can be asked again and again, each time as a new request.

    Attributes:
        words: of its text.
        new: tokens of the answer at most.
        side: pixels of its picture's shorter side; 0 has no picture.
        seed: of the words, the picture and, in every second one, of sampling.
    """

    words: int
    new: int
    side: int
    seed: int

    @classmethod
    def draw(
        cls, dice: random.Random, *, pictures: float, longest: int = 200, answer: int = 40
    ) -> Drawn:
        """Lengths are skewed: many are short, few are long.

        Args:
            pictures: the share of questions that have one.
            longest: words of a prompt.
            answer: tokens of the longest.
        """
        words = max(2, int(longest * dice.random() ** 3))
        side = dice.choice((64, 96, 160)) if dice.random() < pictures else 0
        return cls(words, max(2, int(answer * dice.random() ** 2)), side, dice.randrange(1 << 30))

    def request(self, name: str) -> Request:
        """With the id ``name``."""
        dice = random.Random(self.seed)
        said = " ".join(dice.choices(_WORDS, k=self.words))
        sampling = Sampling(repetition_penalty=1.2)
        if self.seed % 2:
            sampling = Sampling(temperature=0.8, top_p=0.95, seed=self.seed)
        parts = [Part.image(self.picture)] if self.side else []
        return Request.of(*parts, said, max_new_tokens=self.new, sampling=sampling, id=name)

    @property
    def picture(self) -> Any:
        """Noise in blocks, so that resizing leaves something of it."""
        noise = np.random.default_rng(self.seed)
        small = noise.integers(0, 255, (self.side // 8, self.side // 16, 3), dtype=np.uint8)
        return small.repeat(8, 0).repeat(8, 1)


@dataclass(frozen=True, slots=True)
class Held:
    """What a process holds after garbage was collected.

    Attributes:
        ledger: bytes by the model's own books.
        tensors, tensor_bytes: that Python knows of, views counted once.
        objects: of Python's.
        resident: bytes of the process.
    """

    ledger: int
    tensors: int
    tensor_bytes: int
    objects: int
    resident: int

    @classmethod
    def by(cls, model: Model) -> Held:
        gc.collect()
        everything = gc.get_objects()
        storages = _storages(everything)
        return cls(
            model.stats().ledger_bytes,
            len(storages),
            sum(storages.values()),
            len(everything),
            int(psutil.Process().memory_info().rss),
        )

    def since(self, before: Held) -> dict[str, int]:
        """What each figure grew by."""
        then = asdict(before)
        return {name: value - then[name] for name, value in asdict(self).items()}


def _storages(everything: Sequence[object]) -> dict[int, int]:
    """Bytes of the memory of all tensors, by its address."""
    import torch

    kinds = (torch.Tensor, torch.nn.Parameter)
    # By their type: asking lazy modules for their class would load them.
    tensors = [one for one in everything if type(one) in kinds]
    storages = [
        tensor.untyped_storage()
        for tensor in tensors
        if isinstance(tensor, torch.Tensor) and tensor.device.type != "meta"
    ]
    return {storage.data_ptr(): storage.nbytes() for storage in storages}
