"""A sentence-embedding model's own pooling, as its sentence-transformers directory describes it: one row per text."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from featurestore.errors import EncoderError
from featurestore.runtime.json_text import read_json

MODES = {  # a key of the pooling's config.json -> our name
    "pooling_mode_cls_token": "cls",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt",
    "pooling_mode_weightedmean_tokens": "weighted",
    "pooling_mode_lasttoken": "last",
}


@dataclass(frozen=True)
class OwnPooling:
    """Rows of a text, special tokens among them, to its embedding.

    modes: cls, mean, max, mean_sqrt, weighted, last; several are concatenated. include_prompt: the prompt's rows are
    pooled too. max_tokens: of a text with its special tokens; None where the directory doesn't say. dim: of the
    embedding. after: functions of the pooled rows, (L, 1, D) float64 each. description: all of it, for the record.
    """

    modes: tuple[str, ...]
    include_prompt: bool
    lower: bool
    max_tokens: int | None
    dim: int
    after: tuple[Callable[[np.ndarray], np.ndarray], ...]
    description: str

    def __call__(self, rows: np.ndarray) -> np.ndarray:
        """Map (L, T, D) float32 -> (L, 1, dim) float32."""
        wide = rows.astype(np.float64)
        pooled = np.concatenate([_pooled(wide, mode) for mode in self.modes], axis=-1)
        for step in self.after:
            pooled = step(pooled)
        return pooled.astype(np.float32)


def _pooled(rows: np.ndarray, mode: str) -> np.ndarray:
    n_tokens = rows.shape[1]
    weights = np.arange(1, n_tokens + 1, dtype=np.float64)[None, :, None]
    pooled: dict[str, Callable[[], np.ndarray]] = {
        "cls": lambda: rows[:, :1],
        "last": lambda: rows[:, -1:],
        "max": lambda: np.asarray(rows.max(axis=1, keepdims=True)),
        "weighted": lambda: np.asarray((rows * weights).sum(axis=1, keepdims=True) / weights.sum()),
        "mean": lambda: np.asarray(rows.mean(axis=1, keepdims=True)),
        "mean_sqrt": lambda: np.asarray(rows.sum(axis=1, keepdims=True) / np.sqrt(n_tokens)),
    }
    return pooled[mode]()


def read_pooling(directory: Path, label: str) -> OwnPooling:
    """Read modules.json and what it names; EncoderError where the directory has no pooling of its own."""
    try:
        return _read_pooling(directory, label)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise EncoderError(
            f"{label}: {directory / 'modules.json'}, or what it names, has not the form of sentence-transformers "
            f"({error!r})."
        ) from None


def _read_pooling(directory: Path, label: str) -> OwnPooling:
    modules = _json(directory / "modules.json", label)
    kinds = [(str(module["type"]).rsplit(".", 1)[-1], directory / str(module["path"])) for module in modules]
    if [kind for kind, _ in kinds[:2]] != ["Transformer", "Pooling"]:
        raise EncoderError(f"{label}: {directory / 'modules.json'} begins with other than a Transformer and a Pooling.")
    config = _json(kinds[1][1] / "config.json", label)
    modes = tuple(mode for key, mode in MODES.items() if config.get(key))
    named = str(config.get("pooling_mode") or "")  # the newer form names it
    renamed = {"lasttoken": "last", "mean_sqrt_len_tokens": "mean_sqrt", "weightedmean": "weighted"}
    modes = modes or ((renamed.get(named, named),) if named else ())
    if not modes or not set(modes) <= set(MODES.values()):
        raise EncoderError(f"{label}: {kinds[1][1] / 'config.json'} names no pooling that is known here.")
    dim = int(config.get("word_embedding_dimension") or config["embedding_dimension"]) * len(modes)
    after: list[Callable[[np.ndarray], np.ndarray]] = []
    names = list(modes)
    for kind, path in kinds[2:]:
        if kind == "Normalize":
            after.append(_normalized)
        elif kind == "Dense":
            step, dim = _dense(path, label)
            after.append(step)
        else:
            raise EncoderError(f"{label}: its module {kind} ({path}) is not supported, expected Normalize or Dense.")
        names.append(kind.lower())
    sizes: dict[str, Any] = {}
    for name in ("sentence_bert_config.json", "sentence_xlm-roberta_config.json"):
        if (directory / name).is_file():
            sizes = _json(directory / name, label)
    return OwnPooling(
        modes, bool(config.get("include_prompt", True)), bool(sizes.get("do_lower_case")), sizes.get("max_seq_length"),
        dim, tuple(after), "+".join(names),
    )  # fmt: skip


def _normalized(rows: np.ndarray) -> np.ndarray:
    norms = np.linalg.norm(rows, axis=-1, keepdims=True)
    return np.asarray(rows / np.maximum(norms, 1e-12))


def _dense(directory: Path, label: str) -> tuple[Callable[[np.ndarray], np.ndarray], int]:
    from safetensors.numpy import load_file

    config = _json(directory / "config.json", label)
    activation = str(config.get("activation_function", "")).rsplit(".", 1)[-1]
    steps: dict[str, Callable[[np.ndarray], np.ndarray]] = {"Tanh": np.tanh, "Identity": np.asarray}
    if activation not in steps:
        raise EncoderError(f"{label}: {directory} has the activation {activation}, expected Tanh or Identity.")
    path = directory / "model.safetensors"
    if not path.is_file():
        raise EncoderError(f"{label}: {path} is missing; its embedding needs this layer.")
    state = load_file(path)
    weight = state["linear.weight"].astype(np.float64)
    bias = state["linear.bias"].astype(np.float64) if config.get("bias", True) else np.zeros(len(weight))
    act = steps[activation]
    return lambda rows: np.asarray(act(rows @ weight.T + bias)), len(weight)


def _json(path: Path, label: str) -> Any:
    try:
        return read_json(path.read_bytes())
    except (OSError, ValueError) as error:
        raise EncoderError(
            f"{label}: --pool model needs {path}, as sentence-transformers writes it ({type(error).__name__}). Use "
            "--pool mean, or a directory that has it."
        ) from None
