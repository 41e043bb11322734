"""One run: write the corpus, load each encoder, time every way in turn, compare the rows that they wrote."""

import json
import multiprocessing
import os
import platform
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from featurestore.corpus.manifest import Manifest
from featurestore.encoders import ENCODERS, load_encoder
from featurestore.encoders.base import Encoder
from featurestore.encoders.weights import find_weights
from featurestore.errors import ConfigError
from featurestore.featurize.run import featurize
from featurestore.runtime.durable import replace_text
from featurestore.runtime.stage_clock import StageClock, measured
from featurestore.store.feature_store import FeatureStore

from .corpus import write_corpus
from .weights import random_weights

OURS = "medusa"
Progress = Callable[[str], None]


@dataclass(frozen=True)
class FeaturizeSettings:
    """encoders: names, each with `weights` (name -> directory) or random ones of its true size. peers: ids of PEERS."""

    encoders: tuple[str, ...] = ("tiny-hubert", "tiny-wavlm")
    weights: tuple[tuple[str, str], ...] = ()
    random: bool = False
    tiny: bool = False
    n_utterances: int = 48
    device: str = "auto"
    compute: str = "auto"
    whisper_windows: tuple[str, ...] = ("pad30", "short")
    batch_s: float | None = None
    workers: int = 2
    peers: tuple[str, ...] = ("per-file", "arrival", "workers")
    repeats: int = 3
    seed: int = 0

    def __post_init__(self) -> None:
        if not self.encoders or self.n_utterances < 1 or self.repeats < 1 or self.workers < 1:
            raise ConfigError("Expected an encoder or more, and utterances, workers and repeats of 1 or more.")
        unknown = sorted(set(self.peers) - {"per-file", "arrival", "workers"})
        if unknown:
            raise ConfigError(f"--peers {unknown[0]}: expected some of per-file, arrival, workers.")
        if self.tiny and not self.random:
            raise ConfigError("--tiny shrinks random weights: it goes with --random.")


def run_featurize(
    settings: FeaturizeSettings = FeaturizeSettings(),
    *,
    speech: Path | None = None,
    directory: Path | None = None,
    json_path: Path | None = None,
    progress: Progress = lambda text: None,
) -> dict[str, Any]:
    """Measure, and return {settings, machine, corpus, encoders: [{name, window, flops, peak, ways, stages, ...}]}.

    speech: audio to cut the corpus from. directory: where files are written and removed again. json_path: the result.
    """
    import torch

    work = Path(tempfile.mkdtemp(prefix="medusa-bench-featurize-", dir=directory))
    try:
        (work / "corpus").mkdir()
        progress("writing the corpus")
        manifest = write_corpus(work / "corpus", settings.n_utterances, settings.seed, speech)
        seconds = manifest.column("duration_s").astype(float)
        result: dict[str, Any] = {
            "settings": {**asdict(settings), "weights": [name for name, _ in settings.weights]},
            "machine": {
                "platform": f"{platform.system()} {platform.machine()}", "threads": torch.get_num_threads(),
                "torch": torch.__version__,
                "transformers": version("transformers"),
            },
            "corpus": {
                "n": len(manifest), "audio_s": float(seconds.sum()), "mean_s": float(seconds.mean()),
                "least_s": float(seconds.min()), "most_s": float(seconds.max()),
            },
            "encoders": [],
        }  # fmt: skip
        for name in settings.encoders:
            directory_of = _weights(name, settings, work)
            progress(name)
            job = partial(_measure_encoder, name, directory_of, manifest, settings, work)
            if len(settings.encoders) == 1:
                result["encoders"] += job()
            else:  # each in a new process: `featurize` sets how malloc works, and peers are to have it as it comes
                with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as process:
                    result["encoders"] += process.submit(job).result()
            shutil.rmtree(work / "weights", ignore_errors=True)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    if json_path is not None:
        replace_text(Path(json_path), json.dumps(result, indent=1) + "\n")
    return result


def _weights(name: str, settings: FeaturizeSettings, work: Path) -> Path:
    weights = dict(settings.weights).get(name)
    if settings.random:
        return random_weights(name, work / "weights", settings.seed, settings.tiny)
    hub_id = ENCODERS[name].hub_id if name in ENCODERS else name
    return find_weights(name, hub_id, None if weights is None else Path(weights))


def _measure_encoder(
    name: str, directory: Path, manifest: Manifest, settings: FeaturizeSettings, work: Path
) -> list[dict[str, Any]]:
    """Return a record for each window of a Whisper, else one. All peers' runs come before ours."""
    from .peers import PEERS, PeerModel

    whisper = name in ENCODERS and ENCODERS[name].family == "whisper"
    windows = settings.whisper_windows if whisper else (None,)
    options: dict[str, Any] = {"weights": directory, "device": settings.device, "compute": settings.compute}
    ours = {window: load_encoder(name, window=window, **options) for window in windows}
    peer = PeerModel.load(directory, next(iter(ours.values())))
    ways: dict[str, Callable[[Path], Any]] = {key: partial(PEERS[key][1], peer, manifest) for key in settings.peers}
    for window, encoder in ours.items():
        ways[_own(window)] = partial(_featurize, encoder, manifest, settings)
    seconds: dict[str, list[float]] = {way: [] for way in ways}
    cpu_seconds: dict[str, list[float]] = {way: [] for way in ways}
    for group in (settings.peers, [way for way in ways if way not in settings.peers]):
        for way in list(group) * settings.repeats:
            out = work / f"out-{way}"
            shutil.rmtree(out, ignore_errors=True)
            out.mkdir()
            start, cpu_start = time.perf_counter(), _cpu_s()
            ways[way](out)
            seconds[way].append(time.perf_counter() - start)
            cpu_seconds[way].append(_cpu_s() - cpu_start)
    own_dtype = next(iter(ours.values())).spec.dtype
    expected = _expected(peer, manifest, work, "per-file" in seconds)
    records = []
    for window, encoder in ours.items():
        notes = [
            {
                "way": way, "name": PEERS[way][0] if way in PEERS else f"medusa featurize ({own_dtype} store)",
                "seconds": statistics.median(seconds[way]), "all_seconds": seconds[way],
                "cpu_seconds": statistics.median(cpu_seconds[way]),
                "worst_row": _worst_row(expected, _left(work / f"out-{way}", way not in PEERS), manifest),
            }
            for way in [*settings.peers, _own(window)]
        ]  # fmt: skip
        records.append(
            {
                "encoder": name,
                "window": window,
                **_own_figures(encoder, manifest, settings, work),
                "ways": notes,
            }
        )
    for out in work.glob("out-*"):
        shutil.rmtree(out)
    return records


def _cpu_s() -> float:
    """Return the CPU seconds of this process and of its children that have ended."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def _own(window: str | None) -> str:
    return OURS if window is None else f"{OURS}, {window}"


def _featurize(encoder: Encoder, manifest: Manifest, settings: FeaturizeSettings, out: Path) -> float:
    shutil.rmtree(out / "store", ignore_errors=True)
    store = FeatureStore.create(out / "store")
    report = featurize(manifest, encoder, store, "features", batch_s=settings.batch_s, workers=settings.workers)
    assert not report.failed, report.failed[0]
    return report.wall_s


def _own_figures(encoder: Encoder, manifest: Manifest, settings: FeaturizeSettings, work: Path) -> dict[str, Any]:
    """Return stages, operations and padding of one more run, timed by the pipeline's clock."""
    import torch

    from .flops import Flops, matmul_peak

    flops = Flops(encoder)
    device = torch.device(encoder.device)
    compute: torch.dtype = encoder.compute  # type: ignore[attr-defined]
    peaks = [matmul_peak(device, compute)]
    (work / "out-stages").mkdir(exist_ok=True)
    with measured(StageClock()) as clock:
        wall_s = _featurize(encoder, manifest, settings, work / "out-stages")
    peaks.append(matmul_peak(device, compute))
    true = [n for frames, _ in clock.batches for n in frames]
    padded = [longest for frames, longest in clock.batches for _ in frames]
    return {
        "device": str(device), "compute": str(compute).removeprefix("torch."), "wall_s": wall_s,
        "stages_s": clock.seconds(), "idle": 1 - clock.busy_s() / wall_s, "flop": flops.of(true),
        "flop_padded": flops.of(padded), "frames": sum(true), "frames_padded": sum(padded),
        "passes": len(clock.batches), "peak_flop_per_s": max(peaks),
    }  # fmt: skip


def _expected(peer: Any, manifest: Manifest, work: Path, stored: bool) -> dict[str, np.ndarray]:
    """Return transformers' rows of each file alone, in float32."""
    from .peers import per_file

    if not stored:
        (work / "out-per-file").mkdir()
        per_file(peer, manifest, work / "out-per-file")
    return _left(work / "out-per-file", False)


def _left(out: Path, ours: bool) -> dict[str, np.ndarray]:
    """Return the rows that a way wrote to disk, by key."""
    if ours:
        features = FeatureStore.open(out / "store")["features"]
        return {key: np.array(features[key], np.float32) for key in features}
    return {path.stem: np.load(path) for path in out.glob("*.npy")}


def _worst_row(expected: dict[str, np.ndarray], rows: dict[str, np.ndarray], manifest: Manifest) -> float:
    """Return the largest relative difference of a row, |a - b| / |a|, Euclidean; infinite where rows are missing."""
    worst = 0.0
    for key in manifest.keys:
        a, b = expected[key], rows.get(key)
        if b is None or a.shape != b.shape:
            return float("inf")
        difference = np.linalg.norm(a - b, axis=1) / np.maximum(np.linalg.norm(a, axis=1), 1e-30)
        worst = max(worst, float(difference.max()))
    return worst
