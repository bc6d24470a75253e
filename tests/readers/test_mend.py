from __future__ import annotations

import pytest

from octavo.readers.mend import clean, join_lines


@pytest.mark.parametrize(
    ("lines", "text"),
    [
        (["the exam-", "ple stands"], "the example stands"),
        (["a self-", "taught binder"], "a self-taught binder"),
        (["the Anglo-", "Saxon chronicle"], "the Anglo-Saxon chronicle"),
        (["BOOK-", "BINDING"], "BOOKBINDING"),
        (["pages 12-", "14 are lost"], "pages 12- 14 are lost"),
        (["one", "two"], "one two"),
        (["漢字", "仮名"], "漢字仮名"),
        (["either/", "or"], "either/or"),
        (["soft\u00ad", "ened"], "softened"),
    ],
)
def test_lines_are_joined_as_they_were_meant(lines: list[str], text: str) -> None:
    assert join_lines(lines) == text


def test_a_compound_seen_elsewhere_keeps_its_hyphen() -> None:
    assert join_lines(["a half-", "title page"], {"half-title": 1}) == "a half-title page"
    assert join_lines(["a dual-", "encoder model"], {"encoder": 2}) == "a dual-encoder model"
    assert join_lines(["subop-", "timal"], {"timal": 1}) == "suboptimal"
    assert join_lines(["the re-", "search of"], {"search": 2}) == "the research of"
    assert (
        join_lines(["a dual-", "encoder model"], {"encoder": 2, "dualencoder": 1})
        == "a dualencoder model"
    )
    assert join_lines(["a cross-", "road"], {"cross-bar": 1}) == "a crossroad"


def test_ligatures_spaces_and_controls() -> None:
    assert clean("\ufb01ne\u00a0 o\ufb00er\x07\u200b") == "fine offer"


def test_no_space_before_a_stop() -> None:
    assert clean("in practice2 , indicating") == "in practice2, indicating"


def test_leader_dots_are_cut() -> None:
    assert clean("Sewing .............. 48") == "Sewing ... 48"
    assert clean("and so on... then") == "and so on... then"
