"""An encoder at its true size from FLAC files to committed segments, beside the ways of the field, and its kernels."""

import shutil
import time
from collections.abc import Iterable
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pyarrow as pa
import torch

from featurestore.corpus.manifest import Manifest
from featurestore.encoders import device as encoders_device
from featurestore.encoders import load_encoder
from featurestore.encoders.base import Encoder
from featurestore.encoders.device import out_of_memory as is_out_of_memory
from featurestore.featurize import stream
from featurestore.featurize.run import FeaturizeReport, featurize
from featurestore.runtime.device import describe_device, fused_attention, ieee_float32
from featurestore.store.feature_store import FeatureStore

from ..featurize.corpus import write_corpus
from ..featurize.flops import Flops, matmul_peak
from ..featurize.peers import PeerModel, arrival_batches, per_file
from ..featurize.weights import random_weights
from .settings import Settings

MEASURED_S = 90.0  # of the run whose rate is taken; the whole step has eight minutes


@dataclass(frozen=True)
class Sizes:
    """How many files there are, under how many keys each, and how many of them peers and the profiler take."""

    n_files: int
    n_keys: int
    n_peers: int
    n_profiled: int

    @classmethod
    def of(cls, settings: Settings, text: bool) -> "Sizes":
        if settings.tiny:
            return cls(4, 2, 3, 4)
        return cls(50_000, 1, 400, 12_000) if text else cls(2_000, 10, 200, 2_400)


def measure(
    name: str, settings: Settings, work: Path, *, mean_s: float = 5.6, layers: str = "last", peers: bool = True
) -> dict[str, Any]:
    """Return the rates of one encoder with random weights, from files to segments, and its GPU's use meanwhile."""
    sizes = Sizes.of(settings, text=name.startswith("roberta"))
    (work / "corpus").mkdir()
    corpus = write_corpus(work / "corpus", sizes.n_files, 0, mean_s=mean_s)
    weights = random_weights(name, work / "weights", 0, settings.tiny)
    options: dict[str, Any] = {"weights": weights, "device": settings.device, "layers": layers}
    encoder = load_encoder(name, compute=settings.compute, **options)
    device, compute = torch.device(encoder.device), encoder.compute  # type: ignore[attr-defined]
    peak = matmul_peak(device, compute)
    warm = _run(encoder, repeated(corpus, 1, sizes.n_profiled), work)
    rate = (warm.done or 1) / warm.wall_s
    n = max(sizes.n_files, min(sizes.n_files * sizes.n_keys, int(rate * MEASURED_S)))
    many = repeated(corpus, sizes.n_keys, n)
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    report = _run(encoder, many, work)
    audio_s = float(many.column("duration_s").astype(float).sum())
    figures: dict[str, Any] = {
        "device": describe_device(device), "arithmetic": str(compute).removeprefix("torch."), "n": report.done,
        "clips_per_s": report.done / report.wall_s, "x_real_time": audio_s / report.wall_s,
        "wall_s": report.wall_s, "padding": report.padding.share,
        "mfu": _flop(encoder, many) / report.wall_s / max(peak, matmul_peak(device, compute)),
        "tflop_per_s_of_products": peak / 1e12,
    }  # fmt: skip
    if device.type == "cuda":
        figures["peak_device_gb"] = torch.cuda.max_memory_allocated(device) / 1e9
    in_memory = Path("/dev/shm")
    if in_memory.is_dir() and shutil.disk_usage(in_memory).free > 4 * stored_bytes(encoder, many):
        memory_work = in_memory / f"medusa-gpu-{work.name}"
        memory_work.mkdir()
        try:
            figures["clips_per_s_to_memory"] = report.done / _run(encoder, many, memory_work).wall_s
        finally:
            shutil.rmtree(memory_work)
    figures["busy"], figures["kernel_s"] = busy(partial(_run, encoder, repeated(corpus, 1, sizes.n_profiled), work))
    if peers:
        figures |= _beside_peers(encoder, weights, corpus, sizes.n_peers, figures["clips_per_s"], options, work)
    return figures


def repeated(manifest: Manifest, n_keys: int, n: int) -> Manifest:
    """Return the first n of the manifest's utterances under `n_keys` keys each, in a mixed order."""
    order = np.random.default_rng(0).permutation(len(manifest) * n_keys)[:n]
    columns = {
        name: np.asarray(manifest.column(name))[order % len(manifest)] for name in ("path", "text", "duration_s")
    }
    keys = [f"u{i % len(manifest)}-{i // len(manifest)}" for i in order.tolist()]
    return Manifest(pa.table({"utterance_id": keys, **columns}), root=manifest.root)


def stored_bytes(encoder: Encoder, manifest: Manifest) -> int:
    """Return the bytes of the rows of a manifest."""
    spec = encoder.spec
    return sum(_frames(encoder, manifest)) * spec.row_type.row_bytes(spec.dim) * len(spec.layers)


def union_s(intervals: Iterable[tuple[float, float]]) -> float:
    """Return how long at least one of the intervals lasts."""
    covered, end = 0.0, -np.inf
    for start, stop in sorted(intervals):
        covered += max(0.0, stop - max(start, end))
        end = max(end, stop)
    return covered


def busy(work: Any) -> tuple[float, float]:
    """Return the share of a run's time in which a kernel ran, from the first one's start, and the kernels' seconds.

    By CUPTI, through torch's profiler: events around launches would count the gaps between them. NaN on a CPU.
    """
    activities = [torch.profiler.ProfilerActivity.CPU]
    if torch.cuda.is_available():
        activities.append(torch.profiler.ProfilerActivity.CUDA)
    with torch.profiler.profile(activities=activities) as profiler:
        work()
    kernels = [
        (event.time_range.start / 1e6, event.time_range.end / 1e6)
        for event in profiler.events() or ()
        if str(event.device_type).endswith("CUDA") and not event.name.startswith("Mem")
    ]
    if not kernels:
        return float("nan"), 0.0
    seconds = union_s(kernels)
    return seconds / (max(stop for _, stop in kernels) - min(start for start, _ in kernels)), seconds


def rows(name: str, settings: Settings, work: Path) -> dict[str, Any]:
    """Return how far a packaged encoder's rows on the device are from a CPU's in float32, in each arithmetic."""
    from featurestore.featurize.trial import relative_difference

    (work / "corpus").mkdir()
    corpus = write_corpus(work / "corpus", 4 if settings.tiny else 48, 0)
    clips = [_samples(corpus, i) for i in range(len(corpus))]
    expected = [each[-1] for each in load_encoder(name, device="cpu", compute="float32").encode(clips)]
    figures: dict[str, Any] = {}
    for compute in ("float32", settings.compute, "float16"):
        encoder = load_encoder(name, device=settings.device, compute=compute)
        batch = [each[-1] for each in encoder.encode(clips, 1 << 30)]
        single = [encoder.encode([clip], 1)[0][-1] for clip in clips]
        errors = [relative_difference(a, b) for a, b in zip(expected, batch, strict=True)]
        padding = max(relative_difference(a, b) for a, b in zip(single, batch, strict=True))
        figures[compute] = {"median": float(np.median(errors)), "worst": max(errors), "alone_or_batch": padding}
    figures["same_alone"] = float(figures["float32"]["alone_or_batch"] <= 1e-4)
    return figures


def attention(name: str, settings: Settings, work: Path) -> dict[str, Any]:
    """Return the seconds of a pass of a new shape, and of one that was seen, as shipped and by cuDNN's attention."""
    weights = random_weights(name, work / "weights", 0, settings.tiny)
    encoder = load_encoder(name, weights=weights, device=settings.device, compute=settings.compute)
    rng = np.random.default_rng(0)
    figures: dict[str, Any] = {}
    # `arithmetic` looks the name up at each pass: in its place a block that forbids nothing.
    for way, block in (("shipped", fused_attention), ("any_attention", nullcontext)):
        new: list[float] = []
        seen_s: list[float] = []
        with patch.object(encoders_device, "fused_attention", block):
            for i in range(2 if settings.tiny else 20):
                clips = [rng.standard_normal(16_000 + 640 * i + 5 * j).astype(np.float32) for j in range(4)]
                for times in (new, seen_s):
                    start = time.perf_counter()
                    encoder.encode(clips, 1 << 30)
                    times.append(time.perf_counter() - start)
        figures[way] = {"new_shape_ms": 1e3 * float(np.median(new)), "seen_ms": 1e3 * float(np.median(seen_s))}
    return figures


def out_of_memory(name: str, settings: Settings, work: Path) -> dict[str, Any]:
    """Return the messages of a run on a card that is too small, with counts, and how far its rows are off."""
    (work / "corpus").mkdir()
    corpus = write_corpus(work / "corpus", 4 if settings.tiny else 400, 0)
    weights = random_weights(name, work / "weights", 0, settings.tiny)
    encoder = load_encoder(name, weights=weights, device=settings.device, compute="float32")
    device = torch.device(encoder.device)
    messages: dict[str, int] = {}

    def recorded(error: Exception) -> bool:
        line = (str(error).splitlines() or [""])[0][:120]
        messages[line] = messages.get(line, 0) + 1
        return is_out_of_memory(error)

    store = FeatureStore.create(work / "store")
    featurize(corpus, encoder, store, "ample")
    with patch.object(stream, "out_of_memory", recorded):
        if device.type == "cuda":
            torch.cuda.empty_cache()
            allocated = torch.cuda.memory_allocated(device) / torch.cuda.get_device_properties(device).total_memory
            torch.cuda.set_per_process_memory_fraction(allocated + 0.05, device)
        report = featurize(corpus, encoder, store, "short", batch_s=6000.0)
    short, ample = store["short"], store["ample"]
    worst = max(float(np.abs(short[key].astype(float) - ample[key].astype(float)).max()) for key in short)
    return {"messages": messages, "done": report.done, "failed": len(report.failed), "largest_difference": worst}


def _samples(corpus: Manifest, i: int) -> np.ndarray:
    from featurestore.audio import decode

    return decode(corpus.audio_path(i))


def _run(encoder: Encoder, manifest: Manifest, work: Path) -> FeaturizeReport:
    shutil.rmtree(work / "store", ignore_errors=True)
    report = featurize(manifest, encoder, FeatureStore.create(work / "store"), "rows")
    assert not report.failed, report.failed[0]
    return report


def _frames(encoder: Encoder, manifest: Manifest) -> list[int]:
    if encoder.kind == "text":
        return [encoder.cost(text) for text in manifest.texts]
    return [encoder.n_frames(round(16_000 * s)) for s in manifest.column("duration_s").astype(float).tolist()]


def _flop(encoder: Encoder, manifest: Manifest) -> float:
    return Flops(encoder).of(_frames(encoder, manifest))


def _beside_peers(
    encoder: Encoder, weights: Path, corpus: Manifest, n: int, rate: float, options: dict[str, Any], work: Path
) -> dict[str, Any]:
    """Return our rate divided by those of the field's ways, on a sample, and how far the rows differ."""
    sample, compute = corpus.rows(range(n)), encoder.compute  # type: ignore[attr-defined]
    times = {}
    for way, run, arithmetic in (("per_file", per_file, torch.float32), ("padded", arrival_batches, compute)):
        out = work / way
        out.mkdir()
        peer = PeerModel.load(weights, encoder, arithmetic)
        with ieee_float32():
            run(peer, sample.rows(range(min(2, n))), out)  # warm
            start = time.perf_counter()
            run(peer, sample, out)
            times[way] = time.perf_counter() - start
        del peer
    exact = load_encoder(encoder.name, compute="float32", **options)
    worst = 0.0
    for key, ours in zip(sample.keys, exact.encode(_inputs(exact, sample)), strict=True):
        peer_rows = np.load(work / "per_file" / f"{key}.npy")
        difference = np.linalg.norm(ours[-1] - peer_rows, axis=1) / np.linalg.norm(peer_rows, axis=1)
        worst = max(worst, float(difference.max()))
    return {
        "x_per_file": rate * times["per_file"] / n, "x_padded": rate * times["padded"] / n,
        "worst_row_float32": worst,
    }  # fmt: skip


def _inputs(encoder: Encoder, manifest: Manifest) -> list[Any]:
    if encoder.kind == "text":
        return list(manifest.texts)
    return [_samples(manifest, i) for i in range(len(manifest))]
