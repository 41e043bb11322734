"""Where an encoder's weights come from: a directory given, the repository's own, the local hub cache, or the hub.

Loading executes no code from a checkpoint: configuration and weights are data (safetensors, or torch files through
weights_only), and every parameter of the model must be in the file: one that isn't there is an error, never random.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from featurestore.encoders.adapter import merge
from featurestore.encoders.hub import TOKENIZER_FILES, from_hub, weight_files
from featurestore.encoders.parameters import check_parameters
from featurestore.encoders.preprocessor import preprocessor_file
from featurestore.errors import EncoderError
from featurestore.runtime.json_text import read_json
from featurestore.runtime.weights_digest import parts_of_files, weights_digest

EMBEDDED = Path(__file__).resolve().parent.parent / "weights"


def find_weights(name: str, hub_id: str | None, weights: Path | None) -> Path:
    """Return the directory to load from: `weights`, else the embedded one, else the hub's (cached or downloaded).

    EncoderError names what was tried and how to go on.
    """
    if weights is not None:
        return checked_directory(weights, f"--weights {weights}")
    if (EMBEDDED / name / "config.json").is_file():
        return EMBEDDED / name
    if hub_id is None:
        raise EncoderError(f"{name}: no weights in {EMBEDDED / name}; reinstall medusa-ser or pass --weights DIR.")
    return from_hub(name, hub_id)


def checked_directory(path: Path, label: str) -> Path:
    """Return path if it is a transformers directory, else EncoderError naming what is missing."""
    if not path.is_dir():
        problem = "is a file" if path.exists() else "no such directory"
        raise EncoderError(
            f"{label}: {problem}; expected a transformers model directory (config.json and model.safetensors)."
        )
    if not (path / "config.json").is_file():
        raise EncoderError(
            f"{label}: has no config.json; expected a transformers model directory, as `huggingface-cli download` or "
            "save_pretrained write it."
        )
    if not weight_files(path):
        raise EncoderError(f"{label}: has a config.json but no *.safetensors or pytorch_model*.bin beside it.")
    return path


def model_type(directory: Path) -> str:
    """Return config.json's model_type; EncoderError when the file isn't one."""
    try:
        return str(read_json((directory / "config.json").read_text(encoding="utf-8"))["model_type"])
    except (ValueError, KeyError, TypeError) as error:
        raise EncoderError(
            f"{directory / 'config.json'}: not a transformers configuration with a model_type ({error!r})."
        ) from None


def head_of(directory: Path) -> str:
    """Return the class with a head that config.json names, such as HubertForCTC; "" of a bare model."""
    try:
        named = read_json((directory / "config.json").read_bytes()).get("architectures") or []
    except (OSError, ValueError, AttributeError):
        return ""
    return next((str(name) for name in named if "For" in str(name)), "")


def identity(directory: Path, with_tokenizer: bool) -> str:
    """Return `sha256:` and 16 hex digits over the contents of the weights and of the files that decide the numbers."""
    names = ("config.json", preprocessor_file(directory).name, *(TOKENIZER_FILES if with_tokenizer else ()))
    extras = [directory / name for name in names if (directory / name).is_file()]
    return weights_digest(part for path in [*weight_files(directory), *extras] for part in _named_content(path))


def _named_content(path: Path) -> Iterator[bytes]:
    yield f"{path.name}\0{path.stat().st_size}\0".encode()
    yield from parts_of_files([path])


def load_model(
    directory: Path,
    label: str,
    needed: str | tuple[str, ...] = "",
    *,
    auto: str = "AutoModel",
    dtype: Any = None,
    adapter: Path | None = None,
) -> Any:
    """Return the bare transformers model of a directory, float32 on the CPU, in evaluation mode.

    needed: only parameters whose names begin with it must be in the file; the others are not used. auto: the class of
    transformers that loads it. dtype: of the weights instead of float32; "auto" is the file's own. adapter: a LoRA
    directory, which is merged into the weights.
    """
    import torch
    import transformers

    _refuse_quantized(directory, label)
    level = transformers.logging.get_verbosity()
    transformers.logging.set_verbosity_error()  # heads that are dropped on purpose are no news
    progress = transformers.utils.logging.is_progress_bar_enabled()
    transformers.utils.logging.disable_progress_bar()
    try:
        model, info = getattr(transformers, auto).from_pretrained(
            directory,
            dtype=dtype or torch.float32,
            trust_remote_code=False,
            local_files_only=True,
            output_loading_info=True,
        )
    except Exception as error:  # transformers raises many kinds for a bad file; all mean the same to a user
        if _is_import(error):
            raise EncoderError(
                f"{label}: transformers can't be used here, which says nothing of the weights "
                f"({_import_reason(error)}). A package beside it doesn't match: reinstall it, or uninstall it where it "
                "isn't needed (torchvision)."
            ) from error
        if "ignore_mismatched_sizes" in str(error):
            raise EncoderError(
                f"{label}: parameters in the weights of {directory} have other shapes than its config.json says. Use "
                "the config.json that belongs to the weights."
            ) from None
        if "weights_only" in str(error):
            raise EncoderError(
                f"{label}: the pytorch_model*.bin in {directory} holds more than tensors, or is damaged; files that "
                "could run code are not read. Take the model's safetensors, from its hub page or a conversion of it."
            ) from None
        raise EncoderError(
            f"{label}: the weights in {directory} can't be loaded ({first_line(error)}). Download the directory again "
            "or pass another with --weights DIR."
        ) from None
    finally:
        transformers.logging.set_verbosity(level)
        if progress:
            transformers.utils.logging.enable_progress_bar()
    check_parameters(model, info, needed, directory, label)
    return model if adapter is None else merge(model, adapter, label)


def _refuse_quantized(directory: Path, label: str) -> None:
    """Raise EncoderError for weights of fewer than 16 bits, whose rows are not those of the model that is named."""
    try:
        quantized = read_json((directory / "config.json").read_bytes()).get("quantization_config")
    except (OSError, ValueError, AttributeError):
        return
    if quantized:
        kind = quantized.get("quant_method", "a method of its own") if isinstance(quantized, dict) else quantized
        raise EncoderError(
            f"{label}: the weights in {directory} are quantized ({kind}, by quantization_config in config.json), "
            "expected 16 or 32 bits. Take the model that they were made from."
        )


def _is_import(error: BaseException) -> bool:
    """Whether a package can't be imported: transformers imports its models late, and wraps what that raises."""
    text = str(error)
    return isinstance(error, ImportError) or "Failed to import" in text or "torchvision::nms" in text


def _import_reason(error: BaseException) -> str:
    """Return the last line of what an import raised, which names the cause."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [""]
    return f"{type(error).__name__}: {lines[-1]}"[:200]


def first_line(error: Exception) -> str:
    """Return an exception's kind and the first line of its text."""
    lines = str(error).strip().splitlines() or [""]
    return f"{type(error).__name__}: {lines[0]}"[:200]
