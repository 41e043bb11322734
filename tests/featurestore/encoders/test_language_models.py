"""Language models, T5's encoder and sentence embeddings: rows alone, in a batch and by the plain transformers call.

Every family has tiny random weights; what is asked of it is asked in one test, so that its model is made once.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers

from featurestore.encoders import load_encoder
from featurestore.encoders.by_config import sized_by_config
from featurestore.encoders.families import CAUSAL_TYPES, T5_TYPES
from featurestore.encoders.options import EncoderOptions
from featurestore.encoders.prompt import Prompt
from featurestore.errors import ConfigError, EncoderError
from tests.helpers.small_corpus import medusa

DECODER = {
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 16,
    "intermediate_size": 48,
    "vocab_size": 99,
    "max_position_embeddings": 128,
    "sliding_window": 8,
    "pad_token_id": 0,
    "bos_token_id": 2,
    "eos_token_id": 3,
    "tie_word_embeddings": True,
}
NAMED = {
    "gpt2": {"n_embd": 32, "n_layer": 3, "n_head": 2, "n_positions": 128, "vocab_size": 99},
    "t5": {"d_model": 32, "num_layers": 3, "num_heads": 2, "d_kv": 16, "d_ff": 48, "vocab_size": 99},
    "bloom": {"hidden_size": 32, "n_layer": 3, "n_head": 2, "vocab_size": 99},
}
SPECIAL = {"bos": "[CLS] $A", "none": "$A", "eos": "$A [SEP]", "both": "[CLS] $A [SEP]"}
WORDS = [f"w{i}" for i in range(90)]


def save_tokenizer(path: Path, special: str) -> None:
    from tokenizers import Tokenizer, models, pre_tokenizers, processors

    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *WORDS]
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    if special != "none":
        tokenizer.post_processor = processors.TemplateProcessing(
            single=SPECIAL[special], special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
        )
    transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="[UNK]", bos_token="[CLS]", eos_token="[SEP]",
        cls_token="[CLS]", sep_token="[SEP]",
    ).save_pretrained(path)  # fmt: skip


def save_model(path: Path, model_type: str, special: str = "bos", **fields: Any) -> Path:
    base = NAMED["t5"] if model_type in T5_TYPES else NAMED.get(model_type, DECODER)
    config = transformers.AutoConfig.for_model(model_type, **{**base, **fields})
    torch.manual_seed(0)
    auto = transformers.AutoModelForTextEncoding if model_type in T5_TYPES else transformers.AutoModel
    model = auto.from_config(config).float()
    with torch.no_grad():
        for tensor in model.parameters():
            tensor.add_(0.03 * torch.randn_like(tensor))
    model.save_pretrained(path)
    save_tokenizer(path, special)
    return path


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Return the directory of one family's random weights, made when it is first asked for."""
    root = tmp_path_factory.mktemp("models")

    def make(model_type: str, special: str = "bos") -> Path:
        path = root / f"{model_type}-{special}"
        return path if path.is_dir() else save_model(path, model_type, special)

    return make


def load(path: Path, **options: Any) -> Any:
    return load_encoder(str(path), **{"layers": "all", "device": "cpu", "dtype": "float32", **options})


def worst_row(rows: np.ndarray, reference: np.ndarray) -> float:
    """Largest relative difference of a row: norm of the difference over the norm of the reference."""
    assert rows.shape == reference.shape
    return float((np.linalg.norm(rows - reference, axis=-1) / np.linalg.norm(reference, axis=-1)).max())


@pytest.mark.parametrize("model_type", [*CAUSAL_TYPES, *T5_TYPES])
def test_rows_are_those_of_the_single_text_and_of_the_plain_call(
    directory: Callable[..., Path], model_type: str
) -> None:
    """Alone as in a padded batch; layer k is hidden_states[k], and the last one last_hidden_state."""
    path = directory(model_type, "eos" if model_type in T5_TYPES else "bos")
    encoder = load(path)
    texts = [" ".join(WORDS[:n]) for n in (1, 30, 7, 0, 20)]
    auto = transformers.AutoModelForTextEncoding if model_type in T5_TYPES else transformers.AutoModel
    model = auto.from_pretrained(path, dtype=torch.float32).eval()
    for text, rows in zip(texts, encoder.encode(texts, 100_000), strict=True):
        assert rows.shape == (4, max(1, len(text.split())), 32)
        assert worst_row(rows, encoder.encode([text])[0]) <= 2e-6
        ids = transformers.PreTrainedTokenizerFast.from_pretrained(path)(text, return_tensors="pt").input_ids
        with torch.inference_mode():
            output = model(ids, output_hidden_states=True)
        expected = torch.cat([*output.hidden_states[:-1], output.last_hidden_state]).numpy()
        text_positions = slice(0, 1) if not text else slice(0, -1) if model_type in T5_TYPES else slice(1, None)
        assert worst_row(rows, expected[:, text_positions]) <= 2e-6


def test_layers_above_the_deepest_chosen_one_are_dropped_and_the_rows_stay(directory: Callable[..., Path]) -> None:
    text = ["w1 w2 w3"]
    (all_layers,) = load(directory("llama")).encode(text)
    low = load(directory("llama"), layers="0,1")
    assert len(low.model.layers) == 2
    np.testing.assert_array_equal(low.encode(text)[0], all_layers[:2])
    assert low.spec.layers == ("layer_00", "layer_01")


def test_a_long_text_goes_in_windows_of_tokens(directory: Callable[..., Path]) -> None:
    encoder, words = load(directory("qwen3"), window="16tok+3"), (WORDS * 2)[:100]
    (rows,) = encoder.encode([" ".join(words)])
    assert rows.shape == (4, 100, 32)
    (first,) = encoder.encode([" ".join(words[:15])])
    np.testing.assert_allclose(rows[:, :12], first[:, :12], atol=1e-5)


@pytest.mark.parametrize("special", ["bos", "none"])
def test_an_empty_text_has_the_row_of_the_token_before_it(directory: Callable[..., Path], special: str) -> None:
    """The start token's own row, whether the tokenizer adds one to texts or not."""
    path = directory("qwen2", special)
    model = transformers.AutoModel.from_pretrained(path, dtype=torch.float32).eval()
    with torch.inference_mode():
        expected = model(torch.tensor([[2]])).last_hidden_state.numpy()
    encoder = load(path, layers="last")
    assert worst_row(encoder.encode([""])[0], expected) <= 2e-6
    assert encoder.is_empty("")


def test_a_prompt_stands_before_each_text_and_its_rows_are_kept_when_requested(directory: Callable[..., Path]) -> None:
    path = directory("llama")
    full_rows = load(path).encode(["w1 w2 w3 w4 w5"])[0]
    prompted = load(path, prompt="w1 w2 ")
    np.testing.assert_allclose(prompted.encode(["w3 w4 w5", "w3"])[0], full_rows[:, 2:], atol=1e-5)
    np.testing.assert_allclose(prompted.encode([""])[0], full_rows[:, 1:2], atol=1e-5)
    with_prompt = load(path, prompt="w1 w2 ", keep_prompt=True)
    np.testing.assert_allclose(with_prompt.encode(["w3 w4 w5"])[0], full_rows, atol=1e-5)
    around = load(path, prompt="w1 {text} w5", keep_prompt=True)
    np.testing.assert_allclose(around.encode(["w2 w3 w4"])[0], full_rows, atol=1e-5)
    inner = load(path, prompt="w1 {text} w5")
    np.testing.assert_allclose(inner.encode(["w2 w3 w4"])[0], full_rows[:, 1:4], atol=1e-5)
    marks = {e.spec.fingerprint for e in (load(path), prompted, with_prompt, around, inner)}
    assert len(marks) == 5


def test_a_prompt_stands_in_every_window_and_is_kept_once(directory: Callable[..., Path]) -> None:
    path, words = directory("llama"), WORDS[:40]
    encoder = load(path, prompt="w50 w51 ", keep_prompt=True, window="16tok+2")
    (rows,) = encoder.encode([" ".join(words)])
    assert rows.shape[1] == 42
    assert all(piece.data.ids[:3].tolist() == [2, 54, 55] for piece in encoder._pieces([" ".join(words)]))


def test_wrong_prompts_are_named(directory: Callable[..., Path]) -> None:
    with pytest.raises(ConfigError, match="--prompt"):
        Prompt("{text} and {text}")
    with pytest.raises(ConfigError, match="--keep-prompt"):
        Prompt("", keep=True)
    with pytest.raises(ConfigError, match="--keep-prompt"):
        load(directory("llama"), prompt="w1 ", keep_special=True)
    with pytest.raises(ConfigError, match=r"--prompt.*audio"):
        load_encoder("tiny-hubert", prompt="w1 ")


def test_another_causal_family_is_tried_on_its_own_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """bloom is in no list here: it is loaded since its rows don't depend on their batch, and refused where they do."""
    path = save_model(tmp_path / "bloom", "bloom")
    assert load(path).encode(["w1 w2"])[0].shape == (4, 2, 32)
    plain = transformers.BloomModel.forward

    def leaking(self: Any, input_ids: torch.Tensor, **options: Any) -> Any:
        output = plain(self, input_ids=input_ids, **options)
        output.last_hidden_state = output.last_hidden_state + 0.01 * input_ids.shape[1]
        return output

    monkeypatch.setattr(transformers.BloomModel, "forward", leaking)
    with pytest.raises(EncoderError, match=r"bloom.*depend on their batch"):
        load(path)


def test_bfloat16_reads_the_weights_as_the_file_has_them(directory: Callable[..., Path]) -> None:
    encoder = load(directory("llama"), compute="bfloat16")
    kinds = {name: p.dtype for name, p in encoder.model.named_parameters()}
    assert kinds["layers.0.mlp.up_proj.weight"] == torch.bfloat16
    assert kinds["norm.weight"] == torch.float32
    (half,), (full,) = encoder.encode(["w1 w2 w3"]), load(directory("llama")).encode(["w1 w2 w3"])
    assert worst_row(half, full) < 0.1


def test_a_plan_comes_from_the_configuration_alone(tmp_path: Path) -> None:
    """Llama-3.1-8B's figures: 7.5 billion parameters without the output layer, 16 GB in bfloat16."""
    transformers.LlamaConfig(
        hidden_size=4096, num_hidden_layers=32, num_attention_heads=32, num_key_value_heads=8, intermediate_size=14336,
        vocab_size=128256, tie_word_embeddings=False,
    ).save_pretrained(tmp_path)  # fmt: skip

    def sized(**options: Any) -> Any:
        return sized_by_config(EncoderOptions(str(tmp_path), **options), "cpu")

    half, full, low = sized(compute="bfloat16"), sized(compute="float32"), sized(layers="8,16")
    assert full.n_parameters == 7_504_924_672
    assert full.n_bytes == 4 * full.n_parameters
    assert half.n_bytes == 2 * full.n_parameters + 2 * (128256 * 4096 + 65 * 4096)  # embeddings and norms: float32
    assert low.n_parameters < 0.6 * full.n_parameters
    assert (half.row_bytes, low.row_bytes) == (4096 * 2, 2 * 4096 * 2)
    assert half.n_rows(["w1 w2"]) is None
    save_tokenizer(tmp_path, "bos")
    assert sized().n_rows(["w1 w2", "", "w1 w2 w3"]) == 6
    assert sized(pool="mean").n_rows(["w1 w2", ""]) == 2


def test_dry_run_prints_a_plan_of_a_directory_with_config_json_alone(tmp_path: Path) -> None:
    transformers.LlamaConfig(**DECODER).save_pretrained(tmp_path / "model")
    (tmp_path / "m.csv").write_text("utterance_id,text\na,w1 w2\nb,w3\n")
    arguments = ("featurize", "--encoder", tmp_path / "model", "-m", tmp_path / "m.csv", "-s", tmp_path / "store")
    plan = medusa(*arguments, "--dry-run").output
    assert "million parameters" in plan
    assert "tokenizer.json" in plan
    save_tokenizer(tmp_path / "model", "bos")
    assert "3 rows" in medusa(*arguments, "--dry-run").output
    assert "no *.safetensors" in medusa(*arguments, exit_code=2).output


# --- sentence embeddings ----------------------------------------------------------------------------------------------


def save_sentence_model(path: Path, pooling: dict[str, Any], *, normalize: bool, special: str = "both") -> Path:
    save_model(path, "bert" if special == "both" else "qwen3", special)
    modules = [("", "Transformer"), ("1_Pooling", "Pooling"), *([("2_Normalize", "Normalize")] if normalize else [])]
    listed = [{"idx": i, "path": place, "type": f"sentence_transformers.models.{kind}"}
              for i, (place, kind) in enumerate(modules)]  # fmt: skip
    (path / "modules.json").write_text(json.dumps(listed))
    (path / "1_Pooling").mkdir()
    (path / "1_Pooling" / "config.json").write_text(json.dumps({"word_embedding_dimension": 32, **pooling}))
    (path / "sentence_bert_config.json").write_text(json.dumps({"max_seq_length": 24, "do_lower_case": False}))
    return path


@pytest.mark.parametrize("mode", ["cls_token", "mean_tokens", "max_tokens", "mean_sqrt_len_tokens", "lasttoken"])
def test_a_sentence_models_own_pooling_gives_one_row(tmp_path: Path, mode: str) -> None:
    """By the definitions of sentence-transformers, over all tokens with the special ones."""
    special = "eos" if mode == "lasttoken" else "both"
    path = save_sentence_model(tmp_path / "m", {f"pooling_mode_{mode}": True}, normalize=True, special=special)
    encoder = load(path, pool="model", layers="last")
    texts = ["w1 w2 w3", "w9", "", " ".join(WORDS[:20])]
    model = transformers.AutoModel.from_pretrained(path, dtype=torch.float32).eval()
    tokenizer = transformers.PreTrainedTokenizerFast.from_pretrained(path)
    for text, rows in zip(texts, encoder.encode(texts, 1000), strict=True):
        with torch.inference_mode():
            states = model(tokenizer(text, return_tensors="pt").input_ids).last_hidden_state[0]
        pooled = {
            "cls_token": states[0], "mean_tokens": states.mean(0), "max_tokens": states.amax(0),
            "mean_sqrt_len_tokens": states.sum(0) / len(states) ** 0.5, "lasttoken": states[-1],
        }[mode]  # fmt: skip
        np.testing.assert_allclose(rows[0, 0], (pooled / pooled.norm()).numpy(), atol=2e-6)
    assert encoder.spec.pool == "model"
    assert dict(encoder.spec.extra)["pooling"].endswith("+normalize")


def test_a_text_longer_than_the_model_takes_is_refused_by_its_own_pooling(tmp_path: Path) -> None:
    path = save_sentence_model(tmp_path / "m", {"pooling_mode_mean_tokens": True}, normalize=False)
    encoder = load(path, pool="model", layers="last")
    assert encoder.refusal(" ".join(WORDS[:22])) == ""
    assert "23 tokens, expected at most 22" in encoder.refusal(" ".join(WORDS[:23]))
    with pytest.raises(ConfigError, match="last layer"):
        load(path, pool="model")
    (path / "modules.json").unlink()
    with pytest.raises(EncoderError, match=r"modules\.json"):
        load(path, pool="model", layers="last")


def test_a_family_of_another_kind_is_not_taken_for_a_language_model(tmp_path: Path) -> None:
    path = save_model(tmp_path / "m", "llama")
    config = json.loads((path / "config.json").read_text())
    (path / "config.json").write_text(json.dumps({**config, "model_type": "clip"}))
    with pytest.raises(EncoderError, match=r"'clip'.*not supported"):
        load(path)
