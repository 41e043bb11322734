import csv
import inspect
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import soundfile
import typer

import cli
from benchmarks.commands import bench_io
from benchmarks.io import IoSettings
from featurestore.audio import decode
from featurestore.commands.featurize import featurize as featurize_command
from featurestore.corpora import CORPORA
from featurestore.corpus.manifest import Manifest
from featurestore.encoders import load_encoder
from featurestore.featurize.run import featurize
from featurestore.store.feature_store import FeatureStore
from tests.helpers.made_once import copy_of, made_once
from tests.helpers.messages import mentions
from tests.helpers.small_corpus import FAST, copy_clips, medusa
from tests.helpers.warm_python import MEDUSA, WarmProcess

REPO = Path(__file__).resolve().parents[1]
COMMANDS = [
    *("split", "audit"),
    *(f"prepare {name}" for name in (*CORPORA, "csv", "join", "segments")),
    *(
        "transcribe",
        "encoders",
        "featurize",
        "probe",
        "fit-deepser",
        "ablate",
        "fit-meta",
        "compare",
        "evaluate",
        "report",
        "explore",
        "predict",
        "export",
    ),
    *("run", "demo"),
    *("submit task1", "submit task2", "submit check"),
    *("store ls", "store info", "store verify", "store compact", "store rm", "store import", "store export"),
    *("store push", "store pull"),
    *("bench prepare", "bench io", "bench index", "bench featurize", "bench meta", "bench transcribe", "bench train"),
]


def commands(group: object = None, path: tuple[str, ...] = ()) -> Iterator[tuple[str, typer.core.TyperCommand]]:
    """Every command there is, by the words that call it."""
    for name, command in (group or typer.main.get_command(cli.app)).commands.items():  # type: ignore[attr-defined]
        if hasattr(command, "commands"):
            yield from commands(command, (*path, name))
        else:
            yield " ".join((*path, name)), command


@dataclass(frozen=True)
class Chain:
    """What the whole chain made of 48 clips; `shared` are the options that name manifest and store."""

    directory: Path
    manifest: Path
    store: Path
    runs: Path
    clip: Path

    @property
    def shared(self) -> list[str]:
        return ["-m", str(self.manifest), "-s", str(self.store)]


@pytest.fixture(scope="module")
def chain(demo_corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Chain:
    """prepare, featurize x2, fit-deepser x2, fit-meta, by their commands."""
    return chain_of(
        copy_of(made_once(tmp_path_factory, "chain", lambda directory: go(demo_corpus, directory)), tmp_path_factory)
    )


def chain_of(directory: Path) -> Chain:
    clip = directory / "corpus" / "Actor_04" / "03-01-05-01-01-01-04.ogg"
    return Chain(directory, directory / "ravdess.csv", directory / "store", directory / "runs", clip)


def go(demo_corpus: Path, directory: Path) -> None:
    corpus, chain = copy_clips(demo_corpus, directory / "corpus"), chain_of(directory)
    assert "48" in medusa("prepare", "ravdess", "--root", corpus, "-o", chain.manifest).stdout
    assert "48 done" in medusa("featurize", "--encoder", "logmel", *chain.shared).stdout
    medusa("featurize", "--encoder", "tiny-hubert", "--layers", "2,3", "--name", "h", *chain.shared)
    for seed in ("1", "2"):
        fit = ["fit-deepser", "--features", "h@3,logmel", "--seed", seed, "--runs", chain.runs, "--cv", "fold"]
        output = medusa(*fit, *chain.shared, *FAST).stdout
        assert "macro-F1" in output
        assert f"h.3_logmel_s{seed}" in output
    output = medusa(
        "fit-meta", "--seeds", "2", "--rounds", "4", "--cv", "fold", "--runs", chain.runs, *chain.shared
    ).stdout
    for row in ("h.3_logmel_s1", "h.3_logmel_s2", "majority vote", "soft vote", "meta (single)", "meta (soup)"):
        assert row in output


# The command line as such


def test_these_are_the_commands() -> None:
    assert sorted(name for name, _ in commands()) == sorted(COMMANDS)


@pytest.mark.parametrize(("name", "command"), list(commands()), ids=[name for name, _ in commands()])
def test_help_explains_every_option_and_shows_an_example(name: str, command: typer.core.TyperCommand) -> None:
    output = " ".join(medusa(*name.split(), "--help").stdout.split())
    assert f"medusa {name}" in (command.help or "")
    assert "Example: medusa" in output
    for parameter in command.params:
        assert getattr(parameter, "help", None), f"{name}: {parameter.name} has no help"


def test_every_command_is_in_the_docs() -> None:
    page = "\n".join((REPO / "docs" / name).read_text(encoding="utf-8") for name in ("commands.md", "corpora.md"))
    table = "\n".join(line for line in page.splitlines() if line.startswith("|"))
    for name in COMMANDS:
        first, *others = name.split()
        assert f"medusa {first}" in table, name
        assert all(f"`{word}`" in table or f"{first} {word}" in table for word in others), name


def test_options_in_readme_and_docs_exist() -> None:
    options_of = {
        name: {o for p in command.params for o in (*p.opts, *p.secondary_opts)} for name, command in commands()
    }
    pages = [REPO / "README.md", *(REPO / "docs").glob("*.md")]
    blocks = re.findall(r"```console\n(.*?)```", "\n".join(page.read_text("utf-8") for page in pages), re.DOTALL)
    lines = " \n".join(blocks).replace("\\\n", " ").splitlines()
    calls = [line[line.index("medusa ") + 7 :].split("#")[0] for line in lines if "medusa " in line]
    assert calls
    for call in calls:
        name = next((name for name in options_of if call.startswith(name)), None)
        assert name, f"medusa {call} is no command"
        for option in re.findall(r"(?<!\S)--?[a-z][\w-]*", call):
            assert option in options_of[name], f"medusa {name} has no {option}"


def test_defaults_are_the_librarys() -> None:
    def defaults(function: object) -> dict[str, object]:
        return {name: p.default for name, p in inspect.signature(function).parameters.items()}  # type: ignore[arg-type]

    ours = defaults(featurize_command)
    for library in (defaults(load_encoder), defaults(featurize)):
        for name in set(ours) & set(library) - {"encoder", "manifest", "store", "name"}:
            assert ours[name] == library[name], name
    ours = defaults(bench_io)
    settings = IoSettings()
    names = ("batch", "repeats", "seed", "cold", "write")
    assert {name: ours[name] for name in names} == {name: getattr(settings, name) for name in names}
    for name in ("dims", "mean_s", "threads", "readers"):
        assert ours[name] == ",".join(str(value) for value in getattr(settings, name)), name
    assert ours["utterances"] == settings.n_utterances


def test_help_loads_nothing_heavy() -> None:
    code = (
        "import sys, cli; print(*({'torch', 'transformers', 'zarr', 'numba', 'pyarrow', 'numpy'} & sys.modules.keys()))"
    )
    process = subprocess.run([sys.executable, "-c", code], cwd=REPO, capture_output=True, text=True, check=True)
    assert process.stdout.split() == []


def test_version() -> None:
    assert re.fullmatch(r"medusa-ser \d+\.\d+\S*\n", medusa("--version").stdout)


# What a user's mistakes get: one line, exit code 2


def refused(*arguments: str | Path) -> str:
    """Return the one line that a refused command prints on stderr."""
    result = medusa(*arguments, exit_code=2)
    lines = result.stderr.strip().splitlines()
    assert len(lines) == 1, result.stderr
    assert lines[0].startswith("error: ")
    return lines[0]


def table(path: Path, rows: list[dict[str, str]]) -> Path:
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


def test_a_typo_in_an_encoder_suggests_the_near_ones(chain: Chain) -> None:
    assert "wavlm-large" in refused("featurize", "--encoder", "wavlm-lage", *chain.shared)


def test_a_missing_manifest_store_or_feature_set_is_named(chain: Chain, tmp_path: Path) -> None:
    assert "nothing.csv" in refused("featurize", "--encoder", "logmel", "-m", tmp_path / "nothing.csv")
    fit = ["fit-deepser", "--cv", "fold", "-m", chain.manifest]
    assert "not a feature store" in refused(*fit, "--features", "h,logmel", "-s", tmp_path)
    assert "logmel" in refused(*fit, "--features", "h,logmell", "-s", chain.store)
    assert "two or more" in refused(*fit, "--features", "h", "--preset", "medusa-08", "-s", chain.store)
    assert "layer_07" in refused(*fit, "--features", "h@7,logmel", "-s", chain.store)
    assert "'foldd'" in refused("fit-deepser", "--features", "h,logmel", "--cv", "foldd", *chain.shared)
    assert "posteriors/met" in refused("evaluate", "met", *chain.shared)


def test_options_out_of_range_are_named_with_what_is_possible(chain: Chain, tmp_path: Path) -> None:
    fit = ["fit-deepser", "--features", "h,logmel", "--cv", "fold", *chain.shared]
    assert "multiple of n_heads" in refused(*fit, "--d", "30", "--n-heads", "4")
    assert "macro_f1" in refused(*fit, "--select", "best")
    assert "one of the two" in refused(*fit, "--folds", "3")
    assert "medusa-08" in refused(*fit, "--preset", "medusa-8")
    assert "'mixup_q'" in refused(*fit, "--set", "train.mixup_q=1")
    assert mentions(refused(*fit, "--preset", "unimodal"), "unimodal", "one feature set", "h")
    assert "name them with --features" in refused("fit-deepser", "--preset", "cross-attention", *chain.shared)
    stages = refused(*fit, "--preset", "baseline-frozen", "--stage2-lr", "1e-3")
    assert mentions(stages, "baseline-frozen", "one stage")
    assert "cuda" in refused(*fit, "--device", "quantum")
    encode = ["featurize", "--encoder", "logmel", "-m", chain.manifest, "-s", tmp_path / "s"]
    assert "float32" in refused(*encode, "--dtype", "int16")
    assert "mean+std" in refused(*encode, "--pool", "max")
    assert "no weights" in refused(*encode, "--weights", tmp_path)
    unknown = medusa("fit-meta", "--inputs", "features", *chain.shared, exit_code=2)
    assert "posteriors, logits" in " ".join(unknown.stderr.split())
    assert "posteriors/m9" in refused("fit-meta", "--members", "m9", *chain.shared)
    assert "'posteriors/../m'" in refused("fit-meta", "--name", "../m", *chain.shared)
    assert "give one of the two" in refused(*encode, "--devices", "cpu,cpu", "--device", "cpu")
    assert not (tmp_path / "s").exists()


def test_weights_that_cannot_be_found_say_what_to_do(chain: Chain, tmp_path: Path) -> None:
    output = refused("featurize", "--encoder", "wavlm-large", *chain.shared)
    assert "--weights DIR" in output
    assert "no such directory" in refused(
        "featurize", "--encoder", "wavlm-large", "--weights", tmp_path / "x", *chain.shared
    )


def test_features_of_another_kind_are_never_mixed(chain: Chain) -> None:
    output = refused("featurize", "--encoder", "logmel", "--dtype", "float32", *chain.shared)
    assert mentions(output, "dtype", "float16", "float32")
    assert "medusa store rm logmel" in output


def test_a_table_with_mistakes_is_refused_with_all_of_them(tmp_path: Path) -> None:
    rows = [{"id": "a", "path": "a.wav", "split": "train"}, {"id": "a", "path": "b.wav", "split": "holdout"}]
    table_path = table(tmp_path / "t.csv", rows)
    output = refused("prepare", "csv", table_path, "-o", tmp_path / "m.csv", "--column", "id=id")
    assert "'label'" in output
    output = refused("prepare", "csv", table_path, "-o", tmp_path / "m.csv", "--column", "id=id", "--no-labels")
    for part in ("utterance_id", "'a'", "holdout", "a.wav"):
        assert part in output
    assert "'emotoin'" in refused("prepare", "csv", table_path, "-o", tmp_path / "m.csv", "--column", "label=emotoin")
    assert "NAME=VALUE" in refused("prepare", "csv", table_path, "-o", tmp_path / "m.csv", "--column", "label")
    assert "NAME:LOW:HIGH" in refused(
        "prepare", "csv", table_path, "-o", tmp_path / "m.csv", "--attribute", "arousal:1"
    )
    assert "not RAVDESS" in refused("prepare", "ravdess", "--root", tmp_path, "-o", tmp_path / "m.csv")
    assert not (tmp_path / "m.csv").exists()


def test_columns_attributes_and_classes_get_their_names(tmp_path: Path) -> None:
    rows = [{"File": f"{i}.wav", "Emo": "sad" if i else "glad", "Act": "1.5", "Set": "Train"} for i in range(3)]
    table_path = table(tmp_path / "t.csv", rows)
    output = medusa(
        *("prepare", "csv", table_path, "-o", tmp_path / "m.csv", "--no-check-audio", "--column", "id=File"),
        *("--column", "path=File", "--column", "label=Emo", "--column", "split=Set"),
        *("--attribute", "arousal=Act:1:5", "--classes", "sad,glad"),
    ).stdout
    assert "sad 2, glad 1" in output
    manifest = Manifest.read(tmp_path / "m.csv")
    assert manifest.scheme.attributes == {"arousal": (1.0, 5.0)}
    assert manifest.scheme.classes == ("sad", "glad")
    assert manifest.column("split").tolist() == ["train"] * 3


def test_joined_folds_hold_whole_folds(chain: Chain, tmp_path: Path) -> None:
    root = chain.directory / "corpus"
    medusa("prepare", "ravdess", "--root", root, "-o", tmp_path / "m.csv", "--join-folds", "2")
    manifest = Manifest.read(tmp_path / "m.csv")
    assert set(zip(manifest.column("fold_was"), manifest.column("fold"), strict=True)) == {
        ("1", "1"),
        ("2", "1"),
        ("3", "2"),
    }
    assert "3 folds" in refused("prepare", "ravdess", "--root", root, "-o", tmp_path / "m.csv", "--join-folds", "5")


def test_an_output_that_cannot_be_written_is_one_line(chain: Chain) -> None:
    assert "can't be written" in refused(
        "prepare", "ravdess", "--root", chain.directory / "corpus", "-o", "/proc/m.csv"
    )
    assert "/proc" in refused("evaluate", "meta", *chain.shared, "--json", "/proc/scores.json")


# Files as they come


def test_bad_files_are_reported_and_the_rest_is_done(tmp_path: Path) -> None:
    rate = 16_000
    tone = np.sin(np.arange(rate, dtype=np.float32) / 20)
    soundfile.write(tmp_path / "good.wav", tone, rate)
    soundfile.write(tmp_path / "stereo.wav", np.stack([tone, tone], 1), 44_100)
    soundfile.write(tmp_path / "telephone.flac", tone, 8_000)
    soundfile.write(tmp_path / "nan.wav", np.where(tone > 0.9, np.nan, tone), rate, subtype="FLOAT")
    (tmp_path / "empty.wav").touch()
    (tmp_path / "text.wav").write_text("no audio at all")
    (tmp_path / "cut.wav").write_bytes((tmp_path / "good.wav").read_bytes()[:9000])
    good = {"../a b/ü": "good.wav", "话": "stereo.wav", "..": "telephone.flac"}
    bad = {"nan": "nan.wav", "empty": "empty.wav", "text": "text.wav", "cut": "cut.wav", "gone": "gone.wav"}
    rows = [{"utterance_id": key, "path": path, "label": "x"} for key, path in {**good, **bad}.items()]
    manifest = table(tmp_path / "m.csv", rows)
    result = medusa("featurize", "--encoder", "logmel", "-m", manifest, "-s", tmp_path / "s", exit_code=1)
    assert "3 done, 0 there already, 5 failed" in result.stdout
    reported = [line for line in result.stderr.splitlines() if line.startswith("failed: ")]
    assert len(reported) == 5
    for name in bad.values():
        assert any(name in line for line in reported), name
    stored = FeatureStore.open(tmp_path / "s")["logmel"]
    assert sorted(stored) == sorted(good)
    assert len(stored["话"]) == load_encoder("logmel").n_frames(len(decode(tmp_path / "stereo.wav")))
    assert [path.name for path in tmp_path.iterdir() if path.is_dir()] == ["s"]
    shutil.copy(tmp_path / "good.wav", tmp_path / "gone.wav")
    repeated = medusa("featurize", "--encoder", "logmel", "-m", manifest, "-s", tmp_path / "s", exit_code=1)
    assert "1 done, 3 there already, 4 failed" in repeated.stdout


def test_a_dry_run_counts_and_writes_nothing(chain: Chain, tmp_path: Path) -> None:
    output = medusa(
        *("featurize", "--encoder", "logmel", "--dry-run", "-m", chain.manifest, "-s", tmp_path / "s")
    ).stdout
    assert "48 utterances to encode" in output
    assert not (tmp_path / "s").exists()
    rows = int(re.search(r"([\d,]+) rows", output)[1].replace(",", ""))  # type: ignore[index]
    features = FeatureStore.open(chain.store)["logmel"]
    assert rows == features.lengths(list(features)).sum()
    assert (
        "0 utterances to encode, 48 there"
        in medusa("featurize", "--encoder", "logmel", "--dry-run", *chain.shared).stdout
    )


def _has_rows(store: Path) -> bool:
    """Return whether some rows of tiny-hubert have been written under a temporary name."""
    return any(file.stat().st_size for file in store.glob("tiny-hubert/.tmp-*/**/c/0/0"))


@pytest.mark.skipif(os.name != "posix", reason="signals")
@pytest.mark.slow
@pytest.mark.parametrize(("signum", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_stopped_run_keeps_what_it_has_and_goes_on(chain: Chain, tmp_path: Path, signum: int, code: int) -> None:
    many = [
        {"utterance_id": str(i), "path": str(chain.clip), "label": "x"} for i in range(200)
    ]  # more than are encoded before the signal comes
    manifest = table(tmp_path / "m.csv", many)
    process = WarmProcess(MEDUSA, "featurize", "--encoder", "tiny-hubert", "-m", manifest, "-s", tmp_path / "s")
    waited_until = time.monotonic() + 120
    while not _has_rows(tmp_path / "s") and time.monotonic() < waited_until:
        time.sleep(0.05)
    process.send_signal(signum)
    out, err = process.communicate(timeout=60)
    assert process.returncode == code, err
    assert "same command" in err
    assert "Traceback" not in err
    n_stored = len(FeatureStore.open(tmp_path / "s")["tiny-hubert"])
    assert f"{n_stored} done" in out
    assert 0 < n_stored < 200
    remaining = Manifest.read(manifest).rows(np.arange(200) < n_stored + 1)
    remaining.write(tmp_path / "rest.csv")
    repeated = medusa("featurize", "--encoder", "tiny-hubert", "-m", tmp_path / "rest.csv", "-s", tmp_path / "s")
    assert "failed" in repeated.stdout


# The chain


def test_what_is_done_is_not_done_again(chain: Chain) -> None:
    assert "0 done, 48 there already" in medusa("featurize", "--encoder", "logmel", *chain.shared).stdout
    weights = sorted(chain.runs.glob("h.3_logmel_s1/fold-*/model.safetensors"))
    before = [path.stat().st_mtime_ns for path in weights]
    fit = [
        "fit-deepser",
        "--features",
        "h@3,logmel",
        "--seed",
        "1",
        "--runs",
        chain.runs,
        "--cv",
        "fold",
        *chain.shared,
    ]
    medusa(*fit, *FAST)
    assert [path.stat().st_mtime_ns for path in weights] == before
    output = refused(*fit, *FAST, "--batch-size", "8")
    assert "--overwrite" in output
    assert mentions(output, "batch_size", 16, 8)


def test_a_preset_is_changed_by_options_and_what_was_resolved_is_kept(chain: Chain, tmp_path: Path) -> None:
    arguments = [
        "fit-deepser",
        "--preset",
        "baseline-frozen",
        "--features",
        "h@2+3",
        "--cv",
        "fold",
        "--runs",
        tmp_path,
    ]
    small = ["--d", "16", "--stride", "32", "--epochs", "2", "--stage2-epochs", "0", "--set", "network.pool_dim=4"]
    small += [
        "--set",
        "train.dev_fraction=0.4",
    ]  # of 32 clips of eight classes; a smaller part could not choose an epoch
    name = "baseline-frozen_h.2+3_s0"
    assert name in medusa(*arguments, *small, "--lr", "3e-3", "--select", "uar", *chain.shared).stdout
    saved = json.loads((tmp_path / name / "config.json").read_text())["member"]
    network = {"kind": "baseline", "pooling": "asp", "d": 16, "pool_dim": 4, "dropout": 0.5}
    assert {field: saved["network"][field] for field in network} == network
    (stage,) = saved["train"]["stages"]
    assert (stage["epochs"], stage["lr"], stage["class_weight_exponent"]) == (2, 3e-3, 1.0)
    assert saved["train"]["select"] == "uar"
    assert "dev_uar" in (tmp_path / name / "fold-1" / "metrics.jsonl").read_text()
    medusa("store", "rm", f"posteriors/{name}", "-s", chain.store, "--yes")


def test_evaluate_writes_the_scores_it_prints(chain: Chain, tmp_path: Path) -> None:
    files = ["--json", tmp_path / "e.json", "--confusion", tmp_path / "new" / "c.png"]
    output = medusa("evaluate", "meta", *chain.shared, *files).stdout
    scores = json.loads((tmp_path / "e.json").read_text())["all folds"]
    assert f"{scores['classification']['uar']:.3f}" in output
    assert set(scores["folds"]["uar"]["values"]) == {"1", "2", "3"}
    assert (tmp_path / "new" / "c.png").read_bytes().startswith(b"\x89PNG")


def test_splits_are_trained_judged_and_scored_apart(chain: Chain, tmp_path: Path) -> None:
    manifest = Manifest.read(chain.manifest)
    split = {"1": "train", "2": "development", "3": "test"}
    frame = manifest.to_pandas().assign(split=[split[f] for f in manifest.column("fold")])
    Manifest.from_pandas(frame, manifest.scheme, manifest.root).write(tmp_path / "m.csv")
    shutil.copytree(chain.store, tmp_path / "s", ignore=shutil.ignore_patterns("posteriors"))
    inputs = ["-m", tmp_path / "m.csv", "-s", tmp_path / "s"]
    output = medusa("fit-deepser", "--features", "h,logmel", "--name", "m", "--runs", tmp_path / "runs", *inputs, *FAST)
    assert "m (development)" in output.stdout
    assert "m (test)" in output.stdout
    assert "m (train)" not in output.stdout
    assert "16 utterances scored" in medusa("evaluate", "m", *inputs, "--split", "test").stdout
    assert "test3" in refused("evaluate", "m", *inputs, "--split", "test3")
    assert "misses" in refused("evaluate", "m", *inputs, "--split", "train")
    files = ["--confusion", tmp_path / "c.png"]
    medusa("evaluate", "m", *inputs, *files)
    assert (tmp_path / "c-test.png").exists()


def test_predict_prints_the_ensembles_output(chain: Chain, tmp_path: Path) -> None:
    (tmp_path / "broken.wav").touch()
    call = ["predict", chain.clip, tmp_path / "broken.wav", "--model", chain.runs / "meta"]
    result = medusa(*call, exit_code=1)
    assert "broken.wav" in result.stderr
    medusa(*call, "-o", tmp_path / "p.csv", exit_code=1)
    rows = list(csv.DictReader((tmp_path / "p.csv").read_text().splitlines()))
    assert [row["file"] for row in rows] == [str(chain.clip)]
    assert sum(float(value) for name, value in rows[0].items() if name.startswith("p_")) == pytest.approx(1, abs=1e-4)
    assert rows[0]["label"] in result.stdout


def test_predict_takes_a_manifest_or_one_member(chain: Chain, tmp_path: Path) -> None:
    Manifest.read(chain.manifest).rows([1, 2]).write(tmp_path / "m.csv")
    member = chain.runs / "h.3_logmel_s2"
    medusa("predict", "-m", tmp_path / "m.csv", "--model", member, "-o", tmp_path / "p.jsonl")
    lines = [json.loads(line) for line in (tmp_path / "p.jsonl").read_text().splitlines()]
    assert [line["file"] for line in lines] == Manifest.read(tmp_path / "m.csv").keys
    assert "either" in refused("predict", "--model", member)
    assert "either" in refused("predict", chain.clip, "-m", tmp_path / "m.csv", "--model", member)
    assert ".jsonl" in refused("predict", chain.clip, "--model", member, "-o", tmp_path / "p.txt")
    assert "no such directory" in refused("predict", chain.clip, "--model", tmp_path / "none")


# The store


def test_the_store_can_be_looked_into_and_cleared(chain: Chain, tmp_path: Path) -> None:
    shutil.copytree(chain.store, tmp_path / "s")
    store_option = ["-s", tmp_path / "s"]
    listed = medusa("store", "ls", *store_option).stdout
    for name in ("h", "logmel", "posteriors/meta"):
        assert re.search(rf"^ ?{name} .* 48 ", listed, re.MULTILINE), listed
    assert "sha256:" in medusa("store", "info", "h", *store_option).stdout
    n_sets = len(list(FeatureStore.open(tmp_path / "s")))  # other tests of this file may have added members
    assert n_sets >= 5
    assert medusa("store", "verify", *store_option).stdout.count("whole") == n_sets
    medusa("store", "rm", "h", *store_option, stdin="n\n", exit_code=1)
    assert "h" in FeatureStore.open(tmp_path / "s")
    medusa("store", "rm", "h", *store_option, "--yes")
    assert "h" not in FeatureStore.open(tmp_path / "s")
    assert "no feature set 'h'" in refused("store", "rm", "h", *store_option)
    shard = next((tmp_path / "s" / "logmel").glob("seg-*/layer_00/c/0/0"))
    with shard.open("r+b") as file:
        file.seek(100)
        file.write(b"\xff\xff")
    damaged = medusa("store", "verify", "logmel", *store_option, exit_code=1)
    assert "1 problem" in damaged.stdout
    assert "seg-" in damaged.stderr


def test_bench_io_prints_its_table(tmp_path: Path) -> None:
    few = ["--utterances", "12", "--dims", "8,16", "--mean-s", "0.5", "--batch", "4", "--repeats", "1"]
    to = ["--directory", tmp_path, "--json", tmp_path / "io.json", "--plot", tmp_path / "io.png"]
    output = medusa("bench", "io", *few, *to, "--readers", "npy,memmap", "--threads", "1,2").stdout
    assert all(
        name in output for name in ("memcpy", "x 8 float16", "x 16 float16", "1 thread: ours is", "2 threads: ours")
    )
    assert json.loads((tmp_path / "io.json").read_text())["settings"]["n_utterances"] == 12
    assert (tmp_path / "io.png").stat().st_size > 1000
    assert "more than 0" in refused("bench", "io", "--utterances", "0")
    assert "no reader sqlite" in refused("bench", "io", "--readers", "sqlite")
    assert "comma-separated" in medusa("bench", "io", "--dims", "x", exit_code=2).stderr
