"""The encoders by name: what they are, and where their weights come from.

Sizes are for choosing among them: a run takes its own from the weights, and says so where they differ.
`parameters_m` counts roughly what is loaded: a Whisper's or a T5's encoder without its decoder, a language model
without its output layer.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # recipes are planned with the table, and need no numpy
    from featurestore.format.spec import FeatureSpec


@dataclass(frozen=True)
class EncoderEntry:
    """One encoder by name.

    family: speech, unpadded and emotion2vec (speech too), whisper, text, causal, t5, logmel or opensmile.
    hub_id: repository of its weights; None where the package brings them or none are needed.
    dim: columns of a row. layers: the highest number of one. parameters_m: millions of parameters that are loaded.
    frame_rate_hz: rows per second; 0 of rows that are tokens, or one per utterance.
    needs: what must be installed or accepted first. licence: of the weights, by their model card where it was read.
    checked: what the tests hold the family's rows to.
    """

    family: str
    hub_id: str | None
    dim: int = 0
    layers: int = 0
    parameters_m: float = 0.0
    frame_rate_hz: float = 0.0
    needs: str = ""

    @property
    def licence(self) -> str:
        """Licence of the weights, as an SPDX name where there is one; "" where none are needed."""
        if self.family == "opensmile":
            return "openSMILE (research)"
        if self.hub_id is None:
            return "" if self.family == "logmel" else "CC-BY-NC-SA-4.0"
        return next((licence for start, licence in LICENCES.items() if self.hub_id.startswith(start)), SEE_CARD)

    @property
    def checked(self) -> str:
        """What the tests hold the family's rows to."""
        return CHECKED[self.family]

    @property
    def source(self) -> str:
        """Where the weights come from, for a table."""
        if self.hub_id:
            return self.hub_id
        return {"logmel": "none needed", "opensmile": "none needed"}.get(self.family, "in the package")


# Of each family: name, hub repository, columns, layers, millions of parameters.
Row = tuple[str, str | None, int, int, float]
GATED = ("meta-llama/", "google/gemma-")  # the hub asks for a login and accepted terms

# By the beginning of a repository's name, of model cards that were read. The others' cards have the word alone.
SEE_CARD = "see the model card"
LICENCES = {
    "facebook/mms": "CC-BY-NC-4.0",
    "facebook/w2v-bert": "MIT",
    "facebook/hubert-large-ls960-ft": "Apache-2.0",
    "facebook/wav2vec2-xls-r-300m": "Apache-2.0",
    "openai/whisper-large-v3": "Apache-2.0",
    "sentence-transformers/all-MiniLM-L6-v2": "Apache-2.0",
    "sentence-transformers/all-mpnet-base-v2": "Apache-2.0",
    "BAAI/bge-large-en-v1.5": "MIT",
    "asapp/": "Apache-2.0",
    "UsefulSensors/": "MIT",
    "nvidia/": "CC-BY-4.0",
    "emotion2vec/": "model licence of its own",
}

# What the tests hold the rows of a family to, on random weights.
_TRANSFORMERS = "alone as in a batch, as transformers"
CHECKED = {
    "speech": _TRANSFORMERS,
    "unpadded": _TRANSFORMERS,
    "whisper": _TRANSFORMERS,
    "text": _TRANSFORMERS,
    "causal": _TRANSFORMERS,
    "t5": _TRANSFORMERS,
    "emotion2vec": "alone as in a batch, as a plain twin",
    "opensmile": "as the opensmile package",
    "logmel": "alone as in a batch",
}

SPEECH: tuple[Row, ...] = (
    ("tiny-hubert", None, 256, 4, 3.8),
    ("tiny-wavlm", None, 256, 4, 3.8),
    ("wavlm-base", "microsoft/wavlm-base", 768, 12, 94.4),
    ("wavlm-base-plus", "microsoft/wavlm-base-plus", 768, 12, 94.4),
    ("wavlm-large", "microsoft/wavlm-large", 1024, 24, 315.5),
    ("wavlm-base-plus-sv", "microsoft/wavlm-base-plus-sv", 768, 12, 94.4),
    ("hubert-base", "facebook/hubert-base-ls960", 768, 12, 94.4),
    ("hubert-large", "facebook/hubert-large-ls960-ft", 1024, 24, 315.4),
    ("hubert-large-ll60k", "facebook/hubert-large-ll60k", 1024, 24, 315.4),
    ("hubert-xlarge", "facebook/hubert-xlarge-ll60k", 1280, 48, 962.5),
    ("wav2vec2-base", "facebook/wav2vec2-base", 768, 12, 94.4),
    ("wav2vec2-large", "facebook/wav2vec2-large-lv60", 1024, 24, 315.4),
    ("wav2vec2-emotion-msp-dim", "audeering/wav2vec2-large-robust-12-ft-emotion-msp-dim", 1024, 12, 164.3),
    ("xls-r-300m", "facebook/wav2vec2-xls-r-300m", 1024, 24, 315.4),
    ("xls-r-1b", "facebook/wav2vec2-xls-r-1b", 1280, 48, 962.5),
    ("mms-300m", "facebook/mms-300m", 1024, 24, 315.4),
    ("mms-1b", "facebook/mms-1b", 1280, 48, 962.5),
    ("unispeech-sat-base-plus", "microsoft/unispeech-sat-base-plus", 768, 12, 94.4),
    ("unispeech-sat-large", "microsoft/unispeech-sat-large", 1024, 24, 315.4),
    ("data2vec-audio-base", "facebook/data2vec-audio-base", 768, 12, 93.2),
    ("data2vec-audio-large", "facebook/data2vec-audio-large", 1024, 24, 313.3),
)  # fmt: skip
WHISPER: tuple[Row, ...] = (
    ("whisper-tiny", "openai/whisper-tiny", 384, 4, 8.2),
    ("whisper-tiny.en", "openai/whisper-tiny.en", 384, 4, 8.2),
    ("whisper-base", "openai/whisper-base", 512, 6, 20.6),
    ("whisper-base.en", "openai/whisper-base.en", 512, 6, 20.6),
    ("whisper-small", "openai/whisper-small", 768, 12, 88.2),
    ("whisper-small.en", "openai/whisper-small.en", 768, 12, 88.2),
    ("whisper-medium", "openai/whisper-medium", 1024, 24, 307.2),
    ("whisper-medium.en", "openai/whisper-medium.en", 1024, 24, 307.2),
    ("whisper-large-v2", "openai/whisper-large-v2", 1280, 32, 636.8),
    ("whisper-large-v3", "openai/whisper-large-v3", 1280, 32, 637.0),
    ("whisper-large-v3-turbo", "openai/whisper-large-v3-turbo", 1280, 32, 637.0),
)
TEXT: tuple[Row, ...] = (
    ("roberta-base", "FacebookAI/roberta-base", 768, 12, 124.6),
    ("roberta-large", "FacebookAI/roberta-large", 1024, 24, 355.4),
    ("modernbert-base", "answerdotai/ModernBERT-base", 768, 22, 149.0),
    ("modernbert-large", "answerdotai/ModernBERT-large", 1024, 28, 394.8),
    ("deberta-v3-large", "microsoft/deberta-v3-large", 1024, 24, 434.0),
    ("all-mpnet-base-v2", "sentence-transformers/all-mpnet-base-v2", 768, 12, 109.5),
    ("all-MiniLM-L6-v2", "sentence-transformers/all-MiniLM-L6-v2", 384, 6, 22.7),
)
CAUSAL: tuple[Row, ...] = (
    ("llama-3.1-8b", "meta-llama/Llama-3.1-8B", 4096, 32, 7505),
    ("llama-3.2-1b", "meta-llama/Llama-3.2-1B", 2048, 16, 1236),
    ("llama-3.2-3b", "meta-llama/Llama-3.2-3B", 3072, 28, 3213),
    ("qwen2.5-0.5b", "Qwen/Qwen2.5-0.5B", 896, 24, 494),
    ("qwen2.5-7b", "Qwen/Qwen2.5-7B", 3584, 28, 7071),
    ("qwen3-0.6b", "Qwen/Qwen3-0.6B", 1024, 28, 596),
    ("qwen3-1.7b", "Qwen/Qwen3-1.7B", 2048, 28, 1721),
    ("qwen3-4b", "Qwen/Qwen3-4B", 2560, 36, 4022),
    ("qwen3-8b", "Qwen/Qwen3-8B", 4096, 36, 7568),
    ("mistral-7b", "mistralai/Mistral-7B-v0.3", 4096, 32, 7114),
    ("gemma-2-2b", "google/gemma-2-2b", 2304, 26, 2614),
    ("gemma-3-270m", "google/gemma-3-270m", 640, 18, 268),
    ("gemma-3-1b", "google/gemma-3-1b-pt", 1152, 26, 1000),
    ("phi-2", "microsoft/phi-2", 2560, 32, 2648),
    ("phi-3-mini", "microsoft/Phi-3-mini-4k-instruct", 3072, 32, 3722),
    ("olmo-1b", "allenai/OLMo-1B-hf", 2048, 16, 1177),
    ("olmo-2-1b", "allenai/OLMo-2-0425-1B", 2048, 16, 1279),
    ("smollm2-135m", "HuggingFaceTB/SmolLM2-135M", 576, 30, 135),
    ("smollm2-360m", "HuggingFaceTB/SmolLM2-360M", 960, 32, 362),
    ("smollm3-3b", "HuggingFaceTB/SmolLM3-3B", 2048, 36, 3075),
)
T5: tuple[Row, ...] = (
    ("t5-base", "google-t5/t5-base", 768, 12, 109.6),
    ("t5-large", "google-t5/t5-large", 1024, 24, 334.9),
    ("flan-t5-base", "google/flan-t5-base", 768, 12, 109.6),
    ("flan-t5-large", "google/flan-t5-large", 1024, 24, 341.2),
)
SENTENCE: tuple[Row, ...] = (
    ("bge-base-en-v1.5", "BAAI/bge-base-en-v1.5", 768, 12, 109.5),
    ("bge-large-en-v1.5", "BAAI/bge-large-en-v1.5", 1024, 24, 335.1),
    ("bge-m3", "BAAI/bge-m3", 1024, 24, 567.8),
    ("e5-large-v2", "intfloat/e5-large-v2", 1024, 24, 335.1),
    ("multilingual-e5-large", "intfloat/multilingual-e5-large", 1024, 24, 559.9),
    ("gte-large", "thenlper/gte-large", 1024, 24, 335.1),
)
# These run without padding: name, ..., rows per second.
UNPADDED: tuple[tuple[Row, float], ...] = (
    (("w2v-bert-2.0", "facebook/w2v-bert-2.0", 1024, 24, 580.5), 50.0),
    (("wav2vec2-conformer-large", "facebook/wav2vec2-conformer-rel-pos-large", 1024, 24, 618.6), 50.0),
    (("sew-tiny", "asapp/sew-tiny-100k", 512, 12, 40.7), 50.0),
    (("sew-d-tiny", "asapp/sew-d-tiny-100k", 384, 12, 24.1), 50.0),
    (("moonshine-tiny", "UsefulSensors/moonshine-tiny", 288, 6, 7.7), 41.67),
    (("moonshine-base", "UsefulSensors/moonshine-base", 416, 8, 20.1), 41.67),
    (("parakeet-ctc-1.1b", "nvidia/parakeet-ctc-1.1b", 1024, 42, 1061.5), 12.5),
)
OPENSMILE = (("egemapsv02", 88, 0.0), ("egemapsv02-lld", 25, 100.0), ("compare2016", 6373, 0.0),
             ("compare2016-lld", 65, 100.0))  # fmt: skip


def _entries() -> Iterator[tuple[str, EncoderEntry]]:
    yield "logmel", EncoderEntry("logmel", None, 80, 0, 0.0, 50.0)
    for family, rate_hz, rows in (
        ("speech", 50.0, SPEECH), ("whisper", 50.0, WHISPER), ("text", 0.0, TEXT), ("text", 0.0, SENTENCE),
        ("t5", 0.0, T5), ("causal", 0.0, CAUSAL),
    ):  # fmt: skip
        for name, hub_id, dim, layers, parameters_m in rows:
            needs = "hub login, accepted terms" if (hub_id or "").startswith(GATED) else ""
            yield name, EncoderEntry(family, hub_id, dim, layers, parameters_m, rate_hz, needs)
    yield (
        "qwen3-embedding-0.6b",
        EncoderEntry("causal", "Qwen/Qwen3-Embedding-0.6B", 1024, 28, 595.8, needs="--pool model for its embedding"),
    )
    for (name, hub_id, dim, layers, parameters_m), rate_hz in UNPADDED:
        yield name, EncoderEntry("unpadded", hub_id, dim, layers, parameters_m, rate_hz)
    for name in ("emotion2vec_base", "emotion2vec_plus_seed", "emotion2vec_plus_base"):
        yield name, EncoderEntry(
            "emotion2vec", f"emotion2vec/{name}", 768, 12, 93.2, 50.0,
            f"hf download emotion2vec/{name} --local-dir DIR; --weights DIR",
        )  # fmt: skip
    for name, dim, rate_hz in OPENSMILE:
        yield (
            name,
            EncoderEntry("opensmile", None, dim, 0, 0.0, rate_hz, "medusa-ser[opensmile]"),
        )


ENCODERS: dict[str, EncoderEntry] = dict(_entries())


def pooled_dim(dim: int, pool: str) -> int:
    """Return the number of columns of a stored row."""
    return 2 * dim if pool == "mean+std" else dim


def unlike_its_name(spec: FeatureSpec) -> str:
    """Return in what rows differ from those of the encoder that they are named after; "" where nothing is known to."""
    entry = ENCODERS.get(spec.encoder)
    if entry is None or entry.hub_id is None or spec.pool == "model":
        return ""
    dim = pooled_dim(entry.dim, spec.pool)
    if spec.dim == dim:
        return ""
    return (
        f"{spec.encoder} gives {dim} values a row, these weights {spec.dim}: they are another model. If that is not "
        f"what you want, name the encoder after what it is (--encoder NAME), or pass the weights of {entry.hub_id}."
    )
