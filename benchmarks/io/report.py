"""The result of `run_io` for people: tables, what they come to, and one plot."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .ways import BARE, FLOOR, OURS, PEER

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.table import Table

# What the store is designed for: ours over the floor, over the best library, over one .npy per utterance.
AIMS = {"warm": {"floor": 0.9, "peer": 4.0, "npy": 10.0}, "cold": {"floor": 0.9, "npy": 5.0}}
WRITING_AIM = 0.8
COLOURS = {FLOOR: "#555555", BARE: "#999999", PEER: "#7aa6d6", OURS: "#d1495b"}

Figure = dict[str, Any]


def io_report(result: dict[str, Any]) -> Iterator["RenderableType"]:
    """Tables and lines for the terminal."""
    for shape in result["shapes"]:
        for state in ("warm", "cold"):
            figures = [figure for figure in shape["figures"] if figure["state"] == state]
            if figures:
                yield _table(shape, state, figures)
                yield "\n".join(summary_lines(figures)) + "\n"
        if shape["npy_stages"]:
            stages = [f"{s['stage']} {s['us_per_utterance']:.0f}" for s in shape["npy_stages"]]
            yield f".npy, warm, microseconds per utterance: {', '.join(stages)}.\n"
        if shape["writing"]:
            yield _writing_table(shape)
    touch = result["memory_touch"]
    if touch and touch["first_gb_per_s"] < 0.7 * touch["again_gb_per_s"]:
        yield (
            f"New memory is first touched at {touch['first_gb_per_s']:.2f} GB/s, again at "
            f"{touch['again_gb_per_s']:.2f}: a host takes free memory back here. Cold runs keep it in use (see the "
            "module's docstring); a job that grows its page cache here reads more slowly than these figures tell."
        )
    if result["absent"]:
        names = ", ".join(f"{absent['name']} ({absent['package']})" for absent in result["absent"])
        yield (
            f"Absent: {names}. Install them with: pip install 'medusa-ser[bench]' (litdata and mosaicml-streaming as "
            "pyproject.toml says)"
        )


def summary(figures: list[Figure]) -> dict[int, dict[str, Any]]:
    """Ratios by number of threads: ours to floor, best library, .npy; int8 to float16 in rows per second."""
    ratios: dict[int, dict[str, Any]] = {}
    for n_threads in sorted({figure["threads"] for figure in figures}):
        here = {figure["id"]: figure for figure in figures if figure["threads"] == n_threads}
        ours = here["medusa"]
        peers = [figure for figure in here.values() if figure["group"] == PEER]
        best = max(peers, key=lambda figure: figure["gb_per_s"], default=None)
        ratios[n_threads] = {
            "floor": ours["ratio_to_floor"],
            "peer": best and ours["gb_per_s"] / best["gb_per_s"],
            "best_peer": best and best["name"],
            "npy": ours["gb_per_s"] / here["npy"]["gb_per_s"] if "npy" in here else None,
            "int8": here["medusa-int8"]["rows_per_s"] / ours["rows_per_s"] if "medusa-int8" in here else None,
        }
    return ratios


def summary_lines(figures: list[Figure]) -> Iterator[str]:
    """Yield the ratios in words, beside what is aimed at."""
    state = figures[0]["state"]
    for n_threads, ratios in summary(figures).items():
        names = {"floor": "the floor", "peer": f"the best library ({ratios['best_peer']})", "npy": "one .npy each"}
        parts = [
            f"{ratios[name]:.2f} of {text}" + (f" (aim {AIMS[state][name]:g})" if name in AIMS[state] else "")
            for name, text in names.items()
            if ratios[name]
        ]
        if ratios["int8"]:
            parts.append(f"int8 {ratios['int8']:.2f} of float16's rows/s")
        yield f"{state}, {n_threads} thread{'s' if n_threads > 1 else ''}: ours is {'; '.join(parts)}."


def _table(shape: dict[str, Any], state: str, figures: list[Figure]) -> "Table":
    from rich.table import Table

    what = f"{shape['n_utterances']:,} utterances of {shape['mean_s']:g} s x {shape['dim']} float16"
    table = Table(title=f"{state}: {what}, {shape['n_bytes'] / 1e9:.2f} GB, random batches", title_justify="left")
    table.add_column("reader")
    threads = sorted({figure["threads"] for figure in figures})
    for n_threads in threads:
        heading = f"GB/s, {n_threads} thread{'s' if n_threads > 1 else ''}"
        for name in (heading, "least-most", "of floor", *(("from disk",) if state == "cold" else ())):
            table.add_column(name, justify="right")
    by_id: dict[str, dict[int, Figure]] = {}
    for figure in figures:
        by_id.setdefault(figure["id"], {})[figure["threads"]] = figure
    groups = [FLOOR, OURS, BARE, PEER]
    last = None
    for figures_of in sorted(by_id.values(), key=lambda figures_of: _rank(figures_of, groups)):
        any_one = next(iter(figures_of.values()))
        if last not in (None, any_one["group"]):
            table.add_section()
        last = any_one["group"]
        cells = [cell for n_threads in threads for cell in _cells(figures_of.get(n_threads), state)]
        table.add_row(any_one["name"], *cells, style="bold" if any_one["id"] == "medusa" else None)
    return table


def _rank(of_threads: dict[int, Figure], groups: list[str]) -> tuple[int, float]:
    first = next(iter(of_threads.values()))
    return groups.index(first["group"]), -first["gb_per_s"]


def _cells(figure: Figure | None, state: str) -> list[str]:
    n = 4 if state == "cold" else 3
    if figure is None:
        return ["-"] * n
    ratio, from_disk = figure["ratio_to_floor"], figure["disk_bytes_per_byte"]
    return [
        f"{figure['gb_per_s']:.2f}",
        f"{figure['gb_per_s_least']:.2f}-{figure['gb_per_s_most']:.2f}",
        "-" if ratio is None else f"{ratio:.2f}",
        "-" if from_disk is None else f"{from_disk:.2f}",
    ][:n]


def _writing_table(shape: dict[str, Any]) -> "Table":
    from rich.table import Table

    table = Table(title=f"writing {shape['n_bytes'] / 1e9:.2f} GB x {shape['dim']}, fsync", title_justify="left")
    for name in ("writer", "GB/s", "least-most", f"of floor (aim {WRITING_AIM:g})", "rows/s", "memory grew by MB"):
        table.add_column(name, justify="left" if name == "writer" else "right")
    for figure in shape["writing"]:
        growth = figure["memory_growth_bytes"]
        table.add_row(
            figure["name"],
            *_cells({**figure, "disk_bytes_per_byte": None}, "warm"),
            f"{figure['rows_per_s']:,.0f}",
            "-" if growth is None else f"{growth / 1e6:.0f}",
            style="bold" if figure["id"] == "write-medusa" else None,
        )
    return table


def plot_io(result: dict[str, Any], path: Path) -> None:
    """Bars of GB/s, one panel per state of the first shape; whiskers are least and most."""
    from matplotlib.figure import Figure as Canvas

    shape = result["shapes"][0]
    states = [s for s in ("warm", "cold") if any(f["state"] == s for f in shape["figures"])]
    rows = max(len({f["id"] for f in shape["figures"] if f["state"] == state}) for state in states)
    canvas = Canvas(figsize=(6.5 * len(states), 1.2 + 0.32 * rows), layout="constrained")
    for axes, state in zip(canvas.subplots(1, len(states), squeeze=False)[0], states, strict=True):
        figures = [f for f in shape["figures"] if f["state"] == state]
        threads = sorted({f["threads"] for f in figures})
        first = sorted((f for f in figures if f["threads"] == threads[0]), key=lambda f: f["gb_per_s"])
        places = {f["id"]: i for i, f in enumerate(first)}
        height = 0.8 / len(threads)
        for k, n_threads in enumerate(threads):
            shown = [f for f in figures if f["threads"] == n_threads]
            rates = [f["gb_per_s"] for f in shown]
            spread = [
                [f["gb_per_s"] - f["gb_per_s_least"] for f in shown],
                [f["gb_per_s_most"] - f["gb_per_s"] for f in shown],
            ]
            axes.barh(
                [places[f["id"]] - 0.4 + height * (k + 0.5) for f in shown], rates, height, xerr=spread,
                color=[COLOURS[f["group"]] for f in shown], alpha=1 - 0.45 * k / max(1, len(threads) - 1),
                error_kw={"lw": 0.7}, label=f"{n_threads} thread{'s' if n_threads > 1 else ''}",
            )  # fmt: skip
        axes.set_yticks(range(len(first)), [f["name"] for f in first], fontsize=8)
        axes.margins(y=0.01)
        axes.set_xlabel("GB/s")
        axes.set_title(f"{state}, {shape['dim']} x {shape['mean_s']:g} s", fontsize=10)
        if len(threads) > 1:
            axes.legend(fontsize=8, loc="lower right")
    canvas.savefig(path, dpi=130)
