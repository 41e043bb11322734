"""Features and UAR of pieces of long recordings beside the same clips as files.

    python -m benchmarks.recordings MANIFEST

The clips of each speaker are joined into one recording: FLAC, MP3 (variable bit rate, no tag), AAC in MP4, and Ogg
Opus, with a table of segments. The same features are made of the clips and of each form's segments; then a probe that
was fitted on the clips of other folds predicts both. The table shows how much rows differ, and the UAR of both.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import soundfile

from benchmarks.lossy import encode, write_untagged_mp3
from deepser.probes.member import ProbeMember
from deepser.scores.metrics import classification
from featurestore.runtime.durable import replace_text
from featurestore.store.feature_store import FeatureStore

GAP_S = 0.5  # of silence between two clips, as between two turns
FEATURES = "clips"
WORST = 0.99  # quantile of the differences of clips that is reported beside the median


@dataclass(frozen=True)
class Form:
    """A row of the table. Differences are of float32 rows pooled over time, per clip: |a - b| / |b|, Euclidean.

    max_difference: the largest one of all. predicted: the share of clips that get the label of their own file.
    """

    form: str
    n_clips: int
    median_difference: float
    worst_difference: float
    max_difference: float
    predicted: float
    uar: float


def run_recordings(
    manifest: Path, encoder: str, folder: Path, progress: Callable[[str], None], n_clips: int | None = None
) -> list[Form]:
    """Make recordings, features and probes in a folder and return one row for the clips and each form.

    n_clips: number of clips of each speaker and class, the first ones; None: all.
    """
    table = pd.read_csv(manifest, dtype={"fold": str})
    table = table.rename(columns={"emotion": "label"})
    table["path"] = [str(manifest.parent.resolve() / path) for path in table["path"]]
    table = table.sort_values(["speaker", "utterance_id"], kind="stable")
    if n_clips is not None:
        table = table.groupby(["speaker", "label"]).head(n_clips)
    table = table.reset_index(drop=True)
    keys = table["utterance_id"].tolist()
    progress("clips")
    clips = _features(table, folder / "clips", encoder)
    members = dict(_members(table, folder))
    rows, labels = _rows(clips, keys), _predicted(clips, table, members)
    forms = [_form("clips as files", rows, rows, labels, labels, table)]
    for name, write in WRITERS.items():
        progress(name)
        store = _features(_joined(table, folder / name, write), folder / name, encoder)
        forms.append(_form(name, _rows(store, keys), rows, _predicted(store, table, members), labels, table))
    return forms


def _joined(table: pd.DataFrame, folder: Path, write: Callable[[Path, np.ndarray, int], Path]) -> pd.DataFrame:
    """Return the table with the pieces of one recording per speaker in place of the clips."""
    folder.mkdir(parents=True)
    pieces = table.copy()
    for speaker, clips in table.groupby("speaker"):
        sound, start = [], 0
        for i, path in clips["path"].items():
            samples, rate_hz = soundfile.read(path, dtype="int16")
            pieces.loc[i, ["start_s", "end_s"]] = start / rate_hz, (start + len(samples)) / rate_hz
            gap = np.zeros(round(GAP_S * rate_hz), np.int16)
            sound += [samples, gap]
            start += len(samples) + len(gap)
        pieces.loc[clips.index, "path"] = str(write(folder / str(speaker), np.concatenate(sound), rate_hz))
    return pieces.drop(columns="duration_s", errors="ignore")


def _features(table: pd.DataFrame, folder: Path, encoder: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    listed, store = folder / "corpus.csv", folder / "store"
    table.to_csv(listed, index=False)
    _medusa(
        "featurize", "--encoder", encoder, "--layers", "all", "--pool", "mean+std", "--dtype", "float32",
        "--name", FEATURES, "-m", str(listed), "-s", str(store),
    )  # fmt: skip
    return store


def _members(table: pd.DataFrame, folder: Path) -> Iterator[tuple[str, ProbeMember]]:
    """Yield each fold with a probe of the clips of the other folds."""
    for fold in sorted(table["fold"].unique()):
        split = folder / f"fold-{fold}.csv"
        table.assign(split=np.where(table["fold"] == fold, "test", "train")).to_csv(split, index=False)
        _medusa("probe", "-m", str(split), "-s", str(folder / "clips" / "store"), "--features", FEATURES,
                "--name", f"fold-{fold}", "--runs", str(folder / "runs"))  # fmt: skip
        yield fold, ProbeMember.load(folder / "runs" / f"fold-{fold}")


def _medusa(*arguments: str) -> None:
    """Run a command as users do; CalledProcessError, with what it printed, when it fails."""
    process = subprocess.run(
        [Path(sys.executable).with_name("medusa"), *arguments], capture_output=True, text=True, check=False
    )
    if process.returncode:
        raise RuntimeError(f"medusa {' '.join(arguments)}:\n{process.stdout}{process.stderr}")


def _rows(store: Path, keys: Sequence[str]) -> np.ndarray:
    """Return (n, L * D) float32: a clip's pooled rows of all layers."""
    features = FeatureStore.open(store)[FEATURES]
    layers = [np.concatenate(features.arrays(keys, layer=layer)) for layer in features.layers]
    return np.concatenate([rows.reshape(len(keys), -1) for rows in layers], axis=1)


def _predicted(store: Path, table: pd.DataFrame, members: dict[str, ProbeMember]) -> np.ndarray:
    """Return the labels (n,) of the member that was not fitted on a clip's fold."""
    labels = np.empty(len(table), object)
    for fold, member in members.items():
        judged = np.flatnonzero(table["fold"] == fold)
        posteriors, _ = member.predict(FeatureStore.open(store), table["utterance_id"].iloc[judged].tolist())
        labels[judged] = np.asarray(member.classes)[posteriors[:, : len(member.classes)].argmax(1)]
    return labels


def _form(
    name: str, rows: np.ndarray, clip_rows: np.ndarray, labels: np.ndarray, clip_labels: np.ndarray, table: pd.DataFrame
) -> Form:
    relative = np.linalg.norm(rows - clip_rows, axis=1) / np.linalg.norm(clip_rows, axis=1)
    classes = sorted(set(table["label"]))
    true, predicted = (pd.Categorical(column, classes).codes for column in (table["label"], labels))
    scores = classification(np.asarray(predicted, np.int64), np.asarray(true, np.int64), classes)
    return Form(
        name, len(table), float(np.median(relative)), float(np.quantile(relative, WORST)),
        float(np.abs(rows - clip_rows).max()), float(np.mean(labels == clip_labels)),
        float(scores.uar),
    )  # fmt: skip


def _flac(path: Path, samples: np.ndarray, rate_hz: int) -> Path:
    soundfile.write(path.with_suffix(".flac"), samples, rate_hz, subtype="PCM_16")
    return path.with_suffix(".flac")


def _opus(path: Path, samples: np.ndarray, rate_hz: int) -> Path:
    return encode(path.with_suffix(".ogg"), samples, rate_hz, "libopus", bit_rate=32_000, at_hz=48_000)


def _mp4(path: Path, samples: np.ndarray, rate_hz: int) -> Path:
    return encode(path.with_suffix(".m4a"), samples, rate_hz, "aac", bit_rate=64_000)


def _mp3(path: Path, samples: np.ndarray, rate_hz: int) -> Path:
    return write_untagged_mp3(path.with_suffix(".mp3"), samples, rate_hz)


WRITERS: dict[str, Callable[[Path, np.ndarray, int], Path]] = {
    "FLAC": _flac, "MP3 (variable bit rate, no tag)": _mp3, "AAC in MP4": _mp4, "Ogg Opus": _opus,
}  # fmt: skip


def report(forms: Sequence[Form]) -> str:
    """Return the rows as a Markdown table."""
    lines = [
        "| | rows differ by (median, 99 %) | largest difference | same label | UAR |",
        "|---|---:|---:|---:|---:|",
    ]
    for form in forms:
        lines.append(
            f"| {form.form} | {form.median_difference:.2%}, {form.worst_difference:.2%} | {form.max_difference:.1e} | "
            f"{form.predicted:.1%} | {form.uar:.1%} |"
        )
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run on the manifest given on the command line and print the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.recordings", description=__doc__)
    parser.add_argument("manifest", type=Path, help="CSV: utterance_id, path, speaker, emotion, fold of speakers.")
    parser.add_argument("--encoder", default="tiny-hubert", help="By default one that comes with the package.")
    parser.add_argument("--clips", type=int, help="Of each speaker and class; default: all.")
    parser.add_argument("--json", type=Path, help="Also write the rows here.")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder:
        forms = run_recordings(
            options.manifest, options.encoder, Path(folder), lambda text: print(text, file=sys.stderr), options.clips
        )
    print(report(forms))
    if options.json is not None:
        replace_text(options.json, json.dumps([asdict(form) for form in forms], indent=1) + "\n")


if __name__ == "__main__":
    main()
