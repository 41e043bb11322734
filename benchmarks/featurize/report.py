"""The result of `run_featurize` for people: a table of ways and a line of stages per encoder."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import RenderableType

# |a - b| / |a| of a row that float16 storing explains (2^-11 of each value), and float32 rounding beside it.
SAME_ROWS = 2e-3


def featurize_report(result: dict[str, Any]) -> Iterator["RenderableType"]:
    """Yield tables and lines for the terminal."""
    from rich import box
    from rich.table import Table

    n, audio_s = result["corpus"]["n"], result["corpus"]["audio_s"]
    for record in result["encoders"]:
        window = f", {record['window']}" if record["window"] else ""
        title = f"{record['encoder']}{window}, {record['device']} {record['compute']}: {n:,} files, {audio_s:.0f} s"
        table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD)
        for column in (
            "way",
            "s",
            "CPU s",
            "x real time",
            "files/s",
            "TFLOP/s",
            "MFU",
            "medusa is",
            "in CPU s",
            "worst row",
        ):
            table.add_column(column, justify="left" if column == "way" else "right")
        for figure in figures(record, n, audio_s):
            is_ours = figure["way"].startswith("medusa")
            table.add_row(
                figure["name"], f"{figure['seconds']:.2f}", f"{figure['cpu_seconds']:.1f}",
                f"{figure['x_real_time']:.1f}",
                f"{figure['files_per_s']:.1f}", f"{figure['flop_per_s'] / 1e12:.3f}" if is_ours else "",
                f"{100 * figure['mfu']:.0f} %" if is_ours else "", "" if is_ours else f"{figure['ratio']:.2f} x",
                "" if is_ours else f"{figure['cpu_ratio']:.2f} x",
                f"{figure['worst_row']:.1e}" + ("" if figure["worst_row"] <= SAME_ROWS else " !"),
                style="bold" if is_ours else "",
            )  # fmt: skip
        yield table
        yield stages_line(record)


def figures(record: dict[str, Any], n: int, audio_s: float) -> list[dict[str, Any]]:
    """Return each way with its rates; ratio: its time divided by ours. MFU counts valid frames alone."""
    ours = next(way for way in record["ways"] if way["way"].startswith("medusa"))
    return [
        {
            **way, "x_real_time": audio_s / way["seconds"], "files_per_s": n / way["seconds"],
            "ratio": way["seconds"] / ours["seconds"],
            "cpu_ratio": way["cpu_seconds"] / max(ours["cpu_seconds"], 1e-9),
            "flop_per_s": record["flop"] / way["seconds"],
            "mfu": record["flop"] / way["seconds"] / record["peak_flop_per_s"],
        }
        for way in record["ways"]
    ]  # fmt: skip


def stages_line(record: dict[str, Any]) -> str:
    """Return how the time of one run is divided among its stages."""
    stages = ", ".join(f"{name} {seconds:.2f}" for name, seconds in record["stages_s"].items())
    waste = record["frames_padded"] / record["frames"] - 1
    padded = record["flop_padded"] / record["wall_s"]
    return (
        f"seconds of {record['wall_s']:.2f}: {stages}; the encoder idle {100 * record['idle']:.1f} %; "
        f"{record['passes']} passes, {100 * waste:.1f} % padding, with it {padded / 1e12:.3f} TFLOP/s; "
        f"matrix products alone: {record['peak_flop_per_s'] / 1e12:.2f} TFLOP/s\n"
    )
