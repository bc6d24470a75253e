"""Markdown and HTML reduced to what the rules compare: words, without dress.

Typographic choices that carry no content (quotes, dashes, emphasis, escapes, markup of sub- and
superscripts) are made equal on both sides. Ligatures, split words and wrong letters are left
alone: they are what is being measured.
"""

from __future__ import annotations

import html
import re
import unicodedata

_SAME = str.maketrans(
    {
        **dict.fromkeys("‘’‚‛′`´", "'"),
        **dict.fromkeys("“”„‟″«»", '"'),
        **dict.fromkeys("‐‑‒–—―−﹣-", "-"),
        **dict.fromkeys("\u00a0\u2002\u2003\u2007\u2009\u200a\u202f\u3000", " "),
        **dict.fromkeys("\u00ad\u200b\u200c\u200d\u2060\ufeff\u200e\u200f", None),
        **{low: str(digit) for digit, low in enumerate("₀₁₂₃₄₅₆₇₈₉")},
        **{high: str(digit) for digit, high in enumerate("⁰¹²³⁴⁵⁶⁷⁸⁹")},
        "…": "...",
        "⁻": "-",
        "⁺": "+",
        "（": "(",
        "）": ")",
        "，": ",",
        "；": ";",
        "：": ":",
    }
)
_COMMENT = re.compile(r"<!--.*?-->", re.DOTALL)
_PICTURE = re.compile(r"!\[[^\]]*\]\([^)]*\)")
_LINK = re.compile(r"\[([^\]]+)\]\((?:https?:|mailto:|#|/|\./)[^)]*\)")
_BREAK = re.compile(
    r"<br\s*/?>|</?(?:p|div|li|ul|ol|tr|td|th|table|thead|tbody)\b[^>]*>", re.IGNORECASE
)
_DRESS = re.compile(
    r"</?(?:sub|sup|b|i|u|em|strong|mark|small|span|a|code|h[1-6]|caption|figcaption)\b[^>]*>",
    re.IGNORECASE,
)
_EMPHASIS = re.compile(
    r"(?<!\\)(?:\*{1,3}(?=\S)|(?<=\S)\*{1,3}|(?<!\w)_{1,3}(?=\S)|(?<=\S)_{1,3}(?!\w))"
)
_ESCAPE = re.compile(r"\\([\\`*_{}\[\]()#+\-.!|<>~$&])")
_HEAD = re.compile(r"^\s{0,3}#{1,6}\s+|^\s{0,3}>\s?", re.MULTILINE)
_INLINE_MATH = re.compile(r"\$\s*(?:\^|_)?\{?\s*([\w,.+\-*]+?)\s*\}?\s*\$")


def plain_lines(text: str) -> str:
    """``text`` without markup; its line breaks are kept."""
    text = _COMMENT.sub(" ", text)
    text = _PICTURE.sub(" ", text)
    text = _LINK.sub(r"\1", text)
    text = _BREAK.sub("\n", text)
    text = _DRESS.sub("", text)
    text = html.unescape(text)
    text = _HEAD.sub("", text)
    text = _INLINE_MATH.sub(r"\1", text)
    text = _EMPHASIS.sub("", text)
    text = _ESCAPE.sub(r"\1", text)
    return unicodedata.normalize("NFC", text).translate(_SAME)


def plain(text: str) -> str:
    """``text`` without markup, on one line, single spaces."""
    return " ".join(plain_lines(text).split())
