"""The judge is judged: each kind of rule passes on right Markdown and fails on wrong."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import pytest
from benchmarks.documents.accuracy import RULES
from benchmarks.documents.drawn import DOCUMENTS
from benchmarks.documents.normalise import plain
from benchmarks.documents.rules import (
    PageText,
    Rule,
    RuleError,
    check,
    load_rules,
    near_ends,
)
from benchmarks.documents.tables import find_tables
from rapidfuzz.distance import Levenshtein

PROSE = "The keepers of the orchard prune in January, when the wood sleeps under the snow."


def _rule(kind: str, **values: Any) -> Rule:
    return Rule(doc="drawn/x.pdf", page=1, group="columns", kind=kind, **values)


def _holds(markdown: str, kind: str, **values: Any) -> bool:
    return check(_rule(kind, **values), PageText(markdown)).passed


@pytest.mark.parametrize(
    ("dressed", "bare"),
    [
        ("**Bold** and *slanted* and __both__", "Bold and slanted and both"),
        ("snake\\_case \\* 3 \\| 4", "snake_case * 3 | 4"),
        ("snake_case_name", "snake_case_name"),
        ("“quoted” ‘so’ – and — so−1", "\"quoted\" 'so' - and - so-1"),
        ("H<sub>2</sub>O, H₂O, E = mc²", "H2O, H2O, E = mc2"),
        ("a&nbsp;b &amp; c", "a b & c"),
        ("## A heading\n\ntext  of\tit", "A heading text of it"),
        ("![a picture](crops/1.png) after <!-- note --> it", "after it"),
        ("[the words](https://example.org/x)", "the words"),
        ("cafe\u0301", "caf\u00e9"),
        ("soft\u00adhyphen", "softhyphen"),
        ("$^{12}$ note", "12 note"),
    ],
)
def test_plain_takes_off_dress_only(dressed: str, bare: str) -> None:
    assert plain(dressed) == bare


def test_plain_leaves_what_is_measured() -> None:
    assert plain("ﬁnal") == "ﬁnal"
    assert plain("or-\nchard") == "or- chard"


def test_present_allows_the_differences_it_names() -> None:
    wanted = "prune in January, when the wood sleeps"
    assert _holds(PROSE, "present", text=wanted)
    one_wrong = PROSE.replace("January", "Jamuary")
    assert not _holds(one_wrong, "present", text=wanted)
    assert _holds(one_wrong, "present", text=wanted, max_diffs=1)
    assert not _holds(one_wrong.replace("wood", "mud"), "present", text=wanted, max_diffs=1)


def test_present_sees_a_split_word_and_a_ligature_as_wrong() -> None:
    assert not _holds("the efﬁcient orchard of the keepers", "present", text="the efficient")
    assert not _holds("every or-\nchard in the valley", "present", text="every orchard")


def test_present_minds_case_unless_told() -> None:
    assert not _holds(PROSE.upper(), "present", text="the keepers of")
    assert _holds(PROSE.upper(), "present", text="the keepers of", case_sensitive=False)


def test_absent_looks_in_its_window_only() -> None:
    page = f"{PROSE} {PROSE} 217"
    assert not _holds(page, "absent", text="217")
    assert _holds(page, "absent", text="217", first_n=50)
    assert not _holds(page, "absent", text="217", last_n=10)
    assert not _holds(page, "absent", text="217", first_n=50, last_n=10)


def test_absent_page_number_is_a_line_of_its_own() -> None:
    assert _holds(f"{PROSE} There were 88 of them.", "absent", text="88", whole_line=True)
    assert not _holds(f"{PROSE}\n\n88\n", "absent", text="88", whole_line=True)
    assert not _holds(f"{PROSE}\n\n**88**\n", "absent", text="88", whole_line=True)


def test_nothing_is_no_answer() -> None:
    assert not _holds("", "absent", text="running head")
    assert not _holds("![](a.png)", "absent", text="running head")


def test_order() -> None:
    one, two = "keepers of the orchard", "the wood sleeps"
    assert _holds(PROSE, "order", before=one, after=two)
    assert not _holds(PROSE, "order", before=two, after=one)
    assert not _holds(PROSE, "order", before=one, after="a passage that is nowhere")
    assert _holds(PROSE.replace("keepers", "kepers"), "order", before=one, after=two, max_diffs=1)


def test_order_holds_if_some_pair_is_in_order() -> None:
    page = "beta gamma delta, alpha beta gamma, and beta gamma delta once more"
    assert _holds(page, "order", before="alpha beta gamma", after="beta gamma delta")


@pytest.mark.parametrize("max_diffs", [0, 1, 2, 3])
def test_near_ends_agrees_with_trying_every_stretch(max_diffs: int) -> None:
    text, wanted = "abracadabra cadbra abrcdabr", "cadabra"
    ends = {
        end
        for start, end in itertools.combinations(range(len(text) + 1), 2)
        if Levenshtein.distance(wanted, text[start:end]) <= max_diffs
    }
    assert near_ends(wanted, text, max_diffs) == sorted(ends)


PIPES = """
| Glue | Cold | Warm |
|---|:--:|--:|
| Hide | 34 | 22 |
| **Bone** | 37 | a \\| b |
"""
SPANS = """
<table><thead>
<tr><th rowspan="2">Glue</th><th colspan="2">Drying time</th></tr>
<tr><th>Cold</th><th>Warm</th></tr></thead>
<tr><td>Hide</td><td>34</td><td>22</td></tr>
<tr><td>Bone &amp; fish</td><td>3<b>7</b></td><td>25</td></tr>
</table>
"""


@pytest.mark.parametrize("page", [PIPES, SPANS])
def test_table_neighbours(page: str) -> None:
    assert _holds(page, "table", text="34", left="Hide", right="22", up="Cold", down="37")
    assert not _holds(page, "table", text="34", left="Bone")
    assert not _holds(page, "table", text="34", up="Warm")
    assert not _holds(page, "table", text="99", left="Hide")
    assert not _holds(PROSE, "table", text="34", left="Hide")


def test_table_headings_through_spans() -> None:
    assert _holds(SPANS, "table", text="22", top_heading="Drying time", left_heading="Hide")
    assert _holds(SPANS, "table", text="25", top_heading="Warm", left_heading="Bone & fish")
    assert not _holds(SPANS, "table", text="25", top_heading="Cold")
    assert _holds(SPANS, "table", text="Hide", up="Glue")
    assert _holds(SPANS, "table", text="Cold", left="Glue", up="Drying time")


def test_table_numbers_are_right_or_wrong() -> None:
    assert not _holds(PIPES, "table", text="34", left="Hide", right="23", max_diffs=1)
    assert _holds(PIPES, "table", text="34", left="Hade", max_diffs=1)


def test_tables_of_one_row_and_ragged_rows() -> None:
    assert find_tables("a | b\n") == []
    grid = find_tables("| a | b |\n|---|---|\n| c |\n")[0]
    assert [[cell.text for cell in row if cell] for row in grid.rows] == [["a", "b"], ["c"]]


def test_table_parser_survives_broken_html() -> None:
    grid = find_tables("<table><tr><td>a<td colspan=x>b<tr><td rowspan=0>c")[0]
    assert [[cell.text for cell in row if cell] for row in grid.rows] == [["a", "b"], ["c"]]
    assert find_tables("<table></td></tr></table></table>")[0].rows == []


def test_heading_and_levels() -> None:
    page = "# Care\n\ntext of the page\n\n## 1. Before\n\nA line\n---\n\n<h3>1.1 The *lift*</h3>\n"
    assert _holds(page, "heading", text="Care")
    assert _holds(page, "heading", text="1. Before", below="Care")
    assert _holds(page, "heading", text="1.1 The lift", below="1. Before")
    assert _holds(page, "heading", text="A line", beside="1. Before")
    assert not _holds(page, "heading", text="Care", below="1. Before")
    assert not _holds(page, "heading", text="1. Before", beside="Care")
    assert not _holds(page, "heading", text="text of the page")


def test_bold_line_is_no_heading() -> None:
    assert not _holds(f"**Care**\n\n{PROSE}", "heading", text="Care")


@pytest.mark.parametrize(
    "rule",
    [
        {"kind": "prezent", "text": "x"},
        {"kind": "present"},
        {"kind": "order", "before": "x"},
        {"kind": "table", "text": "x"},
        {"kind": "present", "text": "x", "max_dif": 2},
        {"kind": "present", "text": "x", "class": "colums"},
    ],
)
def test_a_wrong_rule_is_refused(tmp_path: Path, rule: dict[str, object]) -> None:
    entry = [{"doc": "drawn/x.pdf", "class": "columns", "rules": [rule]}]
    (tmp_path / "a.json").write_text(json.dumps(entry), encoding="utf-8")
    with pytest.raises(RuleError, match=r"drawn/x\.pdf"):
        load_rules(tmp_path)


def test_the_rules_of_the_benchmark() -> None:
    rules = load_rules(RULES)
    assert len(rules) >= 300
    assert {rule.doc.split("/")[0] for rule in rules} == {"corpus", "drawn", "examples"}
    assert len(set(map(str, rules))) > 0.9 * len(rules)
    drawn = {rule.doc.removeprefix("drawn/") for rule in rules if rule.doc.startswith("drawn/")}
    assert drawn == set(DOCUMENTS)


def test_a_rule_does_not_contradict_another_of_its_page() -> None:
    by_page: dict[tuple[str, int], list[Rule]] = {}
    for rule in load_rules(RULES):
        by_page.setdefault((rule.doc, rule.page), []).append(rule)
    for rules in by_page.values():
        absent = {plain(rule.text) for rule in rules if rule.kind == "absent"}
        wanted = {plain(rule.text) for rule in rules if rule.kind in ("present", "heading")}
        assert not absent & wanted
