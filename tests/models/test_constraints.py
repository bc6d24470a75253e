"""Answers held to a form: always of it, whatever the model would say, and others untouched."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("llguidance")

import jsonschema
import torch
from benchmarks.checkpoints.common import tokenizer as byte_tokenizer

from octavo.errors import ConfigError, InputError
from octavo.models import constraints
from octavo.models.constraints import Grammars, Held, Matcher, grammars_of, hold
from octavo.response import ResponseForm, layout_form

END = 2
WIDTH = 640  # logits of a model with 600 tokens


@pytest.fixture(scope="module")
def words() -> Any:
    return byte_tokenizer(["<|endoftext|>", "<|im_start|>", "<|im_end|>"], eos_token="<|im_end|>")


@pytest.fixture(scope="module")
def grammars(words: Any) -> Grammars:
    return Grammars(words, [END])


def _said(words: Any, tokens: list[int]) -> str:
    return str(words.decode(tokens))


def _drawn(matcher: Matcher, generator: Any, budget: int = 600) -> list[int]:
    """Tokens drawn evenly from what is allowed, as from a model that is infinitely hot."""
    tokens: list[int] = []
    while not matcher.finished and len(tokens) < budget:
        logits_v = torch.rand(WIDTH, generator=generator)
        matcher.allowed(logits_v)
        token = int(logits_v.argmax())
        if logits_v[END].isfinite() and float(torch.rand((), generator=generator)) < 0.3:
            token = END
        matcher.advance(token)
        if token != END:
            tokens.append(token)
    return tokens


def _schema(chance: random.Random, depth: int = 0) -> dict[str, Any]:
    low = chance.randint(-50, 50)
    plain: list[Callable[[], dict[str, Any]]] = [
        lambda: {"type": "integer", "minimum": low, "maximum": low + chance.randint(0, 2000)},
        lambda: {"type": "number", "minimum": low, "exclusiveMaximum": low + 10},
        lambda: {"type": "integer", "multipleOf": 5, "minimum": 0, "maximum": 100},
        lambda: {"type": "string", "maxLength": chance.randint(0, 9)},
        lambda: {"type": "string", "pattern": "^[A-Z][a-z]{1,4}-[0-9]{2}$"},
        lambda: {"type": "string", "format": chance.choice(["date", "time", "ipv4", "uuid"])},
        lambda: {"enum": chance.sample(["a", 'q"uo\\te', 3, 1.5, None, True, "é\n"], 3)},
        lambda: {"const": {"x": [1, "y"]}},
        lambda: {"type": ["boolean", "null"]},
    ]
    if depth > 2 or chance.random() < 0.4:
        return chance.choice(plain)()
    if chance.random() < 0.3:
        return {
            "type": "array",
            "items": _schema(chance, depth + 1),
            "minItems": chance.randint(0, 2),
            "maxItems": chance.randint(2, 4),
        }
    if chance.random() < 0.2:
        return {"anyOf": [_schema(chance, depth + 1) for _ in range(2)]}
    names = chance.sample(["name", "a", "ü", 'q"', "long name", "x-y"], chance.randint(1, 4))
    return {
        "type": "object",
        "properties": {name: _schema(chance, depth + 1) for name in names},
        "required": chance.sample(names, chance.randint(0, len(names))),
        "additionalProperties": False,
    }


def test_hot_answers_always_fit_random_schemas(words: Any, grammars: Grammars) -> None:
    chance, generator = random.Random(7), torch.Generator().manual_seed(7)
    whole = 0
    for _ in range(150):
        schema = _schema(chance)
        form = ResponseForm.json_schema(schema)
        matcher = grammars.matcher(form)
        text = _said(words, _drawn(matcher, generator))
        assert form.is_whole(text) == matcher.whole
        if matcher.finished:
            whole += 1
            jsonschema.validate(json.loads(text), schema)
    assert whole >= 145


def _expression(chance: random.Random, depth: int = 0) -> str:
    atoms = ["a", "é", r"\d", "[x-z_]", r"\.", "[^a]", "😀", " ", "/", '"']
    if depth > 2:
        return chance.choice(atoms)
    parts = [_expression(chance, depth + 1) for _ in range(chance.randint(1, 3))]
    found = f"(?:{chance.choice(['', '|']).join(parts)})"
    return found + chance.choice(["", "", "?", "{0,3}", "{2}", "*?"])


def test_hot_answers_always_fit_random_expressions(words: Any, grammars: Grammars) -> None:
    chance, generator = random.Random(3), torch.Generator().manual_seed(3)
    whole = 0
    for _ in range(60):
        expression = _expression(chance)
        matcher = grammars.matcher(ResponseForm.regex(expression))
        text = _said(words, _drawn(matcher, generator))
        if matcher.finished:
            whole += 1
            assert re.fullmatch(expression, text), (expression, text)
    assert whole >= 55


def test_every_choice_is_reached_and_nothing_else(words: Any, grammars: Grammars) -> None:
    choices = ["yes", "yes, please", "no", "(a|b)*", "ø\n"]
    form, generator = ResponseForm.choice(choices), torch.Generator().manual_seed(1)
    drawn = {_said(words, _drawn(grammars.matcher(form), generator)) for _ in range(80)}
    assert drawn == set(choices)


def test_the_mask_is_what_trying_each_token_says(words: Any, grammars: Grammars) -> None:
    form = ResponseForm.json_schema({"type": "object", "properties": {"a": {"type": "number"}}})
    prefix = words('{"a": 1', add_special_tokens=False)["input_ids"]
    logits_v = torch.zeros(WIDTH)
    matcher = grammars.matcher(form, prefix)
    matcher.allowed(logits_v)
    for token in range(WIDTH):
        trial = grammars.matcher(form, prefix)
        try:
            trial.advance(token)
        except InputError:
            assert logits_v[token] == -torch.inf
        else:
            assert logits_v[token] == 0


def test_a_refused_token_changes_nothing(words: Any, grammars: Grammars) -> None:
    matcher = grammars.matcher(ResponseForm.choice(["ab"]))
    (a,), (b,) = (words(letter, add_special_tokens=False)["input_ids"] for letter in "ab")
    for wrong in (b, END, WIDTH + 5):
        with pytest.raises(InputError, match="may not come"):
            matcher.advance(wrong)
    for token in (a, b):
        assert not matcher.whole
        matcher.advance(token)
    assert matcher.whole
    assert matcher.finished
    with pytest.raises(InputError):
        matcher.advance(a)


def test_rollback_goes_back_exactly(words: Any, grammars: Grammars) -> None:
    form = ResponseForm.choice(["abc", "abd"])
    a, b, c = (words(letter, add_special_tokens=False)["input_ids"][0] for letter in "abc")
    matcher = grammars.matcher(form, [a, b, c, END])
    matcher.rollback(0)
    assert matcher.finished
    matcher.rollback(2)
    assert not matcher.finished
    seen, fresh = torch.zeros(WIDTH), torch.zeros(WIDTH)
    matcher.allowed(seen)
    grammars.matcher(form, [a, b]).allowed(fresh)
    assert torch.equal(seen, fresh)
    for wrong in (3, -1):
        with pytest.raises(InputError, match="taken back"):
            matcher.rollback(wrong)
    matcher.rollback(2)
    matcher.advance(a)


def test_where_all_is_said_only_an_end_may_come(words: Any, grammars: Grammars) -> None:
    for tokens in ("ab", "ab<|im_end|>"):
        matcher = grammars.matcher(
            ResponseForm.choice(["ab"]), words(tokens, add_special_tokens=False)["input_ids"]
        )
        logits_v = torch.zeros(WIDTH)
        matcher.allowed(logits_v)
        assert logits_v.isfinite().nonzero().flatten().tolist() == [END]


def test_any_of_several_ends_may_come(words: Any) -> None:
    several = Grammars(words, [0, END])
    logits_v = torch.zeros(WIDTH)
    several.matcher(ResponseForm.regex("a?")).allowed(logits_v)
    assert logits_v[[0, END]].isfinite().all()
    (one,) = words("a", add_special_tokens=False)["input_ids"]
    logits_v = torch.zeros(WIDTH)
    several.matcher(ResponseForm.regex("a?"), [one]).allowed(logits_v)
    assert logits_v.isfinite().nonzero().flatten().tolist() == [0, END]
    logits_v = torch.zeros(WIDTH)
    several.matcher(ResponseForm.regex("a?"), [0]).allowed(logits_v)
    assert logits_v.isfinite().nonzero().flatten().tolist() == [0, END]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("width", [590, 600, 608, 640])
def test_rows_are_masked_in_place_each_by_its_own(
    grammars: Grammars, width: int, dtype: Any
) -> None:
    logits_bv = torch.randn(4, width, generator=torch.Generator().manual_seed(0)).to(dtype)
    before = logits_bv.clone()
    address = logits_bv.data_ptr()
    forms = [ResponseForm.regex("[a-c]+"), ResponseForm.choice(["x", "y"])]
    hold(logits_bv, [None, grammars.matcher(forms[0]), None, grammars.matcher(forms[1])])
    assert logits_bv.data_ptr() == address
    assert torch.equal(logits_bv[[0, 2]], before[[0, 2]])
    alone = before.clone()
    grammars.matcher(forms[0]).allowed(alone[1])
    assert torch.equal(logits_bv[1], alone[1])
    kept = logits_bv.isfinite()
    assert torch.equal(logits_bv[kept], before[kept])
    assert 0 < int(kept[3].sum()) <= 2


def test_bits_are_spread_on_a_device_as_on_the_processor() -> None:
    allowed_rw = np.random.default_rng(0).integers(-(2**31), 2**31, (3, 19)).astype(np.int32)
    packed = np.invert(allowed_rw).view(np.uint8)
    spread = constraints._spread(torch.from_numpy(packed))
    assert torch.equal(spread, constraints._forbidden(allowed_rw, torch.device("cpu")))
    assert bool(spread[1, 40]) == (not (int(allowed_rw[1, 1]) >> 8) & 1)


def test_nothing_left_to_choose_is_an_error_not_a_wrong_token(grammars: Grammars) -> None:
    logits_bv = torch.full((2, WIDTH), -torch.inf)
    logits_bv[:, 0] = 0
    with pytest.raises(ConfigError, match="no token to choose") as caught:
        hold(logits_bv, [None, grammars.matcher(ResponseForm.regex("a"))])
    assert caught.value.where == "regex in row 1"


def test_forms_are_compiled_once_and_the_latest_are_kept(
    words: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(constraints, "KEPT", 2)
    mine = Grammars(words, [END])
    forms = [ResponseForm.regex(letter) for letter in "abc"]
    for form in (forms[0], forms[1], forms[0], forms[2]):
        mine.matcher(form)
    assert list(mine._compiled) == [forms[0], forms[2]]


def test_a_tokenizers_grammars_are_made_once_and_go_with_it() -> None:
    import gc

    one = byte_tokenizer(["<|end|>"], eos_token="<|end|>")
    assert grammars_of(one, [0]) is grammars_of(one, {0})
    assert grammars_of(one, [0]) is not grammars_of(one, [0, 1])
    before = len(constraints._grammars)
    del one
    gc.collect()
    assert len(constraints._grammars) < before


def test_two_answers_of_one_form_do_not_share_where_they_are(
    words: Any, grammars: Grammars
) -> None:
    form = ResponseForm.choice(["ab", "b"])
    first, second = grammars.matcher(form), grammars.matcher(form)
    a, b = (words(letter, add_special_tokens=False)["input_ids"][0] for letter in "ab")
    first.advance(a)
    second.advance(b)
    assert second.finished
    assert not first.finished


def test_a_tokenizer_of_word_pieces_is_refused() -> None:
    from tokenizers import Tokenizer, decoders, models
    from transformers import PreTrainedTokenizerFast

    made = Tokenizer(models.WordPiece({"[UNK]": 0, "a": 1, "##b": 2}, unk_token="[UNK]"))
    made.decoder = decoders.WordPiece()
    with pytest.raises(ConfigError, match="cannot be held"):
        Grammars(PreTrainedTokenizerFast(tokenizer_object=made, unk_token="[UNK]"), [0])


def test_a_form_past_its_limits_is_an_error(grammars: Grammars) -> None:
    class Broken:
        def is_stopped(self) -> bool:
            return False

        def unsafe_compute_mask_ptr(self, _pointer: int, _size: int) -> None:
            return

        def is_error(self) -> bool:
            return True

        def get_error(self) -> str:
            return "Lexer Error: too many states\nmore"

    broken: Any = Broken()
    matcher = Matcher(broken, ResponseForm.regex("a"), frozenset({END}), grammars.vocabulary)
    with pytest.raises(ConfigError, match="too many states"):
        matcher.allowed(torch.zeros(WIDTH))


class _Over:
    def __init__(self, held: Held) -> None:
        self._held = held

    def __call__(self, ids_bt: Any, _scores: Any, **_other: Any) -> Any:
        return torch.tensor(self._held.over(ids_bt))


@pytest.fixture(scope="module")
def module(tiny: Callable[[str], Path]) -> Any:
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(tiny("text"), dtype=torch.float32).eval()


def _answers(module: Any, ids_bt: Any, held: Held | None, **settings: Any) -> list[list[int]]:
    others: dict[str, Any] = (
        {} if held is None else {"logits_processor": [held], "stopping_criteria": [_Over(held)]}
    )
    with torch.inference_mode():
        made_bt = module.generate(
            ids_bt,
            attention_mask=torch.ones_like(ids_bt),
            pad_token_id=0,
            eos_token_id=END,
            **others,
            **settings,
        )
    return [
        [token for token in row if token not in (0, END)]
        for row in made_bt[:, ids_bt.shape[1] :].tolist()
    ]


def test_a_mixed_batch_of_generate(words: Any, grammars: Grammars, module: Any) -> None:
    ids_bt = torch.randint(3, 600, (4, 9), generator=torch.Generator().manual_seed(5))
    schema = {"type": "array", "items": {"enum": ["ab", 12]}, "minItems": 3, "maxItems": 3}
    forms = [None, ResponseForm.json_schema(schema), None, ResponseForm.choice(["yes", "no"])]
    held = Held([form and grammars.matcher(form) for form in forms])
    settings = {"max_new_tokens": 60, "do_sample": False}
    free = _answers(module, ids_bt, None, **settings)
    mixed = _answers(module, ids_bt, held, **settings)
    assert mixed[0] == free[0]
    assert mixed[2] == free[2]
    jsonschema.validate(json.loads(_said(words, mixed[1])), schema)
    assert _said(words, mixed[3]) in ("yes", "no")


def test_hot_sampling_of_generate(words: Any, grammars: Grammars, module: Any) -> None:
    torch.manual_seed(11)
    ids_bt = torch.randint(3, 600, (1, 5))
    for expression in (r"\d{4}-\d{2}", "(?:ab|cd){2,4}!", "[a-f]{1,5}"):
        held = Held([grammars.matcher(ResponseForm.regex(expression))])
        (tokens,) = _answers(
            module, ids_bt, held, max_new_tokens=40, do_sample=True, temperature=5.0
        )
        assert re.fullmatch(expression, _said(words, tokens))


def test_an_answer_that_is_cut_is_not_whole_and_can_be_continued(
    words: Any, grammars: Grammars, module: Any
) -> None:
    form = ResponseForm.json_schema(
        {"type": "array", "items": {"const": "abc"}, "minItems": 4, "maxItems": 4}
    )
    ids_bt = torch.randint(3, 600, (1, 5), generator=torch.Generator().manual_seed(0))
    settings = {"do_sample": False}
    (cut,) = _answers(module, ids_bt, Held([grammars.matcher(form)]), max_new_tokens=6, **settings)
    assert len(cut) == 6
    assert not form.is_whole(_said(words, cut))
    longer_bt = torch.cat([ids_bt, torch.tensor([cut])], 1)
    held = Held([grammars.matcher(form, cut)])
    (rest,) = _answers(module, longer_bt, held, max_new_tokens=200, **settings)
    assert form.is_whole(_said(words, cut + rest))
    (once,) = _answers(
        module, ids_bt, Held([grammars.matcher(form)]), max_new_tokens=206, **settings
    )
    assert cut + rest == once


REAL = {
    "person": {
        "type": "object",
        "properties": {
            "name": {"type": "string", "maxLength": 16},
            "age": {"type": "integer", "minimum": 0, "maximum": 150},
            "home": {
                "type": "object",
                "properties": {"city": {"type": "string", "pattern": "^[A-Z][a-z]{2,12}$"}},
                "required": ["city"],
                "additionalProperties": False,
            },
        },
        "required": ["name", "age", "home"],
        "additionalProperties": False,
    },
    "colors": {
        "type": "array",
        "items": {"enum": ["red", "green", "blue"]},
        "minItems": 2,
        "maxItems": 3,
    },
}


@pytest.fixture(scope="module")
def real() -> Iterator[Any]:
    import octavo
    from octavo.models.packaged import missing_packages, packaged

    found = packaged("smollm2-135m-instruct")
    assert found is not None
    if missing_packages(found):
        pytest.skip(found.install)
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("HF_HUB_OFFLINE", "1")
        with octavo.load("smollm2-135m-instruct") as model:
            model.wait()
            yield model


def _asked(real: Any, question: str, form: ResponseForm, budget: int) -> str:
    words = real.processor.tokenizer
    ids_bt = words.apply_chat_template(
        [{"role": "user", "content": question}],
        add_generation_prompt=True,
        return_tensors="pt",
        return_dict=True,
    )["input_ids"]
    held = Held([grammars_of(words, real.processor.end_tokens).matcher(form)])
    (tokens,) = _answers(real.module, ids_bt, held, max_new_tokens=budget, do_sample=False)
    return _said(words, tokens)


@pytest.mark.parametrize("name", sorted(REAL))
def test_real_answers_fit_a_schema(real: Any, name: str) -> None:
    form = ResponseForm.json_schema(REAL[name])
    text = _asked(real, f"Write JSON about Ada Lovelace: {name}.", form, 90)
    jsonschema.validate(json.loads(text), REAL[name])


def test_real_answers_fit_an_expression_and_a_choice(real: Any) -> None:
    date = _asked(real, "When was the moon landing?", ResponseForm.regex(r"19\d\d-\d\d-\d\d"), 20)
    assert re.fullmatch(r"19\d\d-\d\d-\d\d", date)
    choices = ["cats", "dogs"]
    assert _asked(real, "Cats or dogs?", ResponseForm.choice(choices), 20) in choices


def test_a_real_answer_in_the_layout_form_that_is_cut_says_so(real: Any) -> None:
    text = _asked(real, "Layout of a page as JSON.", layout_form(), 8)
    assert text.startswith("[")
    assert not layout_form().is_whole(text)
