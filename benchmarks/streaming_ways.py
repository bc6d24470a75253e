"""The process that is measured: one way to answer within a budget.

``octavo`` loads with ``memory=``; ``accelerate`` gets ``max_memory`` for the weights and reads the
rest from the checkpoint's own safetensors; ``transformers`` maps all files and leaves it to the
page cache. Requests are words only, and answered greedily.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from benchmarks.streaming_process import disk_bytes, peak_bytes

_WORDS: Final = "the quick brown fox jumps over the lazy dog "
#: Answers of prompts (number of words each) with so many new tokens each.
Ask = Callable[[Sequence[int], int], list[list[int]]]


def words(count: int) -> str:
    several = (_WORDS * (count // 9 + 1)).split()
    return " ".join(several[:count])


def describe(task: Mapping[str, Any]) -> dict[str, Any]:
    """Bytes of the weights, and all else that the planner counts at its highest."""
    import octavo

    with octavo.load(task["folder"], workload=_workload(task), device="cpu", wait=False) as model:
        plan = model.plan
        assert plan is not None
        return {
            "weights": sum(held.total_bytes for held in plan.components),
            "others": max(
                sum(line.nbytes for line in phase.lines if line.of is None) for phase in plan.phases
            ),
        }


def raw(task: Mapping[str, Any]) -> dict[str, Any]:
    """The disk: all bytes with O_DIRECT into the same few huge pages, after ``settle``."""
    from benchmarks.cold_load import drop_cached, read_direct, settle

    folder = Path(task["folder"])
    settle(folder)
    drop_cached(folder)
    start = time.perf_counter()
    read_direct(folder)
    taken = time.perf_counter() - start
    nbytes = sum(path.stat().st_size for path in folder.glob("*.safetensors"))
    return {"disk_bytes_per_s": nbytes / taken}


@contextmanager
def octavo_way(task: Mapping[str, Any]) -> Iterator[tuple[Ask, dict[str, Any]]]:
    import octavo
    from octavo.requests import Request

    with octavo.load(
        task["folder"],
        memory=task["budget"],
        workload=_workload(task),
        device="cpu",
        **({"precision": task["precision"]} if "precision" in task else {}),
    ) as model:
        plan, ledger = model.plan, model.ledger
        assert plan is not None
        assert ledger is not None
        facts: dict[str, Any] = {
            "planned_peak_bytes": plan.peak,
            "streamed_layers": {held.component: len(held.streamed) for held in plan.components},
        }

        def ask(prompts: Sequence[int], new: int) -> list[list[int]]:
            requests = [
                Request.of(words(count), max_new_tokens=new, id=str(number))
                for number, count in enumerate(prompts)
            ]
            made = {done.request_id: done.check() for done in model.generate(requests)}
            facts["ledger_peak_bytes"] = ledger.state("host").peak
            return [list(made[request.id].tokens) for request in requests]

        yield ask, facts


@contextmanager
def accelerate_way(task: Mapping[str, Any]) -> Iterator[tuple[Ask, dict[str, Any]]]:
    from transformers import Qwen3VLForConditionalGeneration

    with tempfile.TemporaryDirectory() as offload:
        model: Any = Qwen3VLForConditionalGeneration.from_pretrained(
            task["folder"],
            dtype=task["dtype"],
            device_map="auto",
            max_memory={"cpu": task["weights_budget"]},
            offload_folder=offload,
        )
        places = list(model.hf_device_map.values())
        yield _transformers_ask(model, task["folder"]), {"on_disk": places.count("disk")}


@contextmanager
def transformers_way(task: Mapping[str, Any]) -> Iterator[tuple[Ask, dict[str, Any]]]:
    from transformers import Qwen3VLForConditionalGeneration

    model = Qwen3VLForConditionalGeneration.from_pretrained(task["folder"], dtype=task["dtype"])
    yield _transformers_ask(model, task["folder"]), {}


def _transformers_ask(model: Any, folder: str) -> Ask:
    import torch
    from transformers import AutoTokenizer

    model.eval()
    tokenizer = AutoTokenizer.from_pretrained(folder, padding_side="left")

    def ask(prompts: Sequence[int], new: int) -> list[list[int]]:
        turns = [[{"role": "user", "content": words(count)}] for count in prompts]
        inputs: Any = tokenizer.apply_chat_template(
            turns,
            add_generation_prompt=True,
            padding=True,
            return_tensors="pt",
            return_dict=True,
        )
        with torch.inference_mode():
            made_bt = model.generate(**inputs, max_new_tokens=new, do_sample=False)
        return [row.tolist() for row in made_bt[:, inputs["input_ids"].shape[1] :]]

    return ask


def _workload(task: Mapping[str, Any]) -> Any:
    from octavo.hardware.plan import Workload

    return Workload(prompt=task["prompt"], new=task["new"] + 1, batch=task.get("batch", 1))


def single(ask: Ask, task: Mapping[str, Any]) -> dict[str, Any]:
    """Prefill of a long prompt, then decode of a short one.

    Decode is the difference of two answers to the same prompt, of one token and of ``new`` more:
    so it is measured alike in all ways.
    """
    short, new = [task["short_words"]], task["new"]
    ask(short, 3)  # kernels are made, lazy parts are there, memory is touched
    _, prefill_s, prefill_bytes = _taken(ask, [task["long_words"]], 1)
    runs = []
    for _ in range(task["repeats"]):
        _, one_s, one_bytes = _taken(ask, short, 1)
        (tokens,), all_s, all_bytes = _taken(ask, short, 1 + new)
        if len(tokens) != 1 + new:
            raise RuntimeError(f"{len(tokens)} tokens came, not {1 + new}")
        runs.append({"s": (all_s - one_s) / new, "bytes": (all_bytes - one_bytes) / new})
    runs.sort(key=lambda run: run["s"])
    middle = runs[len(runs) // 2]
    return {
        "prefill_s": prefill_s,
        "prefill_bytes": prefill_bytes,
        "decode_tokens_per_s": 1 / middle["s"],
        "bytes_per_token": middle["bytes"],
        "answer": tokens,
    }


def batch(ask: Ask, task: Mapping[str, Any]) -> dict[str, Any]:
    """Tokens a second over all requests at once, prompts included; with ``one_by_one`` over the
    first few, each alone."""
    prompts, new = task["prompts"], task["new"]
    ask(prompts[:1], 1)
    if task.get("one_by_one"):
        few = prompts[: task["one_by_one"]]
        start, before = time.perf_counter(), disk_bytes()
        answers = [answer for count in few for answer in ask([count], new)]
        taken, nbytes = time.perf_counter() - start, disk_bytes() - before
    else:
        answers, taken, nbytes = _taken(ask, prompts, new)
    made = sum(map(len, answers))
    return {"tokens_per_s": made / taken, "tokens": made, "s": taken, "disk_bytes": nbytes,
            "answers": answers}  # fmt: skip


def _taken(ask: Ask, prompts: Sequence[int], new: int) -> tuple[list[list[int]], float, int]:
    start, before = time.perf_counter(), disk_bytes()
    answers = ask(prompts, new)
    return answers, time.perf_counter() - start, disk_bytes() - before


WAYS: Final[Mapping[str, Any]] = {
    "octavo": octavo_way,
    "accelerate": accelerate_way,
    "transformers": transformers_way,
}
_ALONE: Final = {"describe": describe, "raw": raw}
_MEASURES: Final = {"single": single, "batch": batch}


def main() -> None:
    task = json.loads(sys.stdin.read())
    if task["way"] in _ALONE:
        print(json.dumps(_ALONE[task["way"]](task)))
        return
    start = time.perf_counter()
    with WAYS[task["way"]](task) as (ask, facts):
        loaded_s = time.perf_counter() - start
        found = _MEASURES[task["measure"]](ask, task)
    print(json.dumps({"load_s": loaded_s, **facts, **found, "peak_bytes": peak_bytes()}))


if __name__ == "__main__":
    main()
