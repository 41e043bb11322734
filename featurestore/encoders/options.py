"""What a user asks of an encoder, and one check that the options of several commands share."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from featurestore.encoders.catalog import ENCODERS
from featurestore.encoders.prompt import NO_PROMPT, Prompt
from featurestore.errors import ConfigError
from featurestore.format.spec import DTYPES, POOLS


@dataclass(frozen=True)
class EncoderOptions:
    """Which encoder to load, and which rows it gives; ConfigError when pool or dtype is unknown.

    name: in ENCODERS, a hub name (`org/name`) or a transformers directory. weights: a directory to load from instead of
    the hub, or an openai-whisper checkpoint (`base.pt`). layers: `last`, `all`, `last4`, `last4-sum`, `6,12,24`.
    pool: none, mean, mean+std, or model for the model's own pooling (a sentence's or a speaker's embedding). dtype: of
    the stored rows, "" for float16, of paralinguistic sets float32. window: see the encoder's class; None is its own.
    compute: arithmetic of the forward pass. source: what the texts are (a manifest column, a transcript's identity).
    keep_special: rows of special tokens too (text encoders). prompt: stands around every text (text encoders).
    short: what becomes of audio that is too short for a paralinguistic set, `error` or `pad`.
    """

    name: str
    weights: Path | None = None
    layers: str = "last"
    pool: str = "none"
    dtype: str = ""
    window: str | None = None
    compute: str = "auto"
    source: str = "text"
    keep_special: bool = False
    prompt: Prompt = NO_PROMPT
    short: str = "error"

    def __post_init__(self) -> None:
        if not self.dtype:
            entry = ENCODERS.get(self.name)
            scaled_apart = entry is not None and entry.family == "opensmile"  # values beyond 65,504 beside small ones
            object.__setattr__(self, "dtype", "float32" if scaled_apart else "float16")
        check_choice("pool", self.pool, POOLS)
        check_choice("dtype", self.dtype, DTYPES)
        check_choice("short", self.short, ("error", "pad"))


def check_choice(option: str, value: str, allowed: Sequence[str]) -> str:
    """Return value when it is one of the allowed ones, else ConfigError naming the option and them."""
    if value not in allowed:
        raise ConfigError(f"--{option} {value}: expected one of {', '.join(allowed)}.")
    return value
