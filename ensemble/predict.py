"""New audio through the whole chain: every encoder once, then every member, then the meta-classifier.

A meta-classifier's run directory names its members' run directories, and a member's config.json holds the specification
of each feature set it reads. So a model finds its encoders again, and the fingerprint says whether they are the same.
"""

import os
import re
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from deepser.member import Member
from ensemble.align import Aligned, column_names
from ensemble.members import MEMBERS_FILE, read_runs, weights_digest
from ensemble.metas import Meta, load_meta
from ensemble.predictions import Predictions
from featurestore.encoders import ENCODERS, Encoder, load_encoder
from featurestore.errors import ConfigError, EncoderError, SpecMismatch
from featurestore.featurize import featurize
from featurestore.manifest import Manifest
from featurestore.spec import FeatureSpec
from featurestore.store import FeatureStore

POSTERIORS, LOGITS = 0, 1  # of what Member.predict returns

Progress = Callable[[str, int, int], None]  # (what is going on, utterances done, utterances in all)


@dataclass(frozen=True)
class Model:
    """What `--model` names: one member (meta is None), or a meta-classifier and its members in its order."""

    members: tuple[Member, ...]
    meta: Meta | None

    @classmethod
    def load(cls, directory: Path | str) -> "Model":
        """Read the run directory of fit-meta or fit-deepser; ConfigError says what is missing or has changed."""
        directory = Path(directory)
        if not (directory / MEMBERS_FILE).is_file():
            if (directory / "model.safetensors").is_file():
                raise ConfigError(
                    f"{directory} does not say where its members are ({MEMBERS_FILE} is missing); run "
                    "`medusa fit-meta` again."
                )
            if not directory.is_dir():
                raise ConfigError(f"{directory}: no such directory; give what `medusa fit-meta` or fit-deepser wrote.")
            return cls((Member.load(directory),), None)
        meta = load_meta(directory)
        runs = read_runs(directory)
        missing = [name for name in meta.members if name not in runs]
        if missing:
            raise ConfigError(
                f"{directory / MEMBERS_FILE} names no run directory for {', '.join(missing)}: fit-meta found none. "
                "Fit these members with `medusa fit-deepser`, then run `medusa fit-meta --runs DIR` again."
            )
        members = []
        for name in meta.members:
            run, weights = runs[name]
            member = Member.load(Path(os.path.normpath(directory / run)))
            if weights_digest(member) != weights:
                raise ConfigError(
                    f"{member.directory} holds other weights than {directory} was fitted on; run `medusa fit-meta` "
                    "again."
                )
            members.append(member)
        return cls(tuple(members), meta)

    @property
    def classes(self) -> tuple[str, ...]:
        return self.members[0].classes if self.meta is None else self.meta.classes

    @property
    def attributes(self) -> tuple[str, ...]:
        return self.members[0].attributes if self.meta is None else tuple(self.meta.attributes)


def files_manifest(files: Sequence[Path | str], text: str | None = None) -> Manifest:
    """A manifest of audio files under their own names, each once; `text` is what is said in all of them."""
    names = list(dict.fromkeys(os.fspath(file) for file in files))
    if not names:
        raise ConfigError("No file to predict; name one or more audio files, or a manifest.")
    columns = {"utterance_id": names, "path": names} | ({} if text is None else {"text": [text] * len(names)})
    try:
        table = pa.table({name: pa.array(values, pa.string()) for name, values in columns.items()})
    except UnicodeEncodeError:
        bad = next(name for name in names if not name.isprintable())
        raise ConfigError(f"{bad!r}: a file name that is not UTF-8 can't be a key; rename the file.") from None
    return Manifest(table, root=".", name="files")


def predict(
    model: Model,
    manifest: Manifest,
    *,
    weights: Mapping[str, Path] | None = None,
    device: str = "auto",
    workers: int = 2,
    progress: Progress | None = None,
) -> Predictions:
    """Predict every utterance of the manifest; one that fails is reported, and the rest is done.

    weights: directories of encoders' weights by feature set or encoder name, where they are no longer where they were
    when the members' features were made. Features go through a temporary store, each feature set once.
    Raises SpecMismatch when an encoder is not the one the members learned from, ConfigError when text is needed and the
    manifest has none.
    """
    say = progress or (lambda what, done, total: None)
    sets = needed_sets(model.members)
    _refuse_missing_inputs(sets, manifest)
    weights = dict(weights or {})
    unknown = sorted(set(weights) - {name for name, saved in sets.items() for name in (name, saved["spec"]["encoder"])})
    if unknown:
        raise ConfigError(
            f"--weights {unknown[0]}=...: the model reads no such feature set; it reads {', '.join(sets)}."
        )
    failed: dict[str, str] = {}
    with tempfile.TemporaryDirectory(prefix="medusa-predict-") as directory:
        store = FeatureStore.create(Path(directory) / "store")
        for name, saved in sets.items():
            good = manifest.rows(np.array([key not in failed for key in manifest.keys], bool))
            if not len(good):
                break
            say(f"loading {name}", 0, len(good))
            encoder = encoder_of(name, saved, weights=weights, device=device)

            def on_utterance(done: int, total: int, audio_s: float, name: str = name) -> None:
                say(name, done, total)

            failed |= dict(featurize(good, encoder, store, name, workers=workers, progress=on_utterance).failed)
        keys = [key for key in manifest.keys if key not in failed]
        outputs = []
        for i, member in enumerate(model.members):
            say("members", i, len(model.members))
            columns = column_names(model.classes, model.attributes)
            outputs.append(_member_output(member, store, keys, columns, device))
    say("members", len(model.members), len(model.members))
    in_order = tuple((key, failed[key]) for key in manifest.keys if key in failed)
    return _fused(model, tuple(keys), outputs, in_order)


def needed_sets(members: Sequence[Member]) -> dict[str, dict[str, Any]]:
    """The feature sets that members read, by name, as their config.json describes them."""
    sets: dict[str, dict[str, Any]] = {}
    for member in members:
        for saved in member.specs:
            known = sets.setdefault(saved["name"], saved)
            if known["fingerprint"] != saved["fingerprint"]:
                listed = "; ".join(_spec(known).differences(_spec(saved)))
                raise SpecMismatch(
                    f"Members read two different feature sets named {saved['name']!r} ({listed}); fit them on features "
                    "of different names, or on the same ones."
                )
    return sets


def encoder_of(name: str, saved: Mapping[str, Any], *, weights: Mapping[str, Path], device: str) -> Encoder:
    """The encoder that made the feature set `name`, with its settings; SpecMismatch when it can't be that one."""
    spec = _spec(saved)
    if spec.kind == "posteriors":
        raise ConfigError(f"A member reads {name!r}, another member's posteriors; it can't predict new audio.")
    recorded = (saved.get("provenance") or {}).get("weights")
    given = weights.get(name) or weights.get(spec.encoder) or (Path(recorded) if recorded else None)
    if given is not None and not given.exists():
        told = name in weights or spec.encoder in weights
        if told or spec.encoder not in ENCODERS:
            raise EncoderError(
                f"Feature set {name!r} was encoded with {spec.encoder}; its weights are not at {given}. Say where they "
                f"are with --weights {name}=DIR."
            )
        given = None  # the encoder is known by name; the fingerprint tells whether it is the same
    extra = dict(spec.extra)
    encoder = load_encoder(
        spec.encoder,
        weights=given,
        layers=layers_option(spec.layers),
        pool=spec.pool,
        dtype=spec.dtype,
        device=device,
        window=spec.window or None,
        compute=extra.get("compute", "float32"),
        source=spec.source,
    )
    if encoder.spec.fingerprint != saved["fingerprint"]:
        listed = "; ".join(spec.differences(encoder.spec)) or "the fingerprint alone"
        raise SpecMismatch(
            f"Feature set {name!r}: the encoder found now is not the one the members learned from ({listed}). Give the "
            f"same weights with --weights {name}=DIR, or fit the members on new features."
        )
    return encoder


def layers_option(layers: Sequence[str]) -> str:
    """The --layers text that gives these arrays: layer_02, layer_03 -> "2,3"; last4_sum -> "last4-sum"."""
    if len(layers) == 1 and re.fullmatch(r"last\d+_sum", layers[0]):
        return layers[0].replace("_", "-")
    return ",".join(str(int(layer.removeprefix("layer_"))) for layer in layers)


def _spec(saved: Mapping[str, Any]) -> FeatureSpec:
    return FeatureSpec.from_json(saved["spec"])


def _refuse_missing_inputs(sets: Mapping[str, Mapping[str, Any]], manifest: Manifest) -> None:
    kinds = {name: saved["spec"]["kind"] for name, saved in sets.items()}
    of_text = [name for name, kind in kinds.items() if kind == "text"]
    of_audio = [name for name, kind in kinds.items() if kind == "audio"]
    if of_text and not manifest.has("text"):
        raise ConfigError(
            f"The model reads text (feature set {', '.join(of_text)}): give the transcript with --text, or a "
            "--manifest with a text column."
        )
    if of_audio and not manifest.has("path"):
        raise ConfigError(f"The model reads audio (feature set {', '.join(of_audio)}), but the manifest has no 'path'.")


def _member_output(
    member: Member, store: FeatureStore, keys: Sequence[str], columns: Sequence[str], device: str
) -> tuple[np.ndarray, np.ndarray]:
    """A member's posteriors and logits, (N, C + A) each, their columns put in the model's order by name."""
    missing = [name for name in columns if name not in member.columns]
    if missing:
        raise ConfigError(f"{member.directory} predicts no {', '.join(missing)}, which the model reads; fit it again.")
    which = [member.columns.index(name) for name in columns]
    if not keys:
        return np.zeros((0, len(which)), np.float32), np.zeros((0, len(which)), np.float32)
    posteriors, logits = member.predict(store, keys, device=device)
    return posteriors[:, which], logits[:, which]


def _fused(
    model: Model,
    keys: tuple[str, ...],
    outputs: Sequence[tuple[np.ndarray, np.ndarray]],
    failed: tuple[tuple[str, str], ...],
) -> Predictions:
    """The meta-classifier's word on the members' outputs, or the one member's own."""
    posteriors = np.stack([output[POSTERIORS] for output in outputs])
    n_classes = len(model.classes)
    probabilities, attribute_values = posteriors[0, :, :n_classes], posteriors[0, :, n_classes:]
    names: tuple[str, ...] = tuple(member.config.name for member in model.members)
    if model.meta is not None and keys:
        read = LOGITS if model.meta.layer == "logits" else POSTERIORS
        columns = column_names(model.classes, model.attributes)
        values = np.stack([output[read] for output in outputs])
        aligned = Aligned(model.meta.members, keys, columns, values, ("",) * len(names))
        said = model.meta.predict(aligned)
        probabilities, attribute_values = said.probabilities, said.attributes
    return Predictions(
        keys, model.classes, model.attributes, probabilities, attribute_values, names, posteriors, failed
    )
