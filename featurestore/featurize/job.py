"""One feature set to be made: what the command, several processes and prediction all run."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path

from featurestore.augment.views import View, check_beside_clean
from featurestore.corpus.manifest import Manifest
from featurestore.encoders.base import Encoder
from featurestore.encoders.catalog import ENCODERS
from featurestore.encoders.device import computed_by
from featurestore.encoders.load import label_of, load_with
from featurestore.encoders.options import EncoderOptions
from featurestore.featurize.items import Texts
from featurestore.featurize.present import Again
from featurestore.featurize.run import FeaturizeReport, Progress, featurize
from featurestore.featurize.sharding import Shard
from featurestore.store.feature_store import FeatureStore


@dataclass(frozen=True)
class FeaturizeOptions:
    """How a run goes and how its rows are stored: the arguments of `featurize` by the same names."""

    batch_s: float | None = None
    workers: int | None = None
    format: str | None = None
    compress: str | None = None
    transcripts: Texts | None = None
    max_memory_gib: float | None = None
    verify_audio: bool = False
    again: Again | None = None


@dataclass(frozen=True)
class FeaturizeJob:
    """The feature set `name` of one manifest by one encoder, of its clean audio or through one view.

    What is given as a path or as options is opened by the process that runs the job, so that a job can be sent to
    another one; what is open already is used as it is.
    """

    manifest: Manifest | Path
    store: FeatureStore | Path | str
    name: str
    encoder: Encoder | EncoderOptions
    view: View | None = None
    options: FeaturizeOptions = field(default_factory=FeaturizeOptions)
    weights: Path | None = None  # where they lie, for the record of a new set

    def run(
        self,
        shard: Shard | None = None,
        device: str = "auto",
        progress: Progress | None = None,
        announce: Callable[[str], None] | None = None,
    ) -> FeaturizeReport:
        """Encode what the set lacks, of one part or of all; errors as in `load_encoder` and `featurize`.

        announce: takes where the encoder computes and how, once it is loaded.
        """
        manifest = Manifest.read(self.manifest) if isinstance(self.manifest, Path) else self.manifest
        store = self.store if isinstance(self.store, FeatureStore) else FeatureStore.open_or_create(self.store)
        is_new = self.name not in store
        if is_new:
            store.check_writable(self.name)
        encoder = load_with(self.encoder, device) if isinstance(self.encoder, EncoderOptions) else self.encoder
        if announce is not None:
            announce(", ".join(computed_by(encoder).values()))
        note = self.check_beside_clean(store, encoder)
        options = {each.name: getattr(self.options, each.name) for each in fields(self.options)}
        report = featurize(
            manifest,
            encoder,
            store,
            self.name,
            weights=self.weights,
            shard=shard,
            view=self.view,
            progress=progress,
            **options,
        )
        report.notes += [note] if note and is_new else []
        return report

    def check_beside_clean(self, store: FeatureStore, encoder: Encoder) -> str:
        """Raise ConfigError where this view does not fit the clean set that is there; returns a note, or ""."""
        if self.view is None or (clean := self.name.removesuffix(self.view.name(""))) not in store:
            return ""
        return check_beside_clean(self.name, clean, store[clean].spec, encoder.spec)


def jobs_of(
    manifest: Manifest | Path,
    store: FeatureStore | Path | str,
    encoder: EncoderOptions,
    *,
    name: str | None = None,
    views: Sequence[View] = (),
    options: FeaturizeOptions | None = None,
) -> list[FeaturizeJob]:
    """Return one job for each view, or the one of the clean set where there is no view.

    name: of the clean set, by default the encoder's name; a view's set is `view.name(name)`.
    """
    options = options or FeaturizeOptions()
    base = name or label_of(encoder.name)
    weights = encoder.weights
    if weights is None and encoder.name not in ENCODERS and Path(encoder.name).is_dir():
        weights = Path(encoder.name)
    return [
        FeaturizeJob(
            manifest,
            store,
            base if view is None else view.name(base),
            encoder,
            view,
            options,
            weights,
        )
        for view in (views or (None,))
    ]
