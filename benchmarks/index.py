"""How long a store of a million utterances takes to open, how much memory it needs, and what looking up keys costs.

Also the seconds and the peak memory of looking every key up, of listing, verifying and compacting the store, and of
opening and verifying it once more.
The rows are tiny (one row of four values), so that the index is measured. Each opening is a new process; its memory is
compared with that of a process which imported the same modules and opened nothing.
"""

import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from featurestore.errors import ConfigError
from featurestore.format.segment import row_checksum
from featurestore.format.segment_info import SegmentInfo, content_name, hash_key
from featurestore.format.spec import FeatureSpec
from featurestore.format.zarr3 import chunk_file
from featurestore.format.zarr_segment import finish
from featurestore.runtime.durable import TEMPORARY_PREFIX, replace_text
from featurestore.store.feature_store import FeatureStore

if TYPE_CHECKING:
    from rich.table import Table

BATCH = 32
KEY, DIGITS = "utterance-", 12
# What is done once, each in a process of its own.
OTHERS = {
    "missing": "missing, of all keys and one more",
    "ls": "store ls",
    "verify": "store verify",
    "compact": "store compact",
    "compacted_len": "open, once compacted",
    "compacted_verify": "store verify, once compacted",
}
BYTES_PER_UTTERANCE = 150  # on disk, with some to spare
# Does with a store, given by argument, what else is given, and prints what that took, as JSON.
WORK = f"""
import contextlib, io, json, sys, time
from pathlib import Path
import numpy as np
from featurestore.store.feature_store import FeatureStore
found, what = {{}}, sys.argv[1]
start, cpu = time.perf_counter(), time.process_time()
if what == "missing":
    features = FeatureStore.open(sys.argv[2])["tiny"]
    len(features)
    keys = ["utterance-%012d" % i for i in range(int(sys.argv[3]) + 1)]
    start, cpu = time.perf_counter(), time.process_time()
    assert features.missing(keys) == keys[-1:]
elif what == "compacted_len":
    start, cpu = time.perf_counter(), time.process_time()
    assert len(FeatureStore.open(sys.argv[2])["tiny"]) == int(sys.argv[3])
elif what not in ("nothing", "open"):
    from featurestore.commands.store import store_app
    start, cpu = time.perf_counter(), time.process_time()
    with contextlib.redirect_stdout(io.StringIO()):
        code = store_app([what.removeprefix("compacted_"), "--store", sys.argv[2]], standalone_mode=False)
    assert not code
found["seconds"], found["cpu_s"] = time.perf_counter() - start, time.process_time() - cpu
if what == "open":
    start, cpu = time.perf_counter(), time.process_time()
    features = FeatureStore.open(sys.argv[2])["tiny"]
    n = len(features)
    found["open_s"], found["open_cpu_s"] = time.perf_counter() - start, time.process_time() - cpu
    rng = np.random.default_rng(0)
    def batches():
        return [["utterance-%012d" % i for i in rng.integers(0, n, {BATCH})] for _ in range(200)]
    def per_batch(read, batches):
        read(batches[0])
        start = time.perf_counter()
        for batch in batches[1:]:
            read(batch)
        return (time.perf_counter() - start) / (len(batches) - 1)
    new = batches()
    found["lookup_s"] = per_batch(features.lengths, new)
    found["lookup_again_s"] = per_batch(features.lengths, new)
    found["gather_s"] = per_batch(features.gather, batches())
    found["segments"] = len(features.segments)
# Not getrusage: its peak counts the process that started this one.
peak = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
found["rss_mb"] = int(peak.split()[1]) / 1024
print(json.dumps(found))
"""


def run_index(
    directory: Path | None = None,
    *,
    n_utterances: int = 1_000_000,
    segment_utterances: int = 100_000,
    repeats: int = 3,
    json_path: Path | None = None,
    progress: Callable[[str], None] | None = None,
) -> dict[str, Any]:
    """Build a store of tiny rows in `directory`, open it `repeats` times, remove it, and return medians in s and MB.

    Raises ConfigError where the disk has no room for it, or where there is no /proc to read memory from (not Linux).
    """
    if not Path("/proc/self/status").exists():
        raise ConfigError("bench index reads its memory from /proc, which this system lacks.")
    if n_utterances < BATCH or segment_utterances < 1 or repeats < 1:
        raise ConfigError(f"bench index needs {BATCH} utterances or more, and one repeat and one per segment at least.")
    parent = Path(directory or tempfile.gettempdir())
    parent.mkdir(parents=True, exist_ok=True)
    if shutil.disk_usage(parent).free < BYTES_PER_UTTERANCE * n_utterances:
        raise ConfigError(f"bench index needs {BYTES_PER_UTTERANCE * n_utterances / 1e9:.1f} GB in {parent}.")
    report = progress or (lambda _: None)
    work = Path(tempfile.mkdtemp(prefix="medusa-bench-index-", dir=parent))
    try:
        _build(work / "store", n_utterances, segment_utterances, report)
        empty = _work("nothing")
        runs = []
        for repeat in range(repeats):
            report(f"opening, {repeat + 1} of {repeats}")
            runs.append(_work("open", work / "store"))
        figures_of = {}
        for what in OTHERS:
            report(f"{what}, of {n_utterances:,} utterances")
            figures_of[what] = _work(what, work / "store", n_utterances)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    result: dict[str, Any] = {"utterances": n_utterances}
    result |= {
        name: float(np.median([run[name] for run in runs])) for name in runs[0] if name not in ("seconds", "cpu_s")
    }
    for what, figures in figures_of.items():
        result |= {f"{what}_s": figures["seconds"], f"{what}_cpu_s": figures["cpu_s"]}
        result[f"{what}_rss_mb"] = figures["rss_mb"]
    result["index_mb"] = result["rss_mb"] - empty["rss_mb"]
    if json_path is not None:
        replace_text(json_path, json.dumps(result, indent=1) + "\n")
    return result


def _build(path: Path, n_utterances: int, segment_utterances: int, report: Callable[[str], None]) -> None:
    """Write segments as a writer commits them, from whole arrays: appending ten million utterances takes minutes."""
    store = FeatureStore.create(path)
    spec = FeatureSpec("audio", "tiny", "none", ("layer_00",), 4)
    store.writer("tiny", spec)  # makes the set
    for start in range(0, n_utterances, segment_utterances):
        _write_segment(path / "tiny", spec, start, min(segment_utterances, n_utterances - start))
        report(f"writing, {(start + segment_utterances) / n_utterances:.0%}")


def _write_segment(directory: Path, spec: FeatureSpec, start: int, n: int) -> None:
    numbers = np.arange(start, start + n)
    keys = np.empty((n, len(KEY) + DIGITS), np.uint8)
    keys[:, : len(KEY)] = np.frombuffer(KEY.encode(), np.uint8)
    keys[:, len(KEY) :] = numbers[:, None] // 10 ** np.arange(DIGITS - 1, -1, -1) % 10 + ord("0")
    rows = np.ones((n, spec.dim), np.float16)
    small: dict[str, np.ndarray] = {
        "offsets": np.arange(n + 1),
        "keys": keys.reshape(-1),
        "key_offsets": np.arange(n + 1) * keys.shape[1],
        "key_hashes": np.array([hash_key(key.tobytes()) for key in keys], np.uint64),
        "checksums": np.full((n, 1), row_checksum(rows[:1], None), np.uint32),
        "durations_s": np.ones(n),
    }
    info = SegmentInfo.of(spec, n, n, keys.size, "")
    staging = directory / f"{TEMPORARY_PREFIX}bench"
    staged = chunk_file(staging / spec.layers[0], 2)
    staged.parent.mkdir(parents=True)
    rows.tofile(staged)
    finish(staging, info, small).rename(directory / content_name(spec.fingerprint, small))


def _work(*arguments: object) -> dict[str, float]:
    command = [sys.executable, "-c", WORK, *map(str, arguments)]
    process = subprocess.run(command, capture_output=True, text=True, check=True)
    return dict(json.loads(process.stdout))


def index_table(result: dict[str, Any]) -> "Table":
    """Return the result of `run_index` as a table for the terminal."""
    from rich.table import Table

    table = Table(
        title=f"{result['utterances']:,} utterances in {result['segments']:.0f} segments", title_justify="left"
    )
    table.add_column("what")
    table.add_column("cost", justify="right")
    table.add_row("open, with the index of all keys", _times(result, "open"))
    table.add_row("memory of the process", f"{result['rss_mb']:.0f} MB")
    table.add_row("of that for the index", f"{result['index_mb']:.0f} MB")
    table.add_row(f"look up {BATCH} keys for the first time", f"{result['lookup_s'] * 1e6:.0f} us")
    table.add_row("look them up again", f"{result['lookup_again_s'] * 1e6:.0f} us")
    table.add_row(f"gather {BATCH} utterances of one row", f"{result['gather_s'] * 1e6:.0f} us")
    for what, name in OTHERS.items():
        table.add_row(name, f"{_times(result, what)}, {result[f'{what}_rss_mb']:.0f} MB")
    return table


def _times(result: dict[str, Any], what: str) -> str:
    """Return the wall-clock time and the processor's time, which other work disturbs less."""
    return f"{result[f'{what}_s']:.2f} s ({result[f'{what}_cpu_s']:.2f} s of CPU)"
