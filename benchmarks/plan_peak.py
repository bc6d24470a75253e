"""Predicted against measured peak memory, on random checkpoints of real shapes.

Each row is a process of its own: it counts the tokens of one request, plans for exactly that,
loads the model within the budget, answers, and compares the plan's highest phase with the
highest resident set that the kernel saw (``VmHWM``). Budgets are the bytes of the process
before a model is loaded and a share of what the wholly resident model adds to them; a budget that
nothing fits is recorded as refused.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from benchmarks.checkpoints import make
from octavo.requests import Frame, Part, Request, VideoSampling


@dataclass(frozen=True, slots=True)
class Case:
    """One checkpoint, how it is held, and what it is asked.

    Attributes:
        family, shape: of ``benchmarks.checkpoints``.
        precisions: by component; what is not named is held as stored.
        picture: width and height in pixels; None asks in words only.
        pictures, words, new: of the request.
        threads: that compute.
    """

    family: str
    shape: str
    precisions: Mapping[str, str]
    picture: tuple[int, int] | None = None
    pictures: int = 1
    words: int = 200
    new: int = 4
    threads: int = 2


CASES: Final = (
    Case("text", "0.2b", {}, words=1500),
    Case("text", "0.5b", {}, words=1500),
    Case("text", "0.5b", {"language": "fp32"}, words=700, threads=1),
    Case("text", "0.5b", {"language": "int8"}, words=700),
    Case("text", "1b", {}, words=400),
    Case("llava", "1b", {}, picture=(800, 600)),
    Case("llava", "1b", {"language": "int8"}, picture=(800, 600), pictures=3, threads=1),
    Case("qwen3-vl", "0.5b", {}, picture=(1024, 768)),
    Case("qwen3-vl", "0.5b", {"language": "fp32", "vision": "fp32"}, picture=(640, 640)),
    Case("qwen3-vl", "1b", {}, picture=(900, 1200)),
    Case("qwen2.5-vl", "3b", {}, picture=(560, 560), words=60),
    Case("dots.ocr", "1b", {}, picture=(827, 1169), words=30),
)
SHARES: Final = (1.0, 0.75, 0.5)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--checkpoints", type=Path, help="where to make and keep checkpoints")
    parser.add_argument("--checkpoint", action="append", help="FAMILY or FAMILY/SHAPE, of them all")


def run(options: argparse.Namespace) -> Mapping[str, object]:
    """Rows, and the largest error of those that ran."""
    only = ["text/0.2b"] if options.fast and not options.checkpoint else options.checkpoint
    found = []
    for row in rows(options.checkpoints, only):
        found.append(row)
        print(_line(row), flush=True)
    errors = [abs(row["error"]) for row in found if "error" in row]
    return {"rows": found, "largest_error": max(errors, default=None)}


def main() -> None:
    """``python -m benchmarks.plan_peak --one ...``: one row, in this process."""
    print(json.dumps(_measure(**json.loads(sys.argv[sys.argv.index("--one") + 1]))))


def rows(folder: Path | None = None, only: list[str] | None = None) -> Iterator[dict[str, Any]]:
    """A row a case and budget; checkpoints in ``folder`` are kept, others deleted."""
    wanted = [
        case
        for case in CASES
        if not only or case.family in only or f"{case.family}/{case.shape}" in only
    ]
    with tempfile.TemporaryDirectory() as own:
        root = folder or Path(own)
        for case in wanted:
            place = root / f"{case.family}-{case.shape}"
            if not place.exists():
                make(case.family, place, case.shape)
            whole = _process(case, place, None)
            yield whole
            for share in SHARES[1:] if "predicted" in whole else ():
                model_bytes = whole["predicted"] - whole["base"]
                yield _process(case, place, int(whole["base"] + model_bytes * share), share)
            later = wanted[wanted.index(case) + 1 :]
            again = any(case.family == n.family and case.shape == n.shape for n in later)
            if folder is None and not again:
                shutil.rmtree(place)


def _process(case: Case, place: Path, budget: int | None, share: float = 1.0) -> dict[str, Any]:
    asked = json.dumps({"folder": str(place), "case": asdict(case), "budget": budget})
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.plan_peak", "--one", asked],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "OMP_NUM_THREADS": str(case.threads), "HF_HUB_OFFLINE": "1"},
    )
    row = {"checkpoint": f"{case.family}/{case.shape}", **asdict(case), "share": share}
    if done.returncode:
        return row | {"failed": done.stderr.strip().splitlines()[-1:]}
    measured: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return row | measured


def _measure(folder: str, case: dict[str, Any], budget: int | None) -> dict[str, Any]:
    """In a fresh process."""
    import numpy as np

    import octavo
    from octavo.errors import BudgetExceeded
    from octavo.hardware.plan import Workload
    from octavo.models.checkpoint import Checkpoint
    from octavo.models.registry import family_of

    asked = Case(**case)
    noise = np.random.default_rng(0)
    wide, high = asked.picture or (0, 0)
    parts = [
        Part.image(noise.integers(0, 255, (high, wide, 3)).astype(np.uint8))
        for _ in range(asked.pictures if asked.picture else 0)
    ]
    words = Part.text("table " * asked.words)
    checkpoint = Checkpoint.at(folder)
    family = family_of(checkpoint)
    spec = family.describe(checkpoint)
    request = Request.of(*parts, words, max_new_tokens=asked.new)
    prepared = family.processor(checkpoint).prepare(request, _Arrays())
    workload = Workload(
        images=len(parts) or None,
        width=asked.picture[0] if asked.picture else None,
        height=asked.picture[1] if asked.picture else None,
        prompt=prepared.prompt_tokens - prepared.media_tokens,
        new=asked.new,
    )
    del prepared, parts
    gc.collect()
    try:
        model = octavo.load(
            folder,
            memory=budget or 1 << 40,
            device="cpu",
            workload=workload,
            llm_precision=asked.precisions.get("language"),
            vision_precision=asked.precisions.get("vision"),
        )
    except BudgetExceeded as refused:
        return {
            "budget": budget,
            "parameters": spec.parameters,
            "refused": f"{refused.what} ({refused.next_step})",
        }
    loaded = _status("VmHWM")
    Path("/proc/self/clear_refs").write_text("5")
    done = next(iter(model.generate([request])))
    if done.failure is not None:
        raise RuntimeError(done.failure.what)
    measured = max(_status("VmHWM"), loaded)
    plan = model.plan
    assert plan is not None
    return {
        "parameters": spec.parameters,
        "budget": budget,
        "prompt_tokens": done.usage.prompt_tokens,
        "planned_tokens": plan.prompt_tokens,
        "base": plan.base,
        "phases": {phase.name: phase.nbytes for phase in plan.phases},
        "streamed": {part.component: len(part.streamed) for part in plan.components},
        "predicted": plan.peak,
        "highest": plan.highest.name,
        "measured_load": loaded,
        "measured": measured,
        "error": plan.peak / measured - 1,
    }


class _Arrays:
    """Opens parts that hold arrays."""

    def picture(self, part: Part) -> Any:
        return part.value

    def sound(self, part: Part, rate: int) -> Any:
        raise NotImplementedError(f"no case has sound: {part.where} at {rate} Hz")

    def frames(self, part: Part, sampling: VideoSampling) -> Iterator[Frame]:
        raise NotImplementedError(f"no case has a film: {part.where}, {sampling}")


def _status(key: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{key}:"):
            return int(line.split()[1]) * 1024
    raise KeyError(key)


def _line(row: Mapping[str, Any]) -> str:
    head = f"{row['checkpoint']:16} {dict(row['precisions'])!s:34} {row['share']:4.0%}"
    if "measured" not in row:
        return f"{head} {row.get('refused') or row.get('failed')}"
    return (
        f"{head} predicted {row['predicted'] / 1e6:8.1f} in {row['highest']:8} "
        f"measured {row['measured'] / 1e6:8.1f} MB, error {row['error']:+.1%}, "
        f"streamed {row['streamed']}"
    )


if __name__ == "__main__":
    main()
