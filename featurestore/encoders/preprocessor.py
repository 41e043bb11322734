"""The audio that a directory's model reads, by its configuration: rate, normalisation, filter bank."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from featurestore.audio import SAMPLE_RATE_HZ
from featurestore.errors import EncoderError
from featurestore.runtime.json_text import read_json

FILE = "preprocessor_config.json"
LATER_FILE = "processor_config.json"  # transformers 5 writes a processor's parts into this one
WHISPER_FIELDS = {"n_fft": 400, "hop_length": 160, "chunk_length": 30}


def preprocessor_file(directory: Path) -> Path:
    """Return the file that describes the model's input, the older one where there are both."""
    later = directory / LATER_FILE
    return later if later.is_file() and not (directory / FILE).is_file() else directory / FILE


def read_preprocessor(directory: Path) -> dict[str, Any]:
    """Return the fields of a feature extractor; OSError, ValueError or KeyError where there are none."""
    path = preprocessor_file(directory)
    fields = read_json(path.read_bytes())
    if path.name == LATER_FILE:
        fields = fields["feature_extractor"]
    if not isinstance(fields, dict):
        raise ValueError(f"{path}: expected a JSON object.")
    return fields


def do_normalize(directory: Path, label: str) -> bool:
    """Return whether waveforms are normalised; EncoderError where the directory doesn't say, or has another rate."""
    try:
        fields = read_preprocessor(directory)
    except (OSError, ValueError, KeyError, TypeError):
        raise EncoderError(
            f"{label}: {directory / FILE} is missing or not JSON, and without it "
            "it is unknown whether the model wants normalised waveforms. Copy it from the model's hub page, or write "
            '{"do_normalize": true} (or false) into it.'
        ) from None
    check_rate(fields, directory, label)
    return bool(fields.get("do_normalize", True))


def check_rate(fields: dict[str, Any], directory: Path, label: str) -> None:
    """Raise EncoderError for a model of audio at another rate than the one in which all audio reaches encoders."""
    rate_hz = fields.get("sampling_rate", SAMPLE_RATE_HZ)
    if rate_hz != SAMPLE_RATE_HZ:
        raise EncoderError(
            f"{label}: its model reads audio at {rate_hz} Hz (sampling_rate in {preprocessor_file(directory)}), "
            f"expected {SAMPLE_RATE_HZ} Hz. Models of other rates are not supported."
        )


def check_whisper(directory: Path, n_mels: int, label: str) -> None:
    """Raise EncoderError where the directory describes another spectrogram than Whisper's; it need not have a file."""
    if not preprocessor_file(directory).is_file():
        return
    try:
        fields = read_preprocessor(directory)
    except (OSError, ValueError, KeyError, TypeError):
        raise EncoderError(f"{label}: {preprocessor_file(directory)} is not a feature extractor's JSON.") from None
    check_rate(fields, directory, label)
    for name, expected in {**WHISPER_FIELDS, "feature_size": n_mels}.items():
        if fields.get(name, expected) != expected:
            raise EncoderError(
                f"{label}: {preprocessor_file(directory)} has {name} {fields[name]}, expected {expected} by its "
                "config.json and Whisper's spectrogram. The file is another model's."
            )
