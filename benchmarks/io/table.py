"""The table of readers in docs/speed.md, from `medusa bench io --json`: `python -m benchmarks.io.table io.json`."""

import json
import sys
from pathlib import Path
from typing import Any

from .ways import FLOOR

FLOORS = "floor: memcpy into a reused buffer; sequential reads of the disk, O_DIRECT"
COLUMNS = ("reader", "warm", "of memcpy", "2 threads", "of memcpy", "cold", "of the disk")


def markdown(result: dict[str, Any], shape: int = 0) -> str:
    """GB/s of one shape as a Markdown table, fastest warm reader first, with the machine in a line above it."""
    about, figures = result["machine"], result["shapes"][shape]["figures"]
    direct = next((f["gb_per_s"] for f in figures if f["id"] == "disk-direct" and f["threads"] == 1), None)
    rows = []
    for id in dict.fromkeys(figure["id"] for figure in figures if figure["group"] != FLOOR):
        rows.append(_row(id, [figure for figure in figures if figure["id"] == id], direct))
    rows.sort(key=lambda row: -float(row[1] if row[1] != "-" else 0))
    memory = {f["threads"]: f["gb_per_s"] for f in figures if f["id"] == "memcpy"}
    first = [FLOORS, _number(memory.get(1)), "1.00", _number(memory.get(2)), "1.00", _number(direct), "1.00"]
    lines = ["| " + " | ".join(cells) + " |" for cells in (COLUMNS, ["---"] * len(COLUMNS), first, *rows)]
    machine = (
        f"{about['processor']}, {about['cpus']} cores, memcpy {memory.get(1, 0):.1f} GB/s, disk {_number(direct)} GB/s "
        f"({about['file_system']}), Linux {about['kernel']}, {about['libc']}, numpy {about['packages'].get('numpy')}"
    )
    return "\n".join([machine, "", *lines])


def _row(id: str, figures: list[dict[str, Any]], direct: float | None) -> list[str]:
    by = {(figure["state"], figure["threads"]): figure for figure in figures}
    cold = by.get(("cold", 1), {}).get("gb_per_s")
    cells = [figures[0]["name"].replace("|", "/")]
    for n_threads in (1, 2):
        warm = by.get(("warm", n_threads), {})
        cells += [_number(warm.get("gb_per_s")), _number(warm.get("ratio_to_floor"))]
    return [*cells, _number(cold), _number(cold / direct if cold and direct else None)]


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


if __name__ == "__main__":
    sys.stdout.write(markdown(json.loads(Path(sys.argv[1]).read_text())) + "\n")
