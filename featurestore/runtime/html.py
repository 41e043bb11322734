"""Tables for notebooks: HTML in which every text is escaped."""

from collections.abc import Iterable, Sequence
from html import escape

SHOWN_ROWS = 20


def html_table(heads: Sequence[str], rows: Iterable[Sequence[str]], caption: str = "", n_more: int = 0) -> str:
    """Return a table; n_more: rows that are left out, whose number stands below it."""
    parts = ["<table>"]
    if caption:
        parts.append(f'<caption style="text-align: left">{escape(caption)}</caption>')
    if heads:
        parts.append(f"<thead><tr>{''.join(f'<th>{escape(head)}</th>' for head in heads)}</tr></thead>")
    parts.append("<tbody>")
    parts += [f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in row)}</tr>" for row in rows]
    if n_more:
        parts.append(f'<tr><td colspan="{max(1, len(heads))}">and {n_more:,} more</td></tr>')
    return "".join([*parts, "</tbody></table>"])
