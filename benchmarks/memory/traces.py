"""Accesses as programs with large models make them, drawn from a seed.

Sizes are bytes, costs seconds to make a value again, both of the order that a model of 7 to 32
billion parameters shows on one consumer GPU. The shape of each trace is in its docstring; the
seed changes sizes, costs, lengths and the order of what is not fixed.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from dataclasses import dataclass, field

from octavo.memory.trace import Access, Op

Maker = Callable[[random.Random, float], list[Access]]

#: Bytes a second from the disk, and of half-precision vision features per token.
_DISK = 2.5e9
_FEATURE_TOKEN = 3584 * 2
_MB = 10**6


def make(name: str, seed: int, scale: float = 1.0) -> list[Access]:
    """The trace ``name``, about ``scale`` times its usual length."""
    return TRACES[name](random.Random(f"{name}/{seed}"), scale)


def layer_scan(draw: random.Random, scale: float) -> list[Access]:
    """A model larger than its tier: embedding, 64 layers and head, once for every token."""
    steps = max(round(draw.randint(90, 130) * scale), 3)
    names = ["embedding", *(f"layer.{i}" for i in range(64)), "head"]
    nbytes = 975_000_000
    return [
        Access("get", name, nbytes, nbytes / _DISK, f"token {step}")
        for step in range(steps)
        for name in names
    ]


@dataclass
class _Session:
    """One conversation: its pictures, and the KV blocks of all turns so far."""

    name: str
    pictures: list[Access] = field(default_factory=list)
    blocks: list[Access] = field(default_factory=list)
    turns: int = 0


def chat(draw: random.Random, scale: float) -> list[Access]:
    """Conversations over pictures, up to eight in turn; they fall idle, some return, some end.

    A turn reads all KV blocks of its session, the features of the pictures that it speaks of, and
    writes new blocks. All share the blocks of the system prompt; some pictures are common ones.
    """
    trace: list[Access] = []
    block = 64 * 131_072
    system = [Access("get", f"system/{i}", block, 0.02) for i in range(6)]
    common = [_picture(draw, f"common/{i}") for i in range(12)]
    active: list[_Session] = []
    idle: list[_Session] = []
    for turn in range(round(340 * scale)):
        if not active or (len(active) < 8 and draw.random() < 0.18):
            if idle and draw.random() < 0.55:
                active.append(idle.pop(draw.randrange(len(idle))))
            else:
                active.append(_Session(f"session {turn}"))
        session = active[min(int(draw.expovariate(0.6)), len(active) - 1)]
        _turn(draw, session, system, common, trace)
        fate = draw.random()
        if fate < 0.14:
            active.remove(session)
            if fate < 0.11:
                idle.append(session)
            else:
                trace += [_again(kept, "delete", session.name) for kept in session.blocks]
        draw.shuffle(active)
    return trace


def _turn(
    draw: random.Random,
    session: _Session,
    system: list[Access],
    common: list[Access],
    trace: list[Access],
) -> None:
    name = session.name
    trace += [_again(kept, "get", name) for kept in (*system, *session.blocks)]
    arrived = []
    if session.turns == 0 or draw.random() < 0.2:
        arrived = [
            draw.choice(common)
            if draw.random() < 0.25
            else _picture(draw, f"{name}/picture {len(session.pictures)}/{i}")
            for i in range(draw.choice((1, 1, 2, 4)))
        ]
    spoken_of = [picture for picture in session.pictures if draw.random() < 0.5]
    trace += [_again(picture, "get", name) for picture in (*spoken_of, *arrived)]
    session.pictures += arrived
    for i in range(draw.randint(2, 6) + 3 * len(arrived)):
        # A later block takes longer: its tokens attend to all before them.
        seconds = 0.02 + 0.0004 * len(session.blocks)
        written = Access("put", f"{name}/kv {session.turns}.{i}", 64 * 131_072, seconds, name)
        session.blocks.append(written)
        trace.append(written)
    session.turns += 1


def _picture(draw: random.Random, name: str) -> Access:
    tokens = draw.choice((256, 576, 1024, 2048, 4096))
    seconds = 0.05 + tokens * 4e-4 * (1 + tokens / 4096)
    return Access("get", name, tokens * _FEATURE_TOKEN, round(seconds, 4))


def document_batch(draw: random.Random, scale: float) -> list[Access]:
    """Documents one after another: pages, crops and features, then a second pass for summaries.

    The prompt embeddings serve every page. A picture's crop is read for layout and for its
    caption, its features again in the second pass; later, questions return to a few documents.
    """
    trace: list[Access] = []
    prompts = [Access("get", f"prompt/{i}", 4 * _MB, 0.03) for i in range(6)]
    finished: list[list[Access]] = []
    for number in range(max(round(34 * scale), 2)):
        kept: list[Access] = []
        for page in range(draw.randint(4, 40)):
            kept += _page(draw, f"document {number}/page {page}", prompts, trace)
        for value in kept:
            trace.append(_again(value, "get", "second pass"))
            if value.key.endswith("summary"):
                trace += [_again(prompt, "get", "second pass") for prompt in prompts[:2]]
        finished.append(kept)
        if draw.random() < 0.5:
            asked = finished[int(len(finished) * draw.random() ** 0.4)]
            trace += [_again(value, "get", "question") for value in asked]
    return trace


def _page(
    draw: random.Random, name: str, prompts: list[Access], trace: list[Access]
) -> list[Access]:
    raster = Access("get", f"{name}/raster", draw.randint(6, 25) * _MB, 0.12, "first pass")
    trace.append(raster)
    kept = []
    for i in range(draw.choice((0, 0, 1, 1, 2, 4))):
        side = draw.uniform(200, 1600)
        crop = Access("get", f"{name}/crop {i}", round(3 * side * side), 0.02, "first pass")
        tokens = round((side / 28) ** 2)
        features = Access(
            "get", f"{name}/features {i}", tokens * _FEATURE_TOKEN, 0.05 + tokens * 4e-4
        )
        trace += [crop, raster, crop, features]
        kept.append(features)
    trace += [_again(prompt, "get", "first pass") for prompt in prompts]
    summary = Access("put", f"{name}/summary", draw.randint(8, 40) * 1000, 2.5, "first pass")
    trace.append(summary)
    return [*kept, summary]


def zipf_phases(draw: random.Random, scale: float) -> list[Access]:
    """Popularity by Zipf's law that changes from phase to phase, with scans mixed in."""
    count = 1500
    keys = [
        Access("get", f"value {i}", *_lognormal(draw, 2 * _MB, 1.1, 0.05, 0.9))
        for i in range(count)
    ]
    weights = [1 / (rank + 1) ** 0.9 for rank in range(count)]
    trace: list[Access] = []
    for phase in range(5):
        # A third of the keys changes places; the rest stays as popular as it was.
        moved = draw.sample(range(count), count // 3)
        for place, other in zip(moved, draw.sample(moved, len(moved)), strict=True):
            keys[place], keys[other] = keys[other], keys[place]
        for part in range(3):
            drawn = draw.choices(keys, weights, k=round(1000 * scale))
            trace += [_again(value, "get", f"phase {phase}") for value in drawn]
            first = draw.randrange(count - 250)
            scan = sorted(keys, key=lambda value: int(value.key.split()[1]))
            if part == 1:
                trace += [_again(value, "get", "scan") for value in scan[first : first + 250]]
    return trace


def loop_and_flood(draw: random.Random, scale: float) -> list[Access]:
    """A loop over values of very different size, three times flooded by values used once."""
    loop = [
        Access("get", f"stage {i}", *_lognormal(draw, 8 * _MB, 1.0, 0.1, 0.8)) for i in range(160)
    ]
    rounds = max(round(60 * scale), 4)
    floods = {rounds // 4, rounds // 2, (3 * rounds) // 4}
    trace: list[Access] = []
    for number in range(rounds):
        trace += [_again(value, "get", f"round {number}") for value in loop]
        if number in floods:
            trace += [
                Access("get", f"once {number}.{i}", *_lognormal(draw, 8 * _MB, 1.0, 0.1, 0.8))
                for i in range(150)
            ]
    return trace


def video_windows(draw: random.Random, scale: float) -> list[Access]:
    """Two long videos in overlapping windows of frames, in turn, with looks back at recent scenes.

    All frames are alike in size and cost, so only the time of use tells them apart.
    """
    frame = Access("get", "frame", 256 * _FEATURE_TOKEN, 0.11)
    trace: list[Access] = []
    starts = [0, 0]
    while len(trace) < 10_000 * scale:
        video = draw.randrange(2)
        for _ in range(draw.randint(2, 6)):
            first = starts[video] = starts[video] + 8
            window = list(range(first, first + 40))
            if draw.random() < 0.3:
                scene = max(first - int(draw.expovariate(1 / 60)), 0)
                window += range(scene, scene + 12)
            trace += [
                Access("get", f"video {video}/frame {i}", frame.nbytes, frame.cost, f"at {first}")
                for i in window
            ]
    return trace


def _lognormal(
    draw: random.Random, nbytes: float, spread: float, seconds: float, cost_spread: float
) -> tuple[int, float]:
    """Bytes and seconds around their medians, independent of each other."""
    size = max(round(nbytes * math.exp(draw.gauss(0, spread))), 1000)
    return size, round(seconds * math.exp(draw.gauss(0, cost_spread)), 5)


def _again(access: Access, op: Op, phase: str) -> Access:
    return Access(op, access.key, access.nbytes, access.cost, phase)


#: Every trace by name.
TRACES: dict[str, Maker] = {
    "layer scan": layer_scan,
    "chat": chat,
    "document batch": document_batch,
    "zipf phases": zipf_phases,
    "loop and flood": loop_and_flood,
    "video windows": video_windows,
}
