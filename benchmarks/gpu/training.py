"""Training and transcription on a GPU: a killed run that goes on, the field's loop, batches of clips."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from featurestore.corpora import CORPORA
from featurestore.errors import ConfigError

from ..featurize.corpus import DEMO_CORPUS
from ..train.run import TrainSettings, run_train
from ..transcribe import PLAIN, TranscribeSettings, run_transcribe
from .settings import Settings

KILLED_AFTER = 2  # epochs
REPO = Path(__file__).resolve().parents[2]


def train(settings: Settings, work: Path) -> dict[str, Any]:
    """Return our trainer's clips/s beside the field's loop, on a corpus and a network large enough for a GPU."""
    size = TrainSettings(
        n_utterances=24 if settings.tiny else 5_000, d=16 if settings.tiny else 1_024, batch=8 if settings.tiny else 16,
        n_heads=4 if settings.tiny else 16, modalities=("8@5", "8@4") if settings.tiny else ("1024@50", "1024@4"),
        mean_s=2.0 if settings.tiny else 5.6, epochs=1 if settings.tiny else 2,
        precisions=("bfloat16", "float32"), workers=(2,) if settings.tiny else (8,), device=settings.device,
    )  # fmt: skip
    ways = {way["name"]: way for way in run_train(size, work)["ways"]}
    rates = {name: way["clips_per_s"] for name, way in ways.items()}
    ours = max(rate for name, rate in rates.items() if name.startswith("medusa"))
    field = max(rate for name, rate in rates.items() if not name.startswith("medusa"))
    waiting = {name: way["waiting_share"] for name, way in ways.items() if name.startswith("medusa")}
    return {"clips_per_s": rates, "waiting_share": waiting, "x_field": ours / field}


def resume(settings: Settings, work: Path) -> dict[str, Any]:
    """Return whether runs are the same bit for bit, twice, and killed and continued; with --deterministic too."""
    _write_manifest(work / "m.csv", 64 if settings.tiny else 384)
    _medusa("featurize", "--encoder", "logmel", "-m", "m.csv", "-s", "store", cwd=work)
    figures: dict[str, Any] = {}
    ways: list[tuple[str, list[str]]] = [("", []), ("deterministic_", ["--deterministic"])]
    for name, options in ways[: 1 if settings.tiny else 2]:  # a CPU has no other kernels
        for run in ("first", "second"):
            _fit(settings, work, f"{name}{run}", options)
        killed = _fit_killed(settings, work, f"{name}killed", options)
        figures[f"{name}killed_after_epochs"] = killed
        weights = {run: _weights(work / "runs" / f"{name}{run}") for run in ("first", "second", "killed")}
        for run in ("second", "killed"):
            is_same = all(np.array_equal(value, weights[run][key]) for key, value in weights["first"].items())
            figures[f"{name}{run}_same_weights"] = is_same
    figures["resumed"] = 1.0  # else a command above had failed
    return figures


def transcribe(settings: Settings, work: Path) -> dict[str, Any]:
    """Return clips/s by batch, and how many texts differ from those of whisper.transcribe."""
    model = str(_small_whisper(work / "small.pt")) if settings.tiny else settings.whisper
    size = TranscribeSettings(
        (model,), (1, 2) if settings.tiny else (1, 16, 64, 128), n_clips=3 if settings.tiny else 128, language="en",
        device=settings.device,
    )  # fmt: skip
    result = run_transcribe(size)
    n = result["n_clips"]
    rates = {each["way"]: n / each["seconds"] for each in result["results"]}
    differing = {each["way"]: each["n_differing"] for each in result["results"] if each["way"] != PLAIN}
    return {
        "model": result["results"][0]["model"], "clips_per_s": rates, "other_texts": differing,
        "same_texts": 1 - max(differing.values()) / n, "x_plain": max(rates.values()) / rates[PLAIN],
    }  # fmt: skip


def _fit_command(settings: Settings, name: str, options: list[str]) -> list[str]:
    epochs = "4" if settings.tiny else "12"
    return [
        "fit-deepser", "--features", "logmel", "-m", "m.csv", "-s", "store", "--name", name, "--runs", "runs",
        "--device", settings.device, "--preset", "baseline-frozen", "--epochs", epochs, "--select", "last", *options,
    ]  # fmt: skip


def _fit(settings: Settings, work: Path, name: str, options: list[str]) -> None:
    _medusa(*_fit_command(settings, name, options), cwd=work)


def _fit_killed(settings: Settings, work: Path, name: str, options: list[str]) -> int:
    """Kill a fit after some epochs, run it again, and return the number of epochs before the kill."""
    with (work / "killed.log").open("w") as log:
        process = subprocess.Popen(
            _command(*_fit_command(settings, name, options)), cwd=work, stdout=log, stderr=log, env=_environment()
        )
        while process.poll() is None and _epochs(work / "runs" / name) < KILLED_AFTER:
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
        process.wait()
    n_epochs = _epochs(work / "runs" / name)
    _fit(settings, work, name, options)
    return n_epochs


def _epochs(directory: Path) -> int:
    return max((len(path.read_text().splitlines()) for path in directory.glob("*/metrics.jsonl")), default=0)


def _weights(directory: Path) -> dict[str, Any]:
    from safetensors.numpy import load_file

    paths = sorted(path for path in directory.glob("*/*.safetensors") if "checkpoint" not in path.name)
    return {f"{path.parent.name}/{name}": value for path in paths for name, value in load_file(path).items()}


def _write_manifest(path: Path, n: int) -> None:
    """Write the first n clips of the corpus that comes with the program, every fourth speaker's for testing."""
    corpus = CORPORA["ravdess"](DEMO_CORPUS).rows(range(n))
    speakers = sorted(set(corpus.column("speaker")))
    parts = ["test" if speakers.index(speaker) % 4 == 3 else "train" for speaker in corpus.column("speaker")]
    corpus.with_table(corpus.to_arrow().append_column("split", pa.array(parts))).write(path)


def _command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", str(__package__).replace("benchmarks.gpu", "cli"), *arguments]


def _environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": f"{REPO}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"}


def _medusa(*arguments: str, cwd: Path) -> None:
    process = subprocess.run(
        _command(*arguments), cwd=cwd, env=_environment(), capture_output=True, text=True, check=False
    )
    if process.returncode:
        raise ConfigError(f"medusa {arguments[0]}: {(process.stderr.strip().splitlines() or ['failed'])[-1]}")


def _small_whisper(path: Path) -> Path:
    import torch
    from whisper.model import ModelDimensions, Whisper

    dims = ModelDimensions(
        n_mels=80, n_audio_ctx=1500, n_audio_state=16, n_audio_head=2, n_audio_layer=1, n_vocab=51864, n_text_ctx=16,
        n_text_state=16, n_text_head=2, n_text_layer=1,
    )  # fmt: skip
    torch.manual_seed(0)
    model = Whisper(dims)
    with torch.no_grad():
        model.decoder.ln.weight.fill_(30.0)  # sure of its words, so that nothing is decoded anew
    torch.save({"dims": vars(dims), "model_state_dict": model.state_dict()}, path)
    return path
