"""Forms of answers: what is refused when one is made, and which texts are whole."""

from __future__ import annotations

import copy
import json
import pickle
import re
import sys
from typing import Any

import pytest

pytest.importorskip("llguidance")

from octavo.errors import ConfigError, MissingDependency
from octavo.response import FormKind, ResponseForm, _start, layout_form

PERSON: dict[str, Any] = {
    "type": "object",
    "properties": {"name": {"type": "string"}, "age": {"type": "integer", "minimum": 0}},
    "required": ["name", "age"],
    "additionalProperties": False,
}


@pytest.mark.parametrize(
    ("schema", "named"),
    [
        ("{'a': 1}", "no JSON"),
        ("[1, 2]", "an object"),
        ({"type": "integer", "minimum": float("nan")}, "no JSON"),
        ({"type": {1, 2}}, "no JSON"),
        ({"type": "objekt"}, "objekt"),
        ({"type": "array", "uniqueItems": True}, "uniqueItems"),
        ({"not": {"type": "string"}}, "not"),
        ({"if": {}, "then": {}}, "if"),
        ({"type": "string", "format": "wibble"}, "wibble"),
        ({"type": "integer", "minimum": 5, "maximum": 3}, "greater"),
        ({"enum": []}, "empty"),
        ({"$ref": "#/$defs/missing"}, "missing"),
        ({"$ref": "https://example.org/a.json"}, "example.org"),
        ({"type": "string", "pattern": "(?=a)b"}, "look-around"),
        ({"type": "string", "not": {}, "x-guidance": {"lenient": True}}, "not"),
        ({"type": "array", "minItem": 3}, "minItem"),
        ({"properties": {"a": {"anyOf": [{"maxlength": 2}]}}}, "maxlength"),
    ],
)
def test_a_schema_that_cannot_be_held_to_is_refused(schema: Any, named: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(named)) as caught:
        ResponseForm.json_schema(schema)
    assert caught.value.where is not None
    assert caught.value.where.startswith("schema")
    assert caught.value.next_step


def test_a_misspelt_keyword_is_named_with_its_place() -> None:
    schema = {"properties": {"a": {"items": {"minimun": 1}}}}
    with pytest.raises(ConfigError) as caught:
        ResponseForm.json_schema(schema)
    assert caught.value.where == "schema/properties/a/items"


def test_properties_may_have_any_name_and_values_any_content() -> None:
    schema = {
        "properties": {"minItem": {"const": {"maxlength": 1}}},
        "x-mine": 1,
        "examples": [{"wrong": 1}],
        "required": ["minItem"],
        "additionalProperties": False,
    }
    assert ResponseForm.json_schema({"type": "object", **schema}).is_whole(
        '{"minItem": {"maxlength": 1}}'
    )


@pytest.mark.parametrize(
    "expression", ["", "(", "a{2,1}", "(?=a)b", r"(a)\1", r"\bfoo", r"[^\s\S]"]
)
def test_an_expression_that_cannot_be_held_to_is_refused(expression: str) -> None:
    with pytest.raises(ConfigError) as caught:
        ResponseForm.regex(expression)
    assert caught.value.where
    assert caught.value.next_step
    assert "\n" not in caught.value.what


@pytest.mark.parametrize("choices", [[], [""], ["a", "a"], "yes", ["a", 1]])
def test_choices_that_are_none_are_refused(choices: Any) -> None:
    with pytest.raises(ConfigError):
        ResponseForm.choice(choices)


def test_without_the_library_its_install_command_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "llguidance", None)
    with pytest.raises(MissingDependency, match=r"octavo\[models\]"):
        ResponseForm.regex("never seen before")


def test_equal_forms_are_one_key_and_travel() -> None:
    one, same = ResponseForm.json_schema(PERSON), ResponseForm.json_schema(json.dumps(PERSON))
    assert one == same
    assert hash(one) == hash(same)
    assert pickle.loads(pickle.dumps(one)) == copy.deepcopy(one) == one
    assert ResponseForm.regex("a") != ResponseForm.choice(["a"])
    assert one.kind is FormKind.JSON


def test_the_callers_schema_may_change_afterwards() -> None:
    schema = copy.deepcopy(PERSON)
    form = ResponseForm.json_schema(schema)
    schema["properties"]["age"]["minimum"] = 50
    assert form.is_whole('{"name": "A", "age": 3}')


@pytest.mark.parametrize("text", ['{"name":"Aé","age":3}', '{"name": "A", "age": 3}',
                                  '{\n  "name": "A",\n  "age": 3\n}'])  # fmt: skip
def test_json_is_whole_however_it_is_spaced(text: str) -> None:
    assert ResponseForm.json_schema(PERSON).is_whole(text)


def test_no_beginning_of_json_is_whole_and_nothing_may_follow() -> None:
    form, text = ResponseForm.json_schema(PERSON), '{"name": "Aé", "age": 3}'
    assert [form.is_whole(text[:end]) for end in range(len(text))] == [False] * len(text)
    assert form.is_whole(text)
    for other in (text + " ", text + "}", " " + text, text.replace("3", "-3"), "\ud800"):
        assert not form.is_whole(other)


def test_blanks_end() -> None:
    form = ResponseForm.json_schema(PERSON)
    assert form.is_whole('{"name":' + " " * 16 + '"A", "age": 3}')
    assert not form.is_whole('{"name":' + " " * 40 + '"A", "age": 3}')


def test_a_key_cannot_be_smuggled_in_by_an_escape() -> None:
    form = ResponseForm.json_schema({"type": "object", "properties": {"a": {"type": "string"}}})
    assert form.is_whole('{"b": 1}')
    assert not form.is_whole('{"a": 1}')
    assert not form.is_whole('{"\\u0061": 1}')


@pytest.mark.parametrize("letter", [chr(code) for code in range(1, 128)] + ["é", "😀", "\u2028"])
def test_choices_hold_any_character(letter: str) -> None:
    form = ResponseForm.choice([f"x{letter}y", "z"])
    assert form.is_whole(f"x{letter}y")
    assert not form.is_whole("xzzy" if letter != "z" else "xy")
    assert not form.is_whole("y")


def test_a_choice_may_begin_another() -> None:
    form = ResponseForm.choice(["yes", "yes, please"])
    assert form.is_whole("yes")
    assert form.is_whole("yes, please")
    assert not form.is_whole("yes, ")


def test_an_expression_fits_all_of_the_text() -> None:
    form = ResponseForm.regex(r"a|\d{2}")
    assert form.is_whole("a")
    assert form.is_whole("12")
    assert not form.is_whole("a12")
    assert not form.is_whole("1")


def test_layout_as_dots_ocr_writes_it() -> None:
    form = layout_form()
    text = '{"bbox": [29, 435, 74, 1121], "category": "Text", "text": "a\\n$\\\\frac12$ \\"b\\""}'
    picture = '{"bbox": [0, 0, 9, 9], "category": "Picture"}'
    assert form.is_whole(f"[{text}, {picture}, {text}]")
    assert form.is_whole("[]")
    for wrong in (
        f"[{text}, {picture}",
        f"[{picture}, {{}}]",
        f"[{text.replace('1121', '1.5')}]",
        f"[{text.replace('29, ', '')}]",
        f"[{text.replace('Text', 'Textual')}]",
        f"[{picture.replace('Picture', 'Title')}]",
    ):
        assert not form.is_whole(wrong)


def test_reading_a_text_leaves_the_kept_form_at_its_beginning() -> None:
    form = ResponseForm.regex("ab")
    assert not form.is_whole("a")
    assert form.is_whole("ab")
    assert _start(form) is _start(ResponseForm.regex("ab"))
