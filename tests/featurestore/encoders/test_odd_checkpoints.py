"""Checkpoints as people have them: rows are those of the plain model, or the checkpoint is refused by name."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from featurestore.encoders import load_encoder
from featurestore.errors import EncoderError
from tests.helpers.encoder_configs import CONFIGS, GROUP, STABLE, TEXT, WORDS
from tests.helpers.small_text_encoder import save_tokenizer

TEXTS = ["w1 w2 w3 w9", "w4", "w7 " * 20]
LLAMA = {
    "hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 2, "num_key_value_heads": 1,
    "intermediate_size": 48, "vocab_size": 99, "max_position_embeddings": 128, "pad_token_id": 0,
}  # fmt: skip


def saved(model: Any, path: Path, *, seed: int = 0) -> Any:
    """Write a model with random weights, a tokenizer and a preprocessor; return it."""
    torch.manual_seed(seed)
    with torch.no_grad():
        for tensor in model.parameters():
            tensor.add_(0.1 * torch.randn_like(tensor))
    model.eval().save_pretrained(path)
    save_tokenizer(path, WORDS)
    (path / "preprocessor_config.json").write_text('{"do_normalize": false}')
    return model


def edit_config(path: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    config = json.loads((path / "config.json").read_text())
    change(config)
    (path / "config.json").write_text(json.dumps(config))


def edit_weights(path: Path, change: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    state = {name: tensor.clone() for name, tensor in change(load_file(path / "model.safetensors")).items()}
    save_file(state, path / "model.safetensors", {"format": "pt"})


def load(path: Path, **options: Any) -> Any:
    return load_encoder(str(path), **{"layers": "all", "device": "cpu", "dtype": "float32", **options})


def assert_rows_of(model: Any, path: Path) -> None:
    """Compare the rows of a directory with those of a bare text model."""
    tokenizer = transformers.PreTrainedTokenizerFast.from_pretrained(path)
    for text, rows in zip(TEXTS, load(path).encode(TEXTS, 1000), strict=True):
        with torch.inference_mode():
            output = model(tokenizer(text, return_tensors="pt").input_ids, output_hidden_states=True)
        expected = torch.cat([*output.hidden_states[:-1], output.last_hidden_state]).numpy()[:, 1:-1]
        difference = np.linalg.norm(rows - expected, axis=-1) / np.linalg.norm(expected, axis=-1)
        assert difference.max() <= 2e-6


def bert(path: Path, head: str = "BertModel") -> Any:
    return saved(getattr(transformers, head)(CONFIGS["bert"]()), path)


# --- read as they are -------------------------------------------------------------------------------------------------


def old_names(path: Path, model: Any) -> None:
    """As TensorFlow's BERT was converted, in a pickle."""
    renamed = {
        name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta"): tensor
        for name, tensor in model.state_dict().items()
    }
    torch.save(renamed, path / "pytorch_model.bin", _use_new_zipfile_serialization=False)
    (path / "model.safetensors").unlink()


def shards(path: Path, model: Any) -> None:
    (path / "model.safetensors").unlink()
    model.save_pretrained(path, max_shard_size="20KB")


BERTS: dict[str, Callable[[Path, Any], Any]] = {
    "a pickle with the first names of parameters": old_names,
    "shards": shards,
    "no architectures": lambda path, _: edit_config(path, lambda c: c.pop("architectures")),
    "an unknown architecture": lambda path, _: edit_config(path, lambda c: c.update(architectures=["MyOwn"])),
    "buffers of older versions": lambda path, _: edit_weights(
        path, lambda s: {**s, "embeddings.position_ids": torch.arange(66)[None]}
    ),
}


@pytest.mark.parametrize("odd", BERTS)
def test_a_directory_written_otherwise_has_the_rows_of_its_model(tmp_path: Path, odd: str) -> None:
    model = bert(tmp_path)
    BERTS[odd](tmp_path, model)
    assert_rows_of(model, tmp_path)


def test_half_weights_are_read_as_float32(tmp_path: Path) -> None:
    bert(tmp_path).half().save_pretrained(tmp_path)
    assert_rows_of(transformers.AutoModel.from_pretrained(tmp_path, dtype=torch.float32).eval(), tmp_path)


@pytest.mark.parametrize("head", ["BertForPreTraining", "BertForSequenceClassification"])
def test_a_head_and_its_prefix_are_left_away(tmp_path: Path, head: str) -> None:
    assert_rows_of(bert(tmp_path, head).bert, tmp_path)


def test_rotary_positions_of_older_configurations_are_kept(tmp_path: Path) -> None:
    scaling = {
        "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
        "original_max_position_embeddings": 64,
    }  # fmt: skip
    config = transformers.LlamaConfig(**LLAMA, rope_parameters={**scaling, "rope_theta": 500_000.0})
    model = saved(transformers.LlamaForCausalLM(config), tmp_path)

    def as_before(fields: dict[str, Any]) -> None:
        del fields["rope_parameters"], fields["head_dim"]
        fields |= {"rope_theta": 500_000.0, "rope_scaling": scaling, "architectures": ["LLaMAForCausalLM"]}

    edit_config(tmp_path, as_before)
    assert_rows_of(model.model, tmp_path)


def test_a_padding_token_of_the_tokenizer_alone_is_never_looked_up(tmp_path: Path) -> None:
    model = saved(transformers.LlamaModel(transformers.LlamaConfig(**LLAMA)), tmp_path)
    tokenizer = transformers.PreTrainedTokenizerFast.from_pretrained(tmp_path)
    tokenizer.add_tokens([f"new{i}" for i in range(9)])
    tokenizer.add_special_tokens({"pad_token": "<padding>"})
    tokenizer.save_pretrained(tmp_path)
    assert_rows_of(model, tmp_path)
    assert "none of the 99" in load(tmp_path).refusal("w1 new8")


def test_the_positions_of_mpnet_end_at_two_before_its_last_whatever_its_padding_token(tmp_path: Path) -> None:
    saved(transformers.MPNetModel(transformers.MPNetConfig(**{**TEXT, "pad_token_id": 0})), tmp_path)
    encoder = load(tmp_path)
    assert encoder.spec.window == "64tok+8"
    assert encoder.encode(["w1 " * 90])[0].shape == (4, 90, 32)


def test_frequencies_that_depend_on_the_longest_text_bound_the_window(tmp_path: Path) -> None:
    factors = {"short_factor": [1.0] * 8, "long_factor": [4.0] * 8}
    config = transformers.Phi3Config(
        **LLAMA, original_max_position_embeddings=16,
        rope_parameters={"rope_type": "longrope", "rope_theta": 10_000.0, **factors},
    )  # fmt: skip
    saved(transformers.Phi3Model(config), tmp_path)
    encoder = load(tmp_path)
    assert encoder.spec.window == "16tok+2"
    assert np.abs(encoder.encode(TEXTS)[0] - encoder.encode(TEXTS[:1])[0]).max() <= 1e-5


def test_the_later_file_of_a_processor_is_read(tmp_path: Path) -> None:
    saved(transformers.HubertModel(transformers.HubertConfig(**STABLE)), tmp_path)
    waveform = [np.full(8_000, 0.5, np.float32)]
    first = load(tmp_path)
    expected = first.encode(waveform)[0]
    (tmp_path / "preprocessor_config.json").unlink()
    (tmp_path / "processor_config.json").write_text('{"feature_extractor": {"do_normalize": false}}')
    later = load(tmp_path)
    np.testing.assert_array_equal(later.encode(waveform)[0], expected)
    assert later.spec.weights != first.spec.weights


# --- refused by name --------------------------------------------------------------------------------------------------


def without_files(*patterns: str) -> Callable[[Path], Any]:
    return lambda path: [file.unlink() for pattern in patterns for file in path.glob(pattern)]


def only_a_vocabulary_of_pieces(path: Path) -> None:
    without_files("tokenizer*")(path)
    (path / "vocab.json").write_text('{"<s>": 0, "<pad>": 1, "</s>": 2, "<unk>": 3, "a": 4}')


TABLES = {f"encoder.layer.{i}.attention.self.distance_embedding.weight": torch.ones(131, 16) for i in range(3)}
TEXT_FAULTS: dict[str, tuple[Callable[[Path], Any], str]] = {
    "a layer too few": (lambda path: edit_config(path, lambda c: c.update(num_hidden_layers=2)), r"encoder\.layer\.2"),
    "a layer too many": (lambda path: edit_config(path, lambda c: c.update(num_hidden_layers=4)), r"encoder\.layer\.3"),
    "relative positions": (lambda path: edit_weights(path, lambda s: {**s, **TABLES}), "distance_embedding"),
    "names of a wrapper": (lambda path: edit_weights(path, lambda s: {f"module.{k}": v for k, v in s.items()}),
                           "not in the weights"),
    "another width": (lambda path: edit_config(path, lambda c: c.update(intermediate_size=64)), "other shapes"),
    "no tokenizer": (without_files("tokenizer*"), r"no tokenizer.*vocab\.txt"),
    "letters alone": (only_a_vocabulary_of_pieces, r"merges\.txt"),
    "quantized": (lambda path: edit_config(path, lambda c: c.update(quantization_config={"quant_method": "gptq"})),
                  "quantized.*gptq"),
}  # fmt: skip


@pytest.mark.parametrize("fault", TEXT_FAULTS)
def test_a_text_model_that_would_have_other_rows_is_refused(tmp_path: Path, fault: str) -> None:
    bert(tmp_path)
    spoil, fact = TEXT_FAULTS[fault]
    spoil(tmp_path)
    with pytest.raises(EncoderError, match=fact):
        load(tmp_path)


def test_the_tokenizer_of_a_larger_model_is_refused(tmp_path: Path) -> None:
    saved(transformers.BertModel(transformers.BertConfig(**{**TEXT, "vocab_size": 50})), tmp_path)
    with pytest.raises(EncoderError, match=r"94 tokens.*50"):
        load(tmp_path)


SPEECH_FAULTS = {
    "the norm of another front end": (STABLE, {"feat_extract_norm": "group"}, {}, r"conv_layers\.1\.layer_norm"),
    "no biases": (STABLE, {"conv_bias": False}, {}, r"conv\.bias"),
    "another rate": (GROUP, {}, {"sampling_rate": 8000}, "8000 Hz"),
}


@pytest.mark.parametrize("fault", SPEECH_FAULTS)
def test_a_speech_model_that_would_have_other_rows_is_refused(tmp_path: Path, fault: str) -> None:
    fields, changed, preprocessor, fact = SPEECH_FAULTS[fault]
    saved(transformers.HubertModel(transformers.HubertConfig(**fields)), tmp_path)
    edit_config(tmp_path, lambda c: c.update(changed))
    (tmp_path / "preprocessor_config.json").write_text(json.dumps({"do_normalize": False, **preprocessor}))
    with pytest.raises(EncoderError, match=fact):
        load(tmp_path)


@pytest.mark.parametrize("field", ["feature_size", "hop_length", "sampling_rate"])
def test_a_whisper_with_another_spectrogram_is_refused(tmp_path: Path, field: str) -> None:
    saved(transformers.WhisperModel(CONFIGS["whisper-80"]()), tmp_path)
    (tmp_path / "preprocessor_config.json").write_text(json.dumps({field: 128}))
    with pytest.raises(EncoderError, match="128"):
        load(tmp_path)


# --- LoRA -------------------------------------------------------------------------------------------------------------

LORAS: dict[str, dict[str, Any]] = {
    "matrices of two modules": {"target_modules": ["q_proj", "v_proj"]},
    "of a task": {"target_modules": ["q_proj"], "task_type": "CAUSAL_LM"},
    "of some layers": {"target_modules": ["q_proj"], "layers_to_transform": [0, 2]},
    "by an expression": {"target_modules": r"model\.layers\.[01]\..*(q|v)_proj"},
    "of the embeddings": {"target_modules": ["embed_tokens", "q_proj"]},
    "of the head too": {"target_modules": ["lm_head", "q_proj"]},
    "with whole embeddings": {"target_modules": ["q_proj"], "modules_to_save": ["embed_tokens", "lm_head"]},
    "with whole norms": {"target_modules": ["q_proj"], "modules_to_save": ["norm"]},
    "with biases": {"target_modules": ["q_proj"], "bias": "all"},
    "with tokens": {"target_modules": ["q_proj"], "trainable_token_indices": [5, 6]},
    "with magnitudes": {"target_modules": "all-linear", "use_dora": True},
    "scaled by the root of its rank": {"target_modules": ["q_proj"], "use_rslora": True},
}


@pytest.mark.filterwarnings("ignore")  # of peft, where the adapters are made
@pytest.mark.parametrize("kind", LORAS)
def test_everything_that_an_adapter_holds_is_merged(tmp_path: Path, kind: str) -> None:
    peft = pytest.importorskip("peft", reason="LoRA directories need the extra peft")
    config = transformers.LlamaConfig(**LLAMA, tie_word_embeddings=False, attention_bias=True)
    base = saved(transformers.LlamaForCausalLM(config), tmp_path / "base")
    task = LORAS[kind].get("task_type")
    adapted = peft.get_peft_model(base, peft.LoraConfig(r=4, base_model_name_or_path="../base", **LORAS[kind]))
    with torch.no_grad():
        for tensor in adapted.parameters():
            if tensor.requires_grad:
                tensor.add_(0.3 * torch.randn_like(tensor))
    adapted.save_pretrained(tmp_path / "lora")
    path = tmp_path / "lora" / "adapter_config.json"
    adapter = {**json.loads(path.read_text()), "base_model_name_or_path": "../base"}
    assert adapter["task_type"] == task
    path.write_text(json.dumps(adapter))
    for file in (tmp_path / "base").glob("tokenizer*"):
        shutil.copy(file, tmp_path / "lora")
    assert_rows_of(adapted.merge_and_unload().eval().model, tmp_path / "lora")


@pytest.mark.filterwarnings("ignore")
def test_a_parameter_of_an_adapter_without_a_place_is_named(tmp_path: Path) -> None:
    peft = pytest.importorskip("peft", reason="LoRA directories need the extra peft")
    base = saved(transformers.LlamaForCausalLM(transformers.LlamaConfig(**LLAMA)), tmp_path / "base")
    adapted = peft.get_peft_model(base, peft.LoraConfig(target_modules=["q_proj"], modules_to_save=["norm"]))
    adapted.save_pretrained(tmp_path / "lora")
    path = tmp_path / "lora" / "adapter_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "base_model_name_or_path": "../base"}))
    state = load_file(tmp_path / "lora" / "adapter_model.safetensors")
    wider = {k: torch.ones(33) if k.endswith("norm.weight") else v for k, v in state.items()}
    save_file(wider, tmp_path / "lora" / "adapter_model.safetensors")
    with pytest.raises(EncoderError, match=r"don't match.*norm\.weight"):
        load(tmp_path / "lora")
