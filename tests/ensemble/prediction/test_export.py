import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest

from ensemble.evaluation.markdown import read_report, score_rows
from ensemble.prediction.export import export_model
from ensemble.prediction.model import Model
from featurestore.corpus.label_scheme import LabelScheme
from featurestore.errors import ConfigError
from tests.helpers.small_corpus import medusa
from tests.helpers.small_models import Trained

PAGE = Path(__file__).resolve().parents[3] / "docs" / "predict.md"


def contents(directory: Path) -> dict[str, bytes]:
    return {str(path.relative_to(directory)): path.read_bytes() for path in directory.rglob("*") if path.is_file()}


@pytest.mark.parametrize("name", ["meta-posteriors", "meta-logits", "m1"])
def test_an_export_predicts_what_the_model_does_wherever_it_lies(trained: Trained, tmp_path: Path, name: str) -> None:
    clips = [trained.manifest.audio_path(i) for i in (4, 11)]
    before = Model.load(trained.runs / name).predict(clips)
    export_model(trained.runs / name, tmp_path / "here" / "packed")
    (tmp_path / "here").rename(tmp_path / "there")
    after = Model.load(tmp_path / "there" / "packed").predict(clips)
    np.testing.assert_array_equal(after.probabilities, before.probabilities)
    np.testing.assert_array_equal(after.member_posteriors, before.member_posteriors)


@pytest.mark.parametrize("name", ["meta-posteriors", "m0"])
def test_it_holds_safetensors_json_and_a_card_and_no_place_of_this_machine(
    trained: Trained, tmp_path: Path, name: str
) -> None:
    export_model(trained.runs / name, tmp_path / "packed")
    result = contents(tmp_path / "packed")
    assert {Path(file).suffix for file in result} == {".safetensors", ".json", ".md"}
    for file, data in result.items():
        assert str(trained.runs).encode() not in data
        assert str(trained.runs.parent).encode() not in data
        if file.endswith(".json"):
            texts = re.findall(r'"((?:[^"\\]|\\.)*)"', data.decode())
            assert not [text for text in texts if text.startswith(("/", "~")) or ".." in text], file


def test_the_card_lists_classes_members_encoders_and_scores(trained: Trained, tmp_path: Path) -> None:
    export_model(trained.runs / "meta-logits", tmp_path / "packed", title="Eight emotions")
    card = (tmp_path / "packed" / "README.md").read_text()
    assert "# Eight emotions" in card
    assert ", ".join(trained.manifest.scheme.classes) in card
    report = read_report(trained.runs / "meta-logits" / "report.json")
    for row in score_rows(report)["all folds"]:
        assert f"| {row.name} | {row.scores['macro_f1']:.3f} |" in card
    for line in ("| m0 | mel, pooled |", "| mel | logmel |", "medusa predict clip.wav --model packed"):
        assert line in card
    encoders = json.loads((tmp_path / "packed" / "encoders.json").read_text())
    assert encoders["pooled"]["pool"] == "mean+std"
    assert {name: saved["fingerprint"] for name, saved in encoders.items()} == {
        name: trained.store[name].spec.fingerprint for name in ("mel", "pooled")
    }


def test_the_label_scheme_goes_along(trained: Trained, tmp_path: Path) -> None:
    classes = trained.manifest.scheme.classes
    scheme = LabelScheme(classes, {}, {"01": "neutral", "09": None})
    export_model(trained.runs / "m0", tmp_path / "packed", scheme=scheme)
    assert LabelScheme.from_json((tmp_path / "packed" / "scheme.json").read_text()) == scheme
    with pytest.raises(ConfigError, match="fitted on"):
        export_model(trained.runs / "m0", tmp_path / "other", scheme=LabelScheme(("sad", "glad")))
    assert not (tmp_path / "other").exists()


def test_attributes_on_another_scale_than_the_models_are_refused(
    trained: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Model, "attribute_ranges", property(lambda model: {"arousal": (1.0, 7.0)}))
    scheme = LabelScheme(trained.manifest.scheme.classes, {"arousal": (1.0, 5.0)})
    with pytest.raises(ConfigError, match=r"arousal from 1 to 5.* 1 to 7"):
        export_model(trained.runs / "m0", tmp_path / "packed", scheme=scheme)
    assert not (tmp_path / "packed").exists()


def test_only_an_earlier_export_is_replaced_and_only_when_requested(trained: Trained, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").touch()
    with pytest.raises(ConfigError, match="no export"):
        export_model(trained.runs / "m0", tmp_path / "mine", overwrite=True)
    export_model(trained.runs / "m0", tmp_path / "packed")
    with pytest.raises(ConfigError, match="--overwrite"):
        export_model(trained.runs / "m1", tmp_path / "packed")
    assert contents(export_model(trained.runs / "m1", tmp_path / "new").members[0].directory)
    export_model(trained.runs / "m1", tmp_path / "packed", overwrite=True)
    with pytest.raises(ConfigError, match="fit-deepser"):
        export_model(tmp_path / "mine", tmp_path / "packed", overwrite=True)
    assert Model.load(tmp_path / "packed").members[0].config.name == "m1"
    assert {path.name for path in tmp_path.iterdir()} == {"mine", "packed", "new"}


def test_the_command_and_the_docs_three_lines(
    trained: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    output = medusa("export", trained.runs / "meta-posteriors", "-o", "emotion-model").stdout
    assert "2 members in emotion-model" in output
    shutil.copy(trained.manifest.audio_path(0), tmp_path / "clip.wav")  # an ogg, whatever it is called
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    (block,) = [block for block in blocks if "from ensemble" in block]
    assert len([line for line in block.splitlines() if line]) == 3
    exec(block, {})
    label = (
        medusa("predict", "clip.wav", "--model", "emotion-model", "-o", "p.csv")
        and ((tmp_path / "p.csv").read_text().splitlines()[1].split(",")[1])
    )
    assert label in capsys.readouterr().out
