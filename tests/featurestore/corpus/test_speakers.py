"""How far labels follow from speakers: single classes, rare classes, and what knowing only the speaker would score."""

import re

import pyarrow as pa
import pytest

from featurestore.corpus.manifest import LabelScheme, Manifest
from featurestore.corpus.speakers import sentences, speaker_report
from tests.helpers.messages import mentions
from tests.helpers.small_corpus import medusa


def manifest(speakers: list[str | None], labels: list[str | None], **columns: list) -> Manifest:
    keys = [f"u{i}" for i in range(len(speakers))]
    table = {"utterance_id": keys, "text": keys, "speaker": speakers, "label": labels, **columns}
    return Manifest(pa.table(table), LabelScheme(("sad", "happy", "fear")))


def test_where_each_speaker_has_one_class_the_speaker_predicts_everything() -> None:
    report = speaker_report(manifest(["a"] * 10 + ["b"] * 10, ["sad"] * 10 + ["happy"] * 10))
    assert report is not None
    assert report.single_class == {"sad": ["a"], "happy": ["b"]}
    (within,) = report.by_speaker
    assert (within.uar, within.accuracy, within.chance_uar) == (1.0, 1.0, 0.5)
    assert re.search(r"2 of 2 speakers.*\(sad: a; happy: b\)", sentences(report)[0])


def test_where_each_speaker_has_all_classes_alike_the_speaker_predicts_nothing() -> None:
    report = speaker_report(manifest([who for who in "abcdefghij" for _ in range(20)], ["sad", "happy"] * 100))
    assert report is not None
    assert report.single_class == {}
    assert report.few_speakers == {}
    (within,) = report.by_speaker
    assert within.uar == pytest.approx(0.5, abs=0.1)
    assert within.n_utterances == 200


def test_folds_that_share_no_speaker_leave_nothing_to_know_and_folds_that_tear_them_much() -> None:
    speakers, labels = ["a"] * 10 + ["b"] * 10 + ["c"] * 10, ["sad"] * 10 + ["happy"] * 10 + ["sad"] * 10
    report = speaker_report(manifest(speakers, labels, fold=["1"] * 10 + ["2"] * 10 + ["3"] * 10))
    torn = speaker_report(manifest(speakers, labels, fold=["1", "2"] * 15))
    assert report is not None
    assert torn is not None
    assert [each.column for each in torn.by_speaker] == ["all", "fold"]
    assert torn.by_speaker[1].uar == 1.0
    assert report.by_speaker[1].uar < 0.5


def test_splits_are_tested_after_training_on_train() -> None:
    speakers = ["a", "a", "b", "b", "a", "b", "a", "a"]
    labels = ["sad", "sad", "happy", "happy", "sad", "happy", "happy", None]
    splits = ["train"] * 4 + ["test"] * 4
    report = speaker_report(manifest(speakers, labels, split=splits))
    assert report is not None
    split = report.by_speaker[1]
    assert (split.column, split.n_utterances) == ("split", 3)
    assert split.accuracy == pytest.approx(2 / 3)
    assert split.uar == pytest.approx((1 + 1 / 2) / 2)


def test_classes_that_few_speakers_have_are_counted() -> None:
    speakers = [who for who in "abcdefgh" for _ in range(3)]
    labels = ["sad", "happy", "sad"] * 7 + ["sad", "happy", "fear"]
    report = speaker_report(manifest(speakers, labels))
    assert report is not None
    assert report.few_speakers == {"fear": 1}


def test_without_speakers_or_labels_there_is_no_report() -> None:
    assert speaker_report(manifest(["Unknown", None], ["sad", "sad"])) is None
    assert speaker_report(manifest(["a", "b"], [None, None])) is None
    assert speaker_report(Manifest(pa.table({"utterance_id": ["a"], "text": ["a"], "label": ["sad"]}))) is None


def test_audit_prints_them_and_the_folds_that_lack_a_class(tmp_path) -> None:
    speakers, labels = ["a"] * 4 + ["b"] * 4, ["sad"] * 4 + ["happy", "sad"] * 2
    manifest(speakers, labels, fold=["1"] * 4 + ["2"] * 4).write(tmp_path / "m.csv")
    output = medusa("audit", tmp_path / "m.csv").stdout
    assert re.search(r"1 of 2 speakers.*\(sad: a\)", output)
    assert mentions(output, 1, "no happy", "tested on happy")
    assert mentions(output, "folds", "UAR 0.333")


def test_a_classifier_by_speaker_near_chance_is_reported_to_know_nothing_and_one_above_is_not() -> None:
    """Slightly below or above chance is no finding: folds that are disjoint in speakers score there by nature."""
    speakers = [who for who in "abcdefghij" for _ in range(20)]
    at_chance = speaker_report(manifest(speakers, ["sad", "happy"] * 100))
    assert at_chance is not None
    (text,) = sentences(at_chance)
    assert mentions(text, "not", "within speakers", "0.500 ±")
    (below,) = at_chance.by_speaker
    assert below.uar < below.chance_uar + 2 * below.uar_error
    one_sided = speaker_report(
        manifest(speakers, (["sad"] * 8 + ["happy"] * 2) * 10 + (["happy"] * 8 + ["sad"] * 2) * 10)
    )
    assert one_sided is not None
    assert re.search(r"within speakers.*UAR 0\.8", sentences(one_sided)[-1])


def test_audit_cuts_no_column_name_on_a_narrow_terminal(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    classes = ["angry", "calm", "disgust", "fear", "happy", "neutral", "sad", "surprise"]
    keys = [f"u{i}" for i in range(16)]
    parts = {"speaker": ["a"] * 8 + ["b"] * 8, "label": classes * 2, "fold": ["1"] * 8 + ["2"] * 8}
    table = pa.table({"utterance_id": keys, "text": keys, **parts})
    Manifest(table, LabelScheme(tuple(classes))).write(tmp_path / "m.csv")
    monkeypatch.setenv("COLUMNS", "80")
    for place in (["-m", tmp_path / "m.csv"], [tmp_path / "m.csv"]):
        heads = medusa("audit", *place).stdout.split()
        assert {"utterances", "speakers", *classes} <= set(heads)
