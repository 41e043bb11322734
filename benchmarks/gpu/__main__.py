"""Runs steps, each in a process of its own of eight minutes at most, and adds their figures to one JSON file."""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from rich.console import Console

from .record import add, markdown, missed
from .settings import Settings
from .steps import STEPS, names

BUDGET_S = 480.0


def main() -> None:
    """Run the steps named (all by default), and print the aims that were missed."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description=__doc__)
    parser.add_argument("steps", nargs="*", help="names, or beginnings such as featurize; default: all")
    parser.add_argument("--list", action="store_true", help="print the steps")
    parser.add_argument("--json", type=Path, default=Path("gpu.json"), help="file of all figures, which steps add to")
    parser.add_argument("--markdown", type=Path, help="table; default: beside the JSON file")
    parser.add_argument("--directory", type=Path, help="where to write weights, audio and stores (20 GB)")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--compute", default="bfloat16", help="arithmetic of encoders and peers in 16 bits")
    parser.add_argument("--whisper", default="tiny.en", help="openai-whisper's name or .pt file, for transcribe")
    parser.add_argument("--tiny", action="store_true", help="small models and few clips, to try every step")
    parser.add_argument("--alone", type=Path, help=argparse.SUPPRESS)  # the file that a step's process writes
    arguments = parser.parse_args()
    settings = Settings(arguments.device, arguments.compute, arguments.tiny, arguments.whisper, arguments.directory)
    chosen = names(arguments.steps)
    if arguments.list:
        Console().print("\n".join(f"{name:28} {STEPS[name][1]}" for name in chosen), highlight=False)
        return
    if arguments.alone is not None:
        with tempfile.TemporaryDirectory(prefix="medusa-gpu-", dir=arguments.directory) as work:
            arguments.alone.write_text(json.dumps(STEPS[chosen[0]][0](settings, Path(work))))
        return
    steps: dict[str, dict[str, object]] = {}
    for name in chosen:
        Console(stderr=True).print(name)
        with tempfile.TemporaryDirectory() as folder:
            figures_file = Path(folder) / "figures.json"
            command = [
                sys.executable,
                "-m",
                str(__package__),
                name,
                "--alone",
                str(figures_file),
                "--device",
                arguments.device,
            ]
            command += [
                "--compute",
                arguments.compute,
                "--whisper",
                arguments.whisper,
                *(["--tiny"] if arguments.tiny else []),
            ]
            command += [] if arguments.directory is None else ["--directory", str(arguments.directory)]
            started = time.monotonic()
            try:
                process = subprocess.run(command, stderr=subprocess.PIPE, text=True, timeout=BUDGET_S, check=False)
                error = (process.stderr.strip().splitlines() or ["no output"])[-1][:300] if process.returncode else ""
            except subprocess.TimeoutExpired:
                error = f"took longer than {BUDGET_S:.0f} s"
            record = {"error": error} if error else json.loads(figures_file.read_text())
        steps = add(arguments.json, name, {**record, "seconds": round(time.monotonic() - started, 1)})
        (arguments.markdown or arguments.json.with_suffix(".md")).write_text(markdown(steps))
    lines = list(missed(steps))
    Console().print("\n".join(["missed aims:", *lines] if lines else ["all aims are met"]), highlight=False)
    if any("error" in steps[name] for name in chosen):
        raise SystemExit(1)


if __name__ == "__main__":
    main()
