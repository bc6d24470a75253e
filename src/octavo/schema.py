"""The written form of a page, ``octavo.report/1``: compact, strict, the same bytes every time.

Fields that hold their default are left out, a box is ``[left, top, right, bottom]``, and timings
are never written: two runs of one document must give one file. Reading refuses what it does not
know and names the place as a JSON path (``$.pages[3].elements[0].box``).
"""

from __future__ import annotations

from typing import Any

from octavo.files import Fields, as_number, as_text, broken
from octavo.types import (
    Attempt,
    Box,
    Category,
    Element,
    Failure,
    PageResult,
    Summary,
    SummarySentence,
    Table,
    TableCell,
    TextSource,
)


def page_to_dict(page: PageResult) -> dict[str, object]:
    """The page as JSON values, without its timings."""
    out: dict[str, object] = {
        "number": page.number,
        "width": float(page.width),
        "height": float(page.height),
    }
    if page.source is not TextSource.NONE:
        out["source"] = page.source.value
    _keep(out, "reason", page.reason)
    _keep(out, "rotation", page.rotation)
    if page.skew:
        out["skew"] = float(page.skew)
    if page.failure:
        out["failure"] = failure_to_dict(page.failure)
    _keep(
        out,
        "attempts",
        [{"stage": a.stage, "kept": a.kept, "reason": a.reason} for a in page.attempts],
    )
    if page.summary:
        out["summary"] = summary_to_dict(page.summary)
    _keep(out, "elements", [_element_to_dict(element) for element in page.elements])
    return out


def page_from_dict(value: object, path: str = "$") -> PageResult:
    """The page that ``page_to_dict`` wrote.

    Raises:
        BrokenFile: an unknown or missing key, or a value of the wrong kind.
    """
    fields = Fields(value, path)
    page = PageResult(
        number=fields.integer("number"),
        width=fields.number("width"),
        height=fields.number("height"),
        elements=fields.many("elements", _element_from_dict),
        source=fields.word("source", TextSource, TextSource.NONE),
        reason=fields.text("reason", ""),
        rotation=fields.integer("rotation", 0),
        skew=fields.number("skew", 0.0),
        attempts=fields.many("attempts", _attempt_from_dict),
        failure=fields.optional("failure", failure_from_dict),
        summary=fields.optional("summary", summary_from_dict),
    )
    fields.done()
    return page


def failure_to_dict(failure: Failure) -> dict[str, object]:
    out: dict[str, object] = {"error": failure.error, "what": failure.what}
    if failure.next_step is not None:
        out["next_step"] = failure.next_step
    return out


def failure_from_dict(value: object, path: str) -> Failure:
    fields = Fields(value, path)
    failure = Failure(
        fields.text("error"), fields.text("what"), fields.optional("next_step", as_text)
    )
    fields.done()
    return failure


def summary_to_dict(summary: Summary) -> dict[str, object]:
    sentences = [{"text": s.text, "element_id": s.element_id} for s in summary.sentences]
    return {"kind": summary.kind, "sentences": sentences}


def summary_from_dict(value: object, path: str) -> Summary:
    fields = Fields(value, path)
    summary = Summary(fields.text("kind"), fields.many("sentences", _sentence_from_dict))
    fields.done()
    return summary


def _sentence_from_dict(value: object, path: str) -> SummarySentence:
    fields = Fields(value, path)
    sentence = SummarySentence(fields.text("text"), fields.text("element_id"))
    fields.done()
    return sentence


def _attempt_from_dict(value: object, path: str) -> Attempt:
    fields = Fields(value, path)
    attempt = Attempt(fields.text("stage"), fields.flag("kept"), fields.text("reason"))
    fields.done()
    return attempt


def _element_to_dict(element: Element) -> dict[str, object]:
    out: dict[str, object] = {
        "id": element.id,
        "category": element.category.value,
        "box": _box_to_list(element.box),
    }
    _keep(out, "text", element.text)
    if element.confidence != 1.0:
        out["confidence"] = float(element.confidence)
    for key in ("level", "marker", "caption_of"):
        value = getattr(element, key)
        if value is not None:
            out[key] = value
    if element.font_size is not None:
        out["font_size"] = float(element.font_size)
    for key in ("bold", "continues", "rtl"):
        _keep(out, key, bool(getattr(element, key)))
    if element.table is not None:
        out["table"] = _table_to_dict(element.table)
    _keep(out, "children", [_element_to_dict(child) for child in element.children])
    return out


def _element_from_dict(value: object, path: str) -> Element:
    fields = Fields(value, path)
    element = Element(
        id=fields.text("id"),
        category=fields.word("category", Category),
        box=_box_from_list(fields.take("box"), fields.at("box")),
        text=fields.text("text", ""),
        confidence=fields.number("confidence", 1.0),
        level=fields.integer("level") if fields.has("level") else None,
        marker=fields.optional("marker", as_text),
        table=fields.optional("table", _table_from_dict),
        caption_of=fields.optional("caption_of", as_text),
        children=fields.many("children", _element_from_dict),
        font_size=fields.optional("font_size", as_number),
        bold=fields.flag("bold"),
        continues=fields.flag("continues"),
        rtl=fields.flag("rtl"),
    )
    fields.done()
    return element


def _table_to_dict(table: Table) -> dict[str, object]:
    return {
        "rows": table.rows,
        "cols": table.cols,
        "cells": [_cell_to_dict(cell) for cell in table.cells],
    }


def _table_from_dict(value: object, path: str) -> Table:
    fields = Fields(value, path)
    table = Table(
        fields.integer("rows"), fields.integer("cols"), fields.many("cells", _cell_from_dict)
    )
    fields.done()
    return table


def _cell_to_dict(cell: TableCell) -> dict[str, object]:
    out: dict[str, object] = {"row": cell.row, "col": cell.col, "text": cell.text}
    for key in ("row_span", "col_span"):
        if getattr(cell, key) != 1:
            out[key] = getattr(cell, key)
    _keep(out, "header", cell.header)
    if cell.box is not None:
        out["box"] = _box_to_list(cell.box)
    return out


def _cell_from_dict(value: object, path: str) -> TableCell:
    fields = Fields(value, path)
    cell = TableCell(
        row=fields.integer("row"),
        col=fields.integer("col"),
        text=fields.text("text"),
        row_span=fields.integer("row_span", 1),
        col_span=fields.integer("col_span", 1),
        header=fields.flag("header"),
        box=fields.optional("box", _box_from_list),
    )
    fields.done()
    return cell


def _box_to_list(box: Box) -> list[float]:
    return [float(box.left), float(box.top), float(box.right), float(box.bottom)]


def _box_from_list(value: object, path: str) -> Box:
    if not isinstance(value, list) or len(value) != 4:
        raise broken("expected a box of four numbers", path)
    left, top, right, bottom = (as_number(side, path) for side in value)
    return Box(left, top, right, bottom)


def _keep(out: dict[str, object], key: str, value: Any) -> None:
    """Writes what is not empty, zero or false: those are the defaults."""
    if value:
        out[key] = value
