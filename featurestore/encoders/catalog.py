"""The encoders by name: what they are and which hub repository holds their weights."""

from dataclasses import dataclass


@dataclass(frozen=True)
class EncoderEntry:
    """One encoder by name: its family (speech, whisper, text, logmel) and its hub repository, None if it needs none."""

    family: str
    hub_id: str | None


ENCODERS: dict[str, EncoderEntry] = {
    "logmel": EncoderEntry("logmel", None),
    "tiny-hubert": EncoderEntry("speech", None),
    "tiny-wavlm": EncoderEntry("speech", None),
    "wavlm-base": EncoderEntry("speech", "microsoft/wavlm-base"),
    "wavlm-base-plus": EncoderEntry("speech", "microsoft/wavlm-base-plus"),
    "wavlm-large": EncoderEntry("speech", "microsoft/wavlm-large"),
    "hubert-base": EncoderEntry("speech", "facebook/hubert-base-ls960"),
    "hubert-large": EncoderEntry("speech", "facebook/hubert-large-ls960-ft"),
    "hubert-large-ll60k": EncoderEntry("speech", "facebook/hubert-large-ll60k"),
    "hubert-xlarge": EncoderEntry("speech", "facebook/hubert-xlarge-ll60k"),
    "wav2vec2-base": EncoderEntry("speech", "facebook/wav2vec2-base"),
    "wav2vec2-large": EncoderEntry("speech", "facebook/wav2vec2-large-lv60"),
    "data2vec-audio-base": EncoderEntry("speech", "facebook/data2vec-audio-base"),
    "data2vec-audio-large": EncoderEntry("speech", "facebook/data2vec-audio-large"),
    "whisper-tiny": EncoderEntry("whisper", "openai/whisper-tiny"),
    "whisper-tiny.en": EncoderEntry("whisper", "openai/whisper-tiny.en"),
    "whisper-base": EncoderEntry("whisper", "openai/whisper-base"),
    "whisper-base.en": EncoderEntry("whisper", "openai/whisper-base.en"),
    "whisper-small": EncoderEntry("whisper", "openai/whisper-small"),
    "whisper-small.en": EncoderEntry("whisper", "openai/whisper-small.en"),
    "whisper-medium": EncoderEntry("whisper", "openai/whisper-medium"),
    "whisper-medium.en": EncoderEntry("whisper", "openai/whisper-medium.en"),
    "whisper-large-v2": EncoderEntry("whisper", "openai/whisper-large-v2"),
    "whisper-large-v3": EncoderEntry("whisper", "openai/whisper-large-v3"),
    "whisper-large-v3-turbo": EncoderEntry("whisper", "openai/whisper-large-v3-turbo"),
    "roberta-base": EncoderEntry("text", "FacebookAI/roberta-base"),
    "roberta-large": EncoderEntry("text", "FacebookAI/roberta-large"),
    "modernbert-base": EncoderEntry("text", "answerdotai/ModernBERT-base"),
    "modernbert-large": EncoderEntry("text", "answerdotai/ModernBERT-large"),
    "deberta-v3-large": EncoderEntry("text", "microsoft/deberta-v3-large"),
    "all-mpnet-base-v2": EncoderEntry("text", "sentence-transformers/all-mpnet-base-v2"),
    "all-MiniLM-L6-v2": EncoderEntry("text", "sentence-transformers/all-MiniLM-L6-v2"),
}
