"""Our decoder beside soundfile, PyAV, librosa and torchaudio, on the same files in one run.

Run: python -m benchmarks.decode

Whole files: ours, plain soundfile, plain PyAV, and librosa.load and torchaudio.load where they are installed. Pieces of
one long recording, without resampling: ours in one pass; each peer opening, seeking, reading and closing for each
piece; and soundfile reading the whole recording to cut it in memory.
"""

import argparse
import json
import multiprocessing
import re
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

import featurestore
from benchmarks.lossy import write_untagged_mp3
from featurestore.audio import SAMPLE_RATE_HZ, Clip, decode, decode_pass, layout
from featurestore.runtime.durable import replace_text

DEMO_CORPUS = Path(featurestore.__file__).parent / "demo_corpus"
FORMATS = {"wav": "PCM_16", "flac": "PCM_16", "mp3": None, "ogg": "VORBIS"}
SEGMENTED = ("flac", "mp3", "mp3 without a tag")


@dataclass(frozen=True)
class DecodeSettings:
    """clip_s, n_clips: files of each format, decoded whole. long_s, n_segments: the recording read in pieces."""

    clip_s: float = 10.0
    n_clips: int = 100
    long_s: float = 3600.0
    n_segments: int = 5000
    n_peer_segments: int = 5000  # fewer, spread evenly over the recording, are scaled up
    repeats: int = 3
    seed: int = 0


@dataclass(frozen=True)
class Timing:
    """One method on one kind of file: median seconds of the repeats, and the largest memory of the process in MiB.

    share: the samples that the method returned, as a part of those that the files or pieces hold.
    """

    what: str
    format: str
    method: str
    seconds: float
    memory_mib: float
    share: float


def run_decode(
    settings: DecodeSettings = DecodeSettings(), progress: Callable[[str], None] = lambda text: None
) -> list[Timing]:
    """Time every method on every format; a method that can't be imported is left out."""
    timings = []
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        files = {suffix: _clips(root, suffix, settings) for suffix in FORMATS}
        longs = {suffix: _long(root, suffix, settings) for suffix in SEGMENTED}
        segments = _segments(settings)
        for suffix, paths in files.items():
            n = round(settings.clip_s * SAMPLE_RATE_HZ) * settings.n_clips
            runs = [Run("whole", suffix, name, _whole, (method, paths), n) for name, method in WHOLE.items()]
            timings += _timed(runs, settings.repeats, progress)
        few = segments[:: max(1, len(segments) // settings.n_peer_segments)]
        for suffix, path in longs.items():
            by_piece = [_pieces(suffix, name, path, few) for name in PIECES if name.endswith("each")]
            in_one_pass = [_pieces(suffix, name, path, segments) for name in PIECES if not name.endswith("each")]
            scale = len(segments) / len(few)
            timings += _timed(in_one_pass, settings.repeats, progress)
            timings += [replace(timing, seconds=timing.seconds * scale) for timing in _timed(by_piece, 1, progress)]
    return timings


@dataclass(frozen=True)
class Run:
    """Work to be timed: `work(*arguments)` returns samples, of which the files hold `n_samples`."""

    what: str
    format: str
    method: str
    work: Callable[..., int]
    arguments: tuple[Any, ...]
    n_samples: int


def _pieces(suffix: str, name: str, path: Path, segments: Sequence[tuple[float, float]]) -> Run:
    n = sum(round((end_s - start_s) * SAMPLE_RATE_HZ) for start_s, end_s in segments)
    return Run("pieces", suffix, name, PIECES[name], (path, segments), n)


def _ours(path: Path) -> np.ndarray:
    return decode(path)


def _soundfile(path: Path) -> np.ndarray:
    samples = soundfile.read(path, dtype="float32")[0]
    return np.asarray(samples if samples.ndim == 1 else samples.mean(axis=1))


def _pyav(path: Path) -> np.ndarray:
    import av

    with av.open(str(path)) as container:
        frames = [frame.to_ndarray() for frame in container.decode(audio=0)]
    return np.asarray(np.concatenate(frames, axis=1)[0])


def _librosa(path: Path) -> np.ndarray:
    import librosa  # type: ignore[import-not-found,unused-ignore]

    return np.asarray(librosa.load(path, sr=None)[0])


def _torchaudio(path: Path) -> np.ndarray:
    import torchaudio  # type: ignore[import-not-found,unused-ignore]

    return np.asarray(torchaudio.load(str(path))[0].mean(0))


WHOLE: dict[str, Callable[[Path], np.ndarray]] = {
    "ours": _ours, "soundfile": _soundfile, "PyAV": _pyav, "librosa.load": _librosa, "torchaudio.load": _torchaudio,
}  # fmt: skip


def _whole(method: Callable[[Path], np.ndarray], paths: Sequence[Path]) -> int:
    return sum(len(method(path)) for path in paths)


def _one_pass(path: Path, segments: Sequence[tuple[float, float]]) -> int:
    n = 0
    for samples in decode_pass([Clip(path, *ends) for ends in segments]):
        if isinstance(samples, Exception):
            raise samples
        n += len(samples)
    return n


def _cut_in_memory(path: Path, segments: Sequence[tuple[float, float]]) -> int:
    samples, rate_hz = soundfile.read(path, dtype="float32")
    return sum(len(samples[round(start_s * rate_hz) : round(end_s * rate_hz)].copy()) for start_s, end_s in segments)


def _soundfile_each(path: Path, segments: Sequence[tuple[float, float]]) -> int:
    n = 0
    for start_s, end_s in segments:
        with soundfile.SoundFile(path) as file:
            start = round(start_s * file.samplerate)
            if start < file.frames:  # of an MP3 without a tag libsndfile guesses them, and seeks no further
                file.seek(start)
                n += len(file.read(round((end_s - start_s) * file.samplerate), dtype="float32"))
    return n


def _librosa_each(path: Path, segments: Sequence[tuple[float, float]]) -> int:
    import librosa

    return sum(len(librosa.load(path, sr=None, offset=start, duration=end - start)[0]) for start, end in segments)


def _torchaudio_each(path: Path, segments: Sequence[tuple[float, float]]) -> int:
    import torchaudio

    n = 0
    for start_s, end_s in segments:
        start, length = round(start_s * SAMPLE_RATE_HZ), round((end_s - start_s) * SAMPLE_RATE_HZ)
        n += torchaudio.load(str(path), frame_offset=start, num_frames=length)[0].shape[1]
    return n


def _pyav_each(path: Path, segments: Sequence[tuple[float, float]]) -> int:
    import av

    n = 0
    for start_s, end_s in segments:
        with av.open(str(path)) as container:
            stream = container.streams.audio[0]
            container.seek(int(start_s / (stream.time_base or 1)), stream=stream)
            for frame in container.decode(stream):
                samples, time_s = frame.to_ndarray()[0], frame.time or 0.0
                start, stop = (round((time - time_s) * frame.sample_rate) for time in (start_s, end_s))
                n += len(samples[max(0, start) : max(0, stop)])
                if stop <= frame.samples:
                    break
    return n


PIECES: dict[str, Callable[[Path, Sequence[tuple[float, float]]], int]] = {
    "ours": _one_pass, "soundfile, each": _soundfile_each, "librosa.load, each": _librosa_each,
    "torchaudio.load, each": _torchaudio_each, "PyAV, each": _pyav_each, "soundfile, cut in memory": _cut_in_memory,
}  # fmt: skip


def _timed(runs: Sequence[Run], repeats: int, progress: Callable[[str], None]) -> list[Timing]:
    """Time each run in a process of its own, in rounds over all of them, so that a slow minute slows each alike."""
    context = multiprocessing.get_context("spawn")
    timings = []
    with ExitStack() as stack:
        pools = []
        for run in runs:
            pool = stack.enter_context(context.Pool(1))
            if reason := pool.apply(_warmed, (run.work, run.arguments)):
                progress(f"{run.what} {run.format} {run.method}: left out, {reason}")
            else:
                pools.append((run, pool))
        rounds = [[pool.apply(_once, (run.work, run.arguments)) for run, pool in pools] for _ in range(repeats)]
        for (run, pool), results in zip(pools, zip(*rounds, strict=True), strict=True):
            seconds = statistics.median(result[0] for result in results)
            share = results[0][1] / run.n_samples
            timings.append(Timing(run.what, run.format, run.method, seconds, pool.apply(_peak_mib), share))
            progress(f"{run.what} {run.format} {run.method}: {seconds:.3f} s")
    return timings


def _warmed(work: Callable[..., int], arguments: tuple[Any, ...]) -> str | None:
    """Import, and fill the page cache; return why the method can't be used, None where it can."""
    files, others = arguments
    try:
        work(files, others if work is _whole else others[:3])
    except (ImportError, OSError, RuntimeError) as error:
        return f"{type(error).__name__}: {str(error).splitlines()[0]}"
    return None


def _once(work: Callable[..., int], arguments: tuple[Any, ...]) -> tuple[float, int]:
    """Return seconds and samples; no file's layout is known beforehand, as in a featurize run."""
    layout.forget()
    started = time.perf_counter()
    n = work(*arguments)
    return time.perf_counter() - started, n


def _peak_mib() -> float:
    """Return the largest resident memory of this process in MiB; ru_maxrss is the parent's where that was larger."""
    status = Path("/proc/self/status")
    if status.exists():
        peak = re.search(r"VmHWM:\s+(\d+) kB", status.read_text())
        if peak:
            return int(peak[1]) / 1024
    per_mib = 1 << 20 if sys.platform == "darwin" else 1 << 10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / per_mib


def _speech(seconds: float) -> np.ndarray:
    clips = [decode(path) for path in sorted(DEMO_CORPUS.rglob("*.ogg"))[:40]]
    return np.resize(np.concatenate(clips), round(seconds * SAMPLE_RATE_HZ))


def _clips(root: Path, suffix: str, settings: DecodeSettings) -> list[Path]:
    samples = _speech(settings.clip_s)
    paths = [root / f"{i}.{suffix}" for i in range(settings.n_clips)]
    for i, path in enumerate(paths):
        soundfile.write(path, np.roll(samples, 1000 * i), SAMPLE_RATE_HZ, subtype=FORMATS[suffix])
    return paths


def _long(root: Path, suffix: str, settings: DecodeSettings) -> Path:
    tagged = not suffix.endswith("without a tag")
    suffix = suffix.split()[0]
    path = root / f"long{'' if tagged else '-untagged'}.{suffix}"
    samples = _speech(settings.long_s)
    if tagged:
        soundfile.write(path, samples, SAMPLE_RATE_HZ, subtype=FORMATS[suffix])
    else:
        write_untagged_mp3(path, np.round(samples * 32767).astype(np.int16), SAMPLE_RATE_HZ)
    return path


def _segments(settings: DecodeSettings) -> list[tuple[float, float]]:
    rng = np.random.default_rng(settings.seed)
    starts = np.sort(rng.uniform(0, settings.long_s - 3.0, settings.n_segments))
    lengths = rng.uniform(0.5, 3.0, settings.n_segments)
    return list(zip(starts.tolist(), (starts + lengths).tolist(), strict=True))


def report(timings: Sequence[Timing]) -> str:
    """Return the timings as a Markdown table, each also divided by our own time."""
    ours = {(t.what, t.format): t.seconds for t in timings if t.method == "ours"}
    lines = ["| | format | method | s | by ours | MiB | read |", "|---|---|---|---:|---:|---:|---:|"]
    for t in timings:
        ratio = t.seconds / ours[t.what, t.format]
        cells = t.what, t.format, t.method, f"{t.seconds:.3f}", f"{ratio:.2f}", f"{t.memory_mib:.0f}", f"{t.share:.1%}"
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run with the settings given on the command line and print the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.decode", description=__doc__)
    defaults = DecodeSettings()
    for name, default in asdict(defaults).items():
        parser.add_argument(f"--{name.replace('_', '-')}", type=type(default), default=default)
    parser.add_argument("--json", type=Path, help="Also write the timings here.")
    options = vars(parser.parse_args(arguments))
    json_path = options.pop("json")
    timings = run_decode(DecodeSettings(**options), lambda text: print(text, file=sys.stderr))
    print(report(timings))
    if json_path is not None:
        replace_text(json_path, json.dumps([asdict(t) for t in timings], indent=1) + "\n")


if __name__ == "__main__":
    main()
