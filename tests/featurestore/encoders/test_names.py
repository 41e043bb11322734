"""Names and weights that are nearly right are told, and what is not needed is not asked for."""

from pathlib import Path

import pytest

from featurestore.encoders import load_encoder
from featurestore.encoders.weights import _is_import
from featurestore.errors import EncoderError


def test_a_known_name_with_a_typo_and_weights_is_an_error_with_the_near_name(tmp_path: Path) -> None:
    with pytest.raises(EncoderError, match="did you mean whisper-base"):
        load_encoder("whisper-bse", weights=tmp_path)


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
