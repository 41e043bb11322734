"""What training looked like: the epochs' records read back from a run directory, and drawn."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from deepser.scores.report import new_figure, save_figure
from featurestore.errors import ConfigError
from featurestore.runtime.json_text import read_json

History = list[dict[str, Any]]

SCORE = "dev_"  # begins the name of a record's score on the held-out part


def read_histories(directory: Path) -> dict[str, History]:
    """Return the epochs' records by fold, from fold-<name>/metrics.jsonl; ConfigError names a line that is none."""
    histories: dict[str, History] = {}
    for path in sorted(directory.glob("fold-*/metrics.jsonl"), key=lambda p: (len(p.parent.name), p.parent.name)):
        history = histories.setdefault(path.parent.name.removeprefix("fold-"), [])
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
            try:
                record = read_json(line)
                record["stage"], record["loss"]
            except (ValueError, KeyError, TypeError) as error:
                raise ConfigError(f"{path}, line {number} is no record of an epoch ({error}); fit anew.") from error
            history.append(record)
    return histories


def score_of(record: Mapping[str, Any]) -> tuple[str, float] | None:
    """Return the name and value of an epoch's score on the held-out part; None where nothing was held out."""
    for name, value in record.items():
        if name.startswith(SCORE) and value is not None:
            return name.removeprefix(SCORE), value
    return None


def curves_png(histories: Mapping[str, History], path: Path, title: str = "") -> None:
    """Draw loss, and held-out score where there is one, over epochs: a line per fold, stages divided by dashed lines.

    A line breaks where a stage's score is another than the last one's.
    """
    names = list(dict.fromkeys(s[0] for history in histories.values() for record in history if (s := score_of(record))))
    figure, panels = new_figure(4.8 * (1 + bool(names)), 3.6, 1 + bool(names))
    for n, (fold, history) in enumerate(histories.items()):
        epochs = range(1, len(history) + 1)
        look = {"color": f"C{n % 10}", "linewidth": 1.2, "marker": ".", "markersize": 4}
        panels[0].plot(epochs, [record["loss"] for record in history], label=fold, **look)
        for name in names:
            scores = [s[1] if (s := score_of(record)) and s[0] == name else float("nan") for record in history]
            panels[1].plot(epochs, scores, linestyle=("-", "--", ":")[names.index(name) % 3], **look)
    for axes, label in zip(panels, ("loss", ", ".join(names)), strict=False):
        axes.set(xlabel="epoch", ylabel=label)
        _mark_stages(axes, max(histories.values(), key=len, default=[]))
    if len(histories) > 1:
        panels[0].legend(title="fold", fontsize=7, title_fontsize=7, ncols=2)
    if title:
        figure.suptitle(title, fontsize=10)
    save_figure(figure, path)


def _mark_stages(axes: Any, history: Sequence[Mapping[str, Any]]) -> None:
    """Draw a dashed line before the first epoch of each further stage, with its name (of the longest fold)."""
    for epoch in range(1, len(history)):
        if history[epoch]["stage"] != history[epoch - 1]["stage"]:
            axes.axvline(epoch + 0.5, color="grey", linewidth=0.8, linestyle="--")
            axes.text(
                epoch + 0.6, 0.98, history[epoch]["stage"], transform=axes.get_xaxis_transform(), va="top", fontsize=7
            )
