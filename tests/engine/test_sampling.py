"""Tokens of a mixed batch against those of transformers' ``generate`` for each request alone."""

from __future__ import annotations

import copy
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")
pytest.importorskip("llguidance")

import octavo  # noqa: E402
from octavo.engine.sampling import Choice, Chooser, choose_all  # noqa: E402
from octavo.errors import ConfigError, OctavoError  # noqa: E402
from octavo.models.constraints import grammars_of  # noqa: E402
from octavo.models.family import Generated, Guard, Prepared  # noqa: E402
from octavo.models.generation import generate  # noqa: E402
from octavo.requests import Request, Sampling  # noqa: E402
from octavo.response import ResponseForm  # noqa: E402

NEW = 20
SCHEMA = {
    "type": "object",
    "properties": {"kind": {"enum": ["a", "b"]}, "size": {"type": "integer", "maximum": 99}},
    "required": ["kind", "size"],
    "additionalProperties": False,
}
HOT = Sampling(temperature=2.0, seed=5)
SAMPLINGS = [
    Sampling(),
    HOT,
    Sampling(temperature=0.7, top_p=0.8, seed=11),
    Sampling(temperature=1.5, top_k=7, seed=0),
    Sampling(temperature=4.0, top_k=50, top_p=0.9, seed=2**40),
    Sampling(repetition_penalty=1.3),
    Sampling(temperature=1.1, top_p=0.95, repetition_penalty=0.8, seed=3),
]
#: Of a model; each changes what it says.
OWN: list[dict[str, Any]] = [
    {"suppress_tokens": list(range(100, 400))},
    {"begin_suppress_tokens": list(range(300))},
    {"bad_words_ids": [[token] for token in range(200, 500)] + [[5, 6]]},
    {"min_new_tokens": 5},
    {"forced_eos_token_id": 2},
    {"no_repeat_ngram_size": 1},
    {"sequence_bias": [[[17], 50.0], [[17, 18], 100.0]]},
    {"exponential_decay_length_penalty": (3, 3.0)},
    {"encoder_repetition_penalty": 3.0},
    {"encoder_no_repeat_ngram_size": 1},
    {"min_new_tokens": 4, "suppress_tokens": [7], "renormalize_logits": True},
]


class Opened:
    """A tiny model, and both ways to have a request answered."""

    def __init__(self, folder: Path) -> None:
        self.model = octavo.load(str(folder), device="cpu")
        self.module, self.processor = self.model.module, self.model.processor
        # Wide weights: it says something else with each token.
        drawn = torch.Generator().manual_seed(1)
        for weight in self.module.parameters():
            if weight.ndim == 2:
                weight.data = (torch.randn(weight.shape, generator=drawn) / 8).to(weight.dtype)

    def prompt(self, request: Request) -> Prepared:
        return self.processor.prepare(request, None)

    def alone(self, request: Request, guard: Guard | None = None) -> Generated:
        matcher = None if request.response is None else lambda: self.matcher(request)
        return generate(
            self.module,
            self.processor,
            self.prompt(request),
            max_new_tokens=request.max_new_tokens,
            sampling=request.sampling,
            guard=guard or Guard(matcher=matcher),
        )

    def matcher(self, request: Request) -> Any:
        if request.response is None:
            return None
        grammars = grammars_of(self.processor.tokenizer, self.processor.end_tokens)
        return grammars.matcher(request.response)

    def answering(self, request: Request) -> Answering:
        return Answering(self, request)


class Answering:
    """A request of which each token is computed by itself and chosen beside others'."""

    def __init__(self, opened: Opened, request: Request) -> None:
        from transformers import DynamicCache

        self.opened, self.limit = opened, request.max_new_tokens
        ids_1t = opened.prompt(request).inputs["input_ids"]
        self.cache = DynamicCache(config=opened.module.config)
        self.next = ids_1t
        self.chooser = Chooser(
            opened.module.generation_config,
            opened.processor,
            request,
            ids_1t[0].tolist(),
            opened.matcher(request),
        )
        self.over = False
        self.steps = 0

    def logits(self) -> Any:
        with torch.inference_mode():
            out = self.opened.module(
                input_ids=self.next, past_key_values=self.cache, logits_to_keep=1
            )
        return out.logits[0, -1]

    def take(self, choice: Choice) -> None:
        if choice.failure is not None:
            raise choice.failure
        self.next = torch.tensor([[choice.token]])
        self.steps += 1
        self.over = choice.stopped or len(self.chooser.tokens) == self.limit

    @property
    def made(self) -> Generated:
        return Generated(tuple(self.chooser.tokens), self.chooser.stopped)


def step(running: Sequence[Answering]) -> None:
    logits_bv = torch.stack([one.logits() for one in running])
    chosen = choose_all([one.chooser for one in running], logits_bv)
    for one, choice in zip(running, chosen, strict=True):
        one.take(choice)


def finish(running: Sequence[Answering]) -> None:
    while running := [one for one in running if not one.over]:
        step(running)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from benchmarks.checkpoints import make

    return make("text", tmp_path_factory.mktemp("text"))


@pytest.fixture(scope="module")
def text(folder: Path) -> Any:
    opened = Opened(folder)
    yield opened
    opened.model.close()


@pytest.fixture(autouse=True)
def _as_it_was(text: Opened) -> Any:
    settings, processor = copy.deepcopy(text.module.generation_config), text.processor
    yield
    text.module.generation_config, text.processor = settings, processor


def ask(words: str = "What is it?", new: int = NEW, **other: Any) -> Request:
    return Request.of(words, max_new_tokens=new, **other)


@pytest.mark.parametrize("sampling", SAMPLINGS, ids=str)
def test_one_request_is_answered_as_by_generate(text: Opened, sampling: Sampling) -> None:
    request = ask(sampling=sampling)
    one = text.answering(request)
    finish([one])
    assert one.made == text.alone(request)
    assert one.chooser.text == text.processor.decode(one.made.tokens)


@pytest.mark.parametrize("own", OWN, ids=lambda own: next(iter(own)))
@pytest.mark.parametrize("sampling", [Sampling(), HOT], ids=["greedy", "hot"])
def test_the_models_own_settings_count(
    text: Opened, own: dict[str, Any], sampling: Sampling
) -> None:
    request = ask(sampling=sampling)
    if "min_new_tokens" in own:
        # What it would say second would end the answer.
        second = text.alone(request).tokens[1]
        text.processor = _Ending(text.processor, {*text.processor.end_tokens, second})
    without = text.alone(request)
    for key, value in own.items():
        setattr(text.module.generation_config, key, value)
    one = text.answering(request)
    finish([one])
    assert one.made == text.alone(request)
    assert one.made != without


def test_a_mixed_batch_says_what_each_says_alone(text: Opened) -> None:
    form = ResponseForm.json_schema(SCHEMA)
    requests = [
        *(ask(sampling=sampling, new=8 + 3 * n) for n, sampling in enumerate(SAMPLINGS)),
        ask("Form?", new=60, response=form),
        ask("Form?", new=60, response=form, sampling=HOT),
        ask("Another", new=30),
    ]
    answering = [text.answering(request) for request in requests]
    # Each comes two steps after the one before.
    running: list[Answering] = []
    for one in answering:
        running.append(one)
        for _ in range(2):
            running = [each for each in running if not each.over]
            step(running)
    finish(running)
    for one, request in zip(answering, requests, strict=True):
        assert one.made == text.alone(request), request.sampling


class _Ending:
    """A processor of which other tokens end an answer."""

    def __init__(self, processor: Any, ends: set[int]) -> None:
        self._processor = processor
        self.end_tokens = frozenset(ends)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._processor, name)


@pytest.mark.parametrize("sampling", [Sampling(), HOT], ids=["greedy", "hot"])
def test_an_answer_has_its_form_and_is_complete_with_it(text: Opened, sampling: Sampling) -> None:
    request = ask(new=200, response=ResponseForm.json_schema(SCHEMA), sampling=sampling)
    one = text.answering(request)
    finish([one])
    assert one.made == text.alone(request)
    assert one.chooser.stopped
    # The end token is not computed.
    assert one.steps == len(one.made.tokens)
    assert json.loads(one.chooser.text)["kind"] in ("a", "b")


def test_a_stop_string_ends_an_answer_and_is_not_in_its_text(text: Opened) -> None:
    whole = text.processor.decode(text.alone(ask()).tokens)
    across = whole[7:11]
    request = ask(sampling=Sampling(stop=("never to come, this", across)))
    one = text.answering(request)
    finish([one])
    assert one.made == text.alone(request)
    assert one.chooser.stopped
    assert one.chooser.text == whole[: whole.index(across)]


def test_an_end_token_is_not_said(text: Opened) -> None:
    third = text.alone(ask()).tokens[2]
    text.processor = _Ending(text.processor, {*text.processor.end_tokens, third})
    one = text.answering(ask())
    step([one])
    step([one])
    choice = one.chooser.choose(one.logits())
    assert choice == Choice(third, stopped=True, said=False)
    assert one.made == text.alone(ask())
    assert len(one.made.tokens) == 2


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_of_equal_logits_the_first_is_taken_and_none_is_changed(text: Opened, dtype: Any) -> None:
    scores_bv = torch.randn(5, 600, generator=torch.Generator().manual_seed(1)).to(dtype)
    scores_bv[:, 590] = scores_bv[:, 41] = scores_bv[:, 333] = 9
    given_bv = scores_bv.clone()
    samplings = [Sampling(), HOT, Sampling(repetition_penalty=1.01), Sampling(), Sampling()]
    form = ResponseForm.regex("[a-z]+")
    requests = [ask(sampling=sampling) for sampling in samplings]
    choosers = [text.answering(request).chooser for request in requests]
    choosers[3] = text.answering(ask(response=form)).chooser
    chosen = choose_all(choosers, scores_bv)
    assert [choice.token for choice in chosen][:1] + [choice.token for choice in chosen][4:] == [
        41,
        41,
    ]
    assert chosen[2].token == 41
    assert torch.equal(scores_bv, given_bv)


def test_chance_is_reckoned_in_float32(text: Opened) -> None:
    logits_bv = torch.randn(48, 600, generator=torch.Generator().manual_seed(3)).bfloat16() / 2
    requests = [
        ask(sampling=Sampling(temperature=0.37, top_p=0.5, seed=seed)) for seed in range(48)
    ]
    drawn = []
    for given_bv in (logits_bv, logits_bv.float()):
        choosers = [text.answering(request).chooser for request in requests]
        for _ in range(8):
            choose_all(choosers, given_bv)
        drawn.append([chooser.tokens for chooser in choosers])
    assert drawn[0] == drawn[1]


def test_a_row_that_fails_takes_no_other_with_it(text: Opened) -> None:
    (a,) = text.processor.tokenizer("a", add_special_tokens=False)["input_ids"]
    free, odd = text.answering(ask(sampling=HOT)), text.answering(ask("odd"))
    text.module.generation_config.suppress_tokens = [a]
    held = text.answering(ask(response=ResponseForm.choice(["a"])))
    odd.chooser._rules = [lambda _, scores: scores[:, 10**6]]
    logits_bv = torch.stack([one.logits() for one in (free, held, odd)])
    fine, none, broken = choose_all([free.chooser, held.chooser, odd.chooser], logits_bv)
    assert fine.failure is None
    assert isinstance(none.failure, ConfigError)
    assert "no token to choose" in str(none.failure)
    assert isinstance(broken.failure, OctavoError)
    assert isinstance(broken.failure.__cause__, IndexError)
    assert held.chooser.tokens == []
    with pytest.raises(ConfigError, match="no token to choose"):
        held.chooser.choose(held.logits())


@pytest.mark.parametrize(
    "error", [MemoryError(), torch.OutOfMemoryError("CUDA"), RuntimeError("not enough memory: x")]
)
@pytest.mark.parametrize("drawn", [False, True], ids=["first", "later"])
def test_without_memory_nothing_is_chosen_and_the_draw_is_repeated(
    text: Opened, error: Exception, drawn: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    requests = [ask(), ask(sampling=HOT), ask(sampling=Sampling(temperature=3.0, seed=2))]
    running = [text.answering(request) for request in requests]
    if drawn:
        step(running)
    logits_bv = torch.stack([one.logits() for one in running])
    choosers = [one.chooser for one in running]
    before = [list(chooser.tokens) for chooser in choosers]

    def fails(ids: Any, scores: Any) -> Any:
        raise error

    with monkeypatch.context() as patched:
        patched.setattr(choosers[2], "_rules", [*choosers[2]._rules, fails])
        with pytest.raises(type(error)):
            choose_all(choosers, logits_bv)
    assert [chooser.tokens for chooser in choosers] == before
    for one, choice in zip(running, choose_all(choosers, logits_bv), strict=True):
        one.take(choice)
    finish(running)
    for one, request in zip(running, requests, strict=True):
        assert one.made == text.alone(request)


@pytest.mark.parametrize("sampling", [*SAMPLINGS[:2], SAMPLINGS[-1]], ids=str)
@pytest.mark.parametrize("own", [{}, {"min_new_tokens": 12}, {"forced_eos_token_id": 2}], ids=str)
def test_a_cut_answer_goes_on_as_if_all_had_been_asked_for(
    text: Opened, sampling: Sampling, own: dict[str, Any]
) -> None:
    for key, value in own.items():
        setattr(text.module.generation_config, key, value)
    whole = ask(new=17, sampling=sampling)
    one = text.answering(ask(new=9, sampling=sampling))
    finish([one])
    if one.chooser.stopped:
        with pytest.raises(ConfigError, match="complete"):
            one.chooser.extend(8)
        return
    one.chooser.extend(8)
    one.limit, one.over = 17, False
    finish([one])
    assert one.made == text.alone(whole)


def test_a_form_goes_on_where_it_was_cut(text: Opened) -> None:
    form = ResponseForm.json_schema(SCHEMA)
    one = text.answering(ask(new=4, response=form, sampling=HOT))
    finish([one])
    assert not form.is_whole(one.chooser.text)
    one.chooser.extend(60)
    one.limit, one.over = 64, False
    finish([one])
    assert one.made == text.alone(ask(new=64, response=form, sampling=HOT))
    with pytest.raises(ConfigError, match="no token"):
        text.answering(ask()).chooser.extend(0)


def test_what_began_while_inferring_goes_on_outside(text: Opened) -> None:
    request = ask(sampling=SAMPLINGS[-1])
    with torch.inference_mode():
        one = text.answering(request)
        step([one])
    finish([one])
    assert one.made == text.alone(request)


def test_settings_that_change_nothing_leave_the_fast_way(text: Opened) -> None:
    own = text.module.generation_config
    own.temperature, own.top_p, own.do_sample, own.repetition_penalty = 0.3, 0.5, True, 1.2
    assert text.answering(ask()).chooser.plain
    assert not text.answering(ask(sampling=HOT)).chooser.plain
    assert not text.answering(ask(response=ResponseForm.choice(["a"]))).chooser.plain
