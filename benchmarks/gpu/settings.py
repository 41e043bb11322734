"""Settings that all steps share."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Settings:
    """device, compute: of encoders and peers. tiny: small models and few clips. whisper: a name, or a .pt file."""

    device: str = "cuda"
    compute: str = "bfloat16"
    tiny: bool = False
    whisper: str = "tiny.en"
    directory: Path | None = None
