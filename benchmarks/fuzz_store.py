"""Readers of damaged stores, fuzzed: never a crash, never wrong rows, always a StoreError.

    python -m benchmarks.fuzz_store --seconds 300 --corpus DIRECTORY

With atheris (`pip install atheris`, Linux and macOS) libFuzzer looks for damages that reach new code in featurestore;
without it, or with --random, damages are drawn at random. The input that ends a run is left in a file, whose name is
printed.
"""

import argparse
import faulthandler
import importlib
import importlib.util
import os
import random
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

MAX_BYTES = 96  # of an input: a store, and some edits of its files


def fuzz_random(target: Any, seconds: float, runs: int, seed: int, input_path: Path) -> tuple[int, int]:
    """Return how often the target ran, and how many of its reads raised StoreError."""
    rng, n_runs, n_refused = random.Random(seed), 0, 0
    deadline = time.monotonic() + seconds
    with input_path.open("r+b") as file:
        while n_runs < runs and time.monotonic() < deadline:
            data = rng.randbytes(rng.randrange(2, MAX_BYTES))
            # Should the interpreter crash, the input is in this file.
            os.pwrite(file.fileno(), bytes([len(data)]) + data, 0)
            n_refused += target(data)[1]
            n_runs += 1
    return n_runs, n_refused


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=300.0)
    parser.add_argument("--runs", type=int, default=1 << 62, help="end after as many, where that is sooner")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--random", action="store_true", help="not guided by coverage")
    parser.add_argument("--corpus", type=Path, help="directory of inputs that libFuzzer starts from and adds to")
    parser.add_argument("--replay", type=Path, help="run the inputs in this file, a hexadecimal line each, and end")
    arguments = parser.parse_args()
    faulthandler.enable(all_threads=False)
    guided = not arguments.random and arguments.replay is None and importlib.util.find_spec("atheris") is not None
    atheris: Any = importlib.import_module("atheris") if guided else None
    if guided:
        with atheris.instrument_imports(include=["featurestore"]):
            damaged = importlib.import_module(".damaged", __package__)
    else:
        damaged = importlib.import_module(".damaged", __package__)
    memory = Path("/dev/shm")
    scratch = tempfile.TemporaryDirectory(prefix="medusa-fuzz-", dir=memory if os.access(memory, os.W_OK) else None)
    stores = damaged.Stores(Path(scratch.name))
    if arguments.replay is not None:
        inputs = [bytes.fromhex(line) for line in arguments.replay.read_text().split()]
        refused = sum(damaged.damage_and_read(stores, data)[1] for data in inputs)
        print(f"{len(inputs):,} damaged stores read, {refused:,} reads refused, no crash, no wrong row")
    elif not guided:
        handle, input_path = tempfile.mkstemp(prefix="medusa-fuzz-input-")
        os.close(handle)
        print(f"random damages (no atheris); the input being read is in {input_path}", flush=True)
        started = time.monotonic()
        n, refused = fuzz_random(
            lambda data: damaged.damage_and_read(stores, data),
            arguments.seconds,
            arguments.runs,
            arguments.seed,
            Path(input_path),
        )
        rate = n / (time.monotonic() - started)
        print(f"{n:,} damaged stores read ({rate:.0f}/s), {refused:,} reads refused, no crash, no wrong row")
        os.unlink(input_path)
    else:
        options = [
            f"-max_total_time={arguments.seconds:.0f}",
            f"-runs={min(arguments.runs, 1 << 31)}",
            f"-seed={arguments.seed}",
        ]
        options += [
            f"-max_len={MAX_BYTES}",
            "-len_control=0",
            "-timeout=60",
            "-rss_limit_mb=4096",
            "-print_final_stats=1",
        ]
        atheris.Setup(
            [sys.argv[0], *options, *([str(arguments.corpus)] if arguments.corpus else [])], _one(damaged, stores)
        )
        atheris.Fuzz()  # ends the process


def _one(damaged: Any, stores: Any) -> Any:
    def test_one_input(data: bytes) -> None:
        damaged.damage_and_read(stores, data)

    return test_one_input


if __name__ == "__main__":
    main()
