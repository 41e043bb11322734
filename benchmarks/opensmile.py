"""openSMILE's sets on the clips that come with the program: ours beside the package, and the package's C++ alone.

Run: python -m benchmarks.opensmile [--processes 1,2] [--clips 16] [--json FILE]

Times real time, per core: `C++` is openSMILE's own run on samples in memory, which none can beat; `opensmile` the
package's process_files; `medusa` featurize's work on a clip, decoding included.
"""

from __future__ import annotations

import argparse
import json
import time
import warnings
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from functools import cache
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import featurestore
from featurestore.audio import decode, duration_s
from featurestore.encoders.load import load_encoder
from featurestore.encoders.paralinguistic import SETS, load_package

CLIPS = Path(featurestore.__file__).parent / "demo_corpus"


@cache
def encoder(name: str) -> Any:
    return load_encoder(name)


def encode(name: str, path: Path) -> int:
    """Do what featurize does with one clip."""
    return int(encoder(name).encode([decode(path)])[0].shape[1])


def smile_of(name: str, **options: Any) -> Any:
    package = load_package()
    feature_set, frames, _ = SETS[name]
    level = package.FeatureLevel.LowLevelDescriptors if frames else package.FeatureLevel.Functionals
    return package.Smile(feature_set=getattr(package.FeatureSet, feature_set), feature_level=level, **options)


def cpp_seconds(name: str, paths: list[Path]) -> float:
    """Return the seconds in openSMILE's own run, on samples in memory."""
    from opensmile.core.lib import OpenSMILE

    spent, plain = 0.0, OpenSMILE.run

    def timed(self: Any) -> None:
        nonlocal spent
        started = time.perf_counter()
        plain(self)
        spent += time.perf_counter() - started

    each, samples = load_encoder(name), [decode(path) for path in paths]
    OpenSMILE.run = timed
    try:
        each.encode(samples)
    finally:
        OpenSMILE.run = plain
    return spent


def seconds(work: Callable[[], Any]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def ours(name: str, paths: list[Path], n_processes: int) -> float:
    """Return the seconds of a pool that has loaded the encoder, as featurize --devices cpu,cpu has."""
    with ProcessPoolExecutor(n_processes, get_context("spawn")) as pool:
        list(pool.map(encode, [name] * 2 * n_processes, paths[: 2 * n_processes]))
        return seconds(lambda: list(pool.map(encode, [name] * len(paths), paths)))


def theirs(name: str, paths: list[Path], n_processes: int) -> float:
    smile = smile_of(name, num_workers=n_processes, multiprocessing=n_processes > 1)
    smile.process_files(paths[: 2 * n_processes])
    return seconds(lambda: smile.process_files(paths))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--processes", default="1,2")
    parser.add_argument("--clips", type=int, default=16)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    counts = [int(part) for part in options.processes.split(",")]
    paths = sorted(CLIPS.rglob("*.ogg"))[: options.clips]
    audio_s = sum(duration_s(path) for path in paths)
    print(f"{len(paths)} clips, {audio_s:.1f} s of audio; times real time, per core")
    print(f"{'set':<18}{'processes':>10}{'C++':>8}{'medusa':>8}{'opensmile':>11}")
    rows = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name in SETS:
            floor = audio_s / cpp_seconds(name, paths)
            for n in counts:
                row = {"set": name, "processes": n, "cpp": floor, "medusa": audio_s / ours(name, paths, n) / n,
                       "opensmile": audio_s / theirs(name, paths, n) / n}  # fmt: skip
                rows.append(row)
                print(f"{name:<18}{n:>10}{floor:>8.1f}{row['medusa']:>8.1f}{row['opensmile']:>11.1f}", flush=True)
    if options.json:
        options.json.write_text(json.dumps({"clips": len(paths), "audio_s": audio_s, "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
