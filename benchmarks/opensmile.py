"""openSMILE's sets on the clips that come with the program: ours beside the package, and the package's C++ alone.

Run: python -m benchmarks.opensmile [--processes 1,2] [--clips 16] [--json FILE]

The figures are seconds of audio per second of CPU, with wall-clock time beside them. `C++` is openSMILE's own run on
samples in memory, the upper limit; `opensmile` is the package's process_files; `medusa` is featurize's work on a clip,
decoding included.
"""

from __future__ import annotations

import argparse
import json
import time
import warnings
from concurrent.futures import ProcessPoolExecutor
from functools import cache
from multiprocessing import get_context
from pathlib import Path
from resource import RUSAGE_CHILDREN, RUSAGE_SELF, getrusage
from typing import Any

import featurestore
from featurestore.audio import decode, duration_s
from featurestore.encoders.load import load_encoder
from featurestore.encoders.paralinguistic import SETS, load_package

CLIPS = Path(featurestore.__file__).parent / "demo_corpus"


@cache
def encoder(name: str) -> Any:
    return load_encoder(name)


def encode(name: str, path: Path) -> float:
    """Do what featurize does with one clip; return its CPU time."""
    loaded, started = encoder(name), time.process_time()
    loaded.encode([decode(path)])
    return time.process_time() - started


def smile_of(name: str, **options: Any) -> Any:
    package = load_package()
    feature_set, frames, _ = SETS[name]
    level = package.FeatureLevel.LowLevelDescriptors if frames else package.FeatureLevel.Functionals
    return package.Smile(feature_set=getattr(package.FeatureSet, feature_set), feature_level=level, **options)


def cpp_seconds(name: str, paths: list[Path]) -> float:
    """Return the CPU time of openSMILE's own run, on samples in memory."""
    from opensmile.core.lib import OpenSMILE

    spent, plain = 0.0, OpenSMILE.run

    def timed(self: Any) -> None:
        nonlocal spent
        started = time.process_time()
        plain(self)
        spent += time.process_time() - started

    encoder, samples = load_encoder(name), [decode(path) for path in paths]
    OpenSMILE.run = timed
    try:
        encoder.encode(samples)
    finally:
        OpenSMILE.run = plain
    return spent


def ours(name: str, paths: list[Path], n_processes: int) -> tuple[float, float]:
    """Return CPU and wall-clock time of a pool that has loaded the encoder, as featurize --devices cpu,cpu has."""
    with ProcessPoolExecutor(n_processes, get_context("spawn")) as pool:
        list(pool.map(encode, [name] * 4 * n_processes, (paths * 4)[: 4 * n_processes]))  # each loads it once
        started = time.perf_counter()
        spent = sum(pool.map(encode, [name] * len(paths), paths))
        return spent, time.perf_counter() - started


def theirs(name: str, paths: list[Path], n_processes: int) -> tuple[float, float]:
    """Return the same for the package, which starts its processes anew for each call."""
    smile = smile_of(name, num_workers=n_processes, multiprocessing=n_processes > 1)
    smile.process_files(paths[: 2 * n_processes])
    before, started = _cpu(), time.perf_counter()
    smile.process_files(paths)
    return _cpu() - before, time.perf_counter() - started


def _cpu() -> float:
    """Return the CPU time of this process and of its children that have ended."""
    return sum(usage.ru_utime + usage.ru_stime for usage in map(getrusage, (RUSAGE_SELF, RUSAGE_CHILDREN)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--processes", default="1,2")
    parser.add_argument("--clips", type=int, default=16)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    counts = [int(part) for part in options.processes.split(",")]
    paths = sorted(CLIPS.rglob("*.ogg"))[: options.clips]
    audio_s = sum(duration_s(path) for path in paths)
    print(f"{len(paths)} clips, {audio_s:.1f} s of audio; times real time per second of CPU, and of wall-clock time")
    print(
        f"{'set':<18}{'processes':>10}{'C++':>8}{'medusa':>8}{'opensmile':>11}{'medusa wall':>13}{'opensmile wall':>16}"
    )
    rows = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name in SETS:
            floor = audio_s / cpp_seconds(name, paths)
            for n in counts:
                (our_cpu, our_wall), (package_cpu, package_wall) = ours(name, paths, n), theirs(name, paths, n)
                rates = [floor, *(audio_s / each for each in (our_cpu, package_cpu, our_wall, package_wall))]
                rows.append({"set": name, "processes": n, "cpp": floor, "medusa": rates[1], "opensmile": rates[2],
                             "medusa_wall": rates[3], "opensmile_wall": rates[4]})  # fmt: skip
                widths = (8, 8, 11, 13, 16)
                cells = "".join(f"{rate:>{width}.1f}" for rate, width in zip(rates, widths, strict=True))
                print(f"{name:<18}{n:>10}{cells}", flush=True)
    if options.json:
        options.json.write_text(json.dumps({"clips": len(paths), "audio_s": audio_s, "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
