"""The table of encoders: what each entry says, and `medusa encoders` prints, searches and exports it."""

import json
import re
from pathlib import Path

import pytest
import torch
import transformers
from typer.testing import CliRunner

from cli import app
from featurestore.encoders import ENCODERS
from featurestore.encoders.families import CAUSAL_TYPES, T5_TYPES
from featurestore.encoders.families import FAMILIES as FAMILY_TYPES
from featurestore.encoders.weights import EMBEDDED
from tests.featurestore.encoders.test_unpadded import CONFIGS as UNPADDED
from tests.helpers.encoder_configs import CONFIGS
from tests.helpers.published_configs import PUBLISHED

FAMILIES = {"speech", "whisper", "text", "logmel", "causal", "t5", "unpadded", "emotion2vec", "opensmile"}


def output(*arguments: str) -> str:
    result = CliRunner().invoke(app, ["encoders", *arguments])
    assert result.exit_code == 0, result.output
    return result.output


def test_every_entry_has_a_family_and_a_size() -> None:
    for name, entry in ENCODERS.items():
        assert entry.family in FAMILIES, name
        assert entry.dim > 0, name
        assert (entry.parameters_m > 0) == (entry.family not in ("logmel", "opensmile")), name
        assert entry.hub_id is None or re.fullmatch(r"[\w.-]+/[\w.-]+", entry.hub_id), name


def test_every_encoder_with_weights_has_a_licence() -> None:
    for name, entry in ENCODERS.items():
        assert bool(entry.licence) == (entry.family != "logmel"), name
    listed = {each["name"]: each["licence"] for each in json.loads(output("--json"))}
    assert listed["mms-300m"] == "CC-BY-NC-4.0"
    assert listed["qwen3-8b"] == "see the model card", "its card was not read"


def test_every_type_of_the_table_has_a_test_of_its_rows() -> None:
    tested = {config().model_type for config in (*CONFIGS.values(), *UNPADDED.values())} | {*CAUSAL_TYPES, *T5_TYPES}
    assert {kind for kind, _ in PUBLISHED.values()} <= tested
    assert {kind for kinds in FAMILY_TYPES.values() for kind in kinds} <= tested
    assert {entry["checked"] for entry in json.loads(output("--json"))} >= {"as the opensmile package"}


SAMPLED = ("hubert-large", "whisper-base", "roberta-base", "flan-t5-base", "qwen3-0.6b", "w2v-bert-2.0")


@pytest.mark.parametrize("names", [SAMPLED, pytest.param(tuple(PUBLISHED), marks=pytest.mark.slow)])
def test_sizes_are_those_of_the_published_configurations(names: tuple[str, ...]) -> None:
    for name in names:
        entry, (kind, fields) = ENCODERS[name], PUBLISHED[name]
        config = transformers.AutoConfig.for_model(kind, **fields)
        auto = transformers.AutoModelForTextEncoding if kind == "t5" else transformers.AutoModel
        with torch.device("meta"):
            model = auto.from_config(config)
        model = model.encoder if kind in ("whisper", "moonshine") else model
        sizes = [getattr(model.config, field, None) for field in ("encoder_layers", "encoder_num_hidden_layers")]
        n_layers = next((size for size in sizes if size), model.config.num_hidden_layers)
        assert (model.config.hidden_size, n_layers) == (entry.dim, entry.layers), name
        millions = sum(p.numel() for p in model.parameters()) / 1e6
        assert millions == pytest.approx(entry.parameters_m, rel=0.005), name


def test_sizes_without_a_known_configuration_are_named_in_the_documentation() -> None:
    documented = (Path(__file__).resolve().parents[3] / "docs" / "encoders.md").read_text(encoding="utf-8")
    with_weights = {name for name, entry in ENCODERS.items() if entry.hub_id and not name.endswith(".en")}
    (unchecked,) = re.findall(r"unchecked: ([^.]+)\.", documented)
    assert set(unchecked.replace("\n", " ").split(", ")) == with_weights - set(PUBLISHED)


def test_json_and_markdown_hold_every_encoder() -> None:
    listed = json.loads(output("--json"))
    assert [each["name"] for each in listed] == list(ENCODERS)
    assert listed[0]["weights"] == "none needed"
    table = output("--markdown").splitlines()
    assert len(table) == len(ENCODERS) + 2
    assert len({line.count("|") for line in table}) == 1


def test_search_takes_words_of_any_column() -> None:
    result = [each["name"] for each in json.loads(output("--json", "--search", "openai WHISPER turbo"))]
    assert result == ["whisper-large-v3-turbo"]
    assert "wavlm-large" in output("--search", "wavlm")
    assert "checked of speech: alone as in a batch" in output("--search", "wavlm")
    assert "[opensmile]" in output("--search", "egemapsv02-lld")


@pytest.mark.parametrize("arguments", [["--search", "no such encoder"], ["--json", "--markdown"]])
def test_wrong_options_are_named(arguments: list[str]) -> None:
    result = CliRunner().invoke(app, ["encoders", *arguments])
    assert result.exit_code == 2
    assert arguments[0] in result.output


def test_the_documentation_holds_the_table_as_it_is() -> None:
    documented = (Path(__file__).resolve().parents[3] / "docs" / "encoders.md").read_text(encoding="utf-8")
    assert output("--markdown").strip() in documented, "append `medusa encoders --markdown` to docs/encoders.md anew"


def test_the_documentation_names_every_checked_type() -> None:
    documented = (Path(__file__).resolve().parents[3] / "docs" / "encoders.md").read_text(encoding="utf-8")
    assert ", ".join(CAUSAL_TYPES) in documented
    assert ", ".join(T5_TYPES) in documented


@pytest.mark.parametrize("name", ["tiny-hubert", "tiny-wavlm"])
def test_the_embedded_encoders_have_the_sizes_of_their_configurations(name: str) -> None:
    config = json.loads((EMBEDDED / name / "config.json").read_text(encoding="utf-8"))
    assert (ENCODERS[name].dim, ENCODERS[name].layers) == (config["hidden_size"], config["num_hidden_layers"])
