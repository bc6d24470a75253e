"""A model of 8 B shape with random weights, when a device has room for a part of them.

A budget is that share of the weights, and all else that the planner counts for this request.
Torch's allocator is held to it in every way, each in a process of its own:

- ``octavo``: ``octavo.load(folder, memory=budget)``.
- ``accelerate, main memory`` and ``accelerate, disk``: ``device_map="auto"`` with the same share
  of the weights as ``max_memory`` and the rest in main memory, or in the checkpoint's own files.
- ``transformers``: all weights on the device.

The first token of a long prompt, then decode of a short one (the difference of two answers, of one
token and of more), then several requests at once.
"""

from __future__ import annotations

import gc
import os
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import torch

from benchmarks.checkpoints.common import save_random, tokenizer
from benchmarks.checkpoints.text import CHATML

Task = Mapping[str, Any]
#: Answers of prompts (numbers of words) with so many new tokens each.
Ask = Callable[[Sequence[int], int], list[list[int]]]
#: Llama-3.1-8B, 8.03 B parameters.
SHAPE: Final[Mapping[str, Any]] = {
    "num_hidden_layers": 32,
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "head_dim": 128,
    "vocab_size": 128256,
}
TINY: Final[Mapping[str, Any]] = {
    "num_hidden_layers": 4,
    "hidden_size": 256,
    "intermediate_size": 512,
    "num_attention_heads": 8,
    "num_key_value_heads": 2,
    "head_dim": 32,
    "vocab_size": 2000,
}
_SPECIALS: Final = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
_WORDS: Final = "the quick brown fox jumps over the lazy dog "
_SHORT: Final = 16
_SPARE: Final = 0.98  # the planner keeps 1 % free, and processes differ


def write_checkpoint(task: Task) -> dict[str, Any]:
    """Writes it, and says what it takes; for all other cases: the bytes of a budget."""
    from transformers import LlamaConfig, LlamaForCausalLM

    folder = Path(task["folder"])
    began = time.perf_counter()
    if not (folder / "tokenizer_config.json").exists():
        folder.mkdir(parents=True, exist_ok=True)
        room = shutil.disk_usage(folder).free
        words = tokenizer(_SPECIALS, eos_token="<|im_end|>", pad_token="<|endoftext|>")
        words.chat_template = CHATML
        ends = {"bos_token_id": words.pad_token_id, "eos_token_id": words.eos_token_id}
        config = LlamaConfig(
            **(TINY if task["quick"] else SHAPE),
            **ends,
            pad_token_id=words.pad_token_id,
            tie_word_embeddings=False,
            max_position_embeddings=8192,
        )
        with torch.device("meta"):
            module: Any = LlamaForCausalLM(config)
        wanted = 2 * sum(weight.numel() for weight in module.parameters())
        if room < wanted * 1.05:
            raise SystemExit(f"{room / 1e9:.0f} GB are free on the disk, not {wanted / 1e9:.0f}")
        save_random(module, folder)
        # Last, so that what is there is whole.
        words.save_pretrained(folder)
        os.sync()
    seconds = time.perf_counter() - began
    weights, others = _needs(task)
    return {
        "written_s": round(seconds, 1),
        "weights_bytes": weights,
        "others_bytes": others,
        "for_all": {"weights": weights, "others": others},
    }


def _sizes(task: Task) -> tuple[int, int, int]:
    """Words of the long prompt, new tokens, and requests at once."""
    return (24, 3, 2) if task["quick"] else (1024, 24 if task.get("share") == 1 else 6, 8)


def _workload(task: Task) -> Any:
    from octavo.hardware.plan import Workload

    words, new, batch = _sizes(task)
    # The chat's own words around the question are tokens too.
    return Workload(prompt=2 * words, new=new + 1, batch=batch)


def _needs(task: Task) -> tuple[int, int]:
    """Bytes of the weights, and all else that the planner counts at its highest."""
    import psutil

    from octavo.hardware.plan import plan
    from octavo.models.checkpoint import Checkpoint
    from octavo.models.registry import family_of

    checkpoint = Checkpoint.at(Path(task["folder"]))
    spec = family_of(checkpoint).describe(checkpoint)
    on_cpu = task["device"] == "cpu"
    found = plan(
        spec,
        _workload(task),
        budget=1 << 42,
        device=task["device"].partition(":")[0],
        base=int(psutil.Process().memory_info().rss) if on_cpu else None,
    )
    weights = sum(held.total_bytes for held in found.components)
    others = max(
        sum(line.nbytes for line in phase.lines if line.of is None) for phase in found.phases
    )
    return weights, others


def measured(task: Task) -> dict[str, Any]:
    """One way at one share of the weights."""
    weights = int(task["share"] * task["weights"])
    budget = int((weights + task["others"]) / _SPARE)
    task = {**task, "budget": budget, "weights_budget": weights}
    _cap(task)
    words, new, batch = _sizes(task)
    start = time.perf_counter()
    with _WAYS[str(task["way"])](task) as (ask, facts):
        found = {"budget": budget, "load_s": time.perf_counter() - start, **facts}
        ask([_SHORT], 2)  # kernels are compiled and chosen, lazy parts are there
        _, prefill_s = _taken(ask, [words], 1, task)
        answer, decode_s = _decode(ask, new, task)
        several = [_SHORT + 3 * number for number in range(batch)]
        answers, batch_s = _taken(ask, several, 1 + new, task)
    return {
        **found,
        "prefill_s": prefill_s,
        "decode_tokens_per_s": new / decode_s,
        "batch": batch,
        "batch_tokens_per_s": sum(map(len, answers)) / batch_s,
        "answer": answer,
        "peak_bytes": _peak(task),
    }


def _decode(ask: Ask, new: int, task: Task) -> tuple[list[int], float]:
    """The answer, and seconds of ``new`` tokens: so it is measured alike in all ways."""
    # Where weights are moved for each token, one run is long enough to be sure.
    repeats = 3 if task["quick"] or task["share"] == 1 else 1
    differences = []
    for _ in range(repeats):
        _, one_s = _taken(ask, [_SHORT], 1, task)
        (answer,), all_s = _taken(ask, [_SHORT], 1 + new, task)
        differences.append(all_s - one_s)
    middle = statistics.median(differences)
    if middle <= 0:
        raise RuntimeError(f"the machine is too busy: {new} tokens more took {middle:.3f} s more")
    return answer, middle


def _cap(task: Task) -> None:
    """Bounds torch's allocator; Octavo bounds it itself, before the device is first used.

    The device's own context is not in that bound; the planner counts it, so its room is left.
    """
    if task["device"] == "cpu" or task["way"] == "octavo":
        return
    total = torch.cuda.get_device_properties(torch.device(task["device"])).total_memory
    torch.cuda.set_per_process_memory_fraction(
        min(task["budget"] / total, 1.0), torch.device(task["device"])
    )


def _peak(task: Task) -> int | None:
    """The most that the allocator held of the device, what it kept for later included."""
    if task["device"] == "cpu":
        return None
    return int(torch.cuda.max_memory_reserved(torch.device(task["device"])))


def _taken(ask: Ask, prompts: Sequence[int], new: int, task: Task) -> tuple[list[list[int]], float]:
    start = time.perf_counter()
    answers = ask(prompts, new)
    if task["device"] != "cpu":
        torch.cuda.synchronize()
    taken = time.perf_counter() - start
    if any(len(answer) != new for answer in answers):
        raise RuntimeError(f"{[len(answer) for answer in answers]} tokens came, not {new} each")
    return answers, taken


def _words(count: int) -> str:
    return " ".join((_WORDS * (count // 9 + 1)).split()[:count])


@contextmanager
def _octavo(task: Task) -> Iterator[tuple[Ask, dict[str, Any]]]:
    import octavo
    from octavo.requests import Request

    with octavo.load(
        task["folder"], memory=task["budget"], device=task["device"], workload=_workload(task)
    ) as model:
        plan = model.plan
        assert plan is not None
        facts = {
            "planned_peak_bytes": plan.peak,
            "streamed_layers": {held.component: len(held.streamed) for held in plan.components},
        }

        def ask(prompts: Sequence[int], new: int) -> list[list[int]]:
            requests = [
                Request.of(_words(count), max_new_tokens=new, id=str(number))
                for number, count in enumerate(prompts)
            ]
            made = {done.request_id: done.check() for done in model.generate(requests)}
            return [list(made[request.id].tokens) for request in requests]

        yield ask, facts


@contextmanager
def _accelerate(task: Task) -> Iterator[tuple[Ask, dict[str, Any]]]:
    from transformers import AutoModelForCausalLM

    first: int | str = "cpu" if task["device"] == "cpu" else torch.device(task["device"]).index or 0
    limits: dict[int | str, int] = {first: task["weights_budget"]}
    if first != "cpu":
        limits["cpu"] = 1 << 40 if task["way"].endswith("memory") else 0
    with tempfile.TemporaryDirectory() as offload:
        module: Any = AutoModelForCausalLM.from_pretrained(
            task["folder"],
            dtype=torch.bfloat16,
            device_map="auto",
            max_memory=limits,
            offload_folder=offload,
        )
        places = [str(place) for place in module.hf_device_map.values()]
        facts = {"places": {place: places.count(place) for place in sorted(set(places))}}
        yield _transformers_ask(module, task), facts


@contextmanager
def _transformers(task: Task) -> Iterator[tuple[Ask, dict[str, Any]]]:
    from transformers import AutoModelForCausalLM

    module: Any = AutoModelForCausalLM.from_pretrained(
        task["folder"], dtype=torch.bfloat16, device_map={"": task["device"]}
    )
    yield _transformers_ask(module, task), {}
    del module
    gc.collect()


def _transformers_ask(module: Any, task: Task) -> Ask:
    from transformers import AutoTokenizer

    module.eval()
    words: Any = AutoTokenizer.from_pretrained(task["folder"], padding_side="left")

    def ask(prompts: Sequence[int], new: int) -> list[list[int]]:
        inputs = words.apply_chat_template(
            [[{"role": "user", "content": _words(count)}] for count in prompts],
            add_generation_prompt=True,
            padding=True,
            return_tensors="pt",
            return_dict=True,
        ).to(task["device"])
        with torch.inference_mode():
            made_bt = module.generate(**inputs, max_new_tokens=new, do_sample=False)
        return [row.tolist() for row in made_bt[:, inputs["input_ids"].shape[1] :]]

    return ask


_WAYS: Final[Mapping[str, Any]] = {
    "octavo": _octavo,
    "accelerate, main memory": _accelerate,
    "accelerate, disk": _accelerate,
    "transformers": _transformers,
}
