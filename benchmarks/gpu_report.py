"""Rows of the GPU benchmark in words, and what follows from them together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

_ROOT: Final = str(Path(__file__).resolve().parents[1])
_LONGEST: Final = 600


def line(row: Mapping[str, Any]) -> str:
    """One row."""
    begin = f"{row['case']:>28}"
    for end in ("skipped", "failed"):
        if end in row:
            return f"{begin}: {end}: {row[end]}"
    if "decode_tokens_per_s" in row:
        said = (
            f"load {row['load_s']:.1f} s, prefill {row['prefill_s']:.2f} s, decode "
            f"{row['decode_tokens_per_s']:.2f} tokens/s, batch of {row['batch']} "
            f"{row['batch_tokens_per_s']:.1f}"
        )
        if row.get("peak_bytes") is not None:
            said += f", peak {row['peak_bytes'] / 1e9:.2f} of {row['budget'] / 1e9:.2f} GB"
        return f"{begin}: {said}"
    if "points" in row:
        points = "".join(f"\n{'':>30}{_point(point)}" for point in row["points"])
        return f"{begin}: {row.get('note', '')}{points}"
    said = ", ".join(
        f"{name} {value}"
        for name, value in row.items()
        if name not in ("case", "took_s", "for_all", "compared")
    )
    return f"{begin}: {said}"


def _point(point: Mapping[str, Any]) -> str:
    times = ", ".join(f"{way} {ms:.3f}" for way, ms in point["ms"].items())
    failed = "".join(f"; {way} failed: {why}" for way, why in point.get("failed", {}).items())
    return f"{point['name']}: ms: {times}{failed}"


def reason(complaint: str, code: int) -> str:
    """The last words of a process that failed, without paths of the machine."""
    lines = [text for text in complaint.strip().splitlines() if text.strip()]
    last = lines[-1] if lines else f"ended with {code}"
    where = [text.strip() for text in lines if text.strip().startswith("File ") and _ROOT in text]
    said = f"{last} ({where[-1]})" if where else last
    return said.replace(_ROOT, "")[-_LONGEST:]


def wrong(rows: Sequence[Mapping[str, Any]]) -> str:
    return ", ".join(name for row in rows for name in row.get("wrong", ()))


def summary(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Ratios between ways at each share; a way that has no row is left out."""
    by_case = {row["case"]: row for row in rows if "decode_tokens_per_s" in row}
    ratios: dict[str, float] = {}
    whole = by_case.get("100% transformers")
    for name, row in by_case.items():
        share, _, way = name.partition(" ")
        if way != "octavo":
            continue
        at = f"at_{share.removesuffix('%')}"
        for rival in ("accelerate, main memory", "accelerate, disk", "transformers"):
            other = by_case.get(f"{share} {rival}")
            if other is None:
                continue
            ending = f"over_{rival.replace(', ', '_').replace(' ', '_')}_{at}"
            for figure in ("decode_tokens_per_s", "batch_tokens_per_s"):
                ratios[f"{figure}_{ending}"] = round(row[figure] / other[figure], 3)
        resident = by_case.get("100% octavo")
        if resident is not None and share != "100%":
            ratios[f"same_tokens_as_resident_{at}"] = _alike(row["answer"], resident["answer"])
        if whole is not None:
            ratios[f"prefill_s_over_transformers_resident_{at}"] = round(
                row["prefill_s"] / whole["prefill_s"], 3
            )
            ratios[f"same_tokens_as_transformers_{at}"] = _alike(row["answer"], whole["answer"])
        if row.get("peak_bytes") is not None:
            ratios[f"peak_of_budget_{at}"] = round(row["peak_bytes"] / row["budget"], 3)
    for name, ratio in ratios.items():
        print(f"  {name}: {ratio}")
    return {"ratios": ratios}


def _alike(one: Sequence[int], other: Sequence[int]) -> float:
    """The share of an answer up to the first token that differs."""
    same = 0
    for mine, theirs in zip(one, other, strict=False):
        if mine != theirs:
            break
        same += 1
    return round(same / max(len(one), len(other), 1), 3)
