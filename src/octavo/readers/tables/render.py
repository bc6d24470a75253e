"""A table as HTML and as Markdown."""

from __future__ import annotations

from html import escape

from octavo.types import Table, TableCell


def to_html(table: Table) -> str:
    """Compact HTML: ``thead`` for the leading header rows, spans as attributes, text escaped."""
    heads = header_rows(table)
    rows = [[cell for cell in table.cells if cell.row == row] for row in range(table.rows)]
    out = ["<table>"]
    if heads:
        out += ["<thead>", *(_html_row(row) for row in rows[:heads]), "</thead>"]
    out += ["<tbody>", *(_html_row(row) for row in rows[heads:]), "</tbody>"]
    out.append("</table>")
    return "".join(out)


def header_rows(table: Table) -> int:
    """How many of the first rows hold header cells only."""
    by_row: list[list[TableCell]] = [[] for _ in range(table.rows)]
    for cell in table.cells:
        by_row[cell.row].append(cell)
    count = 0
    for row in by_row:
        if not row and count:
            count += 1  # every place of this row is covered by a cell from above
            continue
        if not row or not all(cell.header for cell in row):
            break
        count += 1
    return count


def _html_row(cells: list[TableCell]) -> str:
    return "<tr>" + "".join(map(_html_cell, sorted(cells, key=lambda c: c.col))) + "</tr>"


def _html_cell(cell: TableCell) -> str:
    name = "th" if cell.header else "td"
    spans = f' rowspan="{cell.row_span}"' if cell.row_span > 1 else ""
    spans += f' colspan="{cell.col_span}"' if cell.col_span > 1 else ""
    return f"<{name}{spans}>{escape(cell.text)}</{name}>"


def to_markdown(table: Table) -> str:
    """GitHub pipes. The text of a span stands in its first place, the others are empty.

    Markdown knows one header row, so the first row is always it.
    """
    places = [[""] * table.cols for _ in range(table.rows)]
    for cell in table.cells:
        places[cell.row][cell.col] = _pipe(cell.text)
    lines = ["| " + " | ".join(row) + " |" for row in places]
    lines.insert(1, "|" + " --- |" * table.cols)
    return "\n".join(lines)


def _pipe(text: str) -> str:
    return " ".join(text.replace("\\", "\\\\").replace("|", "\\|").split())
