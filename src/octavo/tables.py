"""Tables as HTML and as Markdown pipes."""

from __future__ import annotations

import html

from octavo.escape import escape_inline
from octavo.types import Table, TableCell


def fits_pipes(table: Table) -> bool:
    """Whether Markdown pipes can show the table without loss: no spans, no lines within a cell,
    at most one row of headings."""
    return not any(
        cell.row_span > 1
        or cell.col_span > 1
        or "\n" in cell.text.strip()
        or (cell.header and cell.row > 0 and cell.col > 0)
        for cell in table.cells
    )


def to_html(table: Table) -> str:
    """``<table>`` with one line for each row, and no attributes but the spans.

    Places that no cell covers are empty cells, so that the columns keep their places.
    """
    lines = ["<table>"]
    lines += ["<tr>" + "".join(map(_html_cell, row)) + "</tr>" for row in _grid(table)]
    return "\n".join([*lines, "</table>"])


def to_markdown(table: Table) -> str:
    """Pipes for a table that ``fits_pipes``; HTML for any other.

    The first row stands as the heading, as pipes have no table without one.
    """
    if not table.rows or not table.cols:
        return ""
    if not fits_pipes(table):
        return to_html(table)
    rows = [[_pipe_text(cell) for cell in row] for row in _grid(table)]
    lines = ["| " + " | ".join(row) + " |" for row in rows]
    lines.insert(1, "|" + " --- |" * table.cols)
    return "\n".join(lines)


def _grid(table: Table) -> list[list[TableCell]]:
    """The cells that begin in each row, by column, with empty ones where none covers a place."""
    covered: set[tuple[int, int]] = set()
    rows: list[list[TableCell]] = [[] for _ in range(table.rows)]
    for cell in table.cells:
        if cell.row < table.rows:
            rows[cell.row].append(cell)
        covered.update(
            (row, col)
            for row in range(cell.row, cell.row + cell.row_span)
            for col in range(cell.col, cell.col + cell.col_span)
        )
    for at, row in enumerate(rows):
        row.extend(TableCell(at, col, "") for col in range(table.cols) if (at, col) not in covered)
        row.sort(key=lambda cell: cell.col)
    return rows


def _html_cell(cell: TableCell) -> str:
    tag = "th" if cell.header else "td"
    spans = "".join(
        f' {name}="{span}"'
        for name, span in (("rowspan", cell.row_span), ("colspan", cell.col_span))
        if span > 1
    )
    # A blank line would end the block of HTML within Markdown.
    lines = (line.strip() for line in cell.text.splitlines())
    text = "<br>".join(html.escape(line, quote=False) for line in lines if line)
    return f"<{tag}{spans}>{text}</{tag}>"


def _pipe_text(cell: TableCell) -> str:
    return escape_inline(" ".join(cell.text.split())).replace("|", "\\|")
