"""What a text encoder would take, by its config.json alone: for a plan before gigabytes are downloaded."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from featurestore.encoders.catalog import pooled_dim
from featurestore.encoders.device import pick_compute
from featurestore.encoders.families import TEXT_FAMILIES
from featurestore.encoders.hub import weight_files
from featurestore.encoders.layers import LayerChoice
from featurestore.encoders.load import family_of
from featurestore.encoders.options import EncoderOptions
from featurestore.encoders.prompt import tokenize
from featurestore.encoders.tokenizer import load_tokenizer
from featurestore.encoders.weights import model_type
from featurestore.rows.rowtypes import ROW_TYPES
from featurestore.runtime.device import pick_device


@dataclass(frozen=True)
class SizedEncoder:
    """A text encoder without its weights.

    n_parameters, n_bytes: of the weights, as `compute` holds them in memory, without layers that are not read.
    row_bytes: of one row of all chosen layers. tokenizer: None where none lies beside config.json.
    """

    options: EncoderOptions
    n_parameters: int
    n_bytes: int
    compute: str
    row_bytes: int
    tokenizer: Any

    def n_rows(self, texts: list[str]) -> int | None:
        """Return the rows of these texts; None where tokens can't be counted."""
        if self.options.pool != "none":
            return len(texts)
        if self.tokenizer is None:
            return None
        counts = (len(tokenize(self.tokenizer, text, self.options.prompt).of_text) for text in texts)
        return sum(max(1, count) for count in counts)


def sized_by_config(options: EncoderOptions, device: str = "auto") -> SizedEncoder | None:
    """Read the config.json of a directory that has no weights beside it; None for any other encoder."""
    directory = Path(options.weights or options.name)
    if not (directory / "config.json").is_file() or weight_files(directory):
        return None
    family = family_of(options.name, model_type(directory))
    if family not in TEXT_FAMILIES:
        return None
    from featurestore.encoders import causal

    compute = pick_compute(options.compute, pick_device(device))
    model = causal.empty_model(directory, options.name)
    config = model.config
    choice = LayerChoice.parse(options.layers, config.num_hidden_layers, options.name)
    if family == "causal":
        causal.trim(model, choice.deepest)
    n_parameters, n_bytes = causal.bytes_of(model, compute)
    dim = pooled_dim(config.hidden_size, options.pool)
    row_bytes = ROW_TYPES[options.dtype].row_bytes(dim) * len(choice.names)
    has_tokenizer = (directory / "tokenizer.json").is_file()
    tokenizer = load_tokenizer(directory, options.name, as_it_stands=True) if has_tokenizer else None
    name = str(compute).removeprefix("torch.")
    return SizedEncoder(options, n_parameters, n_bytes, name, row_bytes, tokenizer)
