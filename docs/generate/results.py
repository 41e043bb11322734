"""Pages of results: what `benchmarks/results` keeps, as the benchmarks themselves print it."""

import json
from collections.abc import Callable
from typing import Any

from rich.console import Console

from benchmarks.index import index_table
from benchmarks.io.table import markdown as io_markdown
from benchmarks.meta import meta_table
from benchmarks.recordings import Form
from benchmarks.recordings import report as recordings_markdown
from benchmarks.startup import table as startup_table
from benchmarks.train import memory_table, train_table
from generate.links import REPO, adopted

RESULTS = REPO / "benchmarks" / "results"
PRINTED: dict[str, tuple[str, str, Callable[[dict[str, Any]], Any]]] = {
    "train": ("Training beside the field's loop", "medusa bench train", train_table),
    "train-memory": ("Training on more than memory holds", "medusa bench train --memory-limit 1250", memory_table),
    "meta": ("Meta-classifiers of all seeds at once", "medusa bench meta", meta_table),
    "large-index": ("Ten million utterances", "medusa bench index --utterances 10000000 --repeats 1", index_table),
    "large-index-amd": (
        "Ten million utterances, second machine",
        "medusa bench index --utterances 10000000 --repeats 1",
        index_table,
    ),
    "startup": ("From the command to the first step", "python -m benchmarks.startup", startup_table),
}


def results_pages() -> dict[str, str]:
    """Return the Markdown of every page of results, by its name."""
    pages = {path.stem: adopted(path, f"results/{path.stem}") for path in sorted(RESULTS.glob("*.md"))}
    pages["io"] = f"# Readers\n\n`medusa bench io`.\n\n{io_markdown(_read('io'))}\n\n{_source('io')}\n"
    forms = recordings_markdown([Form(**form) for form in _read("recordings")])
    pages["recordings"] = (
        f"# Clips as files and as pieces\n\n`python -m benchmarks.recordings`.\n\n{forms}\n\n{_source('recordings')}\n"
    )
    for name, (title, command, report) in PRINTED.items():
        printed = _printed(report(_read(name)))
        pages[name] = f"# {title}\n\n`{command}`\n\n```text\n{printed}\n```\n\n{_source(name)}\n"
    for path in sorted(RESULTS.glob("*.json")):
        if path.stem not in pages:  # figures that nothing here prints yet
            pages[path.stem] = f"# {path.stem}\n\n```json\n{path.read_text(encoding='utf-8').strip()}\n```\n"
    return pages


def _read(name: str) -> Any:
    return json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))


def _source(name: str) -> str:
    return f"[Every figure](../../benchmarks/results/{name}.json)."


def _printed(report: Any) -> str:
    """Return what a terminal shows of a table, without colours."""
    console = Console(width=140, color_system=None, file=None, record=False, highlight=False)
    with console.capture() as capture:
        console.print(report)
    return "\n".join(line.rstrip() for line in capture.get().splitlines()).strip("\n")
