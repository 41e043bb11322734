"""Deep nesting is an error of the file that has it, wherever a file of somebody else's is read."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from deepser.members.held_out import read_record
from deepser.members.member import Member
from deepser.members.presets import parse_changes
from deepser.probes.member import ProbeMember, is_probe
from deepser.watch.curves import read_histories
from ensemble.evaluation.markdown import read_report
from ensemble.evaluation.prediction_files import read_predictions
from ensemble.fusion.kinds import load_meta
from ensemble.fusion.members import read_runs
from featurestore.asr.transcripts import read_source
from featurestore.corpora.audformat import read_audformat
from featurestore.corpora.challenge import read_challenge
from featurestore.corpora.emobox import read_emobox
from featurestore.corpora.json_lines import json_lines
from featurestore.corpus.label_scheme import LabelScheme
from featurestore.corpus.manifest import Manifest
from featurestore.encoders.preprocessor import do_normalize
from featurestore.encoders.weights import model_type
from featurestore.errors import MedusaError
from featurestore.format.spec import FeatureSpec
from featurestore.runtime.json_text import MAX_DEPTH, read_json
from featurestore.store.feature_store import FeatureStore


def nested(depth: int) -> str:
    return "[" * depth + "]" * depth


DEEP = [nested(100_000), '{"a":' * 500 + "1" + "}" * 500]  # beyond what Python parses, and below


def _predictions(directory: Path) -> object:
    manifest = Manifest(pa.table({"utterance_id": ["a"], "path": ["a.wav"], "label": ["x"]}))
    return read_predictions(directory / "p.jsonl", manifest)


def _zarr(directory: Path) -> object:
    store = FeatureStore.create(directory / "store")
    with store.writer("f", FeatureSpec("audio", "e", "none", ("layer_00",), 2)) as writer:
        writer.append("a", [np.ones((1, 2))])
    (directory / "store" / "f" / "zarr.json").write_text((directory / "deep").read_text())
    return FeatureStore.open(directory / "store")["f"]


def _emobox(directory: Path) -> object:
    (directory / f"{directory.name}.jsonl").write_text('{"key": "a", "wav": "a.wav", "emo": "x"}\n')
    return read_emobox(directory, check_audio=False)


def _challenge(directory: Path) -> object:
    (directory / "labels.csv").write_text("FileName,Angry,Sad,EmoAct,EmoVal,EmoDom,Split_Set\na.wav,1,0,1,1,1,Train\n")
    return read_challenge(directory / "labels.csv", check_audio=False)


READERS: dict[str, tuple[str, Callable[[Path], object]]] = {
    "a label scheme": ("s.json", lambda d: LabelScheme.from_json((d / "s.json").read_text(), "s.json")),
    "a member": ("config.json", Member.load),
    "a probe": ("config.json", ProbeMember.load),
    "a record of held-out speakers": ("held_out.json", read_record),
    "a member's history": ("fold-1/metrics.jsonl", read_histories),
    "a meta-classifier": ("config.json", load_meta),
    "an export's members": ("members.json", read_runs),
    "a report": ("report.json", lambda d: read_report(d / "report.json")),
    "predictions": ("p.jsonl", _predictions),
    "a list of JSON lines": ("l.jsonl", lambda d: list(json_lines(d / "l.jsonl"))),
    "EmoBox's label map": ("label_map.json", _emobox),
    "EMO-SUPERB's config": ("config.json", _challenge),
    "an encoder's config": ("config.json", model_type),
    "an encoder's preprocessor": ("preprocessor_config.json", lambda d: do_normalize(d, "encoder")),
    "the source of transcripts": ("t.source.json", lambda d: read_source(d / "t.source.json")),
    "a set's zarr.json": ("deep", _zarr),
    "audformat's header": ("db.yaml", lambda d: read_audformat(d, label="emotion")),
}


@pytest.mark.parametrize("text", DEEP, ids=["too deep to parse", "parsed"])
@pytest.mark.parametrize("what", READERS)
def test_deep_nesting_is_an_error_that_a_user_can_mend(what: str, text: str, tmp_path: Path) -> None:
    name, reader = READERS[what]
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text(text)
    with pytest.raises(MedusaError):
        reader(tmp_path)


def test_deep_nesting_in_an_option_is_text_and_no_probe(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(DEEP[0])
    assert not is_probe(tmp_path)
    assert parse_changes([f"train.seed={DEEP[1]}"]) == {"train.seed": DEEP[1]}


def test_the_limit_is_stated_and_what_lies_below_it_is_read() -> None:
    assert read_json(nested(MAX_DEPTH)) == read_json(nested(MAX_DEPTH).encode())
    for text in (nested(MAX_DEPTH + 1), nested(MAX_DEPTH + 1).encode()):
        with pytest.raises(ValueError, match=f"nested more than {MAX_DEPTH} deep"):
            read_json(text)
    assert read_json("[" + ",".join(["[]"] * 10_000) + "]") == [[]] * 10_000


def test_aliases_that_multiply_in_a_corpus_description_are_refused_before_they_are_made(tmp_path: Path) -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 9)]
    (tmp_path / "db.yaml").write_text("\n".join(lines))
    with pytest.raises(MedusaError, match=r"aliases.*1,000,000"):
        read_audformat(tmp_path, label="emotion")
