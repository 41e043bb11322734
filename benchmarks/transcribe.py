"""Speed of transcribing in batches, and how often a text changes, beside whisper.transcribe file by file."""

import json
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

import featurestore
from featurestore.asr.transcriber import Transcriber, load_transcriber
from featurestore.audio import SAMPLE_RATE_HZ, decode
from featurestore.corpora import CORPORA
from featurestore.corpus.manifest import Manifest
from featurestore.errors import ConfigError
from featurestore.runtime.durable import replace_text

if TYPE_CHECKING:
    from rich.table import Table

DEMO_CORPUS = Path(featurestore.__file__).parent / "demo_corpus"
PLAIN = "whisper.transcribe"
EXAMPLES = 5


@dataclass(frozen=True)
class TranscribeSettings:
    """models: names or .pt files. batches: utterances at once. n_clips: random ones of the manifest."""

    models: tuple[str, ...] = ("large-v3",)
    batches: tuple[int, ...] = (1, 8)
    n_clips: int = 48
    language: str = "auto"
    device: str = "auto"
    repeats: int = 1
    seed: int = 0

    def __post_init__(self) -> None:
        if not self.models or self.n_clips < 1 or self.repeats < 1 or min(self.batches, default=0) < 1:
            raise ConfigError("Expected a model or more, and clips, batches and repeats of 1 or more.")


def run_transcribe(
    settings: TranscribeSettings = TranscribeSettings(),
    *,
    manifest: Path | None = None,
    json_path: Path | None = None,
    progress: Callable[[str], None] = lambda text: None,
) -> dict[str, Any]:
    """Transcribe the same decoded clips in every way: utterances/s (median), and texts unlike whisper.transcribe's.

    manifest: by default the corpus that comes with the program.
    """
    corpus = CORPORA["ravdess"](DEMO_CORPUS) if manifest is None else Manifest.read(manifest)
    rng = np.random.default_rng(settings.seed)
    chosen = np.sort(rng.permutation(len(corpus))[: settings.n_clips])
    # As `medusa transcribe` orders them: longest first, so that batches are of like length.
    clips = sorted((decode(corpus.audio_path(int(i))) for i in chosen), key=len, reverse=True)
    results: list[dict[str, Any]] = []
    for model in settings.models:
        progress(f"loading {model}")
        transcriber = load_transcriber(model, language=settings.language, device=settings.device)
        lines: list[str] = []
        for batch in (0, *settings.batches):
            way = f"batch {batch}" if batch else PLAIN
            progress(f"{transcriber.source.model}, {way}")
            call = _batched(transcriber, batch) if batch else _plain(transcriber)
            call(clips[: batch or 1])  # warm
            seconds, cpu_seconds, texts = [], [], []
            for _ in range(settings.repeats):
                start, cpu_start = time.perf_counter(), time.process_time()
                texts = call(clips)
                seconds.append(time.perf_counter() - start)
                cpu_seconds.append(time.process_time() - cpu_start)
            lines = lines or texts
            differing = [(one, other) for one, other in zip(lines, texts, strict=True) if one != other]
            results.append({
                "model": transcriber.source.model, "identity": transcriber.source.identity, "way": way,
                "device": str(transcriber.model.device), "compute": transcriber.source.compute,
                "seconds": statistics.median(seconds), "cpu_seconds": statistics.median(cpu_seconds),
                "n_differing": len(differing), "differing": differing[:EXAMPLES],
            })  # fmt: skip
    audio_s = sum(map(len, clips)) / SAMPLE_RATE_HZ
    result = {**asdict(settings), "n_clips": len(clips), "audio_s": audio_s, "results": results}
    if json_path is not None:
        replace_text(json_path, json.dumps(result, indent=2, ensure_ascii=False) + "\n")
    return result


def transcribe_table(result: dict[str, Any]) -> "Table":
    """Return the figures for the terminal."""
    from rich import box
    from rich.table import Table

    n, audio_s = result["n_clips"], result["audio_s"]
    table = Table(title=f"transcribe: {n:,} clips, {audio_s / n:.1f} s on average", box=box.SIMPLE_HEAD)
    for name in ("model", "way", "on", "utterances/s", "x real time", "CPU s each", "other texts"):
        table.add_column(name, justify="left" if name in ("model", "way", "on") else "right")
    for figures in result["results"]:
        seconds, differing = figures["seconds"], figures["n_differing"]
        table.add_row(
            figures["model"], figures["way"], f"{figures['device']} {figures['compute']}", f"{n / seconds:.2f}",
            f"{audio_s / seconds:.1f}", f"{figures['cpu_seconds'] / n:.2f}",
            f"{differing} ({100 * differing / n:.1f} %)" if figures["way"] != PLAIN else "",
        )  # fmt: skip
    return table


def _batched(transcriber: Transcriber, batch: int) -> Callable[[Sequence[np.ndarray]], list[str]]:
    def call(clips: Sequence[np.ndarray]) -> list[str]:
        transcriber.batch = batch
        outputs = [each for i in range(0, len(clips), batch) for each in transcriber.transcribe(clips[i : i + batch])]
        return [each if isinstance(each, str) else each.text for each in outputs]

    return call


def _plain(transcriber: Transcriber) -> Callable[[Sequence[np.ndarray]], list[str]]:
    import torch
    import whisper

    language = None if transcriber.source.language == "auto" else transcriber.source.language
    half = transcriber.source.compute == "float16"

    def call(clips: Sequence[np.ndarray]) -> list[str]:
        texts = []
        for clip in clips:
            torch.manual_seed(0)
            texts.append(whisper.transcribe(transcriber.model, clip, language=language, fp16=half)["text"].strip())
        return texts

    return call
