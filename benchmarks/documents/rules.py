"""Facts about one page, each true by eye, and the check of a Markdown text against them.

The kinds are those of public OCR benchmarks that test by single facts: text is present, text is
absent (running heads, page numbers), one passage comes before another, a table cell has a
neighbour, a line is a heading. Matching is fuzzy by a number of allowed differences, so that one
wrong letter in a long sentence is not the whole sentence.

A tool that returns next to nothing fails every rule of the page: leaving out everything is not
leaving out the running head.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from rapidfuzz import fuzz

from benchmarks.documents.normalise import plain, plain_lines
from benchmarks.documents.tables import Cell, Grid, find_tables

KINDS = ("present", "absent", "order", "table", "heading")
CLASSES = ("columns", "furniture", "tables", "small", "old", "headings")
#: Fewer letters and digits than this on a page with rules is no answer.
_LEAST_TEXT = 10
_PLACE = ("doc", "page", "group", "kind", "password")
_DIRECTIONS = {"up": (-1, 0), "down": (1, 0), "left": (0, -1), "right": (0, 1)}
_HEADINGS = {"top_heading": (-1, 0), "left_heading": (0, -1)}
_ATX = re.compile(r"^\s{0,3}(#{1,6})\s+(.+?)\s*#*\s*$", re.MULTILINE)
_SETEXT = re.compile(r"^(\S[^\n]*)\n(=+|-{3,})\s*$", re.MULTILINE)
_HTML_HEADING = re.compile(r"<h([1-6])\b[^>]*>(.*?)</h\1>", re.IGNORECASE | re.DOTALL)


@dataclass(frozen=True, slots=True)
class Rule:
    """One fact.

    Attributes:
        doc: ``corpus/…``, ``drawn/…`` or ``examples/…``.
        page: 1-based.
        group: one of ``CLASSES``; the score is reported for each.
        kind: one of ``KINDS``.
        text: what is looked for; the cell of a table rule, the words of a heading.
        max_diffs: letters that may differ.
        first_n, last_n: look only in so many characters at the start and the end (both: in
            either).
        whole_line: the text counts only as a line of its own (page numbers).
        before, after: passages of an order rule.
        up, down, left, right: the nearest other cell in that direction.
        top_heading, left_heading: some cell above in the column, or before it in the row.
        below: a heading that must be of a higher level (fewer ``#``) than this one.
        beside: a heading that must be of the same level.
        password: opens the document.
    """

    doc: str
    page: int
    group: str
    kind: str
    text: str = ""
    max_diffs: int = 0
    case_sensitive: bool = True
    first_n: int | None = None
    last_n: int | None = None
    whole_line: bool = False
    before: str = ""
    after: str = ""
    up: str | None = None
    down: str | None = None
    left: str | None = None
    right: str | None = None
    top_heading: str | None = None
    left_heading: str | None = None
    below: str | None = None
    beside: str | None = None
    password: str = ""

    def __str__(self) -> str:
        said = {
            f.name: getattr(self, f.name)
            for f in fields(self)
            if f.name not in _PLACE and getattr(self, f.name) != f.default
        }
        return f"{self.kind} " + " ".join(f"{key}={value!r}" for key, value in said.items())


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether a rule held, and the nearest thing found where it did not."""

    rule: Rule
    passed: bool
    nearest: str = ""


class RuleError(ValueError):
    """A rule file says something that no check understands."""


def load_rules(folder: Path) -> list[Rule]:
    """The rules of all ``*.json`` in ``folder``.

    A file is a list of ``{"doc", "page", "class", "rules": [{"kind", …}]}``; a rule may carry a
    ``class`` of its own.
    """
    rules: list[Rule] = []
    for path in sorted(folder.glob("*.json")):
        for entry in json.loads(path.read_text(encoding="utf-8")):
            rules.extend(_read_entry(entry, path.name))
    return rules


def _read_entry(entry: Mapping[str, Any], file: str) -> Iterator[Rule]:
    where = f"{file}: {entry.get('doc')}"
    for given in entry["rules"]:
        values = {"group": entry["class"], **given}
        if "class" in values:
            values["group"] = values.pop("class")
        try:
            rule = Rule(
                doc=entry["doc"],
                page=entry.get("page", 1),
                password=entry.get("password", ""),
                **values,
            )
        except TypeError as error:
            raise RuleError(f"{where}: {given}: {error}") from error
        _validate(rule, where)
        yield rule


def _validate(rule: Rule, where: str) -> None:
    if rule.kind not in KINDS:
        raise RuleError(f"{where}: unknown kind {rule.kind!r}")
    if rule.group not in CLASSES:
        raise RuleError(f"{where}: unknown class {rule.group!r}")
    if rule.kind == "order":
        if not (rule.before and rule.after):
            raise RuleError(f"{where}: an order rule needs before and after: {rule}")
    elif not plain(rule.text):
        raise RuleError(f"{where}: a rule without text: {rule}")
    sides = [getattr(rule, name) for name in (*_DIRECTIONS, *_HEADINGS)]
    if rule.kind == "table" and not any(sides):
        raise RuleError(f"{where}: a table rule needs a neighbour: {rule}")


class PageText:
    """One tool's Markdown for one page, taken apart once for all rules."""

    def __init__(self, markdown: str) -> None:
        self.markdown = markdown

    @cached_property
    def flat(self) -> str:
        return plain(self.markdown)

    @cached_property
    def lines(self) -> list[str]:
        return [" ".join(line.split()) for line in plain_lines(self.markdown).splitlines()]

    @cached_property
    def tables(self) -> list[Grid]:
        return find_tables(self.markdown)

    @cached_property
    def headings(self) -> list[tuple[int, str]]:
        """Level and words of every heading."""
        text = self.markdown
        found = [(len(m[1]), plain(m[2])) for m in _ATX.finditer(text)]
        found += [(1 if m[2][0] == "=" else 2, plain(m[1])) for m in _SETEXT.finditer(text)]
        found += [(int(m[1]), plain(m[2])) for m in _HTML_HEADING.finditer(text)]
        return found

    @property
    def empty(self) -> bool:
        return sum(letter.isalnum() for letter in self.flat) < _LEAST_TEXT


def check(rule: Rule, page: PageText) -> Verdict:
    """Does ``rule`` hold for ``page``?"""
    if page.empty:
        return Verdict(rule, False, "(no text)")
    return {
        "present": _check_present,
        "absent": _check_absent,
        "order": _check_order,
        "table": _check_table,
        "heading": _check_heading,
    }[rule.kind](rule, page)


def _threshold(text: str, max_diffs: int) -> float:
    """The least similarity, 0 to 100, of a text in which ``max_diffs`` letters may differ."""
    return 100 * max(0.0, 1 - max_diffs / max(len(text), 1))


def _similar(wanted: str, found: str, max_diffs: int = 0) -> bool:
    wanted = plain(wanted)
    return fuzz.ratio(wanted, found) >= _threshold(wanted, max_diffs)


def _same_cell(wanted: str, found: str, max_diffs: int) -> bool:
    """As ``_similar``, but a number is right or wrong."""
    digits = sum(letter.isdigit() for letter in wanted)
    letters = sum(letter.isalpha() for letter in wanted)
    return _similar(wanted, found, 0 if digits > letters else max_diffs)


def _best(rule: Rule, page: PageText) -> tuple[bool, str]:
    """Is the text of ``rule`` found, and the nearest stretch."""
    wanted = plain(rule.text)
    flat = page.flat
    if rule.whole_line:
        lines = page.lines if rule.case_sensitive else [line.lower() for line in page.lines]
        wanted = wanted if rule.case_sensitive else wanted.lower()
        hit = next((line for line in lines if _similar(wanted, line, rule.max_diffs)), "")
        return bool(hit), hit
    windows = [flat]
    if rule.first_n or rule.last_n:
        windows = [flat[: rule.first_n]] if rule.first_n else []
        windows += [flat[-rule.last_n :]] if rule.last_n else []
    if not rule.case_sensitive:
        wanted, windows = wanted.lower(), [window.lower() for window in windows]
    best, nearest = 0.0, ""
    for window in windows:
        if len(window) < len(wanted):
            score, stretch = fuzz.ratio(wanted, window), window
        else:
            at = fuzz.partial_ratio_alignment(wanted, window)
            score, stretch = (at.score, window[at.dest_start : at.dest_end]) if at else (0.0, "")
        if score > best:
            best, nearest = score, stretch
    return best >= _threshold(wanted, rule.max_diffs) - 1e-9, nearest


def _check_present(rule: Rule, page: PageText) -> Verdict:
    found, nearest = _best(rule, page)
    return Verdict(rule, found, nearest)


def _check_absent(rule: Rule, page: PageText) -> Verdict:
    found, nearest = _best(rule, page)
    return Verdict(rule, not found, nearest)


def near_ends(wanted: str, text: str, max_diffs: int) -> list[int]:
    """Where stretches of ``text`` end that are ``max_diffs`` edits or fewer from ``wanted``.

    Sellers' algorithm, a row of the table at a time.
    """
    if not text:
        return []
    letters = np.frombuffer(text.encode("utf-32-le"), dtype=np.uint32)
    steps = np.arange(len(letters) + 1)
    row = np.zeros(len(letters) + 1, dtype=np.int64)
    for done, letter in enumerate(wanted, start=1):
        step = np.empty_like(row)
        step[0] = done
        step[1:] = np.minimum(row[:-1] + (letters != ord(letter)), row[1:] + 1)
        row = np.minimum.accumulate(step - steps) + steps
    return [int(end) for end in np.flatnonzero(row[1:] <= max_diffs) + 1]


def _check_order(rule: Rule, page: PageText) -> Verdict:
    before, after = plain(rule.before), plain(rule.after)
    first = near_ends(before, page.flat, rule.max_diffs)
    second = near_ends(after, page.flat, rule.max_diffs)
    if not first or not second:
        missing = "before" if not first else "after"
        return Verdict(rule, False, f"({missing} not found)")
    begins_first = first[0] - len(before)
    begins_second = second[-1] - len(after)
    return Verdict(rule, begins_first < begins_second, "(the other way round)")


def _check_table(rule: Rule, page: PageText) -> Verdict:
    nearest = "(no table)" if not page.tables else "(no such cell)"
    for grid in page.tables:
        for row, col, cell in grid.places():
            if not _same_cell(rule.text, cell.text, rule.max_diffs):
                continue
            wrong = _wrong_side(rule, grid, row, col)
            if not wrong:
                return Verdict(rule, True)
            nearest = wrong
    return Verdict(rule, False, nearest)


def _wrong_side(rule: Rule, grid: Grid, row: int, col: int) -> str:
    """The first side of the cell that is not as the rule says, in words."""
    for name, (down, right) in _DIRECTIONS.items():
        wanted = getattr(rule, name)
        if wanted is None:
            continue
        beside = next(_filled(grid.walk(row, col, down, right)), None)
        if beside is None or not _same_cell(wanted, beside.text, rule.max_diffs):
            return f"{name} is {beside.text if beside else None!r}"
    for name, (down, right) in _HEADINGS.items():
        wanted = getattr(rule, name)
        if wanted is None:
            continue
        heads = list(_filled(grid.walk(row, col, down, right)))
        if not any(_same_cell(wanted, head.text, rule.max_diffs) for head in heads):
            return f"{name} among {[head.text for head in heads]}"
    return ""


def _filled(cells: Iterator[Cell]) -> Iterator[Cell]:
    return (cell for cell in cells if cell.text)


def _check_heading(rule: Rule, page: PageText) -> Verdict:
    level = _level(rule.text, page, rule.max_diffs)
    if level is None:
        return Verdict(rule, False, f"headings: {[words for _, words in page.headings]}")
    for other, holds in ((rule.below, int.__gt__), (rule.beside, int.__eq__)):
        if other is None:
            continue
        other_level = _level(other, page, rule.max_diffs)
        if other_level is None or not holds(level, other_level):
            return Verdict(rule, False, f"level {level}, {other!r} has {other_level}")
    return Verdict(rule, True)


def _level(text: str, page: PageText, max_diffs: int) -> int | None:
    return next((n for n, words in page.headings if _similar(text, words, max_diffs)), None)
