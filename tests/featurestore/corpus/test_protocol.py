"""One function knows what is wrong with a division: what its parts share and lack, on what predictions were made."""

import json
import re
import unicodedata
from pathlib import Path

import pyarrow as pa
import pytest

from featurestore.corpus.manifest import LabelScheme, Manifest
from featurestore.corpus.protocol import Division, PartRecord, ProtocolReport, check_division, check_manifest
from featurestore.errors import ProtocolError
from tests.helpers.messages import mentions
from tests.helpers.small_corpus import medusa

LABELS = ["sad", "happy", "sad", "happy", "sad", "happy"]
FOLDS = ["1", "1", "2", "2", "3", "3"]


def division(**changed: object) -> Division:
    """Six utterances of three speakers in three folds, nothing wrong with them."""
    fields: dict[str, object] = {
        "keys": list("abcdef"),
        "parts": FOLDS,
        "labels": LABELS,
        "speakers": ["s1", "s1", "s2", "s2", "s3", "s3"],
        "audio": [f"digest {i}" for i in range(6)],
    }
    return Division(**fields | changed)  # type: ignore[arg-type]


def found(report: ProtocolReport) -> dict[str, tuple[str, int, int]]:
    """Kind -> severity, items, utterances."""
    return {each.kind: (each.severity, each.n_items, each.n_utterances) for each in report.findings}


def test_a_sound_division_has_no_findings() -> None:
    report = check_division(division(), PartRecord.of(division()))
    assert report.findings == ()
    assert report.clean
    report.refuse(strict=True)


def test_speakers_in_two_folds_are_counted_with_their_utterances_and_refused_when_strict() -> None:
    report = check_division(division(speakers=["s1", "s1", "s1", "s2", "s3", "s3"]))
    assert found(report) == {"speaker": ("warning", 1, 3)}
    (line,) = report.lines()
    assert line.startswith("warning: 1 speaker (3 utterances) in more than one fold (1, 2: 1)")
    assert "s1" in line
    report.refuse()
    with pytest.raises(ProtocolError, match=r"1 speaker \(3 utterances\)"):
        report.refuse(strict=True)


def test_speakers_whose_names_differ_in_case_or_spaces_alone_are_named_where_parts_tear_them() -> None:
    report = check_division(division(speakers=["Ann", "Ann", "ann ", "s2", "s3", "s3"]))
    assert found(report) == {"speaker name": ("warning", 1, 3)}
    assert "'Ann' and 'ann '" in report.lines()[0]
    with pytest.raises(ProtocolError, match=r"more than one fold.*'Ann' and 'ann '"):
        report.refuse(strict=True)
    assert check_division(division(speakers=["Ann", "ann", "s2", "s2", "s3", "s3"])).clean


def test_speakers_and_ids_of_two_unicode_forms_are_named_where_parts_tear_them() -> None:
    names = [unicodedata.normalize(form, "José") for form in ("NFC", "NFD")]
    report = check_division(division(speakers=[names[0], names[0], names[1], "s2", "s3", "s3"]))
    assert found(report) == {"speaker name": ("warning", 1, 3)}
    assert found(check_division(division(keys=[names[0], "b", names[1], "d", "e", "f"]))) == {
        "utterance": ("warning", 1, 2)
    }


def test_identical_audio_and_ids_in_two_folds_are_found_by_key() -> None:
    report = check_division(division(keys=["X.wav", "b", "x", "d", "e", "f"], audio=["d", None, None, "d", None, "d"]))
    assert found(report) == {"utterance": ("warning", 1, 2), "audio": ("warning", 1, 3)}
    assert report.findings[1].names == ("X.wav", "d", "f")
    assert report.findings[1].parts == {"1, 2": 1, "1, 3": 1, "2, 3": 1}


def test_what_two_test_splits_share_is_a_note_and_what_training_shares_a_warning() -> None:
    speakers = ["s1", "s2", "s2", "s3", "s3", "s4"]
    parts = ["train", "train", "test1", "test1", "test2", "test2"]
    report = check_division(division(parts=parts, column="split", speakers=speakers))
    assert found(report) == {"speaker": ("warning", 2, 4)}
    late = check_division(division(parts=parts, column="split", speakers=["s0", "s1", "s2", "s3", "s3", "s4"]))
    assert found(late) == {"speaker": ("note", 1, 2)}
    assert late.clean
    assert late.lines(notes=False) == []


def test_a_corpus_for_training_and_one_for_testing_are_a_division_too() -> None:
    parts, speakers = ["A"] * 3 + ["B"] * 3, ["s1"] * 4 + ["s2"] * 2
    report = check_division(division(parts=parts, column="corpus", speakers=speakers, learned=("A",)))
    assert found(report) == {"speaker": ("warning", 1, 4)}
    allowed = check_division(division(parts=parts, column="corpus", speakers=speakers), leaks=("audio",))
    assert found(allowed) == {"speaker": ("note", 1, 4)}


def test_classes_missing_in_a_fold_are_named_and_those_that_are_tested_unlearned() -> None:
    labels = ["sad", "happy", "sad", "sad", "sad", "fear"]
    report = check_division(division(labels=labels, classes=("sad", "happy", "fear", "angry")))
    warning, note = report.findings
    assert (warning.kind, warning.severity, warning.parts) == ("class", "warning", {"1": 1, "2": 2, "3": 1})
    assert mentions(warning.message, 1, "fear", 2, "happy, fear", 3, "happy", "tested on happy, fear")
    assert "no model learns" not in warning.message  # those of the other folds do
    assert (note.severity, note.names) == ("note", ("angry",))


def test_a_hidden_test_set_lacks_no_class_and_an_untrained_class_is_named() -> None:
    parts = ["train", "train", "test1", "test1", "test3", "test3"]
    speakers = [f"s{part}" for part in parts]
    hidden = ["sad", "happy", "sad", "happy", None, None]
    assert check_division(division(parts=parts, column="split", labels=hidden, speakers=speakers)).findings == ()
    strange = ["sad", "happy", "sad", "fear", None, None]
    (finding,) = check_division(division(parts=parts, column="split", labels=strange, speakers=speakers)).findings
    assert finding.message.endswith("train has no fear; test1 has no happy; no model learns fear")


def test_unknown_speakers_are_counted_since_nothing_can_be_checked_of_them() -> None:
    assert found(check_division(division(speakers=()))) == {"unknown speaker": ("note", 6, 6)}
    report = check_division(division(speakers=[None, "s1", "s2", "s2", None, "s3"]))
    assert found(report) == {"unknown speaker": ("note", 2, 2)}
    assert report.clean


def test_predictions_made_on_other_folds_are_an_error_but_renamed_folds_are_the_same() -> None:
    record = PartRecord.of(division(parts=["b", "b", "a", "a", "c", "c"]), "posteriors x")
    assert check_division(division(), record).findings == ()
    other_division = PartRecord.of(division(parts=["1", "2", "2", "3", "3", "1"]), "posteriors x")
    report = check_division(division(), other_division)
    assert found(report) == {"other parts": ("error", 3, 3)}
    assert re.search(r"posteriors x.* 3 utterances of 6", report.lines()[0])
    with pytest.raises(ProtocolError, match="posteriors x"):
        report.refuse()
    joined = check_division(division(parts=["1", "1", "1", "1", "2", "2"]), PartRecord.of(division()))
    assert found(joined)["other parts"][1] == 2


def test_predictions_made_on_other_keys_or_labels_are_an_error() -> None:
    record = PartRecord(list("abcdx"), ["1", "1", "2", "2", "3"], ["sad", "happy", "sad", "sad", "sad"])
    report = check_division(division(), record)
    assert found(report) == {"other keys": ("error", 2, 2), "other labels": ("error", 1, 1)}
    assert [each.names for each in report.findings] == [("e", "f"), ("d",)]
    part = division(keys=list("ab"), parts=["1", "1"], labels=LABELS[:2], speakers=["s1", "s1"], audio=())
    assert check_division(part, PartRecord.of(division())).findings == (), (
        "a part of the utterances is no other division"
    )


def manifest(**columns: list) -> Manifest:
    table = {"utterance_id": list("abcdef"), "path": [f"{i}.wav" for i in range(6)], "label": LABELS, "fold": FOLDS}
    return Manifest(pa.table(table | columns), LabelScheme(("sad", "happy")))


def test_a_column_of_a_manifest_is_checked_and_the_report_is_json() -> None:
    assert check_manifest(manifest(speaker=["s1", "s1", "s2", "s2", "s3", "s3"]), "fold").findings == ()
    one_recording = manifest(
        speaker=["Unknown", "s1", "s2", "s2", "s3", None], path=["a.wav", *["b.wav"] * 2, *["./a.wav"] * 3]
    )
    report = check_manifest(one_recording, "fold")
    assert found(report) == {"audio": ("warning", 2, 6), "unknown speaker": ("note", 2, 2)}
    record = json.loads(json.dumps(report.to_dict()))
    assert record["clean"] is False
    assert record["findings"][0]["parts"] == {"1, 2": 2, "1, 3": 1, "2, 3": 1}
    pieces = manifest(path=["a.wav"] * 6, start=[0, 1, 2, 3, 4, 5], end=[1, 2, 3, 4, 5, 6], speaker=FOLDS)
    assert check_manifest(pieces, "fold").findings == (), "pieces of one file are different sound"


def test_medusa_split_names_what_is_wrong_with_the_parts_that_it_makes(tmp_path: Path) -> None:
    manifest(speaker=["s1"] * 3 + ["s2"] * 3, fold=[None] * 6).write(tmp_path / "m.csv")
    output = medusa("split", tmp_path / "m.csv", "-o", tmp_path / "m.csv", "--folds", "2", "--by", "utterance").stdout
    assert re.search(r"warning: 2 speakers \(6 utterances\).*fold", output)
    output = medusa("split", tmp_path / "m.csv", "-o", tmp_path / "m.csv", "--folds", "2").stdout
    assert "warning" not in output
