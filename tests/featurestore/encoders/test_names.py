"""Names and weights that are nearly right are told, and what is not needed is not asked for."""

from pathlib import Path

import pytest

from featurestore.encoders import load_encoder
from featurestore.encoders.catalog import unlike_its_name
from featurestore.encoders.weights import _is_import
from featurestore.errors import EncoderError
from featurestore.format.spec import FeatureSpec


@pytest.mark.parametrize(
    ("name", "near", "file"),
    [
        ("whisper-bse", "whisper-base", ""),
        ("whisper-bse", "whisper-base", "base.pt"),
        ("whisper-bse", "whisper-base", "adapter_config.json"),
        ("emotion2vec_plus_bose", "emotion2vec_plus_base", "model.pt"),
    ],
)
def test_a_known_name_with_a_typo_and_weights_is_an_error_with_the_near_name(
    tmp_path: Path, name: str, near: str, file: str
) -> None:
    if file:
        (tmp_path / file).write_bytes(b"{}")
    with pytest.raises(EncoderError, match=f"did you mean {near}"):
        load_encoder(name, weights=tmp_path / file if file.endswith(".pt") else tmp_path)


@pytest.mark.parametrize(
    ("encoder", "pool", "dim", "facts"),
    [
        ("wavlm-large", "none", 1024, ()),
        ("wavlm-large", "mean+std", 2048, ()),
        ("wavlm-large", "model", 512, ()),  # a speaker embedding
        ("wavlm-large", "none", 768, ("wavlm-large", "1024", "768", "microsoft/wavlm-large")),
        ("wavlm-large", "mean+std", 1536, ("2048", "1536")),
        ("logmel", "none", 40, ()),
        ("mine", "none", 768, ()),
    ],
)
def test_weights_of_other_columns_than_the_name_says_are_reported(
    encoder: str, pool: str, dim: int, facts: tuple[str, ...]
) -> None:
    spec = FeatureSpec("audio", encoder, "none", ("layer_12",), dim, pool=pool)
    difference = unlike_its_name(spec)
    assert bool(difference) == bool(facts)
    assert all(fact in difference for fact in facts)


def test_a_whisper_checkpoint_with_encoder_weights_alone_loads(tmp_path: Path) -> None:
    from transformers import WhisperConfig, WhisperForAudioClassification

    config = WhisperConfig(
        d_model=16, encoder_layers=1, decoder_layers=1, encoder_attention_heads=2, decoder_attention_heads=2,
        encoder_ffn_dim=16, decoder_ffn_dim=16, vocab_size=100, pad_token_id=0, bos_token_id=1, eos_token_id=2,
        decoder_start_token_id=1,
    )  # fmt: skip
    WhisperForAudioClassification(config).save_pretrained(tmp_path)
    assert load_encoder("mine", weights=tmp_path).spec.dim == 16


def test_a_package_that_cannot_be_imported_is_not_taken_for_bad_weights() -> None:
    assert _is_import(ModuleNotFoundError("No module named 'torchvision'"))
    assert _is_import(RuntimeError("Failed to import transformers.models.whisper because of ..."))
    assert _is_import(RuntimeError("operator torchvision::nms does not exist"))
    assert not _is_import(ValueError("a file is damaged"))
