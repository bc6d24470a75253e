"""The requests of :mod:`benchmarks.batching`, and the three ways in which they are answered."""

from __future__ import annotations

import json
import random
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import torch

from octavo.requests import Request

SHORTEST: Final = 200
LONGEST: Final = 4000
STATIC: Final = 8  # rows of a static batch
_APART: Final = 61  # characters between the beginnings of a page in two editions


@dataclass(frozen=True, slots=True)
class Page:
    """One request: its prompt as text and as ids, and how long its answer is."""

    request: Request
    ids: tuple[int, ...]
    new: int


@dataclass(slots=True)
class Answers:
    """What a way made of some pages.

    Attributes:
        seconds: from the first prompt to the last token.
        tokens: by number of the page, those of its answer.
        facts: what else the way has to say.
    """

    seconds: float
    tokens: Mapping[int, Sequence[int]]
    facts: Mapping[str, object] = field(default_factory=dict)

    @property
    def rate(self) -> float:
        """Tokens of answers a second; what was computed beyond an answer is none of it."""
        return sum(map(len, self.tokens.values())) / self.seconds


def lengths(count: int, shortest: int = SHORTEST, longest: int = LONGEST) -> list[int]:
    """Tokens of pages, prompt and answer together, in no order but always the same.

    Quantile ``u`` of a page is ``shortest * (longest / shortest) ** u ** 2``: of 200 to 4000, half
    are below 430 and a tenth is above 2200, as most pages are letters and columns of prose and a
    few are dense tables.
    """
    quantiles = [(number + 0.5) / count for number in range(count)]
    made = [round(shortest * (longest / shortest) ** (u * u)) for u in quantiles]
    random.Random(0).shuffle(made)
    return made


def pages(
    prepare: Any, count: int, share: float, longest: int = LONGEST, edition: int = 0
) -> list[Page]:
    """Pages of which the last ``share`` is asked for, of the reference manual that Python brings.

    Args:
        prepare: a request to ids of its prompt.
        edition: pages of two editions have the same lengths; no two of all begin alike, so that
            no way can use again what it computed for another page.
    """
    from pydoc_data.topics import topics

    text = "\n".join(topics[name] for name in sorted(topics))
    made = []
    for number, length in enumerate(lengths(count, min(SHORTEST, longest // 4), longest)):
        new = max(1, round(length * share))
        start = number * len(text) // count + _APART * edition
        request, ids = _cut(prepare, (text[start:] + text)[: 8 * length], length - new, new)
        made.append(Page(request, ids, new))
    return made


def _cut(prepare: Any, text: str, tokens: int, new: int) -> tuple[Request, tuple[int, ...]]:
    """A prompt of about so many tokens, template included."""
    for _ in range(4):
        request = Request.of(text, max_new_tokens=new)
        ids = prepare(request)
        if len(ids) <= 1.02 * tokens:
            break
        text = text[: max(1, int(len(text) * tokens / len(ids)))]
    return request, tuple(ids)


def endless(folder: Path) -> None:
    """A checkpoint whose answers end at ``max_new_tokens`` only, so that lengths are as planned."""
    for name in ("config.json", "generation_config.json", "tokenizer_config.json"):
        if (folder / name).is_file():
            values = json.loads((folder / name).read_text())
            values |= {"eos_token_id": None} if name != "tokenizer_config.json" else {}
            values.pop("eos_token", None)
            (folder / name).write_text(json.dumps(values))


def octavo_way(model: Any, asked: Mapping[int, Page]) -> Answers:
    """All at once, through the public interface."""
    numbers = {page.request.id: number for number, page in asked.items()}
    start = time.perf_counter()
    done = [
        completion.check() for completion in model.generate(page.request for page in asked.values())
    ]
    seconds = time.perf_counter() - start
    return Answers(seconds, {numbers[one.request_id]: one.tokens for one in done})


def alone_way(module: Any, asked: Mapping[int, Page]) -> Answers:
    """transformers' ``generate``, one page after the other."""
    made: dict[int, Sequence[int]] = {}
    start = time.perf_counter()
    for number, page in asked.items():
        made[number] = _generate(module, [page])[0]
    return Answers(time.perf_counter() - start, made)


def static_way(module: Any, asked: Mapping[int, Page]) -> Answers:
    """transformers' ``generate`` for batches in order of arrival, padded on the left; a batch runs
    until its longest answer is complete."""
    made: dict[int, Sequence[int]] = {}
    padding = steps = 0
    start = time.perf_counter()
    for batch in _batches(list(asked), STATIC):
        rows = [asked[number] for number in batch]
        made |= zip(batch, _generate(module, rows), strict=True)
        longest = max(len(page.ids) for page in rows)
        padding += sum(longest - len(page.ids) for page in rows)
        steps += len(rows) * max(page.new for page in rows)
    seconds = time.perf_counter() - start
    wanted = sum(page.new for page in asked.values())
    return Answers(
        seconds,
        made,
        {"prompt_tokens_of_padding": padding, "answer_tokens_not_asked_for": steps - wanted},
    )


def _generate(module: Any, rows: Sequence[Page]) -> list[list[int]]:
    """The answers of a batch, each cut to what was asked for."""
    longest = max(len(page.ids) for page in rows)
    ids_bt = torch.zeros(len(rows), longest, dtype=torch.long)
    mask_bt = torch.zeros_like(ids_bt)
    for row, page in enumerate(rows):
        ids_bt[row, longest - len(page.ids) :] = torch.tensor(page.ids)
        mask_bt[row, longest - len(page.ids) :] = 1
    with torch.inference_mode():
        out_bt = module.generate(
            input_ids=ids_bt.to(module.device),
            attention_mask=mask_bt.to(module.device),
            max_new_tokens=max(page.new for page in rows),
        )
    return [out_bt[row, longest : longest + page.new].tolist() for row, page in enumerate(rows)]


def _batches(numbers: Sequence[int], size: int) -> Iterator[Sequence[int]]:
    for start in range(0, len(numbers), size):
        yield numbers[start : start + size]


def plain_module(folder: Path, dtype: torch.dtype, device: str) -> Any:
    """transformers' own model of the same files, greedy and without an end token."""
    from transformers import AutoModelForCausalLM, GenerationConfig

    module: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype).eval().to(device)
    module.generation_config = GenerationConfig(do_sample=False, pad_token_id=0)
    return module
