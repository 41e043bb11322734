"""What a probe found, as tables, a heat map and JSON; intervals by resampling speakers."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich import box
from rich.console import Group
from rich.table import Table
from rich.text import Text

from deepser.probes.fit import ProbeResult, System
from deepser.probes.scores_file import FIT
from deepser.scores.metrics import ScoreRow
from deepser.scores.report import TITLES, new_figure, number, save_figure, shown_scores
from ensemble.evaluation.bootstrap import Interval, Scored, bootstrap
from ensemble.evaluation.systems import ADAPTED
from featurestore.corpus.manifest import Manifest
from featurestore.errors import ConfigError
from featurestore.runtime.jsonable import jsonable

PICTURES = (".png", ".svg", ".pdf")
SHOWN = ("uar", "accuracy", "macro_f1", "mean_ccc")
N_RESAMPLES = 1000


@dataclass(frozen=True)
class ProbeRow:
    """One system on one part: its scores with intervals by speaker. nested: see `deepser.probes.fit.System`."""

    system: System
    part: str
    intervals: dict[str, Interval]

    @property
    def name(self) -> str:
        return (
            f"{self.system.name.removesuffix(', speaker-normalised')}, {ADAPTED}" if self.adapted else self.system.name
        )

    @property
    def adapted(self) -> bool:
        return self.system.name.endswith(", speaker-normalised")


def probe_rows(result: ProbeResult, manifest: Manifest, n_resamples: int = N_RESAMPLES) -> list[ProbeRow]:
    """Every system on every part that was judged: all folds together, then each split that no pass learned from."""
    rows = []
    for part, judged in _parts(result, manifest).items():
        for system in result.systems:
            if not np.isnan(system.scores[judged]).all():
                rows.append(ProbeRow(system, part, _scored(result, system, judged, n_resamples)))
    return rows


def probe_tables(result: ProbeResult, rows: Sequence[ProbeRow]) -> Group:
    """For each part: the nested choice, combinations, the best layer of each set; then the layers' figures."""
    shown: list[Any] = []
    main = _main_score(rows)
    for part in dict.fromkeys(row.part for row in rows):
        part_rows = [row for row in rows if row.part == part]
        shown.append(_table(part, part_rows, main, result))
        layers = _layer_tables(part_rows, main)
        shown += [Text(f"\n{TITLES[main]} of each layer, {part} (compare them, but report the nested row)"), *layers]
    return Group(*shown)


def choices_text(result: ProbeResult) -> list[str]:
    """One line for each pass: what was chosen inside its training part."""
    lines = []
    for chosen in result.passes:
        best = chosen.best
        layers = ", ".join(f"{part.source}" for part in best.parts)
        adapted = f", {ADAPTED}" if best.speaker_adapted else ""
        named = f"{best.name.replace(', speaker-normalised', '')}: " if len(best.parts) > 1 or best.is_refined else ""
        lines.append(
            f"{chosen.each.name}: {named}{layers}{adapted} (lambda {best.setting.penalty:g}, "
            f"inside the training part {best.score:.3f})"
        )
    return lines


def heat_map(result: ProbeResult, rows: Sequence[ProbeRow], path: Path) -> None:
    """Draw layers x feature sets, a panel for each normalisation, of the first part; .png, .svg or .pdf."""
    main, part = _main_score(rows), rows[0].part
    grids = _grids([row for row in rows if row.part == part], main)
    values = [value for grid in grids.values() for line in grid[1] for value in line if not math.isnan(value)]
    first = next(iter(grids.values()))
    figure, axes = new_figure(1.8 + 0.62 * len(first[0]) * len(grids), 1.6 + 0.5 * len(first[2]), len(grids))
    for axis, (normalise, (layers, lines, names)) in zip(axes, grids.items(), strict=True):
        picture = axis.imshow(np.array(lines), cmap="viridis", vmin=min(values), vmax=max(values), aspect="auto")
        axis.set_xticks(range(len(layers)), labels=layers)
        axis.set_yticks(range(len(names)), labels=names)
        axis.set_xlabel("layer")
        title = ADAPTED if normalise == "speaker" else "" if normalise == "none" else f"{normalise}-normalised"
        axis.set_title(title or "rows as stored", fontsize=9)
        middle = (min(values) + max(values)) / 2
        for i, line in enumerate(lines):
            for j, value in enumerate(line):
                if not math.isnan(value):
                    colour = "white" if value < middle else "black"
                    axis.text(j, i, f"{100 * value:.1f}", ha="center", va="center", color=colour, fontsize=7)
    figure.colorbar(picture, ax=axes, shrink=0.8)
    figure.suptitle(f"{TITLES[main]} in %, {part}; settings chosen inside the training parts", fontsize=10)
    save_figure(figure, path)


def check_picture(path: Path) -> None:
    """Raise ConfigError, before the work, for a suffix that can't be drawn."""
    if path.suffix.lower() not in PICTURES:
        raise ConfigError(f"--heat-map {path}: expected a name that ends in {', '.join(PICTURES)}.")


def probe_json(result: ProbeResult, rows: Sequence[ProbeRow], corpus: str, fit: Mapping[str, str]) -> str:
    """Return everything the tables show, every system, and what each pass chose, as JSON.

    fit: what `deepser.probes.scores_file.fit_of` returns of the run directory of the same fit.
    """
    content = {
        "corpus": corpus,
        FIT: fit,
        "probe": asdict(result.config),
        "folds": {"names": result.plan.names, "rule": result.plan.rule},
        "speaker_adapted": result.speaker_adapted,
        "systems": [
            {
                "name": row.name, "part": row.part, "nested": row.system.nested,
                "choice": "inside each training part" if row.system.nested else "named beforehand; settings inside",
                "speaker_adapted": row.adapted or (row.system.nested and result.speaker_adapted),
                "layers": row.system.n_layers or None,
                "scores": {name: interval.value for name, interval in row.intervals.items()},
                "intervals": {name: [interval.low, interval.high] for name, interval in row.intervals.items()},
            }
            for row in rows
        ],
        "passes": [
            {
                "fold": chosen.each.name, "chosen": chosen.best.name, "inner_score": chosen.best.score,
                "setting": asdict(chosen.best.setting),
                "layers": [{"layer": str(p.source), "normalise": p.source.normalise} for p in chosen.best.parts],
            }
            for chosen in result.passes
        ],
        "model": {
            "setting": asdict(result.final.setting),
            "layers": [{"layer": str(p.source), "normalise": p.source.normalise} for p in result.final.parts],
        },
        "confounding": asdict(result.confounding),
        "notes": result.notes,
    }  # fmt: skip
    return json.dumps(jsonable(content), indent=1, ensure_ascii=False) + "\n"


def _parts(result: ProbeResult, manifest: Manifest) -> dict[str, np.ndarray]:
    """Return the judged rows with a label or an attribute: of the folds together, and of each split."""
    problem = result.problem
    rated = ~np.isnan(problem.values[:, problem.n_classes :]).all(1)
    usable = ((problem.labels >= 0) | rated) & result.judged
    parts: dict[str, np.ndarray] = {}
    if len(result.plan.names) > 1:
        parts["all folds"] = np.flatnonzero(usable & (result.plan.folds >= 0))
        usable = usable & (result.plan.folds < 0)
    if usable.any() and manifest.has("split"):
        splits = manifest.column("split")
        for split in dict.fromkeys(splits[usable].tolist()):
            parts[str(split)] = np.flatnonzero(usable & (splits == split))
    return {name: at for name, at in parts.items() if len(at)}


def _scored(result: ProbeResult, system: System, judged: np.ndarray, n_resamples: int) -> dict[str, Interval]:
    problem, n_classes = result.problem, result.problem.n_classes
    scores = system.scores[judged]
    has_classes = bool((problem.labels[judged] >= 0).any())
    # Attributes of the nested row are calibrated; the others' are scored with the same mending, mean and deviation.
    values = result.attributes[judged] if system.nested else scores[:, n_classes:]
    scored = Scored(
        problem.classes,
        problem.labels[judged],
        scores[:, :n_classes].argmax(1) if has_classes else None,
        problem.attributes,
        problem.values[judged, n_classes:],
        values,
        result.speakers[judged],
    )
    intervals = bootstrap(scored.sums(), n_resamples, seed=result.config.seed)
    return {name: interval for name, interval in intervals.items() if name != "micro_f1"}


def _main_score(rows: Sequence[ProbeRow]) -> str:
    return "uar" if "uar" in rows[0].intervals else "mean_ccc"


def _table(part: str, rows: Sequence[ProbeRow], main: str, result: ProbeResult) -> Table:
    scores = [ScoreRow(row.name, {name: own.value for name, own in row.intervals.items()}) for row in rows]
    shown = shown_scores(scores, SHOWN)
    table = Table(title=part, title_justify="left", box=box.SIMPLE_HEAD, show_edge=False)
    table.add_column("system")
    for name in shown:
        table.add_column(TITLES[name], justify="right", no_wrap=True)
        if name == main:
            table.add_column("95 % by speaker", justify="right", no_wrap=True)
    table.add_column("chosen")
    best: dict[tuple[str, str], ProbeRow] = {}
    for row in rows:
        source = row.system.source
        if source is not None:
            key = (source.features, source.normalise)
            if key not in best or row.intervals[main].value > best[key].intervals[main].value:
                best[key] = row
    for row in rows:
        source = row.system.source
        if source is not None and best[source.features, source.normalise] is not row:
            continue
        cells = []
        for name in shown:
            cells.append(number(row.intervals[name].value))
            if name == main:
                cells.append(f"{number(row.intervals[name].low)} to {number(row.intervals[name].high)}")
        name = row.name
        if row.system.nested and result.speaker_adapted:
            name = f"{name}, {ADAPTED}"
        chosen = (
            "inside the folds" if row.system.nested else "best of its layers here" if source else "named beforehand"
        )
        table.add_row(Text(name), *cells, chosen, style="bold" if row.system.nested else "")
    return table


def _grids(rows: Sequence[ProbeRow], main: str) -> dict[str, tuple[list[str], list[list[float]], list[str]]]:
    """By normalisation: layer names, scores (sets x layers, NaN where a set has no such layer), set names."""
    singles = [(row.system.source, row.intervals[main].value) for row in rows if row.system.source is not None]
    layers = list(dict.fromkeys(source.short for source, _ in singles))
    layers.sort(key=lambda name: (not name.isdecimal(), int(name) if name.isdecimal() else 0, name))
    names = list(dict.fromkeys(source.features for source, _ in singles))
    grids = {}
    for normalise in dict.fromkeys(source.normalise for source, _ in singles):
        value = {(s.features, s.short): v for s, v in singles if s.normalise == normalise}
        grids[normalise] = (layers, [[value.get((n, la), math.nan) for la in layers] for n in names], names)
    return grids


def _short(value: float) -> str:
    """Return a score without the zero before its point, .578; "" for NaN."""
    return "" if math.isnan(value) else f"{value:.3f}".replace("0.", ".", 1)


def _layer_tables(rows: Sequence[ProbeRow], main: str) -> list[Table]:
    tables = []
    for normalise, (layers, lines, names) in _grids(rows, main).items():
        title = {"none": None, "speaker": ADAPTED}.get(normalise, f"{normalise}-normalised")
        table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, show_edge=False)
        table.add_column("layer")
        for layer in layers:
            table.add_column(layer, justify="right", no_wrap=True)
        for name, line in zip(names, lines, strict=True):
            best = max((value for value in line if not math.isnan(value)), default=math.nan)
            table.add_row(Text(name), *(Text(_short(value), style="bold" if value == best else "") for value in line))
        tables.append(table)
    return tables
