"""A feature set, or some of its utterances and layers, in a format that other tools read."""

import contextlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from featurestore.errors import ConfigError, StoreError
from featurestore.interchange import EXPORTED, FORMATS
from featurestore.interchange.base import Format, Selection, Written
from featurestore.interchange.description import Description
from featurestore.interchange.origins import of_same_and_other_data, place_of, read_origins, write_origins
from featurestore.sets.feature_set import FeatureSet


def export_features(
    features: FeatureSet,
    format_name: str,
    target: Path,
    *,
    keys: Sequence[str] | None = None,
    layers: Sequence[str] | None = None,
    labels: Mapping[str, str] | None = None,
    resume: bool = False,
    overwrite: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> Written:
    """Write rows in another tool's format.

    float16 and float32 are written bit for bit, bfloat16 as float32 of the same value (in safetensors as BF16), int8
    dequantised to float16. Durations, and what the utterances were made from, are written beside them (see origins.py).

    keys, layers: in this order; None: all. labels: by key, for emotion2vec's .emo. resume: go on with a directory of
    .npy, whose files are replaced where its record is of other data than the set's. overwrite: replace what has the
    same name. StoreError: a key or layer isn't there, or the target is not free.
    """
    chosen_format = format_of(format_name)
    if resume and not chosen_format.resumable:
        raise ConfigError(f"--resume: {format_name} is written whole or not at all; start again with --overwrite.")
    layer_names = tuple(layers) if layers is not None else features.layers
    unknown = [layer for layer in layer_names if layer not in features.layers]
    if unknown or not layer_names or len(set(layer_names)) != len(layer_names):
        stored_names = ", ".join(features.layers)
        raise StoreError(
            f"Layers {', '.join(layer_names)!r} of {features.name!r}: it has {stored_names}, each may be named once."
        )
    all_keys = list(features) if keys is None else list(keys)
    features.lengths(all_keys)  # an error that lists those it lacks
    if len(set(all_keys)) != len(all_keys):
        raise StoreError("Some keys were given twice; an utterance is written once.")
    occupied = chosen_format.occupied(target, layer_names)
    if occupied and not (resume or overwrite):
        some = ", ".join(str(path) for path in occupied[:4])
        how = "; --resume adds what is missing" if chosen_format.resumable else ""
        raise StoreError(f"{some} exists already. Choose another target, or --overwrite replaces it{how}.")
    known, other = frozenset[str](), list[str]()
    if resume:
        there = read_origins(target)
        known, other = of_same_and_other_data(features, {key: there[key] for key in all_keys if key in there})
    elif chosen_format.resumable:  # which would be of files that aren't replaced yet
        with contextlib.suppress(OSError):
            place_of(target).unlink()
    selection = Selection(
        features, all_keys, layer_names, labels or {}, progress or (lambda done, total: None), known, frozenset(other)
    )
    written = chosen_format.write(selection, target, resume)
    if not write_origins(features, all_keys, layer_names, target) and format_name in ("npy", "emotion2vec"):
        options = Description(features.name).as_recorded(features.spec)
        written.notes += (
            [f"{format_name} has no place for what rows are; import them with {options}."] if options else []
        )
    if other:
        some = ", ".join(map(repr, other[:3])) + (", ..." if len(other) > 3 else "")
        n = f"{len(other):,} utterance{'s' if len(other) > 1 else ''}"
        written.notes.append(f"Files of {n} were replaced, since the set has other data of them now: {some}.")
    written.notes += [*_dtype_notes(features.spec.dtype, format_name), *_layer_notes(format_name, target, layer_names)]
    return written


def format_of(name: str) -> Format:
    """Return the format of this name; ConfigError lists them."""
    if name not in FORMATS:
        raise ConfigError(f"Format {name!r} is unknown; there are {', '.join(EXPORTED)}.")
    return FORMATS[name]


def _dtype_notes(dtype: str, format_name: str) -> list[str]:
    if dtype == "int8":
        return ["int8 rows were written as the float16 they are read as; their int8 values and scales were not."]
    if dtype == "bfloat16" and format_name != "safetensors":
        return [f"{format_name} has no bfloat16: rows were written as float32 of the same values."]
    return []


def _layer_notes(format_name: str, target: Path, layers: Sequence[str]) -> list[str]:
    if len(layers) == 1 or format_name not in ("npy", "emotion2vec"):
        return []
    options_text = " ".join(f"--layer {layer}={layer}" for layer in layers)
    command = f"medusa store import {format_name} {target} NAME {options_text}"
    return [f"One directory or name per layer; to read them back: {command}"]
