"""`medusa demo`: the whole way on a small corpus, as the command lines that a user would type."""

import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path

import featurestore
from featurestore.errors import ConfigError
from featurestore.runtime.durable import replace_text, writing

CORPUS = Path(featurestore.__file__).parent / "demo_corpus"
CLIP = CORPUS / "Actor_07" / "03-01-05-01-01-01-07.ogg"
ENCODERS = {"tiny-hubert": "2,3", "tiny-wavlm": "2,3", "logmel": "last"}
MEMBERS = {
    "m1": "tiny-hubert,tiny-wavlm",
    "m2": "tiny-hubert,logmel",
    "m3": "tiny-wavlm,logmel",
    "m4": "tiny-hubert,tiny-wavlm,logmel",
}
PROBE = "probe"
# A network that two cores train in a minute: narrow, few frames, a high rate for few steps.
SMALL = {
    "d": "96",
    "n-heads": "4",
    "dropout": "0.3",
    "stride": "32",
    "batch-size": "32",
    "epochs": "8",
    "lr": "1e-3",
    "warmup-epochs": "2",
    "schedule": "cosine",
    "stage2-epochs": "2",
    "stage2-lr": "2e-4",
    "select": "last",
}
META = {"seeds": "6", "meta": "auto"}
MADE = (
    "demo.csv", "demo.scheme.json", "store", "runs", "steps", "confusion.png", "prediction.csv", "report.html",
)  # fmt: skip

Step = tuple[str, list[str]]  # what it does, and the arguments of `medusa`


def steps(directory: Path) -> list[Step]:
    """Return the demo's commands in their order; each skips what an earlier run in `directory` has done."""
    if not CLIP.is_file():
        raise ConfigError(f"The demo's corpus is not at {CORPUS}; install medusa-ser again.")
    directory.mkdir(parents=True, exist_ok=True)
    manifest, runs = str(directory / "demo.csv"), str(directory / "runs")
    inputs = ["--manifest", manifest, "--store", str(directory / "store")]
    plan: list[Step] = [
        (
            "A manifest: 384 clips of RAVDESS, 24 actors, 8 emotions, in three folds that share no speaker",
            ["prepare", "ravdess", "--root", _shown(CORPUS), "--join-folds", "3", "--output", manifest],
        )
    ]
    for encoder, layers in ENCODERS.items():
        chosen = [] if layers == "last" else ["--layers", layers]
        plan.append((f"Encode every clip once: {encoder}", ["featurize", "--encoder", encoder, *chosen, *inputs]))
    plan.append(
        (
            "Probe every layer in closed form: which carries emotion, and what a network has to beat",
            ["probe", "--features", ",".join(ENCODERS), *inputs, "--cv", "fold", "--name", PROBE, "--runs", runs],
        )
    )
    for member, features in MEMBERS.items():
        arguments = ["fit-deepser", "--features", features, *inputs, "--cv", "fold", "--name", member, "--runs", runs]
        plan.append(
            (f"Train member {member}, each fold judged by a model of the others", [*arguments, *_options(SMALL)])
        )
    plan += [
        (
            "Fit meta-classifiers on posteriors of members and probe (six seeds, then their soup); choose one inside",
            [
                *("fit-meta", *_options(META), "--members", ",".join([*MEMBERS, PROBE])),
                *(*inputs, "--cv", "fold", "--runs", runs),
            ],
        ),
        (
            "Score it",
            ["evaluate", "meta", *inputs, "--cv", "fold", "--confusion", str(directory / "confusion.png")],
        ),
        (
            "See it: one page with scores, mistakes and clips, to be opened in a browser",
            ["report", str(directory), "--output", str(directory / "report.html")],
        ),
        (
            "Predict a file (an angry one; two of each member's three models learned from it)",
            ["predict", _shown(CLIP), "--model", str(directory / "runs" / "meta")],
        ),
    ]
    return plan


def record_time(directory: Path, number: int, arguments: list[str], seconds: float) -> None:
    """Write down what a step took when it was done first; `medusa report` shows it."""
    name = "-".join(
        [arguments[0], *(arguments[i + 1] for i, a in enumerate(arguments) if a in ("--encoder", "--name"))]
    )
    path = directory / "steps" / f"{number:02d} {name}.json"
    if not path.exists():
        with writing(path, ConfigError):
            replace_text(path, json.dumps({"attempts": 1, "seconds": round(seconds, 2)}) + "\n")


def forget(directory: Path) -> None:
    """Remove what the demo makes in `directory`, and nothing else."""
    for name in MADE:
        path = directory / name
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


def _options(settings: Mapping[str, str]) -> list[str]:
    return [part for name, value in settings.items() for part in (f"--{name}", value)]


def _shown(path: Path) -> str:
    """Return the path as short as it can be typed from here."""
    relative = os.path.relpath(path)
    return str(path) if relative.startswith(os.pardir) else relative
