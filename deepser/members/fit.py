"""Fits members over their folds into run directories, then writes their posteriors into the store."""

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from deepser.config import MemberConfig, TrainConfig
from deepser.members import held_out
from deepser.members.folds import FoldPlan
from deepser.members.held_out import Parts, parts_of
from deepser.members.member import Member, PosteriorMean
from deepser.members.posteriors import check_place, is_finished, posteriors_name, write_posteriors
from deepser.members.run_directory import fitting_alone, open_directory, record_start, remove_directory
from deepser.members.sources import check_sources_once, check_view_sources, refuse_mixed
from deepser.training import train as trainer
from deepser.training.checkpoint import load_weights, save_atomically
from deepser.training.data import TrainingData
from deepser.training.normalise import SAVED, Groups, Normalisation, without_prior
from deepser.training.processes import World
from deepser.training.run import Job
from deepser.training.targets import Targets
from deepser.training.together import SharedReader, bucket_lengths, stream_key
from deepser.training.train import History
from deepser.training.views import Views, is_audio, resolve_views, view_name
from featurestore.corpus.manifest import Manifest
from featurestore.errors import ConfigError
from featurestore.loaders.batch_loader import FeatureRef
from featurestore.runtime.device import describe_device, one_thread, pick_device
from featurestore.runtime.durable import replace_text, writing
from featurestore.sets.feature_set import FeatureSet
from featurestore.store.feature_store import FeatureStore

# Below this width one CPU thread is the faster: at d = 96 an epoch of the demo took 0.38 s on one, 0.80 s on two.
MANY_THREADS_D = 256

Progress = Callable[[str, int, int, str], None]  # (fold name, steps done, steps in all, what is going on)
OnEpoch = Callable[[str, str, History], None]  # (member, fold, records of its epochs so far, the last one is new)


def fit_members(
    store: FeatureStore,
    manifest: Manifest,
    configs: Sequence[MemberConfig],
    plan: FoldPlan,
    directories: Sequence[Path | str],
    *,
    world: World | None = None,
    at_once: int = 0,
    overwrite: bool = False,
    into: FeatureStore | None = None,
    progress: Progress | None = None,
    on_epoch: OnEpoch | None = None,
) -> list[Member]:
    """Fit members' fold models, then write `posteriors/<name>` into the store; all are continued where they stopped.

    Members that agree in what is read, and when, are trained and judged on one reading of the store
    (`together.sharing` makes members agree), `at_once` at most (0: all), with the result of fitting each alone. What is
    finished is not fitted again.
    world: the processes that fit together, by default this one (`processes.joined` gives torchrun's); the first writes.
    into: another store for the posteriors than the features'. progress, on_epoch: called in the first process.
    Raises ConfigError when a directory holds a member with other settings, features or labels, listing each difference;
    `overwrite` starts it anew.
    """
    world, into = world or World(device=pick_device("auto")), store if into is None else into
    twice = [name for name, n in Counter(config.name for config in configs).items() if n > 1]
    if twice:
        raise ConfigError(f"Two members are called {twice[0]!r}; a member's name is its run directory's.")
    opening = _Opening(store.keeping_sets(), manifest, plan, world)
    members = [opening.fit(config, Path(directory)) for config, directory in zip(configs, directories, strict=True)]
    known_held_out: held_out.Known = {}
    states = world.once(lambda: [_is_left(into, fit, plan, overwrite, manifest, known_held_out) for fit in members])
    fits = [replace(fit, earlier=earlier) for fit, (is_left, earlier) in zip(members, states, strict=True) if is_left]
    with ExitStack() as locks:
        world.once(lambda: [locks.enter_context(fitting_alone(fit.member.directory)) for fit in fits])
        _fit_all(fits, plan, manifest, world, at_once, known_held_out, progress, on_epoch)
        for fit in fits if world.first else ():
            write_posteriors(into, fit.member, plan, fit.targets, fit.total)
    return [fit.member for fit in members]


def _fit_all(
    fits: Sequence["_Fit"],
    plan: FoldPlan,
    manifest: Manifest,
    world: World,
    at_once: int,
    known_held_out: held_out.Known,
    progress: Progress | None,
    on_epoch: OnEpoch | None,
) -> None:
    """Fit what is left of each member's fold models."""
    places = world.gather(describe_device(world.device))
    for fit in fits if world.first else ():
        record_start(fit.member.directory, places, fit.member.config.train.precision)
    reader = SharedReader()
    if fits:
        as_stored = [replace(fit.data, normalisation=None) if fit.data.normalisation else fit.data for fit in fits]
        world.once(lambda: reader.union(as_stored).scan(fits[0].member.config.train.stride))
    for fold in range(len(plan.names)):
        groups = _groups(fits, plan, fold, manifest, at_once, known_held_out)
        for i, group in enumerate(groups):
            show = None if progress is None else _of_group(progress, plan.names[fold], i, len(groups))
            small = max(fit.member.config.network.d for fit, _ in group) < MANY_THREADS_D
            with one_thread() if world.device.type == "cpu" and small else nullcontext():
                _fit_fold(group, plan, fold, world, reader, show, on_epoch)


@dataclass(frozen=True, eq=False)
class _Fit:
    """A member that is being fitted."""

    member: Member
    data: TrainingData
    total: PosteriorMean
    rows: dict[str, str]  # digests of the rows that are learned from, by feature set
    earlier: bool = False  # the run was begun by a version that kept no record of who is held out

    @property
    def targets(self) -> Targets:
        return self.data.targets


@dataclass(frozen=True, eq=False)
class _Opening:
    """Opens members on one manifest: what several read, or learn from, is read and checked once."""

    store: FeatureStore  # keeps its sets
    manifest: Manifest
    plan: FoldPlan
    world: World
    _targets: dict[tuple[bool, bool], Targets] = field(default_factory=dict)
    _checked: set[str] = field(default_factory=set)
    _checked_records: set[bytes] = field(default_factory=set)
    _views: dict[Any, Views] = field(default_factory=dict)
    _rows: dict[Any, dict[str, str]] = field(default_factory=dict)
    _normalisations: dict[tuple[str, float], Normalisation] = field(default_factory=dict)

    def fit(self, config: MemberConfig, directory: Path) -> _Fit:
        """Return a member that is ready to be fitted; ConfigError where its features or labels don't do."""
        store = self.store
        train = replace(config.train, precision=self.world.one_precision(config.train.precision))
        train = replace(train, views=resolve_views(store, config.features, train.views))
        config = replace(config, train=train)
        targets = self.targets(train)
        _check_attributes(train, targets)
        refs, layers, inputs, specs = [], [], [], []
        for text in config.features:
            ref = FeatureRef.parse(text)
            features = store[ref.name]
            self.check(features, targets)
            read = ref.resolve(features)
            refs.append(FeatureRef(ref.name, read))
            layers.append(read)
            inputs.append((len(read), features.dim))
            specs.append({"name": ref.name, "fingerprint": features.spec.fingerprint, "spec": features.spec.to_json(),
                          "provenance": features.provenance})  # fmt: skip
        member = Member(config, targets.classes, targets.attributes, targets.attribute_ranges, tuple(inputs),
                        tuple(layers), tuple(specs), directory)  # fmt: skip
        member.timing()  # a set of times that is not among the features is reported now
        views = (tuple(refs), train.views)
        if views not in self._views:
            self._views[views] = Views.of(store, refs, train.views, targets.keys)
            self.check_views(refs, self._views[views], targets.keys)
        normalisation = self.normalisation(train, refs, targets.keys, directory)
        data = TrainingData(store, tuple(refs), targets, self._views[views], normalisation)
        bucket_lengths(data, train)  # a set to cut batches by that is not there, or lacks keys, is reported now
        if views not in self._rows:
            self._rows[views] = _rows_digests(data)
        return _Fit(member, data, PosteriorMean(len(targets.keys), len(member.columns)), self._rows[views])

    def targets(self, train: TrainConfig) -> Targets:
        """Return the training data of members with these settings."""
        identity = (train.targets == "vote-dropping", train.learns_attributes)
        if identity not in self._targets:
            targets = Targets.from_manifest(self.manifest, ratings=identity[0])
            if not train.learns_attributes:
                targets = targets.without_attributes()  # else the posteriors would hold an untrained layer's
            # Of what nobody rated nothing is learned, nor by the model of a fold outside which nobody did.
            folds = range(len(self.plan.names))
            self._targets[identity] = targets.rated([self.plan.train_at(fold) for fold in folds])
        return self._targets[identity]

    def normalisation(
        self, train: TrainConfig, refs: Sequence[FeatureRef], keys: Sequence[str], directory: Path
    ) -> Normalisation | None:
        """Return the normalisation of these settings, with the statistics of all layers read; None for "none".

        They are those of the run directory, if it has some of the same clips and features.
        """
        if train.normalise == "none":
            return None
        # A corpus needs no shrinking here; new audio of it, of which there may be a clip or two, does in `predict`.
        identity = (train.normalise, train.shrinkage if train.normalise == "speaker" else 0.0)
        if identity not in self._normalisations:
            self._normalisations[identity] = Normalisation(
                identity[0], Groups.named(identity[0], self.manifest), identity[1]
            )
        cached = self._normalisations[identity]
        store, path, made_of = self.store, directory / f"{SAVED}.safetensors", _made_of(self.store, refs, keys)

        def make() -> tuple[Any, Any]:
            if not cached.restore(path, refs, made_of):
                cached.prepare(store, refs, keys)
            return cached.statistics, cached.priors

        cached.statistics, cached.priors = self.world.once(make)
        return cached

    def check_views(self, refs: Sequence[FeatureRef], views: Views, keys: Sequence[str]) -> None:
        """Raise IdentityMismatch where a view is not of the audio that the set beside it is of."""
        for ref in refs:
            for label, exists, partner in zip(views.labels, views.exists, views.partner, strict=True):
                if is_audio(self.store, ref.name):
                    clean, view = self.store[ref.name], self.store[view_name(ref.name, label)]
                    check_view_sources(self.manifest, clean, view, keys, np.flatnonzero(exists), partner)

    def check(self, features: FeatureSet, targets: Targets) -> None:
        """Raise ConfigError where the set lacks an utterance, IdentityMismatch where it has another of that name."""
        if features.name in self._checked:
            return
        refuse_mixed(features)
        missing = features.missing(targets.keys)
        if missing:
            raise ConfigError(
                f"Feature set {features.name!r} lacks {len(missing)} of the manifest's {len(targets.keys)} utterances "
                f"({', '.join(missing[:3])}...). Run `medusa featurize` for them, or leave them out of the manifest."
            )
        check_sources_once(self.manifest, features, self._checked_records)
        self._checked.add(features.name)


def _is_left(
    into: FeatureStore, fit: _Fit, plan: FoldPlan, overwrite: bool, manifest: Manifest, known_held_out: held_out.Known
) -> tuple[bool, bool]:
    """Open the run directory; is there anything left to do, and was it begun without a record of who is held out?"""
    member = fit.member
    if overwrite:
        remove_directory(member.directory)
        if posteriors_name(member.config.name) in into:
            into.remove(posteriors_name(member.config.name))
    check_place(into, member, plan)
    normalisation = fit.data.normalisation
    open_directory(
        member, fit.targets, plan, fit.data.views,
        lambda: held_out.record(member, fit.targets, manifest, plan, known_held_out),
        rows=fit.rows,
        normalisation=None if normalisation is None else normalisation.to_json(),
    )  # fmt: skip
    path = member.directory / f"{SAVED}.safetensors"
    if normalisation is not None and not path.is_file():
        normalisation.save(path, fit.data.refs, _made_of(fit.data.store, fit.data.refs, fit.targets.keys))
    earlier = not (member.directory / held_out.NAME).is_file()
    return not is_finished(into, member, plan, fit.targets), earlier


def _made_of(store: FeatureStore, refs: Sequence[FeatureRef], keys: Sequence[str]) -> dict[str, str]:
    """Return the origin of features' statistics: each set's fingerprint and rows, and the utterances."""
    digest = hashlib.blake2b("\n".join(keys).encode(errors="surrogatepass"), digest_size=8).hexdigest()
    made_of = {"utterances": digest}
    for ref in refs:
        features = store[ref.name]
        made_of[ref.name] = f"{features.spec.fingerprint} {features.rows_digest(keys, ref.layers)}"
    return made_of


def _rows_digests(data: TrainingData) -> dict[str, str]:
    """Return digests of the rows that are learned from, by feature set: of all utterances, and of their views."""
    store, keys = data.store, list(data.targets.keys)
    digests = {ref.name: store[ref.name].rows_digest(keys, ref.layers) for ref in data.refs}
    for ref in data.refs:
        for label, exists in zip(data.views.labels, data.views.exists, strict=True):
            if is_audio(store, ref.name):
                name = view_name(ref.name, label)
                digests[name] = store[name].rows_digest([keys[i] for i in np.flatnonzero(exists)], ref.layers)
    return digests


def _groups(
    fits: Sequence[_Fit], plan: FoldPlan, fold: int, manifest: Manifest, at_once: int, known_held_out: held_out.Known
) -> list[list[tuple[_Fit, Parts]]]:
    """Return the members that share a stream of batches, in groups of `at_once` at most."""
    streams: dict[Any, list[tuple[_Fit, Parts]]] = {}
    for fit in fits:
        parts = parts_of(
            fit.member, fit.targets, manifest, plan.train_at(fold), earlier=fit.earlier, choices=known_held_out
        )
        threads = fit.member.config.network.d < MANY_THREADS_D
        key = (threads, stream_key(fit.data, parts.train_at, parts.dev_at, parts.config))
        streams.setdefault(key, []).append((fit, parts))
    return [group[i : i + (at_once or len(group))] for group in streams.values()
            for i in range(0, len(group), at_once or len(group))]  # fmt: skip


def _of_group(progress: Progress, fold: str, i: int, n: int) -> trainer.Progress:
    """Return the progress of a fold while group `i` of `n` trains."""
    return lambda done, total, what: progress(fold, i * total + done, n * total, what)


def _fit_fold(
    group: Sequence[tuple[_Fit, Parts]],
    plan: FoldPlan,
    fold: int,
    world: World,
    reader: SharedReader,
    progress: trainer.Progress | None,
    on_epoch: OnEpoch | None,
) -> None:
    """Train the members' models of one fold where they aren't there, and add what they say of those it judges."""
    name = plan.names[fold]
    networks, jobs = [], []
    for fit, parts in group:
        config, directory = fit.member.config, fit.member.directory / f"fold-{name}"
        torch.manual_seed(int(np.random.SeedSequence((config.train.seed, 77, fold)).generate_state(1)[0]))
        network = fit.member.new_network()
        saved = world.once(lambda directory=directory: _saved(directory))  # type: ignore[misc]
        if saved is None:
            jobs.append(Job(network, fit.data, parts.train_at, parts.dev_at, parts.config, directory, config.name))
        else:
            network.load_state_dict(saved)
        networks.append(network)
    if jobs:

        def record(job: Job, history: History) -> None:
            text = "".join(json.dumps(row) + "\n" for row in history)
            path = job.directory / "metrics.jsonl"
            with writing(path, ConfigError):
                replace_text(path, text)
            if on_epoch is not None:
                on_epoch(job.name, name, history)

        trainer.train(jobs, world, reader, progress=progress, on_epoch=record)
        world.once(lambda: _save(jobs))
    members = [fit for fit, _ in group]
    first, configs = members[0], [fit.member.config.train for fit in members]
    judged, lengths = plan.judged_at(fold), bucket_lengths(first.data, configs[0])
    predictions = trainer.predict(
        networks, [fit.data for fit in members], judged, configs, world, reader, lengths
    )  # fmt: skip
    for fit, outputs in zip(members, predictions, strict=True):
        fit.total.add(judged, *outputs)


def _saved(directory: Path) -> dict[str, torch.Tensor] | None:
    """Return a fold's fitted weights, if they are there; else its directory is."""
    directory.mkdir(exist_ok=True)
    path = directory / "model.safetensors"
    return without_prior(load_weights(path))[0] if path.exists() else None


def _save(jobs: Sequence[Job]) -> None:
    for job in jobs:
        tensors = dict(job.network.state_dict())
        if job.data.normalisation is not None:  # new audio is normalised towards it
            tensors |= job.data.normalisation.prior_tensors(job.data.refs)
        save_atomically(tensors, job.directory / "model.safetensors")
        (job.directory / "checkpoint.safetensors").unlink(missing_ok=True)


def _check_attributes(config: TrainConfig, targets: Targets) -> None:
    """Raise ConfigError when a stage learns or is selected by attributes that the corpus does not have."""
    attribute_names = ", ".join(targets.attributes) or "none"
    for stage in config.stages:
        rule = config.rule(stage)
        if not stage.loss.classification_weight and not targets.attributes:
            raise ConfigError(f"{stage.name} learns attributes alone, and the manifest has no attr_<attribute> column.")
        if (rule == "mean_ccc" and not targets.attributes) or (
            rule.startswith("ccc:") and rule.removeprefix("ccc:") not in targets.attributes
        ):
            raise ConfigError(f"--select {rule}: there is no such attribute to learn; there is {attribute_names}.")
