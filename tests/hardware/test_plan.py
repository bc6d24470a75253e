"""Plans: what they hold, in which order ways are tried, and what a refusal advises."""

from __future__ import annotations

import itertools
import json
from dataclasses import replace
from typing import Any, Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from octavo.errors import BudgetExceeded, ConfigError
from octavo.hardware.plan import Plan, Workload, plan, spare, spread
from octavo.hardware.plan_advice import smallest_change
from octavo.hardware.plan_search import Ask, best
from octavo.hardware.spec import Precision

from .planning import component, embedding_model, seeing_model, text_model

TEXT, SEES, CLIP = text_model(), seeing_model(), embedding_model()
PAGE = Workload(pages=20, dpi=100, new=500)
ROOMY = 1 << 40
BASE = 400_000_000


def peak(spec, workload, **wishes) -> int:
    return plan(spec, workload, budget=ROOMY, base=BASE, **wishes).peak


def ask(spec, workload, budget, **wishes) -> Ask:
    given_: dict = {
        "spec": spec, "workload": workload, "budget": budget, "device": "cpu", "base": BASE,
        "reserve": 0, "host_budget": None, "precisions": {}, "prefill_chunk": None,
        "vision_batch": None, "stream": None, "ring_slots": 2,
    }  # fmt: skip
    return Ask(**{**given_, **wishes})


def test_everything_stays_where_there_is_room() -> None:
    made = plan(SEES, PAGE, budget=ROOMY, base=BASE)
    assert not made.streams
    assert [held.resident for held in made.components if held.layers] == [tuple(range(12))] * 2
    assert sum(held.nbytes for held in made.components) == SEES.nbytes
    assert [phase.name for phase in made.phases] == ["load", "vision", "prefill", "decode"]


def test_the_peak_is_the_highest_phase_and_each_phase_its_lines() -> None:
    made = plan(SEES, PAGE, budget=ROOMY, base=BASE)
    assert made.peak == max(phase.nbytes for phase in made.phases)
    for phase in made.phases:
        assert phase.nbytes == sum(line.nbytes for line in phase.lines)
        assert phase.lines[0].nbytes == BASE


def test_ways_are_tried_in_order() -> None:
    whole = plan(SEES, PAGE, budget=ROOMY, base=BASE)
    streamed = plan(SEES, PAGE, budget=whole.peak - 1, base=BASE)
    assert streamed.fits
    # The tower is used once a picture, the decoder once a token.
    assert streamed.component("vision").streamed
    assert not streamed.component("language").streamed
    tower = SEES.component("vision").bytes_at(None)
    more = plan(SEES, PAGE, budget=whole.peak - tower, base=BASE)
    assert len(more.component("vision").streamed) == 12
    assert more.component("language").streamed


@pytest.mark.parametrize("wish", [Precision.INT8, Precision.FP32, "auto"])
def test_what_is_streamed_is_used_as_it_is_read(wish: Precision | Literal["auto"]) -> None:
    """In its stored precision, or from a copy in the one of 8 or 4 bits that was asked for."""
    wishes: Any = {"precisions": {"language": wish}}
    whole = plan(SEES, PAGE, budget=ROOMY, base=BASE, **wishes)
    made = plan(SEES, PAGE, budget=whole.peak - 1, base=BASE, **wishes)
    assert made.component("vision").streamed
    less: Any = {"budget": whole.peak - 340_000_000, "base": BASE, **wishes}
    if wish is Precision.FP32:
        with pytest.raises(BudgetExceeded):
            plan(SEES, PAGE, **less)
        return
    held = plan(SEES, PAGE, **less).component("language")
    assert held.streamed
    if wish is Precision.INT8:
        assert held.precision is Precision.INT8
        assert any("from a copy in int8" in note for note in plan(SEES, PAGE, **less).notes)
        # A device has another order of bytes than the copy.
        with pytest.raises(BudgetExceeded):
            plan(SEES, PAGE, device="cuda", **less)
    else:
        assert held.precision is SEES.stored  # nobody asked for a copy on disk


def test_a_copy_on_disk_is_made_for_nobody_who_did_not_ask() -> None:
    def held(budget: int, wish: Precision | Literal["auto"]) -> Any:
        try:
            made = plan(TEXT, Workload(), budget=budget, base=BASE, precisions={"language": wish})
        except BudgetExceeded:
            return None
        return made.component("language")

    budgets = range(BASE, 40 * BASE, 20_000_000)
    least = next(budget for budget in budgets if held(budget, Precision.INT8) is not None)
    assert held(least, Precision.INT8).streamed
    unasked = held(least, "auto")
    assert unasked is None or not (unasked.precision.quantized and unasked.streamed)


def test_as_many_layers_stay_as_fit() -> None:
    whole = plan(TEXT, Workload(), budget=ROOMY, base=BASE)
    layer = TEXT.component("language").layer_bytes_at(Precision.BF16)[0]
    made = plan(TEXT, Workload(), budget=whole.peak - 1, base=BASE)
    held = made.component("language")
    # The ring takes the room of two layers, so three must go for one byte.
    assert len(held.resident) == 12 - 3
    assert held.slots == 2
    assert held.slot_bytes == layer
    assert made.peak > made.budget - layer


def test_a_ring_has_no_more_slots_than_streamed_layers() -> None:
    made = plan(TEXT, Workload(), budget=ROOMY, base=BASE, stream=True, ring_slots=3)
    held = made.component("language")
    assert held.slots == min(3, len(held.streamed))
    assert held.held_bytes + held.ring_bytes <= held.total_bytes + held.ring_bytes


def test_tower_and_decoder_share_a_ring_in_main_memory() -> None:
    """They never run at the same time; on a device each has its own."""
    for device, of in (("cpu", max), ("cuda", sum)):
        made = plan(SEES, PAGE, budget=ROOMY, base=BASE, stream=True, device=device)
        rings = [held.ring_bytes for held in made.components if held.streamed]
        assert len(rings) == 2
        for phase in made.phases:
            (ring,) = (line.nbytes for line in phase.lines if line.name == "ring")
            assert ring == of(rings)


def test_a_tower_in_chunks_is_planned_in_chunks() -> None:
    """Twice the patches take twice what stands for each, not twice the MLP's width."""
    small, large = (
        plan(SEES, Workload(images=1, width=side, height=side), budget=ROOMY, base=BASE)
        for side in (1024, 2048)
    )
    wide = SEES.vision.hidden * 2
    more = (2048**2 - 1024**2) // 16**2
    assert small.phase("vision").lines[-1].name.endswith("in chunks of 512)")
    grown = large.phase("vision").lines[-1].nbytes - small.phase("vision").lines[-1].nbytes
    assert 4 * wide * more <= grown <= 8 * wide * more
    # Several pictures go through one after the other.
    four = plan(SEES, Workload(images=4, width=1024, height=1024), budget=ROOMY, base=BASE).phase(
        "vision"
    )
    assert four.lines[-1] == small.phase("vision").lines[-1]


def test_a_long_prompt_is_planned_in_steps_unless_layers_are_streamed() -> None:
    def working(prompt: int, **wishes: Any) -> int:
        made = plan(TEXT, Workload(prompt=prompt), budget=ROOMY, base=BASE, **wishes)
        return made.phase("prefill").lines[-1].nbytes

    assert working(2048) < working(4096) < 1.5 * working(2048)
    assert working(8192) == working(4096)
    assert working(8192, stream=True) > 3.5 * working(2048, stream=True)


def test_layers_come_from_main_memory_where_there_is_room_there() -> None:
    whole = plan(TEXT, Workload(), budget=ROOMY, device="cuda", base=BASE)
    budget = whole.peak - 50_000_000
    near = plan(TEXT, Workload(), budget=budget, device="cuda", base=BASE, host_budget=10**9)
    far = plan(TEXT, Workload(), budget=budget, device="cuda", base=BASE, host_budget=10**6)
    assert near.component("language").source == "host"
    assert far.component("language").source == "disk"


@given(st.integers(1, 200).flatmap(lambda n: st.tuples(st.just(n), st.integers(0, n))))
def test_resident_layers_are_spread_evenly(pair: tuple[int, int]) -> None:
    layers, resident = pair
    chosen = spread(layers, resident)
    assert len(set(chosen)) == resident
    assert all(0 <= number < layers for number in chosen)
    assert list(chosen) == sorted(chosen)
    gaps = [after - before for before, after in itertools.pairwise(chosen)]
    assert not gaps or max(gaps) - min(gaps) <= 1
    if resident:
        # Neither end is left to streaming alone: half a gap before, half a gap after.
        share = -(-layers // resident)
        assert chosen[0] <= share // 2
        assert layers - 1 - chosen[-1] <= share // 2


def test_four_of_twelve_layers_stay_in_the_middle_of_their_thirds() -> None:
    assert spread(12, 4) == (1, 4, 7, 10)


@settings(max_examples=60, deadline=None)
@given(
    budget=st.integers(BASE, 3 * 10**9),
    dpi=st.integers(50, 300),
    new=st.integers(1, 8000),
    batch=st.integers(1, 4),
    precision=st.sampled_from([*Precision, None, "auto"]),
)
def test_a_plan_is_within_its_budget_or_refused(budget, dpi, new, batch, precision) -> None:
    workload = Workload(pages=1, dpi=dpi, new=new, batch=batch)
    wishes = {"language": precision}
    lowest = best(ask(SEES, workload, budget, precisions=wishes))
    if not lowest.fits:
        with pytest.raises(BudgetExceeded):
            plan(SEES, workload, budget=budget, base=BASE, precisions=wishes)
        return
    made = plan(SEES, workload, budget=budget, base=BASE, precisions=wishes)
    assert made.peak <= budget
    if precision not in (None, "auto"):
        assert made.component("language").precision is precision


@settings(max_examples=40, deadline=None)
@given(
    prompt=st.integers(1, 6000), more=st.integers(0, 4000), wide=st.integers(96, 2000),
    wider=st.integers(0, 2000), wishes=st.sampled_from([None, Precision.FP32]),
)  # fmt: skip
def test_more_tokens_and_pixels_never_take_less(prompt, more, wide, wider, wishes) -> None:
    # From 96 x 800 on: smaller pictures are enlarged, and rounding up is not monotone.
    less = Workload(images=1, width=wide, height=800, prompt=prompt)
    precisions = {"language": wishes, "vision": wishes}
    for greater in (
        replace(less, prompt=prompt + more),
        replace(less, new=less.new + more),
        replace(less, images=2),
        replace(less, batch=2),
        replace(less, width=-(-(wide + wider) // 32) * 32),
    ):
        if greater.width != wide and greater.width % 32:
            continue
        base = less if greater.width == wide else replace(less, width=max(wide // 32 * 32, 32))
        assert peak(SEES, greater, precisions=precisions) >= peak(SEES, base, precisions=precisions)


@settings(max_examples=40, deadline=None)
@given(
    budget=st.integers(BASE, 10**9), dpi=st.integers(72, 250), new=st.integers(100, 16_000),
    stream=st.sampled_from([None, False]),
)  # fmt: skip
def test_the_advised_change_holds(budget, dpi, new, stream) -> None:
    asked = ask(SEES, Workload(pages=1, dpi=dpi, new=new), budget, stream=stream)
    if best(asked).fits:
        return
    change = smallest_change(asked)
    if change is not None:
        words, changed = change
        assert words
        assert best(changed).fits


def test_the_advised_memory_holds() -> None:
    with pytest.raises(BudgetExceeded) as refused:
        plan(TEXT, Workload(prompt=8000, new=8000), budget=500_000_000, base=BASE)
    assert refused.value.next_step is not None
    amount = refused.value.next_step.split("memory=")[1].split("GB")[0]
    again = plan(
        TEXT, Workload(prompt=8000, new=8000), budget=int(float(amount) * 10**9), base=BASE
    )
    assert again.fits


def test_the_reserve_stays_free() -> None:
    whole = plan(TEXT, Workload(), budget=ROOMY, base=BASE)
    exact = plan(TEXT, Workload(), budget=whole.peak, base=BASE)
    assert not exact.streams
    kept = plan(TEXT, Workload(), budget=whole.peak, reserve=spare(whole.peak), base=BASE)
    assert kept.streams
    assert kept.peak <= whole.peak - whole.peak // 100
    budget = 500_000_000
    work = Workload(prompt=8000, new=8000)
    with pytest.raises(BudgetExceeded) as refused:
        plan(TEXT, work, budget=budget, reserve=spare(budget), base=BASE)
    assert refused.value.next_step is not None
    more = int(float(refused.value.next_step.split("memory=")[1].split("GB")[0]) * 10**9)
    assert plan(TEXT, work, budget=more, reserve=spare(more), base=BASE).fits


def test_a_refusal_names_the_largest_lines() -> None:
    with pytest.raises(BudgetExceeded) as refused:
        plan(TEXT, Workload(), budget=BASE + 1, base=BASE)
    assert "process 400.0 MB" in refused.value.what
    assert "highest in decode" in refused.value.what
    assert "language weights (bf16)" in refused.value.what
    assert refused.value.where == "text"


def test_shorter_answers_are_advised_before_lower_precision() -> None:
    work = Workload(prompt=100, new=20_000)
    short = plan(TEXT, replace(work, new=100), budget=ROOMY, base=BASE, stream=True)
    asked = ask(TEXT, work, short.peak + 50_000_000)
    change = smallest_change(asked)
    assert change is not None
    words, changed = change
    assert words == f"new={changed.workload.new}"
    # The largest that holds: one token more does not.
    one_more = replace(changed.workload, new=changed.workload.new + 1)
    assert not best(replace(asked, workload=one_more)).fits


def test_int8_is_advised_where_streaming_is_forbidden() -> None:
    whole = plan(TEXT, Workload(prompt=64, new=64), budget=ROOMY, base=BASE)
    asked = ask(TEXT, Workload(prompt=64, new=64), whole.peak - 60_000_000, stream=False)
    words = [words for words, changed in _all_changes(asked) if best(changed).fits]
    assert "llm_precision=int8" in words


def _all_changes(asked: Ask):
    from octavo.hardware.plan_advice import _changes

    return list(_changes(asked))


def test_a_float_precision_above_the_stored_one_is_given_up_first() -> None:
    stored = plan(TEXT, Workload(new=64), budget=ROOMY, base=BASE)
    asked = ask(
        TEXT,
        Workload(new=64),
        stored.peak,
        stream=False,
        precisions={"language": Precision.FP32},
    )
    words = [words for words, changed in _all_changes(asked) if best(changed).fits]
    assert "precision=bf16, as stored" in words


def test_auto_lowers_the_decoder_only_when_it_must() -> None:
    wishes = {"precisions": dict.fromkeys(("vision", "projector", "language"), "auto")}
    roomy = plan(SEES, PAGE, budget=ROOMY, base=BASE, **wishes)
    assert {held.precision for held in roomy.components} == {Precision.BF16}
    narrow = plan(SEES, PAGE, budget=roomy.peak - 40_000_000, base=BASE, stream=False, **wishes)
    assert narrow.component("language").precision is Precision.INT8
    assert narrow.component("vision").precision is Precision.BF16


def test_quantized_weights_take_what_their_layout_takes() -> None:
    made = plan(TEXT, Workload(), budget=ROOMY, base=BASE, precisions={"language": Precision.INT8})
    part = TEXT.component("language")
    assert made.component("language").total_bytes == part.bytes_at(Precision.INT8)


def test_chunks_lower_prefill_and_micro_batches_the_tower() -> None:
    long = Workload(prompt=16_000)
    whole = plan(TEXT, long, budget=ROOMY, base=BASE).phase("prefill").nbytes
    pieces = plan(TEXT, long, budget=ROOMY, base=BASE, prefill_chunk=512).phase("prefill").nbytes
    assert pieces < whole
    four = Workload(images=4, width=1024, height=1024)
    # The engine sends pictures through the tower one by one; families that it does not serve
    # take those of a request together.
    together = replace(SEES, family="gemma3n")
    at_once = plan(together, four, budget=ROOMY, base=BASE).phase("vision").nbytes
    one = plan(together, four, budget=ROOMY, base=BASE, vision_batch=1).phase("vision").nbytes
    assert one < at_once


def test_a_model_without_decoder_has_no_cache() -> None:
    made = plan(CLIP, Workload(images=3), budget=ROOMY, base=BASE)
    assert made.kv_bytes == 0
    assert [phase.name for phase in made.phases] == ["load", "vision", "text"]
    assert made.prompt_tokens == 77


def test_wrong_wishes_are_refused() -> None:
    with pytest.raises(ConfigError, match="not a component"):
        plan(TEXT, Workload(), budget=ROOMY, precisions={"tower": Precision.INT8})
    with pytest.raises(ConfigError, match="ring_slots"):
        plan(TEXT, Workload(), budget=ROOMY, ring_slots=1)
    with pytest.raises(ConfigError, match="do not see"):
        plan(TEXT, Workload(pages=1), budget=ROOMY)
    with pytest.raises(ConfigError, match="do not hear"):
        plan(TEXT, Workload(audio_s=3.0), budget=ROOMY)
    with pytest.raises(ConfigError, match="too narrow"):
        plan(SEES, Workload(images=1, width=10_000, height=10), budget=ROOMY)


def test_a_context_beyond_the_model_is_noted() -> None:
    made = plan(TEXT, Workload(prompt=40_000), budget=ROOMY, base=BASE)
    assert any("32768" in note for note in made.notes)


def test_layers_of_different_size_share_the_largest_slot() -> None:
    small, large = {"a": (64, 64)}, {"a": (256, 256)}
    first, second = component("language", 3, small), component("language", 6, large)
    layers = (*first.layers, *second.layers[3:])
    names = {name for layer in layers for name in layer}
    tensors = [t for t in (*first.tensors, *second.tensors[3:]) if t.name in names]
    mixed = replace(first, tensors=tuple(tensors), layers=layers)
    made = plan(
        replace(TEXT, components=(mixed,)), Workload(), budget=ROOMY, base=BASE, stream=True
    )
    assert made.component("language").slot_bytes == 256 * 256 * 2


def test_the_words_hold_every_line_and_the_total() -> None:
    made: Plan = plan(SEES, PAGE, budget=2 * 10**9, base=BASE)
    text = made.explain()
    for phase in made.phases:
        for line in phase.lines:
            assert line.name in text
            assert f"{line.nbytes / 1e6:,.1f} MB".replace(",", " ") in text
    assert "(the highest)" in text
    assert "fits" in text


def test_json_holds_the_sums() -> None:
    made = plan(SEES, PAGE, budget=ROOMY, base=BASE)
    facts = json.loads(json.dumps(made.as_dict()))
    assert facts["peak"] == max(
        sum(line["bytes"] for line in phase["lines"]) for phase in facts["phases"]
    )
    assert facts["components"][-1]["name"] == "language"
