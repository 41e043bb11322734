"""How long `medusa fit-deepser` takes from the command to its first step: many members, sets and utterances.

The rows are tiny (one of four values), so that the work before the first step is measured: reading the manifest,
opening the sets, looking every utterance up, and comparing the sources of the sets. `--against DIR` starts another
version of the program (a checkout at DIR) on the same store, in turn with this one.

Run: python -m benchmarks.startup --utterances 120000 --members 14 --against ../before
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from featurestore.errors import ConfigError
from featurestore.format.spec import FeatureSpec
from featurestore.store.feature_store import FeatureStore

REPO = Path(__file__).resolve().parents[1]
CLASSES = ("angry", "contempt", "disgust", "fear", "happy", "neutral", "sad", "surprise")
SEGMENT_UTTERANCES = 20_000  # a set of such a corpus has several segments
# Ends the command when its optimiser steps for the first time.
STARTED = """
import os, torch
def step(self, *arguments, **named):
    print("first step", flush=True)
    os._exit(0)
torch.optim.AdamW.step = step
try:
    import deepser.training.adamw
    deepser.training.adamw.AdamW.step = step
except ImportError:
    pass  # an earlier version, which steps by torch's class
from cli import main
main()
"""


def run(
    directory: Path, *, n_utterances: int, n_members: int, n_sets: int, repeats: int, against: Path | None = None
) -> dict[str, Any]:
    """Return {"utterances", "members", "sets", "seconds": {"this": [...], "against": [...]}} of starts in turn.

    Raises ConfigError when a start fails.
    """
    names = [f"set{i}" for i in range(n_sets)]
    write(directory, n_utterances, names)
    trees = {"this": REPO} | ({} if against is None else {"against": against})
    seconds: dict[str, list[float]] = {tree: [] for tree in trees}
    for _ in range(repeats):
        for tree, checkout in trees.items():
            seconds[tree].append(start_s(checkout, directory, names, n_members))
    return {"utterances": n_utterances, "members": n_members, "sets": n_sets, "seconds": seconds}


def write(directory: Path, n: int, names: Sequence[str]) -> None:
    """Write a store of `names`, and a manifest with speakers, labels, durations and a split."""
    keys = [f"MADE-UP_{i // 100:04d}_{i:06d}" for i in range(n)]
    rng = np.random.default_rng(0)
    durations_s = np.round(np.clip(rng.lognormal(1.6, 0.5, n), 0.5, 30), 3)
    rows = rng.standard_normal((64, 1, 1, 4)).astype(np.float16)
    store = FeatureStore.create(directory / "store")
    for name in names:
        with store.writer(name, FeatureSpec("audio", name, "none", ("layer_00",), 4, 0.0, pool="mean")) as writer:
            for i, key in enumerate(keys):
                writer.append(key, rows[i % len(rows)], float(durations_s[i]))
                if (i + 1) % SEGMENT_UTTERANCES == 0:
                    writer.commit()
    lines = ["utterance_id,path,speaker,label,split,duration_s"]
    splits = ("train", "train", "train", "development", "test")
    lines += [
        f"{key},audio/{key}.wav,s{i % 1300},{CLASSES[i % 8]},{splits[i % 1300 % 5]},{durations_s[i]}"
        for i, key in enumerate(keys)
    ]
    (directory / "corpus.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")


def start_s(tree: Path, directory: Path, names: Sequence[str], n_members: int) -> float:
    """Return the seconds from starting the command of a version of the program to its first step."""
    runs = Path(tempfile.mkdtemp(prefix="runs-", dir=directory))
    arguments = [
        "fit-deepser", "--features", ",".join(names), "--seeds", str(n_members), "--preset", "medusa",
        "--manifest", str(directory / "corpus.csv"), "--store", str(directory / "store"), "--runs", str(runs),
        "--d", "16", "--n-heads", "2", "--device", "cpu",
    ]  # fmt: skip
    begun = time.perf_counter()
    process = subprocess.run(
        [sys.executable, "-c", STARTED, *arguments], capture_output=True, text=True, check=False,
        cwd=directory, env={**os.environ, "PYTHONPATH": str(tree)},
    )  # fmt: skip
    seconds = time.perf_counter() - begun
    shutil.rmtree(runs)
    if "first step" not in process.stdout:
        raise ConfigError(
            f"{tree}: fit-deepser made no step; its last words: {(process.stderr or process.stdout)[-600:]}"
        )
    return seconds


def table(result: dict[str, Any]) -> Table:
    """Return the result of `run` for the terminal."""
    report = Table(
        title=f"{result['members']} members x {result['sets']} sets x {result['utterances']:,} utterances, "
        "from the command to the first step",
        title_justify="left",
    )
    for name in ("version", "seconds", "all runs", "times as fast"):
        report.add_column(name, justify="left" if name == "version" else "right")
    medians = {name: statistics.median(durations) for name, durations in result["seconds"].items()}
    for name, durations in result["seconds"].items():
        ratio = f"{medians['against'] / medians[name]:.1f}" if "against" in medians else "-"
        report.add_row(name, f"{medians[name]:.1f}", ", ".join(f"{each:.1f}" for each in durations), ratio)
    return report


def main() -> None:
    parser = argparse.ArgumentParser(description="Seconds from `medusa fit-deepser` to its first step.")
    parser.add_argument("--utterances", type=int, default=120_000)
    parser.add_argument("--members", type=int, default=14)
    parser.add_argument("--sets", type=int, default=3)
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--against", type=Path, help="another version of the program: the directory of its cli.py")
    parser.add_argument("--directory", type=Path, help="where to write; default: the system's temporary one")
    parser.add_argument("--json", type=Path, help="write the result there")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=arguments.directory, prefix="medusa-bench-startup-") as directory:
        result = run(
            Path(directory), n_utterances=arguments.utterances, n_members=arguments.members, n_sets=arguments.sets,
            repeats=arguments.repeats, against=arguments.against,
        )  # fmt: skip
    if arguments.json is not None:
        arguments.json.write_text(json.dumps(result, indent=1) + "\n")
    Console().print(table(result))


if __name__ == "__main__":
    main()
