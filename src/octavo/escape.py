"""Backslashes for plain text within Markdown, only where they change what is shown."""

from __future__ import annotations

import re

#: A tag, a comment or an autolink would begin here; so would an entity.
_TAG = re.compile(r"<(?=[A-Za-z/!?])")
_ENTITY = re.compile(r"&(?=#?\w{1,31};)")
_BACKSLASH = re.compile(r"\\(?=[!-/:-@\[-`{-~])")
#: Between words an underscore is a letter, an asterisk is not.
_STAR_PAIR = re.compile(r"\*(?=\S).*?(?<=\S)\*")
_SCORE_PAIR = re.compile(r"(?<!\w)_+(?=\S).*?(?<=\S)_+(?!\w)")
_OUTER_SCORES = re.compile(r"(?<![^\W_])_+|_+(?![^\W_])")
_LINK = re.compile(r"\](?=[(\[])")
_REFERENCE = re.compile(r"^\[(?=[^\]]+\]:)")
_BLOCK_START = re.compile(
    r"^(?=#{1,6}(?:\s|$)|>|[-+*](?:\s|$)|```|~~~|([-_*])(?:\s*\1){2,}\s*$|={2,}$)"
)
_ORDERED_START = re.compile(r"^(\d{1,9})(?=[.)](?:\s|$))")


def escape_inline(text: str) -> str:
    """One line of text, so that no tag, entity, emphasis, code or link comes of it."""
    text = _BACKSLASH.sub(r"\\\\", text)
    text = _TAG.sub(r"\\<", text)
    text = _ENTITY.sub(r"\\&", text)
    if _STAR_PAIR.search(text):
        text = text.replace("*", "\\*")
    if _SCORE_PAIR.search(text):
        text = _OUTER_SCORES.sub(lambda run: "\\_" * len(run[0]), text)
    if text.count("`") > 1:
        text = text.replace("`", "\\`")
    if text.count("~~") > 1:
        text = text.replace("~~", "\\~~")
    return _LINK.sub(r"\\]", text)


def escape_start(text: str, *, in_list: bool) -> str:
    """The beginning of a line, so that no heading, list, quote, rule or fence comes of it.

    A number at the start of a paragraph is shown as it stands even where Markdown takes it for a
    list of one; after a list (``in_list``) it would be counted on, and is escaped.
    """
    if _BLOCK_START.match(text):
        return "\\" + text
    if in_list:
        text = _ORDERED_START.sub(r"\1\\", text)
    return _REFERENCE.sub(r"\\[", text)
