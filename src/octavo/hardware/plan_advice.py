"""Why a plan is refused, and the smallest change that would make it hold.

Changes are tried in a fixed order, each by planning again: smaller batches, shorter answers,
fewer pixels, weights as stored, int8 and int4 weights of the decoder, of all.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

from octavo.errors import BudgetExceeded
from octavo.hardware.plan_explain import megabytes
from octavo.hardware.plan_search import Ask, best
from octavo.hardware.plan_types import TOWERS, Plan
from octavo.hardware.spec import Precision

#: Pages drawn more coarsely than this cannot be read; fewer tokens answer nothing.
_LEAST_DPI = 72
_LEAST_NEW = 64
_LEAST_SIDE = 224


def refusal(ask: Ask, found: Plan) -> BudgetExceeded:
    """The error for ``ask``, of which ``found`` has the lowest peak."""
    highest = found.highest
    largest = sorted(highest.lines, key=lambda line: -line.nbytes)[:3]
    lines = ", ".join(f"{line.name} {megabytes(line.nbytes)}" for line in largest)
    return BudgetExceeded(
        f"the plan needs {megabytes(found.peak)} of a budget of {megabytes(ask.budget)}; "
        f"highest in {highest.name}: {lines}",
        where=ask.spec.name,
        next_step=_next_step(ask, found),
    )


def _next_step(ask: Ask, found: Plan) -> str:
    change = smallest_change(ask)
    # As large a share of the larger budget stays free.
    wanted = found.peak * ask.budget // max(ask.budget - ask.reserve, 1) + 1
    memory = f"memory={-(-wanted // 10_000_000) / 100:g}GB"
    if change is not None:
        return f"{memory}, or {change[0]}"
    if found.base >= ask.budget:
        return f"{memory}; the process alone takes {megabytes(found.base)}"
    return f"{memory}, or a smaller variant of the model"


def smallest_change(ask: Ask) -> tuple[str, Ask] | None:
    """In words, and what to ask instead; None when no single change is enough."""
    for words, changed in _changes(ask):
        if best(changed).fits:
            return words, changed
    return None


def _changes(ask: Ask) -> Iterator[tuple[str, Ask]]:
    work = ask.workload

    def with_new(value: int) -> Ask:
        return replace(ask, workload=replace(work, new=value))

    def with_batch(value: int) -> Ask:
        return replace(ask, workload=replace(work, batch=value))

    yield from _largest("batch", with_batch, 1, work.batch)
    yield from _largest("new", with_new, _LEAST_NEW, work.new)
    yield from _fewer_pixels(ask)
    names = [part.name for part in ask.spec.components]
    decoder = [name for name in names if name not in TOWERS]
    if any(name in ask.precisions for name in names):
        yield f"precision={ask.spec.stored}, as stored", replace(ask, precisions={})
    for lower in (Precision.INT8, Precision.INT4):
        for words, group in ((f"llm_precision={lower}", decoder), (f"precision={lower}", names)):
            lowered = dict.fromkeys(group, lower)
            yield words, replace(ask, precisions={**ask.precisions, **lowered})


def _fewer_pixels(ask: Ask) -> Iterator[tuple[str, Ask]]:
    work = ask.workload
    if not work.pictures and not work.frames:
        return
    if work.width is None and work.height is None:

        def with_dpi(value: int) -> Ask:
            return replace(ask, workload=replace(work, dpi=value))

        yield from _largest("dpi", with_dpi, _LEAST_DPI, work.dpi)
    else:
        wide, high = work.size

        def with_width(value: int) -> Ask:
            side = max(1, round(high * value / wide))
            return replace(ask, workload=replace(work, width=value, height=side))

        yield from _largest("width", with_width, _LEAST_SIDE, wide)
    if work.pictures > 1:

        def with_images(value: int) -> Ask:
            return replace(ask, workload=replace(work, images=value))

        yield from _largest("images", with_images, 1, work.pictures)
    if work.frames > 1:

        def with_frames(value: int) -> Ask:
            return replace(ask, workload=replace(work, frames=value))

        yield from _largest("frames", with_frames, 1, work.frames)


def _largest(
    name: str, with_value: Callable[[int], Ask], least: int, now: int
) -> Iterator[tuple[str, Ask]]:
    """The largest value under ``now`` that holds, if ``least`` does."""
    if now <= least or not best(with_value(least)).fits:
        return
    low, high = least, now
    while high - low > 1:
        middle = (low + high) // 2
        if best(with_value(middle)).fits:
            low = middle
        else:
            high = middle
    yield f"{name}={low}", with_value(low)
