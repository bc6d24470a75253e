"""2 000 requests through one model: whether memory stays flat.

A tiny Qwen3-VL answers texts of all lengths and pictures in between, many at a time; some requests
are kept and continued, some batches are left half-way, some requests cannot be answered at all.
Every so many completions the process is measured with its garbage collected. ``slope`` is a
least-squares line over the samples after the first quarter, in bytes a request; ``drift`` is what
that line makes of all of them, as a share of the resident set. The ledger must not move at all.

What is reserved once but touched later is touched before: prompts that fill all blocks of keys and
values are asked first. Pictures come from a fixed set, so that the feature cache is full before the
first quarter is over.
"""

from __future__ import annotations

import argparse
import json
import random
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from benchmarks.many_requests import Drawn, Held, checkpoint

if TYPE_CHECKING:
    from octavo.models.model import Model
    from octavo.requests import Request

REQUESTS: Final = 2000
_SAMPLES: Final = 40
_PICTURES: Final = 0.2
_POOL: Final = 24
#: One in so many is kept and continued; one in so many asks for a picture that is not there.
_KEPT: Final = 50
_BROKEN: Final = 40
#: One batch in so many is left when half of its answers are there.
_LEFT: Final = 8
#: Share of the resident set that may be gained over the whole run and still be called flat.
FLAT: Final = 0.01


def add_arguments(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("long run")
    group.add_argument("--long-run-requests", type=int, default=REQUESTS)
    group.add_argument("--long-run-family", default="qwen3-vl")


def run(options: argparse.Namespace) -> Mapping[str, object]:
    import octavo

    count = 120 if options.fast else options.long_run_requests
    with tempfile.TemporaryDirectory() as name:
        folder = checkpoint(options.long_run_family, Path(name) / "model")
        with octavo.load(str(folder), device="cpu", precision="fp32") as model:
            found = _measure(model, count, pictures=options.long_run_family != "text")
    print(f"  {found['summary']}", flush=True)
    return found


def _measure(model: Model, count: int, *, pictures: bool) -> dict[str, Any]:
    dice = random.Random(0)
    seen = [
        replace(Drawn.draw(dice, pictures=1.0), words=dice.randint(2, 12)) for _ in range(_POOL)
    ]
    _fill(model)
    finishes: Counter[str] = Counter()
    samples: list[tuple[int, Held]] = []
    every = max(count // _SAMPLES, 1)
    start = time.perf_counter()
    done = 0
    while done < count:
        asked = list(_requests(dice, seen if pictures else [], done, min(every, count - done)))
        # Who stops iterating and lets go of the iterator cancels the rest.
        wanted = len(asked) // 2 if len(samples) % _LEFT == _LEFT - 1 else len(asked)
        for completion in islice(model.generate(asked), wanted):
            finishes[completion.finish] += 1
        finishes["left"] += len(asked) - wanted
        done += len(asked)
        for request in asked:
            if request.keep:
                _continue(model, request.id)
        samples.append((done, Held.by(model)))
        print(f"\r  {done}/{count}: {samples[-1][1].resident / 1e6:.1f} MB", end="", flush=True)
    print()
    seconds = time.perf_counter() - start
    return {
        "requests": count,
        "seconds": round(seconds, 1),
        "finishes": dict(finishes),
        "summary": _summary(samples[len(samples) // 4 :]),
        "samples": [{"requests": at} | asdict(held) for at, held in samples],
    }


def _fill(model: Model) -> None:
    """Touches every block of keys and values, with prompts that have nothing in common."""
    from octavo.requests import Request

    stats = model.stats().engine
    left = stats.kv_blocks * stats.kv_block_tokens * 5 // 4 if stats is not None else 0
    dice = random.Random(1)
    while left > 0:
        words = " ".join(str(dice.randrange(10**6)) for _ in range(100))
        (done,) = model.generate([Request.of(words, max_new_tokens=1)])
        left -= done.check().usage.prompt_tokens


def _requests(
    dice: random.Random, seen: Sequence[Drawn], first: int, count: int
) -> Iterator[Request]:
    from octavo.requests import Part, Request

    for number in range(first, first + count):
        name = f"request {number}"
        if seen and number % _BROKEN == _BROKEN - 1:
            yield Request.of(Part.image("no such picture.png"), "What is it?", id=name)
        elif seen and dice.random() < _PICTURES:
            yield replace(dice.choice(seen), new=dice.randint(2, 30)).request(name)
        else:
            request = Drawn.draw(dice, pictures=0).request(name)
            yield replace(request, keep=number % _KEPT == 0)


def _continue(model: Model, request_id: str) -> None:
    """A further budget for an answer that was cut, and an end to it; one that was not is let go."""
    from octavo.errors import ConfigError

    with suppress(ConfigError):  # it was complete, or cancelled
        model.extend(request_id, 4)
    model.forget(request_id)


def _summary(samples: Sequence[tuple[int, Held]]) -> dict[str, Any]:
    """What the figures do over these samples."""
    at = np.array([requests for requests, _ in samples], dtype=np.float64)
    span = at[-1] - at[0] if len(at) > 1 else 1.0
    found: dict[str, Any] = {}
    for name in ("ledger", "tensors", "tensor_bytes", "objects", "resident"):
        values = np.array([getattr(held, name) for _, held in samples], dtype=np.float64)
        slope = float(np.polyfit(at, values, 1)[0]) if len(at) > 1 else 0.0
        found[name] = {
            "slope": round(slope, 3),
            "drift": round(slope * span / values.mean(), 5),
            "spread": round(float(values.max() - values.min()) / values.mean(), 5),
        }
    flat = abs(found["resident"]["drift"]) <= FLAT and found["ledger"]["spread"] == 0
    return {**found, "flat": bool(flat)}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--fast", action="store_true")
    add_arguments(parser)
    print(json.dumps(run(parser.parse_args()), indent=1))
