"""What a manifest holds, as a table for the terminal."""

from collections import Counter
from typing import TYPE_CHECKING

import numpy as np

from featurestore.corpus.manifest import Manifest
from featurestore.corpus.splits import UNKNOWN_SPEAKERS

if TYPE_CHECKING:
    from rich.table import Table


def summary_table(manifest: Manifest) -> "Table":
    """Return a table of utterances, hours, speakers, classes with counts, attributes, splits and folds."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_header=False)
    table.add_column(style="bold", no_wrap=True)
    table.add_column()
    for name, value in summary_lines(manifest):
        table.add_row(name, Text(value))
    return table


def summary_lines(manifest: Manifest) -> list[tuple[str, str]]:
    """Return the lines of `summary_table`, as (name, value)."""
    lines = [("utterances", f"{len(manifest):,}")]
    if manifest.has("duration_s"):
        seconds = manifest.column("duration_s")
        durations_s = seconds[~np.isnan(seconds)]
        unknown = (
            f" ({len(seconds) - len(durations_s):,} of unknown duration)" if len(durations_s) < len(seconds) else ""
        )
        lines.append(("hours", f"{durations_s.sum() / 3600:,.2f}{unknown}"))
    if manifest.has("speaker"):
        lines.append(("speakers", f"{len(set(manifest.column('speaker').tolist()) - set(UNKNOWN_SPEAKERS)):,}"))
    if manifest.has("label"):
        counts = Counter(manifest.labels)
        missing = f", none {counts[None]:,}" if counts[None] else ""
        lines.append(("labels", ", ".join(f"{name} {counts[name]:,}" for name in manifest.scheme.classes) + missing))
    votes = manifest.votes
    if votes is not None:
        sums = zip(manifest.scheme.classes, votes.sum(0), strict=True)
        lines.append(("votes", ", ".join(f"{name} {total:,.6g}" for name, total in sums)))
    ratings = manifest.ratings
    if ratings is not None:
        lines.append(("ratings", f"{len(ratings):,} by {len(ratings.annotators):,} annotators"))
    durations_s = (~np.isnan(manifest.attributes)).sum(0)
    for (name, (low, high)), n in zip(manifest.scheme.attributes.items(), durations_s, strict=True):
        lines.append((name, f"{low:g} to {high:g}, {n:,} known"))
    for column in ("split", "fold"):
        if manifest.has(column):
            counts = Counter(manifest.column(column).tolist())
            lines.append(
                (f"{column}s", ", ".join(f"{name or 'none'}: {n:,}" for name, n in sorted(counts.items(), key=_key)))
            )
    lines.append(
        ("text", f"{sum(bool(text) for text in manifest.texts):,} transcripts" if manifest.has("text") else "no")
    )
    return lines


def _key(item: tuple[str | None, int]) -> tuple[int, str]:
    return (len(item[0] or ""), item[0] or "")
