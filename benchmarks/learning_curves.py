"""Learning curves and ablations on a small corpus: closed form, heads and DeepSER over the same training clips.

    python -m benchmarks.learning_curves -m corpus.csv -s store --features a@3+4,b@2+3 --json curves.json
    python -m benchmarks.learning_curves --markdown curves.md --plot curves.png curves.json other.json

Each fold of the column `fold` is judged whole, by models of some of the other folds' clips: the first 100, 200, 400,
800 of an order drawn once, and all; or 400 of one bad shape (`SHAPES`). Every system of a row learns from the same
clips of each fold. Nothing is chosen on a judged clip: the probe chooses in inner folds, networks keep their last
epoch. Ablations change one setting of preset `small` at a time, at all clips. Stopped at any moment, the same command
goes on. Seconds are those of fitting and judging all folds, whatever else the machine did.
"""

import argparse
import json
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deepser.members.fit import fit_members
from deepser.members.folds import FoldPlan
from deepser.members.posteriors import posteriors_name
from deepser.probes.config import ProbeConfig
from deepser.probes.fit import fit_probe
from deepser.training.processes import World
from deepser.training.targets import Targets
from ensemble.evaluation.bootstrap import Scored, bootstrap
from ensemble.recipes.members import MemberOptions
from featurestore.corpus.manifest import Manifest
from featurestore.corpus.splits import speaker_groups
from featurestore.errors import ConfigError
from featurestore.runtime.device import one_thread, pick_device
from featurestore.runtime.durable import replace_text
from featurestore.store.feature_store import FeatureStore

Indices = NDArray[np.int64]
SIZES = (100, 200, 400, 800)
N_SHAPED = 400
ALL = "all"


@dataclass(frozen=True)
class System:
    """A probe with its candidates of normalisation, or a network by its preset and what is changed in it."""

    about: str
    normalise: tuple[str, ...] = ()  # of a probe
    preset: str = ""
    options: Mapping[str, Any] = field(default_factory=dict)
    changes: Sequence[str] = ()


SYSTEMS = {
    "probe": System("closed form, nested", ("none",)),
    "probe-own": System("closed form, nested, speaker-adapted", ("speaker",)),
    "small": System("preset small", preset="small"),
    "baseline": System(
        "baseline head, dropout 0.5, rate 3e-4, 10 epochs", preset="baseline-frozen",
        options={"lr": 3e-4, "epochs": 10, "select": "last", "pooling": "mean"},
    ),
    "deepser": System(
        "DeepSER, width 128, 8 + 2 epochs", preset="medusa",
        options={
            "d": 128, "n-heads": 4, "dropout": 0.2, "weight-decay": 0.05, "select": "last", "epochs": 8, "lr": 1e-3,
            "warmup-epochs": 1, "schedule": "cosine", "stage2-epochs": 2, "stage2-lr": 2e-4,
        },
    ),
}  # fmt: skip
ABLATIONS = {
    "weight-decay-0.01": System("weight decay 0.01 for 0.1", preset="small", options={"weight-decay": 0.01}),
    "dropout-0.1": System("dropout 0.1 for 0.5", preset="small", options={"dropout": 0.1}),
    "no-mixup": System("no MixUp", preset="small", options={"mixup": 0.0}),
    "hard-targets": System("no label smoothing", preset="small", options={"label-smoothing": 0.0}),
    "last-weights": System("no averaging of weights", preset="small", changes=("train.ema_decay=0",)),
    "10-epochs": System("10 epochs for 30", preset="small", options={"epochs": 10}),
}  # fmt: skip
SHAPES = {
    "400 of few speakers": "the fewest training speakers that have them",
    "400 unequal": "a speaker counts half as much as the one before",
    "400 confounded": "each speaker mostly in two emotions of their own",
}


@dataclass(frozen=True, eq=False)
class Corpus:
    """Labelled utterances with their features' store; speakers, labels and folds are (N,) int64 codes."""

    store: FeatureStore
    manifest: Manifest
    speakers: Indices
    labels: Indices
    folds: Indices

    @staticmethod
    def of(store: FeatureStore, manifest: Manifest) -> "Corpus":
        """Return the labelled utterances of a manifest with their features' store."""
        manifest = manifest.rows(Targets.from_manifest(manifest).labels >= 0)
        codes = [np.unique(v, return_inverse=True)[1].astype(np.int64)
                 for v in (speaker_groups(manifest), manifest.column("fold").astype(str))]  # fmt: skip
        return Corpus(store, manifest, codes[0], Targets.from_manifest(manifest).labels, codes[1])


def training_clips(corpus: Corpus, training: str, fold: int) -> Indices:
    """Return the rows that a fold's models learn from, (n,) sorted; all rows where there are fewer than `training`.

    ConfigError for a name that is neither a size, nor "all", nor one of SHAPES.
    """
    candidates = np.flatnonzero(corpus.folds != fold)
    if training == ALL:
        return candidates
    rng = np.random.default_rng((17, fold))
    if training.isdecimal():
        return np.sort(rng.permutation(candidates)[: int(training)])
    if training not in SHAPES:
        raise ConfigError(f"Training clips {training!r}: expected a number, {ALL}, or one of {', '.join(SHAPES)}.")
    speakers, codes = np.unique(corpus.speakers[candidates], return_inverse=True)
    ranks = rng.permutation(len(speakers))[codes]  # of each clip's speaker
    weights = np.ones(len(candidates))
    if training == "400 of few speakers":
        return np.sort(candidates[np.argsort(ranks, kind="stable")[:N_SHAPED]])
    if training == "400 unequal":
        weights = np.maximum(0.5 ** ranks.astype(float), 1e-6)
    if training == "400 confounded":
        n_classes = int(corpus.labels.max()) + 1
        weights = np.where((corpus.labels[candidates] - 2 * ranks) % n_classes < 2, 1.0, 0.01)
    n = min(N_SHAPED, len(candidates))
    return np.sort(rng.choice(candidates, n, replace=False, p=weights / weights.sum()))


def outputs(
    corpus: Corpus, systems: Mapping[str, System], features: Sequence[str], train: Indices, judged: Indices
) -> dict[str, tuple[NDArray[np.int64], float]]:
    """Return the class that each system predicts for the judged rows, (n,) each, and its seconds."""
    rows = np.concatenate([train, judged])
    part = corpus.manifest.rows(rows)
    plan = FoldPlan((ALL,), np.where(np.arange(len(rows)) < len(train), 0, -1), "learning curve")
    predictions = {}
    for name, system in systems.items():
        start = time.perf_counter()
        if system.normalise:
            probe = ProbeConfig("p", tuple(features), normalise=system.normalise)
            scores = fit_probe(corpus.store, part, probe, plan, device="cpu").logits[len(train) :]
        else:
            options = {**system.options, "precision": "float32"}
            member = MemberOptions(system.preset, features, "m", options, system.changes)
            with tempfile.TemporaryDirectory() as directory, one_thread():
                into = FeatureStore.create(Path(directory) / "store")
                world = World(device=pick_device("cpu"))
                fit_members(
                    corpus.store, part, [member.config()], plan, [Path(directory) / "m"], world=world, into=into
                )
                keys = [part.keys[i] for i in range(len(train), len(rows))]
                stored = into[posteriors_name("m")].gather(keys, "posteriors", dtype="float32")
                scores = np.asarray(stored.values)[:, : len(part.scheme.classes)].copy()
        predictions[name] = scores.argmax(1).astype(np.int64), time.perf_counter() - start
    return predictions


def measured(
    corpus: Corpus, systems: Mapping[str, System], features: Sequence[str], training: str
) -> Iterator[dict[str, Any]]:
    """Yield a row of each system: UAR in % with its interval by speaker over all folds' clips, seconds, clips."""
    predicted = {name: np.full(len(corpus.labels), -1, np.int64) for name in systems}
    seconds, sizes, n_speakers, shares = dict.fromkeys(systems, 0.0), [], [], []
    for fold in np.unique(corpus.folds):
        train, judged = training_clips(corpus, training, int(fold)), np.flatnonzero(corpus.folds == fold)
        sizes.append(len(train))
        n_speakers.append(len(np.unique(corpus.speakers[train])))
        shares.append(main_share(corpus, train))
        for name, (classes, spent) in outputs(corpus, systems, features, train, judged).items():
            predicted[name][judged] = classes
            seconds[name] += spent
    no_values = np.zeros((len(corpus.labels), 0))
    for name, classes in predicted.items():
        scored = Scored(
            corpus.manifest.scheme.classes, corpus.labels, classes, (), no_values, no_values, corpus.speakers
        )
        uar = bootstrap(scored.sums())["uar"]
        yield {
            "corpus": corpus.manifest.name, "training": training, "system": name, "uar": 100 * uar.value,
            "low": 100 * uar.low, "high": 100 * uar.high, "seconds": seconds[name], "features": ",".join(features),
            "clips": float(np.mean(sizes)), "speakers": float(np.mean(n_speakers)),
            "two_emotions": float(np.mean(shares)),
        }  # fmt: skip


def main_share(corpus: Corpus, train: Indices) -> float:
    """Return the mean over speakers of the share of their clips that show one of their two most frequent emotions."""
    counts = np.zeros((int(corpus.speakers.max()) + 1, int(corpus.labels.max()) + 1))
    np.add.at(counts, (corpus.speakers[train], corpus.labels[train]), 1)
    counts = counts[counts.sum(1) > 0]
    return float((np.sort(counts, 1)[:, -2:].sum(1) / counts.sum(1)).mean())


def run(corpus: Corpus, features: Sequence[str], path: Path, only: Sequence[str]) -> None:
    """Measure the systems that the file lacks, and write the file after every row of training clips."""
    rows = json.loads(path.read_text(encoding="utf-8")) if path.exists() else []
    fewest = min(int((corpus.folds != fold).sum()) for fold in np.unique(corpus.folds))
    sizes = [str(n) for n in SIZES if n < fewest]
    for training in [*sizes, *SHAPES, ALL]:
        systems = {**SYSTEMS, **(ABLATIONS if training == ALL else {})}
        same = {"corpus": corpus.manifest.name, "training": training, "features": ",".join(features)}
        measured_names = {row["system"] for row in rows if row.items() >= same.items()}
        missing = {
            name: each for name, each in systems.items() if name not in measured_names and (not only or name in only)
        }
        if missing:
            for row in measured(corpus, missing, features, training):
                rows.append(row)
                print(
                    f"{row['training']:>20} {row['system']:<26} {row['uar']:5.1f} {row['seconds']:6.0f} s", flush=True
                )
            replace_text(path, json.dumps(rows, indent=1) + "\n")


def markdown(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return two tables of each corpus: training clips x systems, and the ablations beside `small`."""
    lines = []
    for corpus in dict.fromkeys(row["corpus"] for row in rows):
        of_corpus = [row for row in rows if row["corpus"] == corpus]
        cells = {
            (row["training"], row["system"]): f"{row['uar']:.1f} ({row['low']:.0f}-{row['high']:.0f})"
            for row in of_corpus
        }
        names = [name for name in SYSTEMS if any(row["system"] == name for row in of_corpus)]
        lines += ["", f"**{corpus}**, `{of_corpus[0]['features']}`", ""]
        lines += ["| training clips of a fold | speakers | " + " | ".join(SYSTEMS[name].about for name in names) + " |"]
        lines += ["|---|---:|" + "---:|" * len(names)]
        for training in sorted(dict.fromkeys(row["training"] for row in of_corpus), key=lambda name: name in SHAPES):
            any_row = next(row for row in of_corpus if row["training"] == training)
            cell = f"{ALL}, {any_row['clips']:.0f}" if training == ALL else training
            if training == "400 confounded":
                cell += f" ({100 * any_row['two_emotions']:.0f} % in two emotions)"
            values = " | ".join(cells.get((training, name), "-") for name in names)
            lines.append(f"| {cell} | {any_row['speakers']:.0f} | {values} |")
        ablated = [row for row in of_corpus if row["system"] in ABLATIONS]
        if ablated:
            lines += [
                "",
                "| preset small, all clips, with | UAR |",
                "|---|---:|",
                f"| nothing changed | {cells.get((ALL, 'small'), '-')} |",
            ]
            lines += [f"| {ABLATIONS[row['system']].about} | {cells[ALL, row['system']]} |" for row in ablated]
    return "\n".join(lines).strip() + "\n"


def plot(rows: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Draw UAR over the number of training clips, a panel for each corpus."""
    from matplotlib.figure import Figure

    corpora = list(dict.fromkeys(row["corpus"] for row in rows))
    figure = Figure(figsize=(4.5 * len(corpora), 3.6), layout="constrained")
    for axes, corpus in zip(figure.subplots(1, len(corpora), squeeze=False)[0], corpora, strict=True):
        for name in SYSTEMS:
            points = [
                r for r in rows if (r["corpus"], r["system"]) == (corpus, name) and not r["training"].startswith("400 ")
            ]
            if points:
                points.sort(key=lambda row: row["clips"])
                axes.plot([r["clips"] for r in points], [r["uar"] for r in points], marker="o", label=name)
        ticks = sorted({round(row["clips"]) for row in rows if row["corpus"] == corpus})
        axes.set(title=corpus, xscale="log", xlabel="training clips of a fold", ylabel="UAR, %")
        axes.set_xticks(ticks, [str(n) for n in ticks])
        axes.minorticks_off()
        axes.grid(alpha=0.3)
        axes.legend(fontsize=8)
    figure.savefig(path, dpi=120)


def main() -> None:
    """Measure a corpus, or show the results of several."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="*", type=Path, help="JSON of earlier runs to show, in place of measuring")
    for names in (("-m", "--manifest"), ("-s", "--store"), ("--features",)):
        parser.add_argument(*names)
    parser.add_argument("--only", default="", help="systems, comma-separated; default: all")
    for name in ("--json", "--markdown", "--plot"):
        parser.add_argument(name, type=Path)
    arguments = parser.parse_args()
    if not arguments.files:
        if not (arguments.manifest and arguments.store and arguments.features and arguments.json):
            parser.error("measuring takes -m, -s, --features and --json")
        corpus = Corpus.of(FeatureStore.open(arguments.store), Manifest.read(arguments.manifest))
        only = [name for name in arguments.only.split(",") if name]
        if unknown := set(only) - {*SYSTEMS, *ABLATIONS}:
            parser.error(f"--only {min(unknown)!r}: expected some of {', '.join([*SYSTEMS, *ABLATIONS])}")
        run(corpus, arguments.features.split(","), arguments.json, only)
    rows = [row for path in arguments.files or [arguments.json] for row in json.loads(path.read_text(encoding="utf-8"))]
    text = markdown(rows)
    print(text)
    if arguments.markdown:
        about = "`python -m benchmarks.learning_curves`, [every figure](learning-curves.json)."
        replace_text(arguments.markdown, f"# Learning curves on small corpora\n\n{about}\n\n{text}")
    if arguments.plot:
        plot(rows, arguments.plot)


if __name__ == "__main__":
    main()
