"""Does it help a network to know which frames a word is spoken in? Cross-attention with and without --align.

    medusa transcribe --model tiny.en --language en --words -m corpus.csv -o words.csv
    medusa featurize --encoder tiny-wavlm --layers 2,3 -m corpus.csv -s store
    medusa featurize --encoder all-MiniLM-L6-v2 --name words --transcripts words.csv --times -m corpus.csv -s store
    python -m benchmarks.alignment -m corpus.csv -s store --speech tiny-wavlm@2+3 --text words [--json FILE]

The same network and settings (preset small's training, cross-attention of width 96) over the folds of the column
`fold`, for each seed and window, nothing chosen on a fold. A row is the mean over the seeds of UAR in %, with its
interval from resampling speakers, the seeds' own values, and the paired difference to the network whose rows see all.
"""

import argparse
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from deepser.config import MemberConfig
from deepser.members.fit import fit_members
from deepser.members.folds import plan_folds
from deepser.members.posteriors import posteriors_name
from deepser.networks.timing import ENDING
from deepser.training.processes import World
from deepser.training.targets import Targets
from ensemble.evaluation.bootstrap import MeanSums, Scored, Sums, bootstrap, compare
from ensemble.recipes.members import MemberOptions
from featurestore.corpus.manifest import Manifest
from featurestore.corpus.splits import speaker_groups
from featurestore.runtime.device import pick_device
from featurestore.runtime.durable import replace_text
from featurestore.store.feature_store import FeatureStore

OPTIONS = {
    "network": "cross-attention", "d": 96, "n-heads": 4, "n-layers": 1, "dropout": 0.3, "precision": "float32",
}  # fmt: skip


def member(name: str, speech: str, text: str, window_s: float, seed: int, options: dict[str, Any]) -> MemberConfig:
    """Return the member for a window in seconds; with 0 every row sees every other, and no times are read."""
    features = [speech, text, *([text + ENDING] if window_s else [])]
    return MemberOptions("small", features, name, {**OPTIONS, **options, "align": window_s, "seed": seed}).config()


def sums_of(store: FeatureStore, manifest: Manifest, name: str) -> Sums:
    """Return the sums over speakers of a member's out-of-fold classes."""
    stored = store[posteriors_name(name)].gather(manifest.keys, "posteriors", dtype="float32")
    predicted = np.asarray(stored.values)[:, : len(manifest.scheme.classes)].argmax(1)
    no_values = np.zeros((len(manifest), 0))
    targets = Targets.from_manifest(manifest)
    return Scored(targets.classes, targets.labels, predicted, (), no_values, no_values, speaker_groups(manifest)).sums()


def measure(
    store: FeatureStore,
    manifest: Manifest,
    speech: str,
    text: str,
    windows_s: Sequence[float],
    seeds: Sequence[int],
    runs: Path,
    options: dict[str, Any],
) -> list[dict[str, Any]]:
    """Return a row of figures for each window; the others are compared with the first, 0, which is no window."""
    plan, world = plan_folds(manifest, cv="fold"), World(device=pick_device("cpu"))
    into = FeatureStore.open(runs / "store") if (runs / "store").exists() else FeatureStore.create(runs / "store")
    windows: list[tuple[float, MeanSums, list[float], float]] = []
    for window_s in windows_s:
        start, sums_by_seed = time.perf_counter(), []
        for seed in seeds:
            config = member(f"window{window_s:g}_s{seed}", speech, text, window_s, seed, options)
            fit_members(store, manifest, [config], plan, [runs / config.name], world=world, into=into)
            sums_by_seed.append(sums_of(into, manifest, config.name))
            print(f"{window_s:g} s, seed {seed}: UAR {100 * float(sums_by_seed[-1].scores()['uar']):.1f}", flush=True)
        uar_by_seed = [100 * float(sums.scores()["uar"]) for sums in sums_by_seed]
        windows.append((window_s, MeanSums.of(sums_by_seed), uar_by_seed, time.perf_counter() - start))
    rows = []
    for window_s, sums, uar_by_seed, seconds in windows:
        uar = bootstrap(sums)["uar"]
        row = {"window_s": window_s, "uar": 100 * uar.value, "interval": [100 * uar.low, 100 * uar.high],
               "by_seed": uar_by_seed, "seconds": seconds}  # fmt: skip
        if window_s != windows[0][0]:
            difference = compare(sums, windows[0][1], ("window", "all")).differences["uar"]
            row |= {
                "difference": 100 * difference.value,
                "apart": [100 * difference.low, 100 * difference.high],
                "p": difference.p,
            }
        rows.append(row)
    return rows


def markdown(result: dict[str, Any]) -> str:
    """Return the result as a Markdown table."""
    lines = [
        f"`{result['corpus']}`, {result['utterances']:,} clips, {result['speech']} and {result['text']}",
        "",
        "| rows that see each other | UAR, % (95 % by speaker) | each seed | difference | p |",
        "|---|---|---|---|---:|",
    ]
    for row in result["rows"]:
        window = f"at most {row['window_s']:g} s apart" if row["window_s"] else "all"
        difference = (
            f"{row['difference']:+.1f} ({row['apart'][0]:+.1f} to {row['apart'][1]:+.1f})" if "p" in row else "-"
        )
        p = f"{row['p']:.2f}" if "p" in row else "-"
        seeds = ", ".join(f"{uar:.1f}" for uar in row["by_seed"])
        low, high = row["interval"]
        lines.append(f"| {window} | {row['uar']:.1f} ({low:.1f} to {high:.1f}) | {seeds} | {difference} | {p} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Print the table, and write it and all figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for names in (("-m", "--manifest"), ("-s", "--store"), ("--speech",), ("--text",)):
        parser.add_argument(*names, required=True)
    parser.add_argument("--windows", default="0,0.1,0.3,1", help="seconds, the first is compared with; 0: no times")
    parser.add_argument("--seeds", default="1,2,3")
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--stride", type=int, default=4)
    parser.add_argument("--runs", type=Path, default=Path("alignment-runs"), help="an interrupted run goes on there")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--markdown", type=Path)
    arguments = parser.parse_args()
    store, manifest = FeatureStore.open(arguments.store), Manifest.read(arguments.manifest)
    windows, seeds = (
        [float(w) for w in arguments.windows.split(",")],
        [int(seed) for seed in arguments.seeds.split(",")],
    )
    options = {"epochs": arguments.epochs, "stride": arguments.stride}
    arguments.runs.mkdir(parents=True, exist_ok=True)
    rows = measure(store, manifest, arguments.speech, arguments.text, windows, seeds, arguments.runs, options)
    result = {"corpus": manifest.name, "utterances": len(manifest), "speech": arguments.speech, "text": arguments.text,
             "settings": OPTIONS | options, "seeds": seeds, "rows": rows}  # fmt: skip
    print(text := markdown(result))
    if arguments.json:
        replace_text(arguments.json, json.dumps(result, indent=1) + "\n")
    if arguments.markdown:
        replace_text(
            arguments.markdown,
            "# Words aligned with frames\n\n`python -m benchmarks.alignment`, [every figure](alignment.json).\n\n"
            + text,
        )


if __name__ == "__main__":
    main()
