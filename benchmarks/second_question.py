"""How soon a second question about the same picture is answered.

A Qwen3-VL of real shape with random weights. Each round has a picture of its own, and the time
from the request (words and a decoded picture) to the first token is taken:

- ``transformers``: its own class and ``generate``; nothing is kept between questions.
- ``first``: Octavo has not seen the picture yet.
- ``features``: Octavo has seen it, but the words stand before the picture and are others: features
  come from the cache, and the whole prompt is computed.
- ``prefix``: the picture stands before the words: keys and values of all up to the words are there.

Octavo is asked through its public interface; transformers gets the tensors of the same processor,
and making them counts on both sides. Each way is asked in the order of its words: ``features`` and
the question of transformers that it is compared with put words first, the others the picture. Ways
take turns; medians over rounds are reported, and the median of each round's ratio. Answers to one
question must be the same. Counters must say that what should hit did, and that a picture with one
changed pixel did not; a changed setting or weight has another key.
"""

from __future__ import annotations

import argparse
import functools
import json
import os
import shutil
import statistics
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np

ROUNDS: Final = 3
#: Pixels wide and high: 2 080 tokens.
PAGE: Final = (1280, 1664)
_WORDS: Final = "What is the sum that stands at the end of table {}?"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("second question")
    group.add_argument("--second-question-rounds", type=int, default=ROUNDS)
    group.add_argument("--second-question-shape", default="0.5b", help="of qwen3-vl")
    group.add_argument("--second-question-page", default="x".join(map(str, PAGE)))


def run(options: argparse.Namespace) -> Mapping[str, object]:
    from benchmarks.checkpoints import make

    shape = "tiny" if options.fast else options.second_question_shape
    rounds = 1 if options.fast else options.second_question_rounds
    wide, high = (int(side) for side in options.second_question_page.split("x"))
    with tempfile.TemporaryDirectory() as name:
        folder = make("qwen3-vl", Path(name) / "model", shape)
        found = _measure(folder, shape, rounds, (wide, high))
    with tempfile.TemporaryDirectory() as name:
        keys = _keys(make("qwen3-vl", Path(name) / "model"), Path(name))
    whole = {"shape": shape, "page": [wide, high], **found, "keys": keys}
    print(whole["sooner"])
    return whole


def _measure(folder: Path, shape: str, rounds: int, page: tuple[int, int]) -> dict[str, Any]:
    import octavo

    taken: dict[str, list[float]] = {}
    with octavo.load(str(folder), device="cpu") as model:
        asking = _Asking(model, _theirs(folder, shape))
        asking.all(_page((512, 512), 99), taken)  # libraries warm up
        taken.clear()
        for number in range(rounds):
            asking.all(_page(page, number), taken)
            print(f"{number + 1}/{rounds}", {way: round(t[-1], 3) for way, t in taken.items()})
        counts = asking.counts
        tokens = asking.tokens
    against = {"features": "transformers, words first", "prefix": "transformers"}
    ratios = {
        way: [rival / own for rival, own in zip(taken[other], taken[way], strict=True)]
        for way, other in against.items()
    }
    ratios |= {
        f"{way} over first": [a / b for a, b in zip(taken["first"], taken[way], strict=True)]
        for way in against
    }
    return {
        "rounds": rounds,
        "prompt_tokens": tokens[0],
        "media_tokens": tokens[1],
        "medians_s": {way: round(statistics.median(each), 4) for way, each in taken.items()},
        "sooner": {way: round(statistics.median(each), 2) for way, each in ratios.items()},
        "sooner_by_round": {way: [round(one, 2) for one in each] for way, each in ratios.items()},
        "counts": counts,
    }


class _Asking:
    """A picture and words to a first token, every way."""

    def __init__(self, model: Any, theirs: Any) -> None:
        self.model, self.theirs = model, theirs
        self.tokens = (0, 0)
        self.counts: list[dict[str, Any]] = []
        self._asked = 0
        self._block = 0

    def all(self, page: Any, taken: dict[str, list[float]]) -> None:
        """One round: the time of every way is added to ``taken``."""
        first = self._words()
        self._timed(taken, "first", lambda: self._octavo(page, first))
        second, third = self._words(), self._words()
        for way, rival, parts in (
            ("features", "transformers, words first", (second, page)),
            ("prefix", "transformers", (page, third)),
        ):
            answer = self._timed(taken, rival, functools.partial(self._plain, *parts))
            told = self._timed(taken, way, functools.partial(self._octavo, *parts))
            self._check(way, told, page)
            if told["tokens"] != answer:
                raise RuntimeError(f"{way}: answers differ, {told['tokens']} and {answer}")
        changed = page.copy()
        changed[page.shape[0] // 2, page.shape[1] // 2, 1] ^= 255
        self._check("changed", self._octavo(changed, third), changed)

    def _words(self) -> str:
        self._asked += 1
        return _WORDS.format(self._asked)

    def _timed(self, taken: dict[str, list[float]], way: str, act: Any) -> Any:
        start = time.perf_counter()
        made = act()
        taken.setdefault(way, []).append(time.perf_counter() - start)
        return made

    def _octavo(self, *parts: Any) -> dict[str, Any]:
        before = self._stats()
        done = next(iter(self.model.generate([_request(*parts)]))).check()
        self.tokens = (done.usage.prompt_tokens, done.usage.media_tokens)
        after = self._stats()
        said = {name: after[name] - before[name] for name in after}
        return {"tokens": list(done.tokens), "media": done.usage.media_tokens, **said}

    def _stats(self) -> dict[str, int]:
        engine = self.model.stats().engine
        self._block = engine.kv_block_tokens
        names = ("feature_hits", "feature_misses", "prefix_tokens", "prompt_tokens")
        return {name: int(getattr(engine, name)) for name in names}

    def _plain(self, *parts: Any) -> list[int]:
        prepared = self.model.processor.prepare(_request(*parts), _Arrays())
        out_1t = self.theirs.generate(**prepared.inputs, max_new_tokens=1, do_sample=False)
        return [int(token) for token in out_1t[0, prepared.prompt_tokens :]]

    def _check(self, way: str, told: Mapping[str, Any], page: Any) -> None:
        """What a way must have hit, and what not."""
        seen, shared, media = told["feature_misses"], told["prefix_tokens"], told["media"]
        right = {
            "features": seen == 0 and shared < media,
            # Whole blocks are shared.
            "prefix": seen == 0 and shared > media - self._block,
            "changed": seen == 1 and shared < media,
        }[way]
        if not right:
            raise RuntimeError(f"{way}, {page.shape}: {told}")
        self.counts.append({"way": way, **{key: told[key] for key in self._stats()}})


def _keys(folder: Path, room: Path) -> dict[str, bool]:
    """Whether the key of a picture's features is another after each change; all must be."""
    from octavo.engine.features import FeatureKey
    from octavo.engine.features_mark import mark_of
    from octavo.engine.tower import tower_of
    from octavo.models.checkpoint import Checkpoint
    from octavo.models.registry import family_of

    def key(place: Path, page: Any) -> bytes:
        checkpoint = Checkpoint.at(place)
        family = family_of(checkpoint)
        module = family.build(checkpoint)
        arrays: Any = _Arrays()
        prepared = family.processor(checkpoint).prepare(_request(page, "x"), arrays)
        (medium,) = tower_of(family).media(module, prepared.inputs)
        return FeatureKey.of(medium, mark_of(checkpoint, family, module)).digest

    page = _page((96, 96), 0)
    own = key(folder, page)
    if key(folder, page.copy()) != own:
        raise RuntimeError("an equal picture has another key")
    nudged = page.copy()
    nudged[40, 40, 1] ^= 255
    found = {
        "pixel": key(folder, nudged) != own,
        "setting": key(_with_setting(folder, room / "setting"), page) != own,
        "revision": key(_with_weight(folder, room / "revision"), page) != own,
    }
    if not all(found.values()):
        raise RuntimeError(f"a change kept the key: {found}")
    return found


def _with_setting(folder: Path, to: Path) -> Path:
    shutil.copytree(folder, to)
    place = to / "preprocessor_config.json"
    settings = json.loads(place.read_text())
    settings["image_std"] = [0.51, 0.5, 0.5]
    place.write_text(json.dumps(settings))
    return to


def _with_weight(folder: Path, to: Path) -> Path:
    """One bit of the tower's last tensor."""
    from octavo.models.checkpoint import Checkpoint
    from octavo.models.registry import family_of

    shutil.copytree(folder, to)
    checkpoint = Checkpoint.at(to)
    family = family_of(checkpoint)
    tensors = checkpoint.tensors.values()
    tensor = [one for one in tensors if family.component_of(one.name) == "vision"][-1]
    with (to / tensor.file).open("r+b") as file:
        file.seek(tensor.offset)
        (byte,) = file.read(1)
        file.seek(tensor.offset)
        file.write(bytes([byte ^ 1]))
    return to


def _theirs(folder: Path, shape: str) -> Any:
    import torch
    from transformers import Qwen3VLForConditionalGeneration

    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    dtype = torch.float32 if shape == "tiny" else torch.bfloat16
    return Qwen3VLForConditionalGeneration.from_pretrained(folder, dtype=dtype).eval()


def _page(sides: tuple[int, int], seed: int) -> Any:
    wide, high = sides
    drawn = np.random.default_rng(seed).integers(0, 255, (high // 8, wide // 8, 3), dtype=np.uint8)
    return drawn.repeat(8, 0).repeat(8, 1)


def _request(*parts: Any) -> Any:
    from octavo.requests import Part, Request

    pieces = [part if isinstance(part, str) else Part.image(part) for part in parts]
    return Request.of(*pieces, max_new_tokens=1)


class _Arrays:
    """Hands out pictures that are arrays already."""

    def picture(self, part: Any) -> Any:
        return part.value
