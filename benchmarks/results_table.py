"""The results page: systems x corpora, with intervals by speaker, beside what EmoBox publishes for the same folds.

    python -m benchmarks.results_table RUN... [--systems four,small,ensemble] [--json FILE] [--markdown FILE]

RUN: a directory that `benchmarks/accuracy.sh` made, named after its corpus: it holds `corpus.csv` and `store`. Systems
are posteriors in the stores, by default all; every one is scored on all utterances of its folds. UA is the mean recall
of the classes, WA the share that is right.
"""

import argparse
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ensemble.evaluation.align import PREFIX
from ensemble.evaluation.assess import ScoringOptions
from ensemble.evaluation.parts import assess_parts
from ensemble.evaluation.systems import from_store
from featurestore.corpus.manifest import Manifest
from featurestore.errors import ConfigError
from featurestore.runtime.durable import replace_text
from featurestore.store.feature_store import FeatureStore

SCORES = {"UA": "uar", "WA": "accuracy", "macro-F1": "macro_f1"}
# Speakers in both the training and the test part: a score there says little of new speakers.
LEAKS = {"urdu": "EmoBox's split of URDU shares 18 of its speakers between training and test"}


@dataclass(frozen=True)
class Published:
    """A figure of EmoBox (Ma et al. 2024, Interspeech, and its repository): one frozen encoder and a small head."""

    corpus: str
    system: str
    ua: float


PUBLISHED = tuple(
    Published("ravdess", system, ua)
    for system, ua in (
        ("wav2vec 2.0 base", 54.3), ("WavLM-base", 61.6), ("HuBERT-base", 65.4), ("HuBERT-large", 70.0),
        ("WavLM-large", 72.0), ("Whisper-large-v3, encoder, 635 M parameters", 75.3),
    )
)  # fmt: skip


def rows_of(run: Path, systems: Sequence[str] | None, n_resamples: int) -> Iterator[dict[str, Any]]:
    """Yield a row of each system of a run: its scores in %, and whether it is speaker-adapted."""
    manifest, store = Manifest.read(run / "corpus.csv"), FeatureStore.open(run / "store")
    names = [name for name in store.names() if store[name].spec.kind == "posteriors"]
    stored = [name.removeprefix(PREFIX) for name in names]
    for name in systems or stored:
        if name not in stored:
            if any(each in stored for each in systems or ()):
                continue
            raise ConfigError(
                f"{run / 'store'} has no posteriors of {name!r}; there are {', '.join(stored) or 'none'}."
            )
        system = from_store(store, name, manifest)
        for part, result in assess_parts(system, manifest, ScoringOptions(n_resamples=n_resamples)).items():
            intervals = {shown: result.intervals[score] for shown, score in SCORES.items()}
            yield {
                "corpus": run.name, "part": part, "system": name,
                **{shown: 100 * i.value for shown, i in intervals.items()},
                "intervals": {shown: [100 * i.low, 100 * i.high] for shown, i in intervals.items()},
                "speakers": result.n_clusters, "utterances": len(system.keys),
                "speaker_adapted": any(note.startswith("speaker-adapted") for note in system.notes),
            }  # fmt: skip


def published(corpora: Sequence[str]) -> Iterator[dict[str, Any]]:
    """Yield EmoBox's figures for these corpora."""
    for figure in PUBLISHED:
        if figure.corpus in corpora:
            yield {"corpus": figure.corpus, "system": f"EmoBox: {figure.system}", "UA": figure.ua, "published": True}


def markdown(rows: Sequence[dict[str, Any]]) -> str:
    """Return the table, a line for each system, in the order of the corpora and of UA."""
    lines = ["| corpus | system | UA, % (95 % by speaker) | WA | macro-F1 |", "|---|---|---|---:|---:|"]
    corpora = list(dict.fromkeys(row["corpus"] for row in rows))
    for row in sorted(rows, key=lambda each: (corpora.index(each["corpus"]), each["UA"])):
        name = f"{row['system']}, **speaker-adapted**" if row.get("speaker_adapted") else row["system"]
        if row.get("published"):
            lines.append(f"| {row['corpus']} | {name} | {row['UA']:.1f} | - | - |")
            continue
        low, high = row["intervals"]["UA"]
        lines.append(
            f"| {row['corpus']} | {name} | {row['UA']:.1f} ({low:.1f} to {high:.1f}) | {row['WA']:.1f} | "
            f"{row['macro-F1']:.1f} |"
        )
    leaks = [f"{name}: {why}" for name, why in LEAKS.items() if name in corpora]
    return "\n".join([*lines, *([""] if leaks else []), *(f"Leak, {each}." for each in leaks)]) + "\n"


def main() -> None:
    """Print the table, and write it and all figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", type=Path)
    parser.add_argument("--systems", type=lambda text: text.split(","))
    parser.add_argument("--resamples", type=int, default=1000)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--markdown", type=Path)
    arguments = parser.parse_args()
    rows = [row for run in arguments.runs for row in rows_of(run, arguments.systems, arguments.resamples)]
    rows += published([run.name for run in arguments.runs])
    text = markdown(rows)
    print(text)
    if arguments.json:
        replace_text(arguments.json, json.dumps(rows, indent=1) + "\n")
    if arguments.markdown:
        corpora = " and ".join(run.name for run in arguments.runs)
        replace_text(arguments.markdown, f"# Systems on {corpora}\n\n{text}")


if __name__ == "__main__":
    main()
