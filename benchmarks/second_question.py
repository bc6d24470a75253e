"""How soon a second question about the same picture is answered, with its features kept.

A Qwen3-VL of real shape with random weights, in one process. For each way the time from the
request (words and a decoded picture) to the first token of the second question:

- ``plain``: transformers' own ``generate`` over the same module; the tower runs again.
- ``features``: features come from the cache; the prompt is computed whole.

Both prepare the pixels anew; ``features`` also hashes them. Ways take turns within each round; the
median over rounds is reported, and the median of each round's ratio. Answers must be the same.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np

ROUNDS: Final = 5
#: Pixels of a side; a screen or a photograph as such models are given it.
SIDE: Final = 1024
_FIRST: Final = "What is in the picture?"
_SECOND: Final = "How many of them are there, and where do they stand?"
_KEPT: Final = 1 << 30


def add_arguments(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("second question")
    group.add_argument("--second-question-rounds", type=int, default=ROUNDS)
    group.add_argument("--second-question-shape", default="0.5b", help="of qwen3-vl")
    group.add_argument("--second-question-side", type=int, default=SIDE, help="pixels")


def run(options: argparse.Namespace) -> Mapping[str, object]:
    from benchmarks.checkpoints import make

    shape = "tiny" if options.fast else options.second_question_shape
    rounds = 1 if options.fast else options.second_question_rounds
    with tempfile.TemporaryDirectory() as name:
        folder = make("qwen3-vl", Path(name) / "model", shape)
        return {"shape": shape} | _measure(folder, rounds, options.second_question_side)


def _measure(folder: Path, rounds: int, side: int) -> dict[str, object]:
    import octavo
    from octavo.engine.features import FeatureCache
    from octavo.engine.features_mark import mark_of
    from octavo.memory import MemoryManager
    from octavo.models.checkpoint import Checkpoint

    with (
        octavo.load(str(folder), device="cpu") as model,
        MemoryManager(device=_KEPT, level="minimal", on="cpu") as memory,
    ):
        start = time.perf_counter()
        mark = mark_of(Checkpoint.at(folder), model.family, model.module)
        marked_s = time.perf_counter() - start
        asking = _Asking(model, FeatureCache(memory), mark, side)
        asking.features(_FIRST)
        ways: dict[str, Callable[[str], Any]] = {
            "plain": asking.plain,
            "features": asking.features,
        }
        taken: dict[str, list[float]] = {way: [] for way in ways}
        for number in range(rounds):
            answers = []
            for way in ways if number % 2 == 0 else reversed(list(ways)):
                start = time.perf_counter()
                answers.append(ways[way](_SECOND))
                taken[way].append(time.perf_counter() - start)
                print(f"{number + 1}/{rounds} {way:>9}: {taken[way][-1]:.3f} s")
            if answers[0] != answers[1]:
                raise RuntimeError(f"answers differ: {answers[0]} and {answers[1]}")
        stats = asking.cache.stats
        if (stats.hits, stats.misses) != (rounds, 1):
            raise RuntimeError(f"{stats.hits} hits and {stats.misses} misses in {rounds} rounds")
        prompt_tokens, media_tokens = asking.tokens
    sooner = [a / b for a, b in zip(taken["plain"], taken["features"], strict=True)]
    found = {
        "rounds": rounds,
        "side": side,
        "prompt_tokens": prompt_tokens,
        "media_tokens": media_tokens,
        "feature_bytes": stats.put_bytes,
        "mark_once_s": round(marked_s, 3),
        "medians_s": {way: round(statistics.median(each), 4) for way, each in taken.items()},
        "sooner": round(statistics.median(sooner), 2),
        "sooner_by_round": [round(one, 2) for one in sooner],
    }
    print(found)
    return found


class _Asking:
    """One picture and any words to a first token, either way."""

    def __init__(self, model: Any, cache: Any, mark: Any, side: int) -> None:
        self.model = model
        self.cache = cache
        self.mark = mark
        drawn = np.random.default_rng(0).integers(0, 255, (side // 8, side // 8, 3), dtype=np.uint8)
        self.picture = drawn.repeat(8, 0).repeat(8, 1)
        self.tokens = (0, 0)

    def plain(self, words: str) -> Any:
        model = self.model
        prepared = self._prepared(words)
        return model.family.generate(model.module, model.processor, prepared, **_first_token())

    def features(self, words: str) -> Any:
        from octavo.engine.features_answer import answer_with_features

        model = self.model
        prepared = self._prepared(words)
        return answer_with_features(
            model.family, model.module, model.processor, prepared, self.cache, self.mark,
            **_first_token(),
        )  # fmt: skip

    def _prepared(self, words: str) -> Any:
        from octavo.requests import Part, Request

        request = Request.of(Part.image(self.picture), words)
        prepared = self.model.processor.prepare(request, _Held())
        self.tokens = (prepared.prompt_tokens, prepared.media_tokens)
        return prepared


class _Held:
    """Hands out pictures that are arrays already."""

    def picture(self, part: Any) -> Any:
        return part.value


def _first_token() -> dict[str, Any]:
    from octavo.models.family import Guard
    from octavo.requests import Sampling

    return {"max_new_tokens": 1, "sampling": Sampling(), "guard": Guard()}
