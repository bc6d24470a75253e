"""Many requests at a time: the same answers as one by one, and nobody takes another with them."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")

import torch
from benchmarks.checkpoints import make

import octavo
from octavo.engine import serving
from octavo.engine.decoders import unserved
from octavo.engine.engine import Engine
from octavo.engine.slab import SlabKv
from octavo.engine.stats import EngineStats
from octavo.errors import ConfigError, InputError
from octavo.models.family import Guard
from octavo.models.model import Model
from octavo.requests import Completion, Finish, Message, Part, Request, Sampling
from octavo.response import ResponseForm

SEEING = ("qwen3-vl", "qwen2.5-vl", "llava", "llava-next", "dots.ocr")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    made: dict[str, Path] = {}

    def of(family: str) -> Path:
        if family not in made:
            made[family] = make(family, tmp_path_factory.mktemp("engine") / family)
        return made[family]

    return of


@pytest.fixture
def model(folder: Callable[[str], Path]) -> Iterator[Model]:
    with octavo.load(str(folder("text")), precision="fp32") as loaded:
        yield loaded


def picture(seed: int, side: int = 64) -> Part:
    rng = np.random.default_rng(seed)
    return Part.image(rng.integers(0, 255, (side, 96, 3), dtype=np.uint8))


def mixed(family: str) -> list[Request]:
    """Requests of all lengths, with none, one and two pictures."""
    made = []
    for number in range(6):
        seen = (
            []
            if family == "text"
            else [picture(seed, 64 + 32 * number) for seed in range(number % 3)]
        )
        made.append(
            Request.of(
                *seen,
                f"number {number} " + "word " * (40 * number),
                max_new_tokens=4 + 5 * number,
                id=f"r{number}",
            )
        )
    return made


def alone(model: Model, requests: list[Request]) -> dict[str, tuple[int, ...]]:
    """By transformers' own ``generate``, one request after the other."""
    engine, model.engine = model.engine, None
    model.module.set_attn_implementation("sdpa")
    try:
        return tokens_of(model.generate(requests))
    finally:
        model.engine = engine
        model.module.set_attn_implementation(serving.ATTENTION)


def tokens_of(completions: Iterator[Completion]) -> dict[str, tuple[int, ...]]:
    return {done.request_id: done.check().tokens for done in completions}


def facts(model: Model) -> EngineStats:
    found = model.stats().engine
    assert isinstance(found, EngineStats)
    return found


@pytest.mark.parametrize("family", ["text", *SEEING])
def test_together_they_answer_as_alone(folder: Callable[[str], Path], family: str) -> None:
    requests = mixed(family)
    with octavo.load(str(folder(family)), precision="fp32") as model:
        together = tokens_of(model.generate(requests))
        done = facts(model)
        assert together == alone(model, requests)
    # Fewer passes than tokens: they did run together.
    assert done.steps < done.answer_tokens
    assert done.requests == len(requests)


def test_a_step_without_an_answer_to_choose(model: Model) -> None:
    """The first chunk of a prompt that is longer than one."""
    long = Request.of("word " * 900, max_new_tokens=2, id="long")
    assert tokens_of(model.generate([long])) == alone(model, [long])
    assert facts(model).steps > 2


@pytest.mark.parametrize("precision", ["int8", "int4"])
def test_few_bits_serve_many(folder: Callable[[str], Path], precision: str) -> None:
    requests = mixed("qwen3-vl")
    with octavo.load(str(folder("qwen3-vl")), precision="fp32", kv_precision=precision) as model:
        together = {one.request_id: one.check() for one in model.generate(requests)}
        single = {
            one.request_id: one.check() for request in requests for one in model.generate([request])
        }
        assert facts(model).steps > 0
    assert {name: one.tokens for name, one in together.items()} == {
        name: one.tokens for name, one in single.items()
    }


def test_what_does_not_fit_lies_on_disk(
    folder: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Eight times as long as what was planned for, in the same memory."""
    monkeypatch.setattr(serving, "room_in", lambda _plan: serving.Room((128 << 20) + (4 << 20), 0))
    request = Request.of("word " * 1500, max_new_tokens=20, id="long")
    with octavo.load(
        str(folder("text")),
        precision="fp32",
        workload="prompt=64,new=64",
        kv_disk=(tmp_path, "200MB"),
    ) as model:
        made = tokens_of(model.generate([request]))
        assert made == alone(model, [request])
    assert not list(tmp_path.rglob("*.slab"))


def test_every_rule_of_a_request_is_its_own(model: Model) -> None:
    form = ResponseForm.choice(("yes", "no"))
    requests = [
        Request.of("a", max_new_tokens=12, id="greedy"),
        Request.of("a", max_new_tokens=12, id="hot", sampling=Sampling(2.0, seed=7)),
        Request.of("a", max_new_tokens=12, id="p", sampling=Sampling(1.0, 0.8, 40, seed=8)),
        Request.of("a", max_new_tokens=12, id="new", sampling=Sampling(repetition_penalty=1000.0)),
        Request.of("a", max_new_tokens=12, id="form", response=form),
    ]
    together = tokens_of(model.generate(requests))
    assert together == alone(model, requests)
    assert len(set(together.values())) == len(requests)


def test_few_blocks_change_nothing_but_time(
    folder: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(serving, "room_in", lambda _plan: serving.Room(0, 1 << 24))
    requests = [
        Request.of(f"{number} " + "word " * 12, max_new_tokens=150, id=f"r{number}")
        for number in range(10)
    ]
    with octavo.load(str(folder("text")), precision="fp32", workload="prompt=300,new=300") as model:
        together = tokens_of(model.generate(requests))
        assert facts(model).preemptions > 0
        assert together == alone(model, requests)


def test_a_second_turn_shares_what_the_first_computed(folder: Callable[[str], Path]) -> None:
    seen = picture(1, 256)
    first = Request.of(seen, "what is it? " + "word " * 100, max_new_tokens=8)
    with octavo.load(str(folder("qwen3-vl")), precision="fp32") as model:
        said = next(model.generate([first])).check()
        computed, looked = facts(model).prompt_tokens, facts(model).feature_misses
        talk = (
            *first.messages,
            Message("assistant", (Part.text(said.text),)),
            Message("user", (Part.text("and why?"),)),
        )
        second = Request(talk, max_new_tokens=8, id="second")
        answered = tokens_of(model.generate([second]))
        after = facts(model)
        assert after.prefix_tokens >= 64
        assert after.prompt_tokens - computed < after.prefix_tokens
        # The whole picture lay in shared blocks, so nothing looked at it again.
        assert after.feature_misses == looked
        assert answered == alone(model, [second])


def test_a_changed_pixel_shares_nothing_of_the_picture(folder: Callable[[str], Path]) -> None:
    pixels = np.random.default_rng(0).integers(0, 255, (256, 256, 3), dtype=np.uint8)
    other = pixels.copy()
    other[0, 0, 0] ^= 64
    with octavo.load(str(folder("qwen3-vl")), precision="fp32") as model:
        made = [
            tokens_of(model.generate([Request.of(Part.image(one), "what?", id="it")]))
            for one in (pixels, other)
        ]
        assert facts(model).prefix_tokens < 64
        assert facts(model).feature_misses == 2
        assert facts(model).feature_hits == 0
        again = Request.of(Part.image(other), "what?", id="it")
        assert made[1] == alone(model, [again])


def test_one_picture_in_many_questions_is_looked_at_once(folder: Callable[[str], Path]) -> None:
    with octavo.load(str(folder("dots.ocr")), precision="fp32") as model:
        requests = [
            Request.of(f"{n}", picture(5, 224), id=f"r{n}", max_new_tokens=4) for n in range(5)
        ]
        together = tokens_of(model.generate(requests))
        assert facts(model).feature_misses == 1
        assert together == alone(model, requests)


def test_a_cut_answer_goes_on(model: Model) -> None:
    words = "tell me " * 30
    (whole,) = model.generate([Request.of(words, max_new_tokens=40)])
    (cut,) = model.generate([Request.of(words, max_new_tokens=15, keep=True, id="kept")])
    assert cut.finish is Finish.LENGTH
    before = facts(model)
    more = model.extend("kept", 10)
    assert more.tokens == whole.tokens[:25]
    rest = model.extend("kept", 15)
    assert rest.tokens == whole.tokens
    # From its keys and values: no token of the prompt was computed again.
    assert facts(model).prompt_tokens == before.prompt_tokens
    model.forget("kept")
    with pytest.raises(ConfigError, match="no such answer"):
        model.extend("kept", 5)


def test_what_was_not_kept_cannot_go_on(model: Model) -> None:
    (done,) = model.generate([Request.of("a", max_new_tokens=3, id="gone")])
    assert done.finish is Finish.LENGTH
    with pytest.raises(ConfigError, match="keep=True"):
        model.extend("gone", 5)


def test_a_deadline_that_passes_is_a_failure(model: Model) -> None:
    late = Request.of("a " * 400, max_new_tokens=2000, deadline=1e-9, id="late")
    there = Request.of("b", max_new_tokens=3, deadline=600.0, id="there")
    done = {one.request_id: one for one in model.generate([late, there])}
    assert done["late"].failure is not None
    assert done["late"].failure.error == "DeadlineExceeded"
    assert done["there"].failure is None


def test_the_more_urgent_goes_first(
    folder: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(serving, "_RUNNING", 1)
    with octavo.load(str(folder("text"))) as model:
        requests = [
            Request.of("a", max_new_tokens=30, priority=5 * (number == 3), id=f"r{number}")
            for number in range(4)
        ]
        order = [done.request_id for done in model.generate(requests)]
    assert order.index("r3") < order.index("r2")


def test_who_stops_asking_ends_the_work(model: Model) -> None:
    requests = (Request.of("a", max_new_tokens=400, id=f"r{n}") for n in range(100))
    answers = model.generate(requests)
    answers.close()  # type: ignore[attr-defined]
    first = Request.of("a", max_new_tokens=3, id="short")
    answers = model.generate([first, *requests])
    assert next(answers).request_id == "short"
    answers.close()  # type: ignore[attr-defined]
    assert tokens_of(model.generate([first])) == alone(model, [first])
    assert facts(model).answer_tokens < 50 * 400


def test_a_request_that_cannot_be_prepared_fails_alone(
    folder: Callable[[str], Path], tmp_path: Path
) -> None:
    with octavo.load(str(folder("qwen3-vl"))) as model:
        done = {
            one.request_id: one
            for one in model.generate(
                [
                    Request.of(Part.image(tmp_path / "none.png"), "a", id="bad"),
                    Request.of(picture(1), "a", max_new_tokens=4, id="good"),
                ]
            )
        }
    assert done["bad"].finish is Finish.ERROR
    with pytest.raises(InputError):
        done["bad"].check()
    assert done["good"].failure is None


def test_a_fault_of_one_in_the_pass_fails_it_alone(
    model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    requests = [Request.of(f"{n} " * 20, max_new_tokens=6, id=f"r{n}") for n in range(4)]
    wanted = alone(model, requests)
    engine = model.engine
    assert isinstance(engine, Engine)
    decoder = engine._intake.decoder
    poison = int(model.processor.prepare(requests[2], model.media).inputs["input_ids"][0, 0])
    special = [
        int(i) for i in model.processor.prepare(requests[2], model.media).inputs["input_ids"][0]
    ]
    plain = decoder.logits

    def broken(row: Any, cache: Any) -> Any:
        ids = row.ids_t.tolist()
        if any(ids[at : at + len(special)] == special for at in range(len(ids))):
            raise ValueError(f"a fault of token {poison}")
        return plain(row, cache)

    monkeypatch.setattr(decoder, "logits", broken)
    done = {one.request_id: one for one in model.generate(requests)}
    failure = done.pop("r2").failure
    assert failure is not None
    assert failure.error == "ValueError"
    assert {name: one.check().tokens for name, one in done.items()} == {
        name: wanted[name] for name in done
    }
    assert facts(model).failed_steps >= 1


def test_memory_that_runs_out_costs_time_only(
    folder: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    requests = mixed("qwen3-vl")
    with octavo.load(str(folder("qwen3-vl")), precision="fp32") as model:
        wanted = alone(model, requests)
        engine = model.engine
        assert isinstance(engine, Engine)
        decoder = engine._intake.decoder
        plain, calls = decoder.logits, [0]

        def short(row: Any, cache: Any) -> Any:
            calls[0] += 1
            if calls[0] % 5 == 2:
                raise torch.OutOfMemoryError("CUDA out of memory")
            return plain(row, cache)

        monkeypatch.setattr(decoder, "logits", short)
        done = list(model.generate(requests))
        assert {one.request_id: one.check().tokens for one in done} == wanted
        assert facts(model).relieved > 0
        assert any(one.attempts for one in done)
        monkeypatch.setattr(
            decoder, "logits", lambda *_: (_ for _ in ()).throw(MemoryError("none left"))
        )
        (lost,) = model.generate(requests[:1])
        assert lost.failure is not None
        assert lost.failure.error == "BudgetExceeded"
        monkeypatch.setattr(decoder, "logits", plain)
        assert tokens_of(model.generate(requests)) == wanted


def test_a_listener_that_fails_is_its_request_s_own(model: Model) -> None:
    engine = model.engine
    assert isinstance(engine, Engine)

    def deaf(_token: int) -> None:
        raise RuntimeError("nobody listens")

    request = Request.of("a", max_new_tokens=5)
    lost = engine.answer(request, Guard(token=deaf))
    assert lost.failure is not None
    assert lost.failure.error == "RuntimeError"
    assert engine.answer(request, Guard()).failure is None


def test_closing_ends_what_is_under_way(folder: Callable[[str], Path]) -> None:
    model = octavo.load(str(folder("text")))
    requests = [Request.of("a", max_new_tokens=1500, id=f"r{n}") for n in range(3)]
    done: list[Completion] = []
    started = threading.Event()

    def work() -> None:
        engine = model.engine
        assert isinstance(engine, Engine)
        done.append(engine.answer(requests[0], Guard(token=lambda _token: started.set())))

    worker = threading.Thread(target=work)
    worker.start()
    assert started.wait(60)
    model.close()
    worker.join(60)
    assert not worker.is_alive()
    assert done[0].failure is not None
    assert done[0].failure.error == "ReleasedError"
    assert model.ledger is not None
    assert not [held for held in model.ledger.holdings() if held.kind in ("kv", "features")]
    (after,) = model.generate([requests[1]])
    assert after.failure is not None


def test_many_threads_ask_at_once(model: Model) -> None:
    requests = [Request.of(f"{n} " * (n + 1), max_new_tokens=10, id=f"r{n}") for n in range(24)]
    wanted = alone(model, requests)
    made: dict[str, tuple[int, ...]] = {}
    engine = model.engine
    assert isinstance(engine, Engine)

    def ask(mine: list[Request]) -> None:
        for request in mine:
            made[request.id] = engine.answer(request, Guard()).check().tokens

    threads = [threading.Thread(target=ask, args=(requests[n::6],)) for n in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert made == wanted


def test_models_that_answer_alone(folder: Callable[[str], Path]) -> None:
    from transformers import Gemma2Config, LlamaConfig

    assert unserved("blip", LlamaConfig()) is not None
    assert unserved("text", LlamaConfig()) is None
    assert unserved("text", Gemma2Config(attn_logit_softcapping=50.0)) is not None
    rope = {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 10_000.0}
    assert unserved("text", LlamaConfig(rope_parameters=rope)) is not None
    with octavo.load(str(folder("blip"))) as model:
        assert model.engine is None
        assert model.stats().engine is None
        with pytest.raises(ConfigError, match="keep no answers"):
            model.extend("x", 1)


def test_what_lies_idle_goes_before_memory_ends(model: Model) -> None:
    request = Request.of("word " * 100, max_new_tokens=4)
    first = tokens_of(model.generate([request]))
    engine = model.engine
    assert isinstance(engine, Engine)
    assert [phase.name for phase in facts(model).phases][:1] == ["prefill"]
    assert all(phase.measured > 0 for phase in facts(model).phases)
    assert engine._scheduler.blocks.available == engine._scheduler.blocks.total
    engine._watch._budget = engine._watch._margin + 1
    engine._watch._due = -1.0
    next(model.generate([Request.of("other " * 100, max_new_tokens=1)])).check()
    assert facts(model).shed > 0
    # What the first had computed was given up, so nothing is shared.
    assert tokens_of(model.generate([request])) == first
    assert facts(model).prefix_tokens < 64


def test_pixels_do_not_wait_in_heaps(
    folder: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(serving, "_input_room", lambda _plan: 1)
    requests = [Request.of(picture(n, 128), f"{n}", max_new_tokens=6, id=f"r{n}") for n in range(8)]
    with octavo.load(str(folder("qwen3-vl")), precision="fp32") as model:
        engine = model.engine
        assert isinstance(engine, Engine)
        most = [0]
        plain = engine._hold_inputs

        def watched(nbytes: int) -> None:
            plain(nbytes)
            most.append(engine._input_bytes)

        monkeypatch.setattr(engine, "_hold_inputs", watched)
        together = tokens_of(model.generate(requests))
        one = model.processor.prepare(requests[0], model.media).inputs["pixel_values"].nbytes
        assert max(most) == one
        assert engine._input_bytes == 0
        assert together == alone(model, requests)


def test_pixels_that_are_gone_are_opened_again(
    folder: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Answers with pictures give way after their towers have run, and nothing keeps features."""
    monkeypatch.setattr(serving, "room_in", lambda _plan: serving.Room(0, 1 << 20))
    monkeypatch.setattr(SlabKv, "shares", False)
    requests = [
        Request.of(picture(n, 128), "word " * 9, max_new_tokens=150, id=f"r{n}") for n in range(6)
    ]
    with octavo.load(
        str(folder("dots.ocr")),
        precision="fp32",
        workload="images=1,width=128,height=96,prompt=300,new=300",
    ) as model:
        engine = model.engine
        assert isinstance(engine, Engine)
        cache = engine._compute.features
        assert cache is not None
        monkeypatch.setattr(type(cache), "put", lambda *_args, **_more: False)
        together = tokens_of(model.generate(requests))
        assert facts(model).preemptions > 0
        assert facts(model).feature_misses > len(requests)
        assert together == alone(model, requests)
