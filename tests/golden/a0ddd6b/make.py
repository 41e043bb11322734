"""Writes the golden artefacts of commit a0ddd6b; run by hand with a checkout of that commit, never by a test.

PYTHONPATH=CHECKOUT python tests/golden/a0ddd6b/make.py tests/golden/a0ddd6b

corpus.csv, audio/    30 utterances of 6 speakers in 2 folds, of which two have audio
store/                three small feature sets, and the posteriors of members and meta-classifiers
runs/                 a member of every kind of network, a meta-classifier of every kind, and two interrupted members
finished/             the weights that the interrupted members get when that build goes on
export/               an exported meta-classifier
predictions.npz       the predictions of that build with each; machine.json describes the machine
"""

import json
import platform
import shlex
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import soundfile
import torch

CLASSES = ("calm", "angry", "sad")
N = 30
HEARD = (0, 1)
FEATURES = {  # (layers, dim, kind); "pooled" is encoded from the audio
    "first": (2, 6, "audio"),
    "second": (1, 4, "text"),
}
TINY = {
    "network.d": 4, "network.n_heads": 2, "network.n_layers": 1, "network.ff_multiple": 1,
    "train.stages.*.lr": 3e-3, "train.batch_size": 8, "train.precision": "float32", "train.dev_fraction": 0.3,
}  # fmt: skip
MEDUSA = {**TINY, "train.stages.0.epochs": 2, "train.stages.1.epochs": 2}
MEMBERS: dict[str, tuple[str, str, dict[str, Any]]] = {  # name: (features, preset, settings)
    "deepser": ("first@1+2,second", "medusa", MEDUSA),
    "unimodal": ("first", "unimodal", {**MEDUSA, "network.pooling": "attention", "train.targets": "vote-dropping",
                                       "train.stages.*.loss.attributes": "ccc", "train.accumulate": 2}),
    "late": ("first,second", "medusa-late-fusion", {**MEDUSA, "network.pooling": "asp", "train.select": "mean_ccc"}),
    "crossed": ("first@2,second", "cross-attention", {**MEDUSA, "train.stages.*.loss.classes": "focal",
                                                      "train.label_smoothing": 0.1, "train.select": "loss"}),
    "srpol": ("first,second", "srpol-task1-confused", {
        **TINY, "network.lstm_dim": 3, "network.pool_dim": 3, "train.stages.*.epochs": 2,
        "train.stages.*.samples_per_epoch": 20, "train.stages.*.min_lr": 1e-4, "train.stages.*.warmup_epochs": 1}),
    "baseline": ("pooled", "baseline-frozen-task2",
                 {**TINY, "network.pool_dim": 2, "train.stages.*.epochs": 2}),
}  # fmt: skip
HALF = {**MEDUSA, "train.ema_decay": 0.5, "train.stages.1.confusion_exponent": 1.0, "train.stages.1.epochs": 3,
        "train.stages.0.schedule": "cosine"}  # fmt: skip
STOPS = {"half": ("2", "stage2", 2), "between": ("2", "stage1", 2)}  # name: the fold, stage and epoch it stops after
METAS = {
    "meta-linear": [],
    "meta-logits": ["--inputs", "logits", "--soup", "greedy"],
    "meta-mlp": ["--meta", "mlp", "--hidden", "4"],
    "meta-vote": ["--meta", "weighted"],
}


def medusa(*arguments: object) -> None:
    """Run the command `medusa arguments...` in this process."""
    from cli import app

    words = [str(word) for word in arguments]
    print("$ medusa", shlex.join(words), flush=True)
    if app(words, standalone_mode=False):
        raise SystemExit(1)


def corpus(directory: Path) -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, len(CLASSES), N)
    (directory / "audio").mkdir(parents=True)
    for i, label in enumerate(labels):
        time = np.arange(3200) / 16000
        wave = 0.3 * np.sin(2 * np.pi * (200 + 150 * label) * time) + 0.05 * rng.normal(size=len(time))
        soundfile.write(directory / "audio" / f"{i}.wav", wave, 16000, "PCM_16")
    votes = np.eye(len(CLASSES))[labels] * 3
    votes[::10] = 1
    frame = pd.DataFrame({"utterance_id": [f"u/{i} é" for i in range(N)]})
    frame["path"] = [f"audio/{i}.wav" for i in range(N)]
    frame["speaker"] = [f"s{i % 6}" for i in range(N)]
    frame["fold"] = [str(i % 2 + 1) for i in range(N)]
    for c, name in enumerate(CLASSES):
        frame[f"vote_{name}"] = votes[:, c]
    arousal = 2.0 + 2 * labels + rng.normal(size=N).round(2) / 4
    frame["attr_arousal"] = [None if i % 5 == 0 else float(a) for i, a in enumerate(arousal)]
    frame.to_csv(directory / "corpus.csv", index=False)


def features(directory: Path) -> None:
    from featurestore.spec import FeatureSpec
    from featurestore.store import FeatureStore

    rng = np.random.default_rng(1)
    labels = np.random.default_rng(0).integers(0, len(CLASSES), N)
    store = FeatureStore.create(directory / "store")
    for name, (n_layers, dim, kind) in FEATURES.items():
        centres = rng.normal(size=(len(CLASSES), dim)) * 2
        layers = tuple(f"layer_{i + 1:02d}" for i in range(n_layers))
        rate = 50.0 if kind == "audio" else 0.0
        source = "" if kind == "audio" else "manifest"
        with store.writer(name, FeatureSpec(kind, name, "none", layers, dim, rate, source=source)) as writer:
            for i, label in enumerate(labels):
                rows = centres[label] + rng.normal(size=(n_layers, int(rng.integers(3, 12)), dim))
                writer.append(f"u/{i} é", rows.astype(np.float32))


def interrupted(directory: Path, name: str) -> None:
    """Fit a member that stops after an epoch; then let a copy of it go on to the end."""
    from deepser.fit import fit_member
    from deepser.folds import plan_folds
    from deepser.presets import find_preset, member_config
    from featurestore import FeatureStore, Manifest

    store, manifest = FeatureStore.open(directory / "store"), Manifest.read(directory / "corpus.csv")
    config = member_config(name, ["first@1+2", "second"], find_preset("medusa"), HALF)
    plan = plan_folds(manifest, cv="fold")

    def stop(_: str, fold: str, history: list[dict[str, Any]]) -> None:
        if (fold, history[-1]["stage"], history[-1]["epoch"]) == STOPS[name]:
            raise KeyboardInterrupt

    try:
        fit_member(store, manifest, config, plan, directory / "runs" / name, device="cpu", on_epoch=stop)
    except KeyboardInterrupt:
        shutil.copytree(directory / "runs" / name, directory / "copy" / name)
    fit_member(store, manifest, config, plan, directory / "copy" / name, device="cpu")
    store.remove(f"posteriors/{name}")
    for path in sorted((directory / "copy" / name).glob("fold-*/model.safetensors")):
        place = directory / "finished" / name / path.parent.name
        place.mkdir(parents=True)
        shutil.copyfile(path, place / path.name)
    shutil.rmtree(directory / "copy")


def forest(directory: Path) -> None:
    from ensemble.config import ForestConfig
    from ensemble.fit import fit_ensemble
    from ensemble.members import record_members
    from featurestore import FeatureStore, Manifest

    store, manifest = FeatureStore.open(directory / "store"), Manifest.read(directory / "corpus.csv")
    members, place = [f"posteriors/{name}" for name in MEMBERS], directory / "runs" / "meta-forest"
    config = ForestConfig(n_folds=2, n_trees=2)
    fit_ensemble(store, manifest, members, name="meta-forest", config=config, folds="fold", directory=place)
    record_members(place, store, members, directory / "runs")


def predictions(directory: Path) -> dict[str, np.ndarray]:
    from deepser.member import Member
    from ensemble.model import Model
    from featurestore import FeatureStore, Manifest

    store, manifest = FeatureStore.open(directory / "store"), Manifest.read(directory / "corpus.csv")
    outcomes: dict[str, np.ndarray] = {}
    outputs = {}
    for name in MEMBERS:
        outputs[name] = Member.load(directory / "runs" / name).predict(store, manifest.keys, device="cpu")
        outcomes[f"{name}/posteriors"], outcomes[f"{name}/logits"] = outputs[name]
        stored = store[f"posteriors/{name}"]
        outcomes[f"{name}/kept"] = np.stack([stored[key] for key in manifest.keys])
    for name in [*METAS, "meta-forest"]:
        model = Model.load(directory / "runs" / name)
        assert model.meta is not None
        inputs = np.stack([outputs[m.config.name][model.meta.layer == "logits"] for m in model.members])
        predicted = model.meta.predict_values(inputs)
        outcomes[f"{name}/probabilities"], outcomes[f"{name}/attributes"] = (
            predicted.probabilities,
            predicted.attributes,
        )
        outcomes[f"{name}/logits"] = predicted.logits
    from_audio = Model.load(directory / "export").predict(
        [directory / "audio" / f"{i}.wav" for i in HEARD], device="cpu"
    )
    outcomes["export/probabilities"], outcomes["export/members"] = (
        from_audio.probabilities,
        from_audio.member_posteriors,
    )
    return outcomes


def machine() -> dict[str, str]:
    """Return the properties of the machine that bits depend on."""
    model = [line.partition(":")[2].strip() for line in Path("/proc/cpuinfo").read_text().splitlines()
             if line.startswith("model name")]  # fmt: skip
    return {"torch": torch.__version__, "numpy": np.__version__, "machine": platform.machine(), "cpu": model[0],
            "capability": torch.backends.cpu.get_cpu_capability()}  # fmt: skip


def main(directory: Path) -> None:
    corpus(directory)
    features(directory)
    table, store, runs = directory / "corpus.csv", directory / "store", directory / "runs"
    medusa("featurize", "-m", table, "--encoder", "logmel", "--pool", "mean+std", "--name", "pooled", "-s", store)
    for name, (sets, preset, settings) in MEMBERS.items():
        options = [text for path, value in settings.items() for text in ("--set", f"{path}={json.dumps(value)}")]
        medusa("fit-deepser", "-m", table, "-s", store, "--cv", "fold", "--features", sets, "--preset", preset,
               "--name", name, "--runs", runs, "--device", "cpu", *options)  # fmt: skip
    for name, options in METAS.items():
        medusa("fit-meta", "-m", table, "-s", store, "--cv", "fold", "--name", name, "--runs", runs, "--seeds", 2,
               "--rounds", 3, "--members", ",".join(MEMBERS), *options)  # fmt: skip
    forest(directory)
    medusa("fit-meta", "-m", table, "-s", store, "--cv", "fold", "--name", "heard", "--runs", runs, "--seeds", 2,
           "--rounds", 3, "--members", "baseline")  # fmt: skip
    medusa("export", runs / "heard", "-o", directory / "export", "-m", table)
    for name in STOPS:
        interrupted(directory, name)
    np.savez_compressed(directory / "predictions.npz", **predictions(directory))
    (directory / "machine.json").write_text(json.dumps(machine(), indent=1) + "\n")
    for path in (directory / "audio").iterdir():
        if int(path.stem) not in HEARD:
            path.unlink()
    shutil.rmtree(runs / "heard")  # its export is there
    for name in ("runs/*/curves.png", "runs/meta-*/report.json"):
        for path in directory.glob(name):
            path.unlink()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
