"""Time and memory of preparing MSP-Podcast: a made-up label tree of its size, prepared in a process of its own."""

import csv
import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from featurestore.errors import ConfigError
from featurestore.runtime.durable import replace_text

if TYPE_CHECKING:
    from rich.table import Table

LETTERS, WORDS = "ASHUFDCN", ("Angry", "Sad", "Happy", "Surprise", "Fear", "Disgust", "Contempt", "Neutral")
TAGS = (*WORDS, "Concerned", "Frustrated", "Amused", "Annoyed", "Excited", "Disappointed", "Confused", "Depressed")
FORMS = ("1.6", "1.11", "2.0")
N_WORKERS, N_SPEAKERS = 12_000, 1_300
P_OTHER, P_NO_AGREEMENT = 0.05, 0.19
PARTS = {"Train": 0.7, "Development": 0.2, "Test1": 0.07, "Test2": 0.03}
STEPS = ("import", "read", "write", "read again")

# Runs in a process of its own, so that what it uses is what a user's `medusa prepare` would.
WATCHED = """
import json, resource, sys, time
root, output, transcripts = sys.argv[1], sys.argv[2], sys.argv[3] == "1"
marks = [time.perf_counter()]
from featurestore.corpora import CORPORA
from featurestore.corpora.msp_podcast import read_msp_podcast
from featurestore.corpus.manifest import Manifest
marks.append(time.perf_counter())
manifest = CORPORA["msp-podcast"](root, check_audio=False, transcripts=transcripts)
marks.append(time.perf_counter())
manifest.write(output)
marks.append(time.perf_counter())
again = Manifest.read(output)
n_ratings = len(again.ratings)
marks.append(time.perf_counter())
used = resource.getrusage(resource.RUSAGE_SELF)
peak = used.ru_maxrss * (1 if sys.platform == "darwin" else 1024)
print(json.dumps({"seconds": [b - a for a, b in zip(marks, marks[1:])], "peak_rss_bytes": peak,
                  "cpu_s": used.ru_utime + used.ru_stime,
                  "n_utterances": len(again), "n_ratings": n_ratings, "votes": float(manifest.votes.sum())}))
"""


@dataclass(frozen=True)
class PrepareSettings:
    """The size of the made-up corpus; the defaults are a little over the challenge release's."""

    n_utterances: int = 120_000
    n_ratings: int = 650_000
    form: str = "1.11"
    transcripts: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0 < self.n_utterances <= self.n_ratings:
            raise ConfigError(
                f"Expected an utterance or more, and as many ratings: {self.n_utterances}, {self.n_ratings}."
            )
        if self.form not in FORMS:
            raise ConfigError(f"--form is one of {', '.join(FORMS)}, found {self.form!r}.")


def run_prepare(
    settings: PrepareSettings = PrepareSettings(),
    *,
    directory: Path | None = None,
    json_path: Path | None = None,
    progress: Callable[[str], None] = lambda text: None,
) -> dict[str, Any]:
    """Write the tree, prepare it in a process, remove it, and return seconds by step, peak memory and sizes."""
    root = Path(tempfile.mkdtemp(prefix="medusa-prepare-", dir=directory))
    try:
        progress(f"writing {settings.n_utterances:,} utterances with {settings.n_ratings:,} ratings")
        n_votes = write_tree(root / "msp", settings)
        results = {}
        for suffix in (".csv", ".parquet"):
            progress(f"preparing to {suffix}")
            arguments = [str(root / "msp"), str(root / f"m{suffix}"), str(int(settings.transcripts))]
            process = subprocess.run(
                [sys.executable, "-c", WATCHED, *arguments], capture_output=True, text=True, check=False
            )
            if process.returncode:
                raise ConfigError(f"preparing failed: {process.stderr.strip().splitlines()[-1]}")
            figures = json.loads(process.stdout)
            counts = (figures["n_utterances"], figures["n_ratings"], figures["votes"])
            assert counts == (settings.n_utterances, settings.n_ratings, n_votes), counts
            figures["output_bytes"] = (
                sum(path.stat().st_size for path in root.glob(f"m{suffix}"))
                + (root / "m.ratings.parquet").stat().st_size
            )
            results[suffix] = figures
    finally:
        shutil.rmtree(root)
    result = {**asdict(settings), "steps": list(STEPS), "results": results}
    if json_path is not None:
        replace_text(json_path, json.dumps(result, indent=2) + "\n")
    return result


def prepare_table(result: dict[str, Any]) -> "Table":
    """Return the figures for the terminal."""
    from rich import box
    from rich.table import Table

    table = Table(
        title=f"prepare msp-podcast (form {result['form']}): {result['n_utterances']:,} utterances, "
        f"{result['n_ratings']:,} ratings",
        box=box.SIMPLE_HEAD,
    )
    for name in ("to", *(f"{step} s" for step in result["steps"]), "in all s", "CPU s", "peak MB", "written MB"):
        table.add_column(name, justify="left" if name == "to" else "right")
    for suffix, record in result["results"].items():
        seconds = record["seconds"]
        figures = [f"{second:.2f}" for second in (*seconds, sum(seconds))]
        table.add_row(
            suffix,
            *figures,
            f"{record['cpu_s']:.2f}",
            f"{record['peak_rss_bytes'] / 1e6:.0f}",
            f"{record['output_bytes'] / 1e6:.1f}",
        )
    return table


def write_tree(root: Path, settings: PrepareSettings) -> int:
    """Write MSP-Podcast's label files with random content, without audio; return the votes for the eight classes."""
    rng = np.random.default_rng(settings.seed)
    n, labels = settings.n_utterances, root / ("label" if settings.form == "1.6" else "Labels")
    labels.mkdir(parents=True)
    names = [f"MSP-PODCAST_{i // 100:04d}_{i % 100:04d}.wav" for i in range(n)]
    letters = rng.choice(
        [*LETTERS, "O", "X"], n, p=[(1 - P_OTHER - P_NO_AGREEMENT) / 8] * 8 + [P_OTHER, P_NO_AGREEMENT]
    )
    values = rng.uniform(1, 7, (n, 3)).round(6)
    speakers = rng.integers(0, N_SPEAKERS, n)
    parts = rng.choice(list(PARTS), n, p=list(PARTS.values()))
    spelling = "concensus" if settings.form == "1.6" else "consensus"
    with open(labels / f"labels_{spelling}.csv", "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["FileName", "EmoClass", "EmoAct", "EmoVal", "EmoDom", "SpkrID", "Gender", "Split_Set"])
        for i, name in enumerate(names):
            gender = "Male" if speakers[i] % 2 else "Female"
            writer.writerow([name, letters[i], *values[i], speakers[i], gender, parts[i]])
    with open(root / "Partitions.txt", "w", encoding="utf-8") as file:
        file.writelines(f"{part}; {name}\n" for part, name in zip(parts, names, strict=True))
    with open(root / "Speaker_ids.txt", "w", encoding="utf-8") as file:
        file.writelines(f"Speaker_{i}; {'Male' if i % 2 else 'Female'}\n" for i in range(N_SPEAKERS))
        file.writelines(f"{name}; {speaker}\n" for name, speaker in zip(names, speakers, strict=True))
    if settings.transcripts:
        (root / "Transcripts").mkdir()
        for name in names:
            (root / "Transcripts" / f"{name[:-4]}.txt").write_text(
                f"This is what was said in {name}.", encoding="utf-8"
            )
    return _write_detailed(labels / "labels_detailed.csv", names, settings, rng)


def _write_detailed(path: Path, names: list[str], settings: PrepareSettings, rng: np.random.Generator) -> int:
    """Write the ratings, at least one for each utterance; one in twenty has a word of the annotator's own."""
    n = settings.n_ratings
    of = np.sort(np.concatenate([np.arange(len(names)), rng.integers(0, len(names), n - len(names))]))
    workers = rng.integers(0, N_WORKERS, n)
    words, tags = rng.integers(0, len(WORDS), n), rng.integers(0, len(TAGS), (n, 2))
    is_other = rng.random(n) < P_OTHER
    values = rng.integers(1, 8, (n, 3))
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        detailed = settings.form == "1.11"
        worker_column = "Workers" if settings.form == "1.6" else "WorkerID"
        fields = ["EmoDetail"] if detailed else [worker_column, "EmoClass_Major", "EmoClass_Second"]
        writer.writerow(["FileName", *fields, *([] if detailed else ["EmoAct", "EmoVal", "EmoDom"])])
        for i in range(n):
            worker, primary = (
                f"WORKER{workers[i]:08d}",
                f"Other-word {workers[i] % 1400}" if is_other[i] else WORDS[words[i]],
            )
            secondary, (a, v, d) = f"{TAGS[tags[i, 0]]},{TAGS[tags[i, 1]]}", values[i]
            detail = [f"{worker}; {primary}; {secondary}; A:{a:.6f}; V:{v:.6f}; D:{d:.6f};"]
            writer.writerow([names[of[i]], *(detail if detailed else [worker, primary, secondary, a, v, d])])
    return int((~is_other).sum())
