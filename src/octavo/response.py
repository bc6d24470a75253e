"""The form that an answer must have: a JSON Schema, a regular expression, or one of some strings.

A form is checked when it is made, so that a request with a broken one is never sent. llguidance,
which is loaded for that, is also what holds answers to it (:mod:`octavo.models.constraints`): both
read a form the same way.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache
from types import ModuleType
from typing import TYPE_CHECKING, Any, Final, Self

from octavo.errors import ConfigError, MissingDependency
from octavo.types import Category

if TYPE_CHECKING:
    from llguidance import LLMatcher, LLTokenizer


class FormKind(StrEnum):
    """What a form is made of."""

    JSON = "json"
    REGEX = "regex"
    CHOICE = "choice"


#: Between two marks of JSON. Models write it with and without blanks and lines, but where blanks
#: have no end a weak model writes nothing else until its tokens are used up.
_BLANKS: Final = r"\n? {0,16}|\n\t{1,8}"
#: Escapes in strings, without \u: a key spelled with it would pass for one that the schema does not
#: name, and half of a pair would be no text. What it could say is said by the character itself.
_ESCAPES: Final = '"\\bfnrt'
_JSON: Final = {
    "whitespace_pattern": _BLANKS,
    "json_allowed_escapes": _ESCAPES,
    "json_allow_general_unicode_escapes": False,
    "lenient": False,
    "coerce_one_of": False,
}
_META: Final = frozenset("\\.+*?()|[]{}^$#&-~")


@dataclass(frozen=True, slots=True)
class ResponseForm:
    """What an answer must look like, as a whole. Made by :meth:`json_schema`, :meth:`regex` or
    :meth:`choice`; equal forms are equal and hash alike.

    Attributes:
        kind: how ``text`` is read.
        text: the schema as JSON, the expression, or the strings as a JSON list.

    Raises:
        ConfigError: the form is broken, uses what cannot be held to, or fits no text at all.
        MissingDependency: llguidance is not installed.
    """

    kind: FormKind
    text: str

    def __post_init__(self) -> None:
        if self.kind is FormKind.JSON:
            _check_keywords(json.loads(self.text), "schema")
        reader = _start(self).deep_copy()
        if reader.is_error():
            raise self._wrong(_reason(reader.get_error()))
        # Only with the first mask is it seen that nothing can come.
        reader.compute_bitmask()
        if reader.is_error():
            raise self._wrong("no text fits it")

    @classmethod
    def json_schema(cls, schema: Mapping[str, Any] | str) -> Self:
        """JSON that fits a schema (drafts 4 to 2020-12, without ``not``, ``if``, ``uniqueItems``
        and what else no grammar says; such a schema is refused). Properties come in the schema's
        order. An object that does not say ``additionalProperties: false`` may have others."""
        try:
            found = json.loads(schema) if isinstance(schema, str) else dict(schema)
            text = json.dumps(found, ensure_ascii=False, allow_nan=False)
        except (ValueError, TypeError, RecursionError) as error:
            raise ConfigError(
                f"the JSON schema is no JSON: {error}",
                where="schema",
                next_step="give an object such as {'type': 'object', 'properties': {...}}",
            ) from error
        if not isinstance(found, dict):
            raise ConfigError(
                "a JSON schema is an object",
                where="schema",
                next_step="give an object such as {'type': 'object', 'properties': {...}}",
            )
        return cls(FormKind.JSON, text)

    @classmethod
    def regex(cls, expression: str) -> Self:
        """Text that an expression fits from beginning to end; no look-around, no back-references,
        and ``.`` is anything but a new line."""
        if not isinstance(expression, str) or not expression:
            raise ConfigError(
                "an empty expression would allow no answer",
                where="regex",
                next_step=r"give one such as \d{4}-\d{2}-\d{2}",
            )
        return cls(FormKind.REGEX, expression)

    @classmethod
    def choice(cls, choices: Sequence[str]) -> Self:
        """One of some strings, as it stands."""
        if isinstance(choices, str):
            raise ConfigError("choices are a list of strings", where=f"choice {choices!r}")
        found = list(choices)
        if not found or not all(isinstance(one, str) and one for one in found):
            raise ConfigError(
                "give at least one string to choose, none of them empty",
                where=f"choice {found!r}",
                next_step="for example ['yes', 'no']",
            )
        if len(set(found)) < len(found):
            raise ConfigError("give each choice once", where=f"choice {found!r}")
        return cls(FormKind.CHOICE, json.dumps(found))

    @property
    def grammar(self) -> str:
        """The form in llguidance's own language."""
        matcher = _library().LLMatcher
        if self.kind is FormKind.JSON:
            return str(matcher.grammar_from_json_schema(self.text, overrides=_JSON))
        if self.kind is FormKind.REGEX:
            return str(matcher.grammar_from_regex(self.text))
        return str(matcher.grammar_from_regex("|".join(map(_literal, json.loads(self.text)))))

    def is_whole(self, text: str) -> bool:
        """Whether a text has the form from beginning to end. An answer that ``max_new_tokens`` cut
        short has not: it is to be continued or dropped, and nothing here mends it."""
        reader = _start(self).deep_copy()
        # Halves of surrogate pairs are no UTF-8, and no form allows them.
        return bool(
            reader.consume_tokens(list(text.encode(errors="surrogatepass")))
            and reader.is_accepting()
        )

    def _wrong(self, reason: str) -> ConfigError:
        shown = self.text if len(self.text) <= 80 else f"{self.text[:77]}..."
        return ConfigError(
            f"answers cannot be held to this: {reason}",
            where=f"{'schema' if self.kind is FormKind.JSON else self.kind} {shown}",
            next_step="say it without that part, or check the answer afterwards",
        )


@lru_cache(maxsize=1)
def layout_form() -> ResponseForm:
    """Layout as dots.ocr answers it: ``[{"bbox": [x1, y1, x2, y2], "category": ..., "text": ...}]``
    in reading order, boxes in pixels, no text for pictures."""
    box = {
        "type": "array",
        "items": {"type": "integer", "minimum": 0, "maximum": 99_999},
        "minItems": 4,
        "maxItems": 4,
    }

    def element(categories: list[str], **text: Any) -> dict[str, Any]:
        fields = {"bbox": box, "category": {"enum": categories}, **text}
        return {
            "type": "object",
            "properties": fields,
            "required": list(fields),
            "additionalProperties": False,
        }

    worded = [str(one) for one in Category if one is not Category.PICTURE]
    kinds = [element(worded, text={"type": "string"}), element([str(Category.PICTURE)])]
    return ResponseForm.json_schema({"type": "array", "items": {"anyOf": kinds}})


def _library() -> ModuleType:
    try:
        import llguidance
    except ImportError as error:
        raise MissingDependency(
            "llguidance is not installed, and answers of a given form need it",
            next_step="pip install 'octavo[models]'",
        ) from error
    return llguidance


@lru_cache(maxsize=1)
def _bytes() -> LLTokenizer:
    """Each byte is a token of its own number."""
    found: LLTokenizer = _library().LLTokenizer("byte")
    return found


@lru_cache(maxsize=64)
def _start(form: ResponseForm) -> LLMatcher:
    """A reader of texts at their beginning; copies of it read."""
    found: LLMatcher = _library().LLMatcher(_bytes(), form.grammar, log_level=0)
    return found


def _literal(text: str) -> str:
    return "".join(f"\\{letter}" if letter in _META else letter for letter in text)


def _reason(message: str) -> str:
    """One line of what llguidance says, without its own numbering."""
    lines = [line.strip() for line in message.splitlines() if line.strip()]
    exact = [line.removeprefix("error: ") for line in lines if line.startswith("error: ")]
    return exact[0] if exact else lines[0].rpartition("(in regex): ")[2] if lines else "it is wrong"


# llguidance takes a keyword that it does not know for a remark, as the standard says; a misspelt
# one would not be held to, and nobody would know.

_ONE: Final = frozenset(
    "additionalItems additionalProperties contains contentSchema else if items not propertyNames "
    "then unevaluatedItems unevaluatedProperties".split()
)
_SOME: Final = frozenset("allOf anyOf items oneOf prefixItems".split())
_NAMED: Final = frozenset(
    "$defs definitions dependencies dependentSchemas patternProperties properties".split()
)
_PLAIN: Final = frozenset(
    "$anchor $comment $dynamicAnchor $dynamicRef $id $ref $schema $vocabulary const "
    "contentEncoding contentMediaType default dependentRequired deprecated description "
    "discriminator enum example examples exclusiveMaximum exclusiveMinimum format id maxContains "
    "maxItems maxLength maxProperties maximum minContains minItems minLength minProperties minimum "
    "multipleOf pattern readOnly required title type uniqueItems writeOnly".split()
)
_KNOWN: Final = _ONE | _SOME | _NAMED | _PLAIN


def _check_keywords(schema: Any, where: str) -> None:
    waiting = [(where, schema)]
    while waiting:
        at, found = waiting.pop()
        if not isinstance(found, dict):
            continue
        for key in found:
            if key not in _KNOWN and not key.startswith("x-"):
                raise ConfigError(
                    f"no keyword {key!r} in JSON Schema",
                    where=at,
                    next_step="see json-schema.org for its spelling; remarks begin with x-",
                )
        waiting.extend(_below(found, at))


def _below(schema: dict[str, Any], at: str) -> Iterator[tuple[str, Any]]:
    for key, value in schema.items():
        if key in _NAMED and isinstance(value, dict):
            yield from ((f"{at}/{key}/{name}", one) for name, one in value.items())
        elif key in _SOME and isinstance(value, list):
            yield from ((f"{at}/{key}/{number}", one) for number, one in enumerate(value))
        elif key in _ONE:
            yield f"{at}/{key}", value
