"""A run to report whose every key, label, transcript, path and speaker is hostile markup, with audio that plays."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import soundfile

from featurestore.corpus.manifest import LabelScheme, Manifest
from featurestore.format.spec import FeatureSpec
from featurestore.store.feature_store import FeatureStore

MARKUP = '"><img src=x onerror="window.hacked=1"></script><script>window.hacked=1</script>'
CLASSES = tuple(f"{name}{MARKUP}" for name in ("angry", "sad", "calm"))
ATTRIBUTE = f"arousal{MARKUP}"
N, N_SPEAKERS = 60, 6
LAYER_SCORES = (0.512, 0.634, 0.587)
SYSTEMS = ("m1", "m2", "meta")


def hostile_run(directory: Path) -> Path:
    """Make manifest.csv, audio, a store with posteriors of three systems, and probe.json below `directory`.

    60 utterances of 6 speakers in 3 folds; the first speaker stands in two of them. Returns `directory`.
    """
    rng = np.random.default_rng(0)
    labels = rng.integers(0, len(CLASSES), N)
    speakers = np.arange(N) % N_SPEAKERS
    folds = [str(1 + s % 3) for s in speakers]
    folds[0] = "3"
    paths = [f"audio/<b onclick=alert({i})>&'{i}.wav" for i in range(N)]
    (directory / "audio").mkdir(parents=True)
    for i, path in enumerate(paths):
        seconds = 0.2 + 0.01 * i
        tone = 0.3 * np.sin(2 * np.pi * (200 + 10 * i) * np.arange(int(16_000 * seconds)) / 16_000)
        soundfile.write(directory / path, tone.astype(np.float32), 16_000, subtype="PCM_16")
    votes = 2 * np.eye(len(CLASSES), dtype=int)[labels] + np.eye(len(CLASSES), dtype=int)[rng.integers(0, 3, N)]
    arousal = np.round(rng.uniform(1, 7, N), 2)
    table = pa.table({
        "utterance_id": [f"u{i}{MARKUP}" for i in range(N)],
        "path": paths,
        "speaker": [f"s{s}{MARKUP}" for s in speakers],
        "gender": [f"{'mf'[s % 2]}{MARKUP}" for s in speakers],
        "label": [CLASSES[c] for c in labels],
        "fold": folds,
        "text": [f"text {i} {MARKUP}" for i in range(N)],
        "duration_s": [0.2 + 0.01 * i for i in range(N)],
        **{f"vote_{name}": votes[:, c] for c, name in enumerate(CLASSES)},
        f"attr_{ATTRIBUTE}": arousal,
    })  # fmt: skip
    scheme = LabelScheme(CLASSES, {ATTRIBUTE: (1.0, 7.0)})
    Manifest(table, scheme, directory).write(directory / "manifest.csv")
    store = FeatureStore.create(directory / "store")
    columns = (*CLASSES, f"attr:{ATTRIBUTE}")
    for m, name in enumerate(SYSTEMS):
        logits = rng.normal(size=(N, len(CLASSES)))
        logits[np.arange(N), labels] += 0.7 + 0.5 * m
        p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
        values = np.concatenate([p, np.clip(arousal + rng.normal(size=N), 1, 7)[:, None]], 1).astype(np.float32)
        spec = FeatureSpec(
            "posteriors", name, "none", ("posteriors",), len(columns), dtype="float32", columns=columns,
            extra=(("oof", "fold"), ("folds", "cv:fold")),
        )  # fmt: skip
        with store.writer(f"posteriors/{name}", spec) as writer:
            for i, key in enumerate(table.column("utterance_id").to_pylist()):
                writer.append(key, values[None, i : i + 1])
    features = FeatureSpec("audio", "tone", "none", ("layer_01",), 8, 50.0)
    with store.writer("tone", features) as writer:
        for i, key in enumerate(table.column("utterance_id").to_pylist()):
            writer.append(key, rng.normal(size=(1, 4, 8)).astype(np.float16) + i % 3)
    (directory / "probe.json").write_text(json.dumps({"probe": {"name": f"p{MARKUP}"}, "systems": _layers()}))
    return directory


def _layers() -> list[dict[str, Any]]:
    """Return the output of `medusa probe --json` for one feature set of three layers, and the nested choice."""
    rows = [(f"tone{MARKUP}@{i + 1}", 1, score) for i, score in enumerate(LAYER_SCORES)] + [("nested", None, 0.605)]
    return [
        {"name": name, "part": f"all{MARKUP}", "layers": n, "nested": n is None, "scores": {"uar": score}}
        for name, n, score in rows
    ]
