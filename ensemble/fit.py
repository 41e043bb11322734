"""Fitting an ensemble on members' posteriors in the store, and the table that says what each way of fusing is worth."""

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ensemble.align import LAYERS, OUT_OF_FOLD, column_names, load_posteriors, out_of_fold
from ensemble.config import MetaConfig
from ensemble.evaluation import PREFIX, fold_names, group_names, posteriors_name, shared_attributes, targets_of
from ensemble.meta import MetaClassifier, Prediction
from ensemble.meta_training import fit_meta
from ensemble.scoring import EnsembleReport, Fused, Problem, score
from featurestore.errors import ConfigError, ManifestError, StoreError
from featurestore.manifest import Manifest
from featurestore.spec import FeatureSpec
from featurestore.splits import group_folds
from featurestore.store import FeatureStore

MADE_BY = "fit-meta"
N_INNER_FOLDS = 5  # over which a meta-classifier fitted on development is cross-fitted to be scored there


def fit_ensemble(
    store: FeatureStore,
    manifest: Manifest,
    members: Sequence[str],
    *,
    name: str = "meta",
    config: MetaConfig | None = None,
    folds: str | None = None,
    in_sample: bool = False,
    directory: Path | None = None,
    progress: Callable[[str], None] | None = None,
) -> tuple[MetaClassifier, EnsembleReport]:
    """Fits a meta-classifier and its soup over members' posteriors, and scores members, votes, meta and soup.

    With a fold column, each fold is predicted by a meta-classifier fitted on the other folds' out-of-fold posteriors;
    the one returned is fitted on all. With splits, it is fitted on train where every member has out-of-fold posteriors
    of it, else on development, whose own scores are then cross-fitted (5 speaker-disjoint parts); every part but
    train is scored. folds=None takes the "split" column, or "fold" where there is none.

    The soup's predictions go to the store as posteriors/<name>, held-out rows alone; `directory` gets config.json,
    model.safetensors and report.json. members: feature sets, with or without "posteriors/". AlignmentError when a
    member lacks an utterance. Posteriors that a member made of its own training utterances are refused (ConfigError)
    unless in_sample is set, which is recorded.

    What remains in cross-fitted stacking: the posteriors of fold j come from a member that was trained on fold k, so a
    meta-classifier fitted on fold j, to predict fold k, has met fold k's labels through that member. A linear map with
    few weights can make little of it, but it is not nothing: only members trained anew inside each outer fold (nested
    cross-validation), or a test part that no member was trained on, are free of it.
    """
    chosen = tuple(posteriors_name(store, member) for member in members)
    if not chosen:
        raise ConfigError("An ensemble needs at least one member; name the members' posteriors.")
    if folds is None and not manifest.has("split"):
        if not manifest.has("fold"):
            raise ManifestError(
                f"Manifest {manifest.name} has neither a 'split' nor a 'fold' column; name a fold column."
            )
        folds = "fold"
    job = _Job(store, manifest, chosen, name, config or MetaConfig(), in_sample, progress or (lambda _: None))
    _check_name(store, PREFIX + name)
    meta, report, predictions = _by_split(job) if folds is None else _by_fold(job, folds)
    _store_predictions(store, PREFIX + name, meta, predictions, report, "none" if folds is None else "fold")
    if directory is not None:
        meta.save(directory)
        text = json.dumps(report.to_dict(), indent=2, ensure_ascii=False, allow_nan=False)
        (directory / "report.json").write_text(text + "\n", encoding="utf-8")
    return meta, report


@dataclass(frozen=True)
class _Job:
    """The arguments of one fit_ensemble call."""

    store: FeatureStore
    manifest: Manifest
    members: tuple[str, ...]
    name: str
    config: MetaConfig
    in_sample: bool
    say: Callable[[str], None]


_Predictions = list[tuple[tuple[str, ...], Prediction]]  # keys, and the soup's prediction of them


def _by_fold(job: _Job, column: str) -> tuple[MetaClassifier, EnsembleReport, _Predictions]:
    """Every fold predicted by a meta-classifier fitted on the others; the one returned is fitted on all."""
    folds = np.array(fold_names(job.manifest, column), dtype=object)
    inside = _in_sample_members(job)
    problem = _load(job, job.manifest)
    fused = _cross_fit(problem, folds, job)
    job.say("fitting on all folds")
    meta = _fit(problem, job.config).soup()
    rows, evaluation = score(problem, fused, job.config, folds)
    divided = sum(len(set(folds[problem.groups == group])) > 1 for group in set(problem.groups))
    notes = [f"{divided} speakers are in more than one fold, so these scores are not speaker-independent."]
    report = EnsembleReport(
        name=job.name,
        members=job.members,
        fitted_on=f"the other folds of column {column!r}",
        n_fitted=len(job.manifest),
        in_sample=bool(inside),
        notes=(*(notes if divided else []), *_in_sample_note(inside)),
        parts={"all folds": rows},
        evaluations={"all folds": evaluation},
    )
    return meta, report, [(problem.targets.keys, fused.soup)]


def _by_split(job: _Job) -> tuple[MetaClassifier, EnsembleReport, _Predictions]:
    """Fitted on train where members have out-of-fold posteriors of it, else on development; the other parts scored."""
    split = job.manifest.column("split")
    there = sorted({part for part in split if part is not None})
    made = [out_of_fold(job.store[member].spec) for member in job.members]
    full = all(how == "fold" or (job.in_sample and how not in OUT_OF_FOLD) for how in made)
    on_train = "train" in there and full
    inside = _in_sample_members(job)
    fit_part = "train" if on_train else "development"
    if fit_part not in there:
        raise ManifestError(
            f"Manifest {job.manifest.name} has no split 'development', and not every member has out-of-fold posteriors "
            f"of 'train', so there is nothing to fit on (splits: {', '.join(there)}). Fit members over folds of train."
        )
    used = [part for part in there if part != "train" or on_train]
    rows = np.array([part in used for part in split])
    problem, parts = _load(job, job.manifest.rows(rows)), split[rows]
    job.say(f"fitting on {fit_part}")
    every_seed = _fit(problem.rows(parts == fit_part), job.config)
    tables, evaluations, predictions = {}, {}, []
    for part in used:
        if part == "train":
            continue
        own = problem.rows(parts == part)
        fused = _cross_fit(own, _inner_folds(own), job) if part == fit_part else _predict(every_seed, own)
        predictions.append((own.targets.keys, fused.soup))
        if (own.targets.labels >= 0).any():  # a challenge's test part may have no labels: predicted, not scored
            tables[part], evaluations[part] = score(own, fused, job.config, None)
    notes = [
        "Not every member has out-of-fold posteriors of train, so the meta-classifier is fitted on development; "
        "its scores there are cross-fitted over speaker-disjoint parts."
    ]
    report = EnsembleReport(
        name=job.name,
        members=job.members,
        fitted_on=fit_part,
        n_fitted=int((parts == fit_part).sum()),
        in_sample=bool(inside),
        notes=(*([] if on_train else notes), *_in_sample_note(inside)),
        parts=tables,
        evaluations=evaluations,
    )
    return every_seed.soup(), report, predictions


def _load(job: _Job, manifest: Manifest) -> Problem:
    attributes = shared_attributes(job.store, manifest, job.members[0])
    columns = column_names(manifest.scheme.classes, attributes)
    posteriors = load_posteriors(job.store, job.members, manifest.keys, columns=columns)
    inputs = posteriors
    if job.config.inputs == "logits":
        inputs = load_posteriors(job.store, job.members, manifest.keys, "logits", columns)
    return Problem(posteriors, inputs, targets_of(manifest, attributes), group_names(manifest))


def _fit(problem: Problem, config: MetaConfig) -> MetaClassifier:
    held_out = None
    if config.select == "macro_f1":
        held_out = group_folds(problem.groups.tolist(), max(2, round(1 / config.held_out))) == 0
    return fit_meta(problem.inputs, problem.targets, config, held_out)


def _predict(meta: MetaClassifier, problem: Problem) -> Fused:
    seeds = tuple(meta.predict(problem.inputs, s) for s in range(len(meta.weight)))
    return Fused(seeds, meta.soup().predict(problem.inputs))


def _inner_folds(problem: Problem) -> np.ndarray:
    """(N,) speaker-disjoint parts, or parts by utterance where all are of one speaker."""
    groups = problem.groups.tolist()
    if len(set(groups)) == 1:
        groups = list(problem.targets.keys)
    return group_folds(groups, min(N_INNER_FOLDS, len(set(groups)))).astype(str).astype(object)


def _cross_fit(problem: Problem, folds: np.ndarray, job: _Job) -> Fused:
    """Every fold predicted by a meta-classifier fitted on the others, put back into the order of all rows."""
    at, parts = [], []
    for fold in sorted(set(folds)):
        job.say(f"fold {fold}")
        at.append(np.flatnonzero(folds == fold))
        parts.append(_predict(_fit(problem.rows(folds != fold), job.config), problem.rows(folds == fold)))
    back = np.argsort(np.concatenate(at))

    def join(own: list[Prediction]) -> Prediction:
        fields = ("logits", "probabilities", "attributes")
        return Prediction(*(np.concatenate([getattr(p, name) for p in own])[back] for name in fields))

    seeds = tuple(join([fused.seeds[s] for fused in parts]) for s in range(len(job.config.seeds)))
    return Fused(seeds, join([fused.soup for fused in parts]))


def _in_sample_members(job: _Job) -> list[str]:
    """Members whose posteriors may come from models that saw these utterances; refused unless asked for."""
    inside = [member for member in job.members if out_of_fold(job.store[member].spec) not in OUT_OF_FOLD]
    if inside and not job.in_sample:
        raise ConfigError(
            f"The posteriors of {', '.join(inside)} are not recorded as out of fold: they may come from a model that "
            "was trained on the same utterances, and a meta-classifier would learn its overconfidence. Fit these "
            "members over folds, or ask for in-sample posteriors by name."
        )
    return inside


def _in_sample_note(inside: list[str]) -> list[str]:
    return [f"In-sample posteriors were used, as asked for: {', '.join(inside)}."] if inside else []


def _check_name(store: FeatureStore, name: str) -> None:
    """An earlier ensemble's posteriors are replaced, anything else is kept: told before the work, not after."""
    if name in store and store[name].provenance.get("made_by") != MADE_BY:
        raise StoreError(
            f"{name!r} in {store.path} was not written by an ensemble and is kept; give the ensemble another name."
        )


def _store_predictions(
    store: FeatureStore,
    name: str,
    meta: MetaClassifier,
    predictions: _Predictions,
    report: EnsembleReport,
    made: str,
) -> None:
    """Writes the soup's predictions as a feature set, in place of those an earlier fit wrote under this name."""
    columns = column_names(meta.classes, tuple(meta.attributes))
    digest = hashlib.sha256(meta.weight.numpy().tobytes() + meta.bias.numpy().tobytes()).hexdigest()
    made = "in-sample" if report.in_sample else made
    spec = FeatureSpec(
        kind="posteriors",
        encoder=name.removeprefix(PREFIX),
        weights=f"sha256:{digest[:16]}",
        layers=LAYERS,
        dim=len(columns),
        dtype="float32",
        columns=columns,
        extra=(("oof", made), ("fitted_on", report.fitted_on), ("members", ",".join(report.members))),
    )
    if name in store:
        store.remove(name)
    with store.writer(name, spec, provenance={"made_by": MADE_BY}) as writer:
        for keys, p in predictions:
            posteriors = np.concatenate([p.probabilities, p.attributes], 1)[:, None]
            logits = np.concatenate([p.logits, p.attributes], 1)[:, None]
            for key, *layers in zip(keys, posteriors, logits, strict=True):
                writer.append(key, layers)
