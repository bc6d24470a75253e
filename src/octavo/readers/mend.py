"""Text as it was meant: hyphenation undone, ligatures spelt out, spaces made plain."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping, Sequence
from types import MappingProxyType

_LIGATURES = {chr(c): unicodedata.normalize("NFKC", chr(c)) for c in range(0xFB00, 0xFB07)}
_LIGATURES |= {
    "\u00a0": " ",
    "\u2002": " ",
    "\u2003": " ",
    "\u2009": " ",
    "\u200b": "",
    "\ufeff": "",
}
_LIGATURES |= {"\u00ad": "", "\u2028": " ", "\u2029": " "}
_TABLE = str.maketrans(_LIGATURES)
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f\ufffe\uffff]")
_SPACES = re.compile(r"\s+")
_LEADERS = re.compile(r"\s*(?:\.\s?){5,}\s*|\s*_{5,}\s*|\s*(?:·\s?){5,}\s*")
_NO_WORDS: Mapping[str, int] = MappingProxyType({})
_HYPHENS = "-\u00ad\u2010\u2011\u2013\u00ac"
_LAST_PART = re.compile(r"([^\W\d_]+)[" + _HYPHENS + r"]$")
_FIRST_PART = re.compile(r"^([^\W\d_]+)")
# First parts that keep their hyphen in English compounds.
_KEEP = frozenset({"self", "well", "ill", "ex", "quasi", "half", "all", "vice", "so", "mid"})
# First parts that never do, though what follows them may be a word.
_PREFIXES = frozenset(
    "ante anti any com con counter dis every fore inter mis more out over per pre pro some sub "
    "super sur trans under what with".split()
)
_STOP = re.compile(r"[.!?:;。！？؟][\"'”’)\]»]*\d{0,3}$")
_LOOSE_STOP = re.compile(r"(?<=\w) ([,.])(?=\s|$)")


def clean(text: str) -> str:
    """Ligatures spelt out, leader dots cut to three, white space single, controls dropped."""
    text = _LEADERS.sub(" ... ", _CONTROL.sub("", text).translate(_TABLE))
    return _LOOSE_STOP.sub(r"\1", _SPACES.sub(" ", text).strip())


def join_lines(lines: Sequence[str], vocabulary: Mapping[str, int] = _NO_WORDS) -> str:
    """One paragraph out of its lines.

    A hyphen at the end of a line is dropped where the next line goes on in small letters, unless
    the rest of the page (``vocabulary``: how often each word stands there, lower case) or the
    first part says that the
    hyphen is the word's own.
    """
    out = ""
    for raw in lines:
        line = raw.strip()
        if not line:
            continue
        out = _append(out, line, vocabulary) if out else line
    return clean(out)


def _append(text: str, line: str, vocabulary: Mapping[str, int]) -> str:
    last = _LAST_PART.search(text)
    first = _FIRST_PART.match(line)
    if last and first:
        head, tail = last.group(1), first.group(1)
        compound = f"{head}-{tail}".lower()
        if compound in vocabulary:
            return text[:-1] + "-" + line
        if tail[0].islower() and len(tail) > 1:
            kept = (head + tail).lower() not in vocabulary and _is_compound(head, tail, vocabulary)
            return text[:-1] + ("-" if kept else "") + line
        if tail[0].isupper() and head[-1].islower():
            return text[:-1] + "-" + line
        if head.isupper() and tail.isupper():
            return text[:-1] + line
    if text[-1] in "-\u2010\u2011" and first and len(text) > 1 and text[-2].isalnum():
        return text + line
    if text[-1] in "\u2014/" and len(text) > 1 and not text[-2].isspace():
        return text + line
    if is_cjk(text[-1]) and is_cjk(line[0]):
        return text + line
    return f"{text} {line}"


def _is_compound(head: str, tail: str, vocabulary: Mapping[str, int]) -> bool:
    """Two words with a hyphen of their own, as far as the rest of the page can tell."""
    if head.lower() in _KEEP:
        return True
    # Once it stands there as the second half of this very break.
    word = len(tail) >= 5 and vocabulary.get(tail.lower(), 0) >= 2
    return word and len(head) >= 3 and head.lower() not in _PREFIXES


def ends_sentence(text: str) -> bool:
    """Whether a text stops at its end; a note's number may stand behind the stop."""
    return bool(_STOP.search(text))


def is_cjk(char: str) -> bool:
    """A character of a script that sets no spaces between its words."""
    return (
        "\u2e80" <= char <= "\u30ff" or "\u3400" <= char <= "\u9fff" or "\uff00" <= char <= "\uffef"
    )
