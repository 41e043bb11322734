"""Many processes that write into one feature set at once: how long it takes, and what so many segments cost a reader.

The case is that of two machines with a writer per core. Each process commits its segments one by one. Then the set is
listed, opened, refreshed after one more segment, and verified, and a key is looked up: no utterance may be missing.

Run: python -m benchmarks.writers --processes 64 --segments 200
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from featurestore.errors import ConfigError
from featurestore.format.spec import FeatureSpec
from featurestore.store.feature_store import FeatureStore

NAME = "shared"
SPEC = FeatureSpec("audio", "tiny", "none", ("layer_00",), 4)
UTTERANCES = 4  # of a segment
BATCH = 32
WRITER = """
import sys
from pathlib import Path
from benchmarks.writers import write
write(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
"""


def run(
    directory: Path, *, n_processes: int, n_segments: int, progress: Callable[[str], None] = lambda text: None
) -> dict[str, Any]:
    """Return seconds by step, segments and utterances; ConfigError when a writer fails or anything is lost."""
    store = FeatureStore.create(directory / "store")
    store.writer(NAME, SPEC)  # makes the set
    steps: dict[str, float] = {}

    def timed(step: str, work: Callable[[], Any]) -> Any:
        progress(step)
        started = time.perf_counter()
        result = work()
        steps[step] = time.perf_counter() - started
        return result

    def written() -> None:
        running = [
            subprocess.Popen([sys.executable, "-c", WRITER, str(store.path), str(i), str(n_segments)])
            for i in range(n_processes)
        ]
        failed = [process.args for process in running if process.wait()]
        if failed:
            raise ConfigError(f"{len(failed)} of {n_processes} writers failed.")

    timed("write", written)
    timed("ls", lambda: len(FeatureStore.open(store.path)[NAME]))
    features = FeatureStore.open(store.path)[NAME]
    timed("open", lambda: len(features))
    n = n_processes * n_segments * UTTERANCES
    if len(features) != n:
        raise ConfigError(f"{len(features)} utterances are there, {n} were written.")
    chosen = [f"{i % n_processes}/{i // n_processes}" for i in np.random.default_rng(0).integers(0, n, BATCH).tolist()]
    timed("first 32 utterances", lambda: features.gather(chosen))
    timed("the same again", lambda: features.gather(chosen))
    write(store.path, n_processes, 1)
    timed("refresh after one more segment", features.refresh)
    if len(features) != n + UTTERANCES:
        raise ConfigError("The segment that was added is not seen.")
    return {
        "processes": n_processes, "segments": len(features.segments), "utterances": len(features), "seconds": steps,
        "open_files_limit": os.sysconf("SC_OPEN_MAX"),
    }  # fmt: skip


def write(path: Path, number: int, n_segments: int) -> None:
    """Commit the segments of one writer."""
    rows = np.ones((1, 1, SPEC.dim), np.float16)
    with FeatureStore.open(path).writer(NAME, SPEC) as writer:
        for i in range(n_segments * UTTERANCES):
            writer.append(f"{number}/{i}", rows * number, float(i))
            if (i + 1) % UTTERANCES == 0:
                writer.commit()


def table(result: dict[str, Any]) -> Table:
    """Return the result of `run` for the terminal."""
    report = Table(
        title=f"{result['processes']} processes, {result['segments']:,} segments, {result['utterances']:,} utterances",
        title_justify="left",
    )
    report.add_column("step")
    report.add_column("seconds", justify="right")
    for step, seconds in result["seconds"].items():
        report.add_row(step, f"{seconds:.3f}")
    return report


def main() -> None:
    parser = argparse.ArgumentParser(description="Many processes that write into one feature set at once.")
    parser.add_argument("--processes", type=int, default=64)
    parser.add_argument("--segments", type=int, default=200, help="of each process")
    parser.add_argument("--directory", type=Path, help="where to write; default: the system's temporary one")
    parser.add_argument("--json", type=Path, help="write the result there")
    arguments = parser.parse_args()
    console = Console(stderr=True)
    with tempfile.TemporaryDirectory(dir=arguments.directory, prefix="medusa-bench-writers-") as directory:
        result = run(
            Path(directory), n_processes=arguments.processes, n_segments=arguments.segments, progress=console.print
        )
    if arguments.json is not None:
        arguments.json.write_text(json.dumps(result, indent=1) + "\n")
    Console().print(table(result))


if __name__ == "__main__":
    main()
