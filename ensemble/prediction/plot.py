"""Predictions over time as a picture: stacked probabilities of the classes, attributes as lines."""

import math
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from deepser.scores.report import new_figure, save_figure
from ensemble.prediction.formats import Record
from ensemble.prediction.pieces import Piece
from ensemble.prediction.timeline import JOINED_S, stretches
from featurestore.errors import ConfigError
from featurestore.runtime.durable import writing

SUFFIXES = (".png", ".svg")
MOST_PANELS = 8  # recordings in one picture
IN_MINUTES_S = 120.0
STEPS_S, MOST_TICKS = (30, 60, 120, 300, 600, 900, 1800, 3600), 12  # between ticks of minutes


def check_plot(path: Path, pieces: Iterable[Piece]) -> None:
    """Raise ConfigError for another format than PNG and SVG, and for more recordings than a picture can show."""
    if path.suffix.lower() not in SUFFIXES:
        raise ConfigError(f"--plot {path}: expected a name that ends in {' or '.join(SUFFIXES)}.")
    n = len({piece.path for piece in pieces})
    if n > MOST_PANELS or not n:
        raise ConfigError(f"--plot shows 1 to {MOST_PANELS} recordings, and there are {n:,}; name fewer files.")


def plot_timeline(
    path: Path,
    records: Iterable[Record],
    classes: Sequence[str],
    attributes: Mapping[str, tuple[float, float]],
) -> None:
    """Draw records over time, a panel for each recording; a moment shows the row that speaks for it, see `timeline`.

    attributes: their (low, high) by name, drawn below in a panel of their own. ConfigError: it can't be written.
    """
    by_recording: dict[Path, list[tuple[Mapping[str, Any], Piece]]] = {}
    for row, piece in records:
        if piece is not None:
            by_recording.setdefault(piece.path, []).append((row, piece))
    each = 2 if attributes else 1
    figure, axes = new_figure(11.0, 1.0 + 2.4 * each * len(by_recording), each * len(by_recording), stacked=True)
    for i, (recording, rows) in enumerate(by_recording.items()):
        spoken = stretches([piece.ends() for _, piece in rows])
        panel = axes[each * i]
        lines = _lines(spoken, [[row[f"p_{name}"] for name in classes] for row, _ in rows])
        panel.stackplot(
            lines[0], lines[1:], labels=classes, colors=_colours(len(classes)), linewidth=0, antialiased=False
        )
        panel.set(ylim=(0, 1), ylabel="probability")
        panel.set_title(os.path.basename(recording), fontsize=10, parse_math=False)
        _finish(panel, spoken)
        if attributes:
            _attributes(axes[each * i + 1], spoken, rows, attributes)
    with writing(path, ConfigError, "Choose another output path."):
        save_figure(figure, path)


def _attributes(
    panel: Any,
    spoken: Sequence[tuple[float, float, int]],
    rows: Sequence[tuple[Mapping[str, Any], Piece]],
    ranges: Mapping[str, tuple[float, float]],
) -> None:
    x, *values = _lines(spoken, [[row[f"attr_{name}"] for name in ranges] for row, _ in rows])
    for name, line in zip(ranges, values, strict=True):
        panel.plot(x, line, label=name, linewidth=1.2)
    panel.set(ylim=(min(low for low, _ in ranges.values()), max(high for _, high in ranges.values())), ylabel="value")
    _finish(panel, spoken)


def _lines(spoken: Sequence[tuple[float, float, int]], rows: Sequence[Sequence[float]]) -> list[list[float]]:
    """Return times, then each column's values at them: level over a stretch, NaN where no row speaks."""
    points: list[list[float]] = []
    for low, high, row in spoken:
        if points and low - points[-1][0] > JOINED_S:
            points += [[time, *[math.nan] * len(rows[row])] for time in (points[-1][0], low)]
        points += [[low, *rows[row]], [high, *rows[row]]]
    return [list(column) for column in zip(*points, strict=True)]


def _finish(panel: Any, spoken: Sequence[tuple[float, float, int]]) -> None:
    from matplotlib.ticker import FuncFormatter, MultipleLocator

    end_s = spoken[-1][1]
    panel.set(xlim=(0, end_s), xlabel="minutes" if end_s > IN_MINUTES_S else "seconds")
    if end_s > IN_MINUTES_S:
        panel.xaxis.set_major_locator(MultipleLocator(next((s for s in STEPS_S if end_s <= MOST_TICKS * s), end_s)))
        panel.xaxis.set_major_formatter(
            FuncFormatter(lambda seconds, _: f"{int(seconds // 60)}:{int(seconds % 60):02d}")
        )
    legend = panel.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), fontsize=8, frameon=False, reverse=True)
    for text in legend.get_texts():
        text.set_parse_math(False)


def _colours(n: int) -> list[Any]:
    from matplotlib import colormaps

    name = "tab10" if n <= 10 else "tab20"
    return [colormaps[name](i % colormaps[name].N) for i in range(n)]
