"""The families of encoders: which transformers models are of which, and what is known of them without loading torch."""

from pathlib import Path

from featurestore.encoders.catalog import ENCODERS
from featurestore.runtime.json_text import read_json

SPEECH_TYPES = ("hubert", "wavlm", "wav2vec2", "data2vec-audio", "unispeech", "unispeech-sat")
SPEECH_WINDOW = "30s+1s"  # by default

WHISPER_TYPES = ("whisper",)
WHISPER_WINDOWS = ("pad30", "short")
WHISPER_WINDOW = "pad30"  # by default
WHISPER_FRAME_SAMPLES = 320  # between the encoder's frames: two mel frames of 10 ms

# Each is tested to give a text the same rows alone and padded. Others don't (MobileBERT, ConvBERT: padding reaches the
# embeddings and convolutions of its neighbours), so that a new one needs its test.
TEXT_TYPES = (
    "albert",
    "bert",
    "camembert",
    "data2vec-text",
    "deberta",
    "deberta-v2",
    "distilbert",
    "electra",
    "ernie",
    "eurobert",
    "megatron-bert",
    "modernbert",
    "mpnet",
    "nomic_bert",
    "rembert",
    "roberta",
    "roberta-prelayernorm",
    "roformer",
    "xlm-roberta",
    "xlm-roberta-xl",
)

# These run without padding (see `unpadded`): on waveforms, and on features that their extractors make.
WAVEFORM_TYPES = ("wav2vec2-conformer", "sew", "sew-d", "moonshine")
UNPADDED_TYPES = (*WAVEFORM_TYPES, "wav2vec2-bert", "parakeet_encoder", "parakeet_ctc")

T5_TYPES = ("t5", "mt5", "umt5")  # their encoders
# Decoder-only language models that have the same test. Others are tried when they are loaded (see `causal.check`).
CAUSAL_TYPES = (
    "cohere",
    "gemma",
    "gemma2",
    "gemma3_text",
    "gpt2",
    "gpt_neox",
    "granite",
    "llama",
    "ministral",
    "mistral",
    "olmo",
    "olmo2",
    "olmo3",
    "phi",
    "phi3",
    "qwen2",
    "qwen3",
    "smollm3",
    "stablelm",
    "starcoder2",
)

FAMILIES = {
    "speech": SPEECH_TYPES,
    "unpadded": UNPADDED_TYPES,
    "whisper": WHISPER_TYPES,
    "text": TEXT_TYPES,
    "causal": CAUSAL_TYPES,
    "t5": T5_TYPES,
}
TEXT_FAMILIES = ("text", "causal", "t5")


def is_causal(model_type: str) -> bool:
    """Return whether transformers has a causal language model of this type."""
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    return model_type in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES


def reads_text(name: str, weights: Path | None = None) -> bool | None:
    """Return whether an encoder encodes text, by its name or by the config.json of its directory; None: unknown.

    Unknown are a hub repository, whose files may not be here yet, and a LoRA, which names its base elsewhere.
    """
    if name in ENCODERS:
        return ENCODERS[name].family in TEXT_FAMILIES
    place = weights or Path(name)
    if "emotion2vec" in name.lower() or place.suffix == ".pt":
        return False
    try:
        model_type = str(read_json((place / "config.json").read_bytes())["model_type"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
    family = next((family for family, kinds in FAMILIES.items() if model_type in kinds), None)
    return is_causal(model_type) if family is None else family in TEXT_FAMILIES
