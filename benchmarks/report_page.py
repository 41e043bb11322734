"""How long the page of `medusa report` takes to make and to open: seconds until its tables and charts can be used.

    python -m benchmarks.report_page --utterances 10000,100000

The corpus is made up: posteriors of several systems with eight classes, votes, transcripts of a usual length, and no
audio. The browser is the system's Chromium without a GPU, driven by Playwright; time runs from the navigation.
"""

import argparse
import json
import os
import shutil
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from rich import box
from rich.table import Table

from ensemble.evaluation.markdown import machine
from ensemble.report.collect import PageOptions, collect
from ensemble.report.page import write_page
from ensemble.report.runs import find_runs
from ensemble.report.scores import Scoring
from featurestore.corpus.manifest import LabelScheme, Manifest
from featurestore.errors import ConfigError
from featurestore.format.spec import FeatureSpec
from featurestore.runtime.durable import replace_text
from featurestore.store.feature_store import FeatureStore
from featurestore.terminal import console, say

CLASSES = ("angry", "sad", "happy", "surprise", "fear", "disgust", "contempt", "neutral")
SPOKEN = "and then he said that it was not the time to talk about what they had done all day"
# Actions of a reader, as JavaScript that ends when the page has been drawn again.
ACTIONS = {
    "click a cell of the matrix": "document.querySelectorAll('#matrix .cell')[1].click()",
    "sort by who is hardest": "document.querySelectorAll('#filters button')[1].click()",
    "search the transcripts": "Medusa.filterBy({search: 'the time'})",
    "clear": "document.getElementById('clear').click()",
    "colour the map by speaker": "Medusa.choose({colour: 'speaker'})",
    "choose another system": "Medusa.choose({system: Object.keys(Medusa.utterances.systems)[0]})",
}
TIMED = """() => {
    const began = performance.now();
    ACTION;
    return new Promise((resolve) => requestAnimationFrame(() => setTimeout(() => resolve(performance.now() - began))));
}"""
FIGURES = ("collect_s", "write_s", "megabytes", "tables_ms", "charts_ms", *ACTIONS)


def make_corpus(directory: Path, n: int, n_systems: int, seed: int = 0) -> None:
    """Make manifest.csv and a store with the posteriors of some systems; 50 utterances a speaker, five folds."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, len(CLASSES), n)
    keys = [f"MSP-PODCAST_{i // 50:04d}_{i:07d}.wav" for i in range(n)]
    votes = np.eye(len(CLASSES), dtype=np.int64)[labels] * 3
    votes[np.arange(n), rng.integers(0, len(CLASSES), n)] += 2
    length = rng.integers(5, 30, n).tolist()
    words = SPOKEN.split()
    table = pa.table({
        "utterance_id": keys,
        "text": [" ".join(words[(i + w) % len(words)] for w in range(length[i])) for i in range(n)],
        "speaker": [f"s{i // 50}" for i in range(n)],
        "gender": ["female" if i // 50 % 2 else "male" for i in range(n)],
        "fold": [str(i // 50 % 5 + 1) for i in range(n)],
        "label": [CLASSES[c] for c in labels.tolist()],
        "duration_s": np.round(rng.lognormal(1.6, 0.4, n), 2),
        **{f"vote_{name}": votes[:, c] for c, name in enumerate(CLASSES)},
    })  # fmt: skip
    Manifest(table, LabelScheme(CLASSES, {}), directory).write(directory / "manifest.csv")
    store = FeatureStore.create(directory / "store")
    for m in range(n_systems):
        logits = rng.normal(size=(n, len(CLASSES)))
        logits[np.arange(n), labels] += 1 + 0.1 * m
        p = np.exp(logits)
        p = (p / p.sum(1, keepdims=True)).astype(np.float32)
        extra = (("folds", "cv:fold"), ("oof", "fold"))
        spec = FeatureSpec(
            "posteriors", f"m{m}", "none", ("posteriors",), len(CLASSES), dtype="float32", columns=CLASSES, extra=extra
        )
        with store.writer(f"posteriors/m{m}", spec) as writer:
            for i, key in enumerate(keys):
                writer.append(key, p[None, i : i + 1])


def measure(n: int, n_systems: int, browser: Any) -> dict[str, Any]:
    """Return the figures of one size, by the names in FIGURES."""
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        make_corpus(directory, n, n_systems)
        names = [f"m{m}" for m in range(n_systems)]
        started = time.perf_counter()
        runs = find_runs(names, directory / "manifest.csv", directory / "store")
        collected = collect(runs, PageOptions(Scoring(), projections=("pca",)))
        figures: dict[str, Any] = {"utterances": n, "systems": n_systems, "collect_s": time.perf_counter() - started}
        started = time.perf_counter()
        page_file = directory / "report.html"
        figures["megabytes"] = write_page(page_file, collected.payload, {"links": None, "clips": {}, "note": ""}) / 1e6
        figures["write_s"] = time.perf_counter() - started
        page = browser.new_page(viewport={"width": 1280, "height": 900})
        page.goto(page_file.as_uri())
        page.wait_for_selector("html[data-ready='charts']", timeout=120_000)
        for figure in ("tables", "charts"):
            figures[f"{figure}_ms"] = page.evaluate(f"performance.getEntriesByName('medusa-{figure}')[0].startTime")
        drawn = (
            "new Promise(resolve => requestAnimationFrame(() => setTimeout(() => resolve(performance.now() - began))))"
        )
        for action, script in ACTIONS.items():
            figures[action] = page.evaluate(f"() => {{ const began = performance.now(); {script}; return {drawn}; }}")
        page.close()
        return figures


def report(results: Sequence[dict[str, Any]]) -> Table:
    """Return a column for each size."""
    table = Table("", *(f"{own['utterances']:,} x {own['systems']}" for own in results), box=box.SIMPLE_HEAD)
    for name in FIGURES:
        unit = {"collect_s": "s", "write_s": "s", "megabytes": "MB"}.get(name, "ms")
        digits = 0 if unit == "ms" else 1
        cells = [f"{own[name]:,.{digits}f} {unit}" for own in results]
        table.add_row(name.removesuffix("_s").removesuffix("_ms"), *cells)
    return table


def chromium_path() -> str:
    """Return where the system's Chromium is; ConfigError where there is none."""
    names = ("chromium", "chromium-browser", "google-chrome")
    path = os.environ.get("MEDUSA_CHROMIUM") or next(filter(None, map(shutil.which, names)), None)
    if path is None:
        raise ConfigError(
            "No Chromium is found; install it (Debian: apt-get install chromium), or set MEDUSA_CHROMIUM."
        )
    return path


def main() -> None:
    """Measure the sizes of `--utterances` and print the table."""
    from playwright.sync_api import sync_playwright

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--utterances", default="10000", help="numbers of utterances, comma-separated")
    parser.add_argument("--systems", type=int, default=6)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium_path(), chromium_sandbox=False)
        results = [measure(int(n), options.systems, browser) for n in options.utterances.split(",")]
        browser.close()
    console().print(report(results))
    say(f"On {machine()}.", "dim")
    if options.json is not None:
        replace_text(options.json, json.dumps({"machine": machine(), "results": results}, indent=1) + "\n")


if __name__ == "__main__":
    main()
