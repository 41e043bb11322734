"""Measures every way of training, each in a process of its own, on one made-up corpus; and training under a limit."""

import json
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich import box
from rich.table import Table

from featurestore.errors import ConfigError
from featurestore.runtime.durable import replace_text
from featurestore.runtime.wording import format_bytes

from .corpus import Made, Modality, made, write

TIMES_LIMIT = 10  # the corpus of `run_memory`, in times the limit

Say = Callable[[str], None]


@dataclass(frozen=True)
class TrainSettings:
    """Sizes of the corpus and of the training. modalities: DIM@RATE each, by default speech and words.

    mean_s: mean of the log-normal durations. precisions: those of our trainer, one measurement each. workers: numbers
    of workers of the field's DataLoader, one measurement each. epochs: number of timed epochs; the one before them,
    which reads everything for the first time, is reported separately.
    """

    n_utterances: int = 128
    modalities: tuple[str, ...] = ("1024@50", "1024@4")
    mean_s: float = 5.6
    d: int = 256
    n_layers: int = 2
    n_heads: int = 4
    batch: int = 16
    epochs: int = 2
    precisions: tuple[str, ...] = ("auto", "float32")
    workers: tuple[int, ...] = (0, 2)
    compile: bool = False
    device: str = "auto"
    threads: int = 1
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("n_utterances", "mean_s", "d", "n_layers", "n_heads", "batch", "epochs", "threads"):
            if not getattr(self, name) > 0:
                raise ConfigError(f"bench train: {name} is {getattr(self, name)}; it must be more than 0.")
        if len(self.modalities) < 2:
            raise ConfigError("bench train: DeepSER reads two feature sets or more; name as many modalities.")
        [Modality.parse(text) for text in self.modalities]

    @property
    def ways(self) -> list[dict[str, Any]]:
        """Return each way's name and the settings that its process gets."""
        ours = [{"name": f"medusa, {p}", "way": "medusa", "precision": p, "workers": 0} for p in self.precisions]
        field = [
            {
                "name": f"DataLoader, {w} workers, .npy, pad_sequence",
                "way": "field",
                "precision": "float32",
                "workers": w,
            }
            for w in self.workers
        ]
        return ours + field


def run_train(
    settings: TrainSettings = TrainSettings(),
    directory: Path | None = None,
    *,
    json_path: Path | None = None,
    progress: Say = lambda text: None,
) -> dict[str, Any]:
    """Time every way of training, and return settings, corpus and figures.

    {"settings", "corpus", "ways": [figures of each]}: clips/s and waiting are medians over the warm epochs.
    """
    with _place(directory) as folder:
        corpus = _written(folder, settings, settings.n_utterances, progress, npy=bool(settings.workers))
        ways = []
        for way in settings.ways:
            progress(way["name"])
            ways.append({**way, **_run(_job(settings, corpus, way))})
    rows = sum(int(corpus.lengths(m).sum()) * m_.dim for m, m_ in enumerate(corpus.modalities))
    result = {
        "settings": asdict(settings),
        "corpus": {"bytes": 2 * rows, "mean_s": float(corpus.durations_s.mean())},
        "ways": [_summary(way) for way in ways],
    }
    _keep(result, json_path)
    return result


def run_memory(
    limit_bytes: int,
    settings: TrainSettings = TrainSettings(),
    directory: Path | None = None,
    *,
    json_path: Path | None = None,
    progress: Say = lambda text: None,
) -> dict[str, Any]:
    """Train on a corpus ten times as large as the limit on the process, and on a tenth of that corpus.

    Returns {"settings", "limit_bytes", "corpus_bytes", "ways": [the tenth, the whole]}. The limit is RLIMIT_DATA, on
    private writable memory; mapped files are not private, so that only the machine limits them.
    """
    row_bytes = 2 * sum(m.dim * m.rate_hz for m in map(Modality.parse, settings.modalities)) * settings.mean_s
    n = int(TIMES_LIMIT * limit_bytes / row_bytes * 1.05)
    with _place(directory) as folder:
        corpus = _written(folder, settings, n, progress, npy=False)
        size = 2 * sum(int(corpus.lengths(m).sum()) * m_.dim for m, m_ in enumerate(corpus.modalities))
        ways = []
        for name, first_n in (("a tenth of the corpus", n // 10), ("all of it", n)):
            progress(name)
            way = {"name": name, "way": "medusa", "precision": settings.precisions[0], "workers": 0}
            job = {**_job(settings, corpus, way), "first_n": first_n, "limit_bytes": limit_bytes}
            ways.append({**way, **_run(job)})
    result = {
        "settings": asdict(settings), "limit_bytes": limit_bytes, "corpus_bytes": size,
        "ways": [_summary(way) for way in ways],
    }  # fmt: skip
    _keep(result, json_path)
    return result


@contextmanager
def _place(directory: Path | None) -> Iterator[Path]:
    if directory is not None:
        directory.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix="medusa-bench-train-", dir=directory))
    try:
        yield folder
    finally:
        shutil.rmtree(folder)


def _written(folder: Path, settings: TrainSettings, n: int, progress: Say, *, npy: bool) -> Made:
    progress("writing the corpus")
    corpus = made(folder, n, [Modality.parse(text) for text in settings.modalities], settings.mean_s, settings.seed)
    write(corpus, settings.seed, npy=npy)
    return corpus


def _job(settings: TrainSettings, corpus: Made, way: dict[str, Any]) -> dict[str, Any]:
    return {
        **asdict(settings),
        "modalities": [[m.dim, m.rate_hz] for m in corpus.modalities],
        "n_utterances": len(corpus.targets.keys), "directory": str(corpus.directory), "first_n": 0, "limit_bytes": 0,
        **way,
    }  # fmt: skip


def _run(job: dict[str, Any]) -> dict[str, Any]:
    process = subprocess.run(
        [sys.executable, "-m", f"{__package__}.one_way"], input=json.dumps(job), capture_output=True, text=True
    )
    if process.returncode:
        message = (process.stderr.strip().splitlines() or [f"ended with exit code {process.returncode}"])[-1]
        hint = " Is --memory-limit large enough?" if job["limit_bytes"] else ""
        raise ConfigError(f"bench train: {job['name']} failed: {message}.{hint}")
    outcome: dict[str, Any] = json.loads(process.stdout.splitlines()[-1])
    return outcome


def _summary(way: dict[str, Any]) -> dict[str, Any]:
    rates = [way["n_clips"] / seconds for seconds in way["epoch_s"]]
    return {
        **way,
        "clips_per_s": statistics.median(rates),
        "waiting_share": statistics.median(way["waiting_shares"]),
    }


def _keep(result: dict[str, Any], path: Path | None) -> None:
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        replace_text(path, json.dumps(result, indent=1) + "\n")


def train_table(result: dict[str, Any]) -> Table:
    """Return clips/s (also relative to the field's fastest way), CPU time, waiting, padding and memory of every way."""
    made_of = result["settings"]
    title = (
        f"{', '.join(made_of['modalities'])}; {result['corpus']['mean_s']:.1f} s on average; d = {made_of['d']}, "
        f"{made_of['n_layers']} layers, batch {made_of['batch']}, {made_of['threads']} thread(s), "
        f"{result['ways'][0]['device']}"
    )
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, show_edge=False)
    for name in (
        "loop",
        "precision",
        "clips/s",
        "of the field's",
        "CPU s/clip",
        "waiting",
        "first epoch",
        "padding",
        "own memory",
    ):
        table.add_column(name, justify="left" if name in ("loop", "precision") else "right")
    field = [way["clips_per_s"] for way in result["ways"] if way["way"] == "field"]
    for way in result["ways"]:
        peak = way["cuda_peak_bytes"] or way["peak_bytes"]["anonymous"] or way["peak_bytes"]["resident"]
        table.add_row(
            way["name"], way["precision"], f"{way['clips_per_s']:.1f}",
            f"{way['clips_per_s'] / max(field):.2f}" if field else "",
            f"{way['cpu_s'] / way['n_clips']:.3f}", f"{way['waiting_share']:.1%}",
            f"{way['first_waiting_share']:.1%}", f"{way['padding_share']:.0%}", format_bytes(peak),
        )  # fmt: skip
    return table


def memory_table(result: dict[str, Any]) -> Table:
    """Return private memory, resident memory (with mapped files) and clips/s of training with the limit."""
    title = (
        f"{format_bytes(result['corpus_bytes'])} of features, {format_bytes(result['limit_bytes'])} of private memory "
        "at most (RLIMIT_DATA; mapped files don't count)"
    )
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, show_edge=False)
    for name in ("trained on", "clips", "own memory", "resident", "clips/s", "waiting"):
        table.add_column(name, justify="left" if name == "trained on" else "right")
    for way in result["ways"]:
        own_bytes, resident = way["peak_bytes"]["anonymous"], way["peak_bytes"]["resident"]
        table.add_row(
            way["name"], f"{way['n_clips']:,}", "-" if own_bytes is None else format_bytes(own_bytes),
            format_bytes(resident), f"{way['clips_per_s']:.1f}", f"{way['waiting_share']:.1%}",
        )  # fmt: skip
    return table
