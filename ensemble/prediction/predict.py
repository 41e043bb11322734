"""New audio through the whole chain: transcripts where they are needed, every encoder, every member, the fusion."""

import re
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from deepser.probes.any_member import AnyMember
from deepser.training.normalise import Groups
from ensemble.evaluation.align import Aligned, column_names
from ensemble.fusion.kinds import predict_meta
from ensemble.fusion.state import MetaState
from ensemble.prediction.pieces import pieces_of
from ensemble.prediction.predictions import Predictions
from ensemble.prediction.sets import needed_sets, spec_of
from ensemble.prediction.speech_to_text import SpeechToText
from featurestore.corpus.manifest import Manifest
from featurestore.corpus.splits import speaker_groups
from featurestore.encoders import ENCODERS, Encoder, load_encoder
from featurestore.errors import ConfigError, EncoderError, SpecMismatch
from featurestore.featurize.job import FeaturizeJob, FeaturizeOptions
from featurestore.store.feature_store import FeatureStore

POSTERIORS, LOGITS = 0, 1  # of what Member.predict returns
CHUNK = 1000  # utterances whose features are on disk at once: about 2 GB for three large encoders and 5 s clips

Progress = Callable[[str, float, int], None]  # (what is going on, utterances done, utterances in all)


class Fusion(Protocol):
    """What predictions are made with: members, and the meta-classifier that reads them (None: one member alone).

    `ensemble.prediction.model.Model` is one, read from a directory.
    """

    @property
    def members(self) -> tuple[AnyMember, ...]: ...
    @property
    def meta(self) -> MetaState | None: ...
    @property
    def classes(self) -> tuple[str, ...]: ...
    @property
    def attributes(self) -> tuple[str, ...]: ...


def predict(
    model: Fusion,
    manifest: Manifest,
    *,
    weights: Mapping[str, Path] | None = None,
    asr: str | None = None,
    device: str = "auto",
    workers: int = 2,
    chunk: int = CHUNK,
    running: bool = False,
    progress: Progress | None = None,
) -> Predictions:
    """Predict as `predict_parts` does, and join the parts."""
    return Predictions.join(
        list(
            predict_parts(
                model, manifest, weights=weights, asr=asr, device=device, workers=workers, chunk=chunk,
                running=running, progress=progress,
            )
        )
    )  # fmt: skip


def predict_parts(
    model: Fusion,
    manifest: Manifest,
    *,
    weights: Mapping[str, Path] | None = None,
    asr: str | None = None,
    device: str = "auto",
    workers: int = 2,
    chunk: int = CHUNK,
    running: bool = False,
    progress: Progress | None = None,
) -> Iterator[Predictions]:
    """Predict every utterance of the manifest, `chunk` by `chunk`; one that fails is reported, and the rest is done.

    weights: directories of encoders' weights by feature set or encoder name, where they are no longer where they were
    when the members' features were made. asr: the speech recogniser for members that read text, see `speech_to_text`.
    Features go through a temporary store, `chunk` utterances at a time; each encoder is loaded once, and so are all of
    them together where there is more than one chunk. Where the manifest has speakers and a member is speaker-adapted,
    a speaker's utterances are predicted together, as far as a chunk holds them. running: of these each is normalised
    by those before it and itself, as a stream must be.
    Raises SpecMismatch when an encoder is not the one the members learned from, ConfigError when text is needed and
    its source is not given.
    """
    say = progress or (lambda what, done, total: None)
    sets = needed_sets(model.members)
    _refuse_missing_audio(sets, manifest)
    weights = dict(weights or {})
    unknown = sorted(set(weights) - {name for name, saved in sets.items() for name in (name, saved["spec"]["encoder"])})
    if unknown:
        raise ConfigError(
            f"--weights {unknown[0]}=...: the model reads no such feature set; it reads {', '.join(sets)}."
        )
    hearing = SpeechToText.of(sets, manifest, asr, device)
    job = _Job(model, sets, weights, hearing, device, workers, running, keep=len(manifest) > chunk)
    if job.keep:  # of a long job missing weights are reported now, not hours later
        for name in sets:
            say(f"loading {name}", 0, len(manifest))
            job.encoder(name)
    first = 0
    for rows in _chunks(model, manifest, chunk):
        part = manifest.rows(rows)

        def report_step(step: str, done: float, of: int, first: int = first) -> None:
            say(step, first + done, len(manifest))

        yield job.predict(part, report_step)
        first += len(rows)
    say("members", len(manifest), len(manifest))


@dataclass
class _Job:
    """One prediction of many utterances: what is loaded stays loaded from chunk to chunk."""

    model: Fusion
    sets: Mapping[str, Mapping[str, Any]]
    weights: Mapping[str, Path]
    hearing: SpeechToText
    device: str
    workers: int
    running: bool
    keep: bool
    encoders: dict[str, Encoder] = field(default_factory=dict)

    def predict(self, manifest: Manifest, say: Callable[[str, float, int], None]) -> Predictions:
        n, n_steps = len(manifest), len(self.sets) + self.hearing.needed
        failed: dict[str, str] = {}
        silent: set[str] = set()

        def show_step(title: str, step: int) -> Callable[..., None]:
            return lambda done, total, *rest: say(title, n * (step + done / max(total, 1)) / n_steps, n)

        transcribed = manifest
        if self.hearing.needed:
            say(f"loading {self.hearing.model}", 0, n)
            transcribed, unheard = self.hearing.texts(
                manifest, self.workers, show_step(f"hearing, {self.hearing.model}", 0)
            )
            failed |= unheard
        with tempfile.TemporaryDirectory(prefix="medusa-predict-") as directory:
            store = FeatureStore.create(Path(directory) / "store")
            for step, name in enumerate(self.sets, self.hearing.needed):
                table = transcribed if self.hearing.reads(name) else manifest
                good = table.rows(np.array([key not in failed for key in table.keys], bool))
                if not len(good):
                    break
                say(f"loading {name}", n * step / n_steps, n)
                encoder = self.encoder(name)
                job = FeaturizeJob(good, store, name, encoder, options=FeaturizeOptions(workers=self.workers))
                report = job.run(progress=show_step(name, step))
                failed |= dict(report.failed)
                silent |= set(report.constant)
            good = manifest.rows(np.array([key not in failed for key in manifest.keys], bool))
            keys, speakers = good.keys, speaker_groups(good).tolist()
            columns = column_names(self.model.classes, self.model.attributes)
            outputs = []
            for member in self.model.members:
                say(f"member {member.config.name}", n, n)
                outputs.append(_member_output(member, store, keys, speakers, columns, self.device, self.running))
        in_order = tuple((key, failed[key]) for key in manifest.keys if key in failed)
        predictions = _fused(self.model, tuple(keys), outputs, in_order)
        piece_of = pieces_of(good)
        clips = speaker_clips(speakers, self.running) if _adapted(self.model) else None
        pieces = tuple(piece_of.get(key) for key in keys)
        silent_keys = tuple(key for key in keys if key in silent)
        return replace(predictions, pieces=pieces, cut=manifest.has_pieces, speaker_clips=clips, silent=silent_keys)

    def encoder(self, name: str) -> Encoder:
        if name in self.encoders:
            return self.encoders[name]
        encoder = encoder_of(name, self.sets[name], weights=self.weights, device=self.device)
        if self.keep:
            self.encoders[name] = encoder
        return encoder


def encoder_of(name: str, saved: Mapping[str, Any], *, weights: Mapping[str, Path], device: str) -> Encoder:
    """Return the encoder that made the feature set `name`, with its settings.

    SpecMismatch when it can't be that one.
    """
    spec = spec_of(saved)
    if spec.kind == "posteriors":
        raise ConfigError(f"A member reads {name!r}, another member's posteriors; it can't predict new audio.")
    recorded = (saved.get("provenance") or {}).get("weights")
    weights_path = weights.get(name) or weights.get(spec.encoder) or (Path(recorded) if recorded else None)
    if weights_path is not None and not weights_path.exists():
        is_given = name in weights or spec.encoder in weights
        if is_given or spec.encoder not in ENCODERS:
            raise EncoderError(
                f"Feature set {name!r} was encoded with {spec.encoder}; its weights are not at {weights_path}. Say "
                f"where they are with --weights {name}=DIR."
            )
        weights_path = None  # the encoder is known by name; the fingerprint tells whether it is the same
    if weights_path is None and spec.encoder not in ENCODERS and "/" not in spec.encoder:
        raise EncoderError(
            f"Feature set {name!r} was encoded with {spec.encoder}, which is no encoder's name here. Say where its "
            f"weights are with --weights {name}=DIR."
        )
    extra = dict(spec.extra)
    encoder = load_encoder(
        spec.encoder,
        weights=weights_path,
        layers=layers_option(spec.layers),
        pool=spec.pool,
        dtype=spec.dtype,
        device=device,
        window=spec.window or None,
        compute=extra.get("compute", "float32"),
        source=spec.source,
        keep_special=extra.get("special_tokens") == "kept",
        prompt=extra.get("prompt", ""),
        keep_prompt=extra.get("prompt_rows") == "kept",
        short=extra.get("short", "error"),
    )
    if encoder.spec.fingerprint != saved["fingerprint"]:
        listed = "; ".join(spec.differences(encoder.spec)) or "the fingerprint alone"
        raise SpecMismatch(
            f"Feature set {name!r}: the encoder found now is not the one the members learned from ({listed}). Give the "
            f"same weights with --weights {name}=DIR, or fit the members on new features."
        )
    return encoder


def layers_option(layers: Sequence[str]) -> str:
    """Return the --layers text that gives these arrays: layer_02, layer_03 -> "2,3"; last4_sum -> "last4-sum"."""
    if len(layers) == 1 and re.fullmatch(r"last\d+_sum", layers[0]):
        return layers[0].replace("_", "-")
    return ",".join(str(int(layer.removeprefix("layer_"))) for layer in layers)


def _adapted(model: Fusion) -> bool:
    return any(member.speaker_adapted for member in model.members)


def speaker_clips(speakers: Sequence[str], running: bool = False) -> np.ndarray:
    """Return (n,) clips by which each one's speaker is normalised; 0 where the training corpus's statistics serve."""
    groups = Groups.running(speakers) if running else Groups.of(speakers)
    return np.where(groups.codes > 0, groups.n_clips[groups.codes], 0)


def _chunks(model: Fusion, manifest: Manifest, chunk: int) -> Iterator[np.ndarray]:
    """Yield the row indices of each chunk; a speaker's rows stay together where a member reads them so.

    What is more than a chunk is cut into parts of like size: a last part of one clip would be normalised by the
    training corpus, the others by their own.
    """
    if not _adapted(model) or not manifest.has("speaker"):
        yield from _parts(np.arange(len(manifest)), chunk)
        return
    rows: dict[str, list[int]] = {}
    for row, speaker in enumerate(speaker_groups(manifest).tolist()):
        rows.setdefault(speaker, []).append(row)
    pending: list[int] = []
    for speaker_rows in rows.values():
        if pending and len(pending) + len(speaker_rows) > chunk:
            yield np.array(pending)
            pending = []
        if len(speaker_rows) > chunk:
            yield from _parts(np.array(speaker_rows), chunk)
        else:
            pending += speaker_rows
    if pending:
        yield np.array(pending)


def _parts(rows: np.ndarray, chunk: int) -> Sequence[np.ndarray]:
    """Cut (n,) indices into as few parts of `chunk` at most as there can be, of like size."""
    return np.array_split(rows, -(-len(rows) // chunk)) if len(rows) else []


def _refuse_missing_audio(sets: Mapping[str, Mapping[str, Any]], manifest: Manifest) -> None:
    of_audio = [name for name, saved in sets.items() if saved["spec"]["kind"] == "audio"]
    if of_audio and not manifest.has("path"):
        raise ConfigError(f"The model reads audio (feature set {', '.join(of_audio)}), but the manifest has no 'path'.")


def _member_output(
    member: AnyMember,
    store: FeatureStore,
    keys: Sequence[str],
    speakers: Sequence[str] | None,
    columns: Sequence[str],
    device: str,
    running: bool,
) -> tuple[np.ndarray, np.ndarray]:
    """Return a member's posteriors and logits, (N, C + A) each, their columns put in the model's order by name."""
    missing = [name for name in columns if name not in member.columns]
    if missing:
        raise ConfigError(f"{member.directory} predicts no {', '.join(missing)}, which the model reads; fit it again.")
    indices = [member.columns.index(name) for name in columns]
    if not keys:
        return np.zeros((0, len(indices)), np.float32), np.zeros((0, len(indices)), np.float32)
    posteriors, logits = member.predict(store, keys, device=device, speakers=speakers, running=running)
    return posteriors[:, indices], logits[:, indices]


def _fused(
    model: Fusion,
    keys: tuple[str, ...],
    outputs: Sequence[tuple[np.ndarray, np.ndarray]],
    failed: tuple[tuple[str, str], ...],
) -> Predictions:
    """Return the meta-classifier's predictions from the members' outputs, or those of the only member."""
    posteriors = np.stack([output[POSTERIORS] for output in outputs])
    n_classes = len(model.classes)
    probabilities, attribute_values = posteriors[0, :, :n_classes], posteriors[0, :, n_classes:]
    names: tuple[str, ...] = tuple(member.config.name for member in model.members)
    if model.meta is not None and keys:
        read = LOGITS if model.meta.layer == "logits" else POSTERIORS
        columns = column_names(model.classes, model.attributes)
        values = np.stack([output[read] for output in outputs])
        aligned = Aligned(model.meta.members, keys, columns, values, ("",) * len(names))
        fused = predict_meta(model.meta, aligned)
        probabilities, attribute_values = fused.probabilities, fused.attributes
    return Predictions(
        keys, model.classes, model.attributes, probabilities, attribute_values, names, posteriors, failed
    )
