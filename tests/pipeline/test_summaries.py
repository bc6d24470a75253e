"""Extractive summaries: what they choose, what they never take, and what they cost."""

from __future__ import annotations

import time
import tracemalloc
from collections.abc import Iterator

import pytest

from octavo.pipeline.summaries import (
    BUCKET,
    BUCKETS,
    split_sentences,
    summarize_document,
    summarize_page,
)
from octavo.types import Box, Category, Element, Failure, PageResult, Summary

BOX = Box(0, 0, 100, 10)

BRIDGE = (
    "The bridge over the river carries the new railway line. "
    "Engineers measured the load of the railway bridge for two years. "
    "Their load measurements show that the railway bridge bends less than predicted. "
    "Lunch in the canteen was served at noon by friendly people. "
    "The bridge therefore carries a railway load of two heavy trains."
)


def page(number: int, *parts: tuple[Category, str], failure: Failure | None = None) -> PageResult:
    elements = tuple(
        Element(f"p{number}-{n}", category, BOX, text) for n, (category, text) in enumerate(parts)
    )
    return PageResult(number, 600, 800, elements, failure=failure)


def assert_word_for_word(summary: Summary | None, *pages: PageResult) -> None:
    assert summary is not None
    assert summary.kind == "extractive"
    by_id = {element.id: element for result in pages for element in result.elements}
    for sentence in summary.sentences:
        assert sentence.text in by_id[sentence.element_id].text


def test_chooses_the_central_sentences_and_not_the_stray_one() -> None:
    result = page(1, (Category.TITLE, "Load of the railway bridge"), (Category.TEXT, BRIDGE))
    summary = summarize_page(result)
    assert_word_for_word(summary, result)
    assert summary is not None
    assert len(summary.sentences) == 3
    assert "canteen" not in summary.text
    assert [BRIDGE.index(s.text) for s in summary.sentences] == sorted(
        BRIDGE.index(s.text) for s in summary.sentences
    )


def test_a_heading_decides_between_equals() -> None:
    body = (
        "Copper prices rose in autumn after a strike. "
        "Walnut harvests failed along the southern coast. "
        "Ferry timetables changed without any public notice."
    )
    for heading, wanted in [("Walnut harvests", "Walnut"), ("Ferry timetables", "Ferry")]:
        summary = summarize_page(
            page(1, (Category.SECTION_HEADER, heading), (Category.TEXT, body)), sentences=1
        )
        assert summary is not None
        assert summary.text.startswith(wanted)


@pytest.mark.parametrize(
    "category",
    [
        Category.PAGE_HEADER,
        Category.PAGE_FOOTER,
        Category.TABLE,
        Category.CAPTION,
        Category.FOOTNOTE,
        Category.FORMULA,
        Category.PICTURE,
    ],
)
def test_takes_nothing_from_what_is_not_running_text(category: Category) -> None:
    assert summarize_page(page(1, (category, BRIDGE))) is None
    both = page(1, (category, BRIDGE), (Category.TEXT, "A single whole sentence stands here."))
    summary = summarize_page(both)
    assert summary is not None
    assert {s.element_id for s in summary.sentences} == {"p1-1"}


def test_references_are_left_out_over_a_page_break_until_the_next_heading() -> None:
    entry = "The railway bridge and its load in winter and in summer, a study of measurements."
    pages = [
        page(1, (Category.TEXT, BRIDGE), (Category.SECTION_HEADER, "7. References")),
        page(2, (Category.TEXT, entry), (Category.SECTION_HEADER, "Appendix")),
        page(3, (Category.TEXT, "The appendix lists every load that was measured there.")),
    ]
    summary = summarize_document(pages, sentences=20)
    assert_word_for_word(summary, *pages)
    assert summary is not None
    assert {s.element_id for s in summary.sentences} == {"p1-0", "p3-0"}


def test_a_page_that_begins_inside_the_references_gives_none() -> None:
    entries = [
        "[12] A. Meyer, B. Okafor. Loads on bridges. Journal of Bridges 12(3): 44-61, 2009.",
        "[13] C. Duarte et al. Bending under trains. Proc. of the Rail, pp. 12-19, 2011.",
    ]
    assert summarize_page(page(4, *((Category.LIST_ITEM, text) for text in entries))) is None


def test_cut_sentences_are_not_quoted() -> None:
    element = Element(
        "p2-0",
        Category.TEXT,
        BOX,
        "Which had been built before the war began. The second sentence is whole and stands here. "
        "The third one breaks off at the end of the",
        continues=True,
    )
    summary = summarize_page(PageResult(2, 600, 800, (element,)))
    assert summary is not None
    assert summary.text == "The second sentence is whole and stands here."


def test_the_same_sentence_is_given_once() -> None:
    text = "Please read the safety instructions before use. " * 5
    summary = summarize_page(page(1, (Category.TEXT, text)))
    assert summary is not None
    assert len(summary.sentences) == 1


def test_failed_and_empty_pages_have_none() -> None:
    assert summarize_page(page(1)) is None
    failed = page(1, (Category.TEXT, BRIDGE), failure=Failure("PageTimeout", "too slow"))
    assert summarize_page(failed) is None
    assert summarize_document([]) is None
    assert summarize_document([failed]) is None


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("It rose by 3.5 percent. Then it fell!", ["It rose by 3.5 percent.", "Then it fell!"]),
        (
            "Dr. Smith et al. found it. See Fig. 3 there.",
            ["Dr. Smith et al. found it.", "See Fig. 3 there."],
        ),
        ("The U.S. Senate met. J. Doe spoke.", ["The U.S. Senate met.", "J. Doe spoke."]),
        ("1. Wash the part. 2. Dry it.", ["1. Wash the part.", "2. Dry it."]),
        ("In 1998. After 2.5. End.", ["In 1998.", "After 2.5.", "End."]),
        ('He said "Stop." She did.', ['He said "Stop."', "She did."]),
        (
            "Wirklich? Ja, z.B. am Montag … doch. Gut.",
            ["Wirklich?", "Ja, z.B. am Montag … doch.", "Gut."],
        ),
        ("今天天气很好。我们去公园!真的吗?是的。", None),
        (
            "今天天气很好。我们去公园！真的吗？是的。",
            ["今天天气很好。", "我们去公园！", "真的吗？", "是的。"],
        ),
        ("هل وصل القطار؟ نعم وصل.", ["هل وصل القطار؟", "نعم وصل."]),
        ("यह पहला वाक्य है। यह दूसरा है।", ["यह पहला वाक्य है।", "यह दूसरा है।"]),
        ("See Table 4. Am 3. Mai war es.", ["See Table 4.", "Am 3. Mai war es."]),
        ("no stop at all", ["no stop at all"]),
        ("", []),
    ],
)
def test_sentences_in_many_writings(text: str, expected: list[str] | None) -> None:
    found = [piece for piece, _ in split_sentences(text)]
    assert all(piece in text for piece in found)
    assert "".join("".join(found).split()) == "".join(text.split())
    if expected is not None:
        assert found == expected


def test_chinese_text_is_summarized() -> None:
    text = (
        "新铁路桥的荷载由工程师测量了两年。测量结果表明铁路桥的荷载小于预测。"
        "食堂中午供应午饭和热茶水果。因此铁路桥可以承受两列重型列车的荷载。"
    )
    result = page(1, (Category.TEXT, text))
    summary = summarize_page(result, sentences=2)
    assert_word_for_word(summary, result)
    assert summary is not None
    assert "食堂" not in summary.text


def _spelled(number: int) -> str:
    return "".join(chr(ord("a") + int(digit)) for digit in f"{number:08d}").capitalize()


def long_document(count: int) -> Iterator[PageResult]:
    for number in range(1, count + 1):
        names = [f"{_spelled(number)} {_spelled(1000 * number + k)}" for k in range(12)]
        body = " ".join(f"The gauge of {name} reports a steady load." for name in names)
        yield page(number, (Category.TEXT, body))


def test_a_document_is_drawn_from_all_of_its_length_in_bounded_memory() -> None:
    def peak(count: int) -> int:
        tracemalloc.start()
        summary = summarize_document(long_document(count))
        size = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert summary is not None
        return size

    small, large = peak(40), peak(160)
    assert large < 1.25 * small


def test_a_late_page_can_enter_the_summary_of_a_document() -> None:
    pages = [*long_document(300), page(301, (Category.TEXT, BRIDGE))]
    summary = summarize_document(pages, sentences=BUCKETS * BUCKET)
    assert_word_for_word(summary, *pages)
    assert summary is not None
    taken = {int(s.element_id[1:].split("-")[0]) for s in summary.sentences}
    assert 301 in taken
    assert all(taken & set(range(first, first + 50)) for first in range(1, 300, 50))


def test_the_same_input_gives_the_same_summary() -> None:
    pages = list(long_document(90))
    assert summarize_document(pages) == summarize_document(iter(pages))


def test_a_dense_page_costs_little() -> None:
    result = next(long_document(1))
    dense = page(1, *((Category.TEXT, e.text) for e in result.elements * 6))
    summarize_page(dense)
    best = min(_timed(dense) for _ in range(5))
    assert best < 0.05  # a page of 72 sentences; 10 ms on an idle core, slack for a busy one


def _timed(result: PageResult) -> float:
    start = time.perf_counter()
    summarize_page(result)
    return time.perf_counter() - start
