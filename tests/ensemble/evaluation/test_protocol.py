"""What posteriors were made on is compared with the manifest that they are scored against, by every command."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from ensemble.evaluation.align import column_names
from ensemble.evaluation.posteriors import posteriors_name
from ensemble.evaluation.protocol import Made, check_protocol, made_of
from featurestore.corpus.division import Division, PartRecord
from featurestore.corpus.made_on import MADE_ON, pack, unpack
from featurestore.corpus.manifest import LabelScheme, Manifest
from featurestore.errors import ProtocolError
from featurestore.format.spec import FeatureSpec
from featurestore.store.feature_store import FeatureStore
from tests.helpers.small_corpus import medusa

CLASSES = ("angry", "sad")
N = 24
COMMANDS = (["evaluate", "m0"], ["fit-meta", "--members", "m0,m1", "--meta", "soft"],
            ["compare", "--members", "m0,m1", "--rows", "soft", "--top", "2"])  # fmt: skip


def manifest_of(
    folds: Sequence[str], labels: Sequence[str] | None = None, **further_columns: Sequence[str]
) -> Manifest:
    """Twelve speakers of two utterances."""
    columns = {
        "utterance_id": [f"u{i:02d}" for i in range(N)],
        "path": [f"u{i:02d}.wav" for i in range(N)],
        "speaker": [f"s{i // 2:02d}" for i in range(N)],
        "label": list(labels or [CLASSES[i % 2] for i in range(N)]),
        "fold": list(folds),
        **further_columns,
    }
    return Manifest(pa.table(columns), LabelScheme(CLASSES), name="made")


BY_SPEAKER = [str(i // 2 % 3) for i in range(N)]
LEAKING = [str(i % 3) for i in range(N)]


@pytest.fixture
def store(tmp_path: Path) -> FeatureStore:
    """Two members that were cross-validated over `BY_SPEAKER`."""
    store = FeatureStore.create(tmp_path / "store")
    manifest = manifest_of(BY_SPEAKER)
    record = PartRecord.of(Division.of_manifest(manifest, "fold"))
    for m in range(2):
        spec = FeatureSpec(
            kind="posteriors", encoder=f"m{m}", weights="none", layers=("posteriors", "logits"), dim=2,
            dtype="float32", columns=column_names(CLASSES, ()), extra=(("oof", "fold"), ("folds", "cv:fold")),
        )  # fmt: skip
        rows = np.random.default_rng(m).dirichlet((1, 1), N).astype(np.float32)
        with store.writer(f"posteriors/m{m}", spec, provenance={MADE_ON: pack(record, "cv:fold")}) as writer:
            for i, key in enumerate(manifest.keys):
                writer.append(key, {"posteriors": rows[i : i + 1], "logits": np.log(rows[i : i + 1])})
    return store


def of(command: list[str], manifest: Manifest, store: FeatureStore, tmp_path: Path, *options: str) -> list[str | Path]:
    manifest.write(tmp_path / "m.csv")
    runs = ["--runs", tmp_path / "runs"] if command[0] == "fit-meta" else []
    return [*command, "-m", tmp_path / "m.csv", "-s", store.path, *runs, *options]


def test_a_record_comes_back_as_it_was_whatever_the_order_of_its_keys() -> None:
    record = PartRecord(["b", "a", "ü"], ["1", "", "2"], ["sad", None, "angry"])
    result = unpack(json.loads(json.dumps(pack(record, "cv:fold"))), ["ü", "a", "b"], "m")
    assert result is not None
    parts = dict(zip(result.keys, zip(result.parts, result.labels, strict=True), strict=True))
    assert parts == {"a": ("", None), "b": ("1", "sad"), "ü": ("2", "angry")}


def test_folds_that_a_system_was_made_over_are_checked_whatever_the_score_is_spread_over() -> None:
    manifest = manifest_of(BY_SPEAKER, leak=LEAKING)
    members = {"m0": Made("fold", None), "m1": Made("leak", None)}
    report = check_protocol(manifest, "fold", members).findings
    assert any(each.kind == "speaker" and "in more than one leak" in each.message for each in report)
    assert check_protocol(manifest, "fold", {"m0": Made("fold", None)}).clean


def test_a_record_of_other_keys_or_damaged_is_none() -> None:
    packed = pack(PartRecord(["a", "b"], ["1", "2"]), "cv:fold")
    assert unpack(packed, ["a", "c"], "m") is None
    assert unpack(packed, ["a"], "m") is None
    assert unpack(packed | {"parts": "%%%"}, ["a", "b"], "m") is None


@pytest.mark.parametrize("command", COMMANDS, ids=lambda each: each[0])
def test_posteriors_of_other_folds_in_a_column_of_the_same_name_are_refused(
    command: list[str], store: FeatureStore, tmp_path: Path
) -> None:
    medusa(*of(command, manifest_of(BY_SPEAKER), store, tmp_path, "--cv", "fold"))
    moved = [str(i // 4 % 3) for i in range(N)]
    output = medusa(*of(command, manifest_of(moved), store, tmp_path, "--cv", "fold"), exit_code=2).stderr
    assert "posteriors/m0" in output
    assert "another fold than then" in output
    assert "Fit again" in output


@pytest.mark.parametrize("command", COMMANDS, ids=lambda each: each[0])
def test_posteriors_of_other_labels_are_refused(command: list[str], store: FeatureStore, tmp_path: Path) -> None:
    labels = ["sad", "sad", *(CLASSES[i % 2] for i in range(2, N))]
    output = medusa(*of(command, manifest_of(BY_SPEAKER, labels), store, tmp_path), exit_code=2).stderr
    assert "other labels" in output
    assert "u00" in output


@pytest.mark.parametrize("command", COMMANDS, ids=lambda each: each[0])
def test_where_there_are_votes_alone_their_plurality_is_the_label(
    command: list[str], store: FeatureStore, tmp_path: Path
) -> None:
    def voted(labels: Sequence[str]) -> Manifest:
        manifest = manifest_of(BY_SPEAKER)
        table = manifest.to_arrow().drop_columns(["label"])
        for name in CLASSES:
            votes = [2.0 if label == name else 1.0 for label in labels]
            table = table.append_column(f"vote_{name}", pa.array(votes))
        return Manifest(table, manifest.scheme, name="voted")

    labels = [CLASSES[i % 2] for i in range(N)]
    medusa(*of(command, voted(labels), store, tmp_path, "--cv", "fold"))
    changed = medusa(*of(command, voted(["sad", *labels[1:]]), store, tmp_path, "--cv", "fold"), exit_code=2)
    assert "1 utterance of 24 with another label than then, such as u00" in changed.stderr
    one_sided = check_protocol(voted(["sad" if fold == "0" else "angry" for fold in BY_SPEAKER]), "fold")
    assert [each.kind for each in one_sided.findings] == ["class"]


@pytest.mark.parametrize("command", COMMANDS, ids=lambda each: each[0])
def test_folds_that_share_speakers_are_a_warning_and_with_strict_an_error(
    command: list[str], store: FeatureStore, tmp_path: Path
) -> None:
    mixed = ["x"] * 11 + ["y"] * 13  # s05 is in both
    manifest = manifest_of(BY_SPEAKER, half=mixed)
    shown = medusa(*of(command, manifest, store, tmp_path, "--cv", "half"))
    assert "warning: 1 speaker (2 utterances)" in shown.stderr
    assert "cross-validated over 'fold'" in shown.stderr
    output = medusa(*of(command, manifest, store, tmp_path, "--cv", "half", "--strict"), exit_code=2).stderr
    assert "1 speaker (2 utterances)" in output


def test_a_test_split_outside_the_folds_is_checked_against_them() -> None:
    split = ["train" if i < N - 6 else "test" for i in range(N)]
    folds = [fold if part == "train" else None for fold, part in zip(BY_SPEAKER, split, strict=True)]
    manifest = manifest_of(folds, split=split)
    assert check_protocol(manifest, "fold").clean
    names = [f"s{min(i // 2, N // 2 - 4):02d}" for i in range(N)]  # the last speaker of train speaks in test, too
    table = manifest.to_arrow().drop_columns(["speaker"]).append_column("speaker", [names])
    (leak,) = check_protocol(Manifest(table, manifest.scheme, name="shared"), "fold").findings
    assert (leak.kind, leak.severity, leak.n_items) == ("speaker", "warning", 1)
    assert "test" in leak.message


def test_the_check_stands_in_the_json_of_evaluate_and_in_the_report_of_fit_meta(
    store: FeatureStore, tmp_path: Path
) -> None:
    manifest = manifest_of(BY_SPEAKER, half=["x"] * 11 + ["y"] * 13)
    medusa(*of(COMMANDS[0], manifest, store, tmp_path, "--cv", "half", "--json", str(tmp_path / "e.json")))
    medusa(*of(COMMANDS[1], manifest, store, tmp_path, "--cv", "half"))
    evaluated = json.loads((tmp_path / "e.json").read_text())["all folds"]["protocol"]
    fitted = json.loads((tmp_path / "runs" / "meta" / "report.json").read_text())["protocol"]
    for actual in (evaluated, fitted):
        assert not actual["clean"]
        assert next(each for each in actual["findings"] if each["kind"] == "speaker")["n_utterances"] == 2


def test_a_label_that_came_to_be_known_of_what_no_model_learned_is_no_other_label() -> None:
    manifest = manifest_of(BY_SPEAKER)
    record = PartRecord(manifest.keys, [""] * N, [None] * N)
    report = check_protocol(manifest, "fold", {"m": Made("", record)})
    assert report.clean


def test_a_split_that_cross_validated_models_learned_from_is_no_held_out_one(
    store: FeatureStore, tmp_path: Path
) -> None:
    split = ["train" if i < N - 6 else "test" for i in range(N)]
    manifest = manifest_of(BY_SPEAKER, split=split)
    for command in COMMANDS[1:]:
        shown = medusa(*of(command, manifest, store, tmp_path)).stderr
        assert "posteriors/m0 was cross-validated over 'fold', and each of its models learned" in shown
        assert "utterances of test" in shown
        assert "cross-validated" not in medusa(*of(command, manifest, store, tmp_path, "--cv", "fold")).stderr
    assert "cross-validated" in medusa(*of(COMMANDS[0], manifest, store, tmp_path, "--split", "test")).stderr
    assert "cross-validated" not in medusa(*of(COMMANDS[0], manifest, store, tmp_path)).stderr  # all folds are scored
    hidden = [None if part == "test" else label for part, label in zip(split, manifest.labels, strict=True)]
    record = PartRecord(manifest.keys, BY_SPEAKER, hidden)
    blind = manifest_of(BY_SPEAKER, hidden, split=split)
    assert check_protocol(blind, None, {"m": Made("fold", record)}).clean


def test_folds_that_are_renamed_are_not_other_folds(store: FeatureStore) -> None:
    renamed = manifest_of([{"0": "a", "1": "b", "2": "c"}[fold] for fold in BY_SPEAKER])
    check_protocol(renamed, "fold", made_of(store, ["m0", "m1"])).refuse()
    with pytest.raises(ProtocolError, match="another fold"):
        check_protocol(manifest_of(LEAKING), "fold", made_of(store, ["m0"])).refuse()


def test_posteriors_without_a_record_are_noted() -> None:
    report = check_protocol(manifest_of(BY_SPEAKER), "fold", {"posteriors/old": Made("fold", None)})
    assert report.clean
    assert any("posteriors/old" in line for line in report.lines())


def test_a_member_may_be_called_as_a_feature_set_is(store: FeatureStore) -> None:
    with store.writer("m0", FeatureSpec("audio", "m0", "none", ("layer_00",), 2)) as writer:
        writer.append("a", [np.ones((1, 2))])
    assert posteriors_name(store, "m0") == "posteriors/m0"
    with store.writer("own", FeatureSpec("posteriors", "own", "none", ("posteriors",), 2)) as writer:
        writer.append("a", [np.ones((1, 2)) / 2])
    assert posteriors_name(store, "own") == "own"
    assert posteriors_name(store, "none") == "posteriors/none"
