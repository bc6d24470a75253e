from __future__ import annotations

from octavo.readers.finish import DocumentPass
from octavo.types import Box, Category, Element, PageResult, TextSource


def element(
    n: int, category: Category, text: str, top: float, size: float = 10, **more: object
) -> Element:
    box = Box(50, top, 500, top + size)
    return Element(f"p1-e{n}", category, box, text, font_size=size, **more)  # type: ignore[arg-type]


def page(number: int, *elements: Element) -> PageResult:
    return PageResult(number, 595, 842, elements)


def run(pages: list[PageResult]) -> list[PageResult]:
    whole = DocumentPass()
    for p in pages:
        whole.observe(p)
    return [whole.finish(p) for p in pages]


def test_what_repeats_at_the_edge_is_furniture() -> None:
    pages = [
        page(
            n,
            element(1, Category.TEXT, f"The Bindery {n}", 40),
            element(2, Category.TEXT, f"Text number {n} stands alone.", 200),
            element(3, Category.TEXT, "This line repeats inside.", 400),
        )
        for n in range(1, 6)
    ]
    for result in run(pages):
        assert [e.category for e in result.elements] == [
            Category.PAGE_HEADER,
            Category.TEXT,
            Category.TEXT,
        ]


def test_two_pages_alike_are_no_proof() -> None:
    pages = [page(n, element(1, Category.TEXT, "Preface", 40)) for n in (1, 2)]
    assert all(r.elements[0].category is Category.TEXT for r in run(pages))


def test_levels_follow_sizes_over_the_whole_document() -> None:
    pages = [
        page(1, element(1, Category.SECTION_HEADER, "Part", 60, 18)),
        page(2, element(1, Category.SECTION_HEADER, "Chapter", 200, 14)),
        page(3, element(1, Category.SECTION_HEADER, "Section", 200, 11)),
        page(4, element(1, Category.SECTION_HEADER, "Chapter again", 200, 13.8)),
        page(5, element(1, Category.SECTION_HEADER, "2.1 Numbered", 200, 18, level=2)),
    ]
    assert [r.elements[0].level for r in run(pages)] == [1, 2, 3, 2, 2]


def test_a_sentence_goes_on_over_the_page_break() -> None:
    pages = [
        page(1, element(1, Category.TEXT, "The binder folds each", 700)),
        page(2, element(1, Category.TEXT, "sheet until it is small.", 60)),
        page(3, element(1, Category.TEXT, "small but new", 60)),
    ]
    assert [r.elements[0].continues for r in run(pages)] == [False, True, False]


def test_ids_never_change() -> None:
    pages = [
        page(n, element(1, Category.TEXT, "Head", 40), element(2, Category.TEXT, "x", 300))
        for n in range(1, 5)
    ]
    for before, result in zip(pages, run(pages), strict=True):
        assert [e.id for e in before.elements] == [e.id for e in result.elements]


def test_office_pages_have_no_edges() -> None:
    pages = [
        PageResult(n, 595, 842, (element(1, Category.TEXT, "Sheet", 0),), TextSource.OFFICE)
        for n in range(1, 6)
    ]
    assert all(r.elements[0].category is Category.TEXT for r in run(pages))
