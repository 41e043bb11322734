"""Fitting an ensemble on members' posteriors in the store, and the table that compares the ways of fusing."""

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from deepser.members.posteriors import NORMALISED_BY, origins
from deepser.members.scales import ATTRIBUTE_RANGES, pack_ranges
from deepser.scores.metrics import Evaluation, ScoreRow
from ensemble.evaluation.align import LAYERS, PREFIX, column_names
from ensemble.evaluation.confidence import confidence_notes
from ensemble.evaluation.posteriors import adapted_notes, corpus_normalised, shared_attributes, speaker_adapted
from ensemble.evaluation.protocol import check_protocol, made_of
from ensemble.evaluation.systems import ADAPTED, MEMBER_WEIGHTS
from ensemble.fusion.config import AnyConfig, AutoConfig, MetaConfig
from ensemble.fusion.cross_fit import CrossFit, cross_fit, one_speaker_notes
from ensemble.fusion.division import Division, divide, members_of
from ensemble.fusion.fit_report import EnsembleReport, beaten_by, member_rows, scored, technique_rows, worth_scoring
from ensemble.fusion.held_out import held_out_of
from ensemble.fusion.kinds import save_meta
from ensemble.fusion.learned import Learned, learned
from ensemble.fusion.problem import Problem, load_problem, unread_classes
from ensemble.fusion.selection import Rule, everyone
from ensemble.fusion.state import LINEAR, MetaState
from ensemble.fusion.techniques import Technique, candidates_of, technique, techniques_of
from featurestore.corpus.cross_corpus import CrossCorpus
from featurestore.corpus.made_on import MADE_ON, pack
from featurestore.corpus.manifest import Manifest
from featurestore.corpus.protocol import ProtocolReport
from featurestore.errors import ConfigError, StoreError
from featurestore.format.spec import FeatureSpec
from featurestore.runtime.durable import check_directory, replace_text, writing
from featurestore.runtime.weights_digest import weights_digest
from featurestore.store.feature_store import FeatureStore

MADE_BY = "fit-meta"
CHOSEN = "members"  # the one column of `cross_fit`


def fit_ensemble(
    store: FeatureStore,
    manifest: Manifest,
    members: Sequence[str],
    *,
    name: str = "meta",
    config: AnyConfig | None = None,
    select: Rule | None = None,
    folds: str | None = None,
    in_sample: bool = False,
    directory: Path | None = None,
    progress: Callable[[str], None] | None = None,
    protocol: ProtocolReport | None = None,
) -> tuple[MetaState, EnsembleReport]:
    """Fit a meta-classifier over members' posteriors, and score members, votes and meta-classifier.

    `ensemble.fusion.division.divide` decides which rows are fitted and which are scored; the two never overlap.
    config: linear with a soup, an MLP (hidden > 0), a forest, a ridge regression, a vote, or a choice among several.
    select: chooses among the members, anew on the fitting rows of every pass.

    The predictions go to the store as posteriors/<name>, held-out rows alone; `directory` gets config.json,
    model.safetensors and report.json. members: feature sets, with or without "posteriors/". AlignmentError when a
    member lacks an utterance, ConfigError for in-sample posteriors that aren't asked for. protocol: what the check of
    folds or splits found, made here by default (ProtocolError where members were made on others).
    """
    names = members_of(store, members)
    if protocol is None:
        protocol = check_protocol(manifest, folds, made_of(store, names))
        protocol.refuse()
    division = divide(store, manifest, names, folds, in_sample)
    way = technique(config or MetaConfig())
    _check_name(store, PREFIX + name)
    if directory is not None:
        with writing(directory, ConfigError):
            check_directory(directory)
    problem = load_problem(store, division.manifest, names, logits=way.logits)
    ways = list(techniques_of("majority,soft"))
    ways += candidates_of(config) if isinstance(config, AutoConfig) else []
    ways = [each for each in {each.name: each for each in ways}.values() if each.name != way.name]
    judged = cross_fit(problem, division, {CHOSEN: select or everyone}, [*ways, way], progress=progress)
    meta = judged.fitted[CHOSEN, way.name].meta
    chosen = {problem.members[m] for each in judged.chosen[CHOSEN].values() for m in each.members}
    in_use = sorted(chosen | set(meta.members))
    report = _report(
        problem, division, judged, [*ways, way], meta, name, selected=select is not None,
        adapted=speaker_adapted(store, names), adapted_as=adapted_notes(store, in_use),
    )  # fmt: skip
    report = replace(report, notes=(*report.notes, *unread_classes(store, manifest, names)))
    unrated = [a for a in shared_attributes(store, manifest, names[0]) if a not in problem.targets.attributes]
    if unrated:
        note = f"No output for {', '.join(unrated)}, which nobody rated."
        report = replace(report, notes=(*report.notes, note))
    report = replace(report, notes=(*report.notes, *one_speaker_notes(problem, division.passes, [way])))
    report = replace(report, protocol=protocol.to_dict(), held_out=_held_out(problem, division, config or MetaConfig()))
    corpora = CrossCorpus.of_manifest(manifest) if folds is None else None
    rule = corpora.rule if corpora else division.column if division.folds is None else f"cv:{division.column}"
    _store_predictions(store, PREFIX + name, meta, division, judged, way, problem, report, in_use, rule)
    if directory is not None:
        save_meta(directory, meta)
        text = json.dumps(report.to_dict(), indent=2, ensure_ascii=False, allow_nan=False)
        path = directory / "report.json"
        with writing(path, ConfigError):
            replace_text(path, text + "\n")
    return meta, report


def _report(
    problem: Problem,
    division: Division,
    judged: CrossFit,
    ways: Sequence[Technique],
    meta: MetaState,
    name: str,
    selected: bool,
    adapted: Sequence[str],
    adapted_as: Sequence[str],
) -> EnsembleReport:
    tables: dict[str, tuple[ScoreRow, ...]] = {}
    beaten: list[str] = []
    evaluations: dict[str, Evaluation] = {}
    for part in division.parts:
        rows = division.rows(part)
        of_part, folds = problem.rows(rows), division.folds_of(part)
        if not worth_scoring(of_part):
            continue
        table = member_rows(of_part, folds)
        table = [_marked(row) if name in adapted else row for row, name in zip(table, problem.members, strict=True)]
        for way in ways:
            rows_of = technique_rows(of_part, way, judged.predictions[CHOSEN, way.name][part], folds)
            table += [_marked(row) for row in rows_of] if adapted_as else rows_of
        whole = judged.predictions[CHOSEN, ways[-1].name][part].whole
        beaten += beaten_by(part, table)
        tables[part], evaluations[part] = tuple(table), scored(of_part, whole.probabilities, whole.attributes, folds)
    notes = list(division.notes)
    for part in tables:
        fused, names = judged.predictions[CHOSEN, ways[-1].name][part].whole, division.folds_of(part)
        notes += [] if names is None else confidence_notes(fused.probabilities, names)
    notes += adapted_as
    notes += beaten
    chosen: dict[str, tuple[str, ...]] = {}
    if selected:
        chosen = {
            each: tuple(problem.members[m] for m in selection.members)
            for each, selection in judged.chosen[CHOSEN].items()
        }
        notes.append(f"Members were chosen in every pass anew; of all: {', '.join(meta.members)}.")
    choices = judged.choices.get((CHOSEN, ways[-1].name), {})
    if choices:
        listed = "; ".join(f"{each}: {choice.name}" for each, choice in choices.items())
        notes.append(f"Chosen inside each fitting part by its held-out score: {listed}.")
    return EnsembleReport(
        name=name,
        members=meta.members,
        fitted_on=division.fitted_on,
        n_fitted=division.n_fitted,
        in_sample=bool(division.in_sample),
        notes=tuple(notes),
        parts=tables,
        evaluations=evaluations,
        chosen=chosen,
        learned=_learned(meta, problem, division),
        choices={each: {"chosen": own.name, "held_out": own.scores} for each, own in choices.items()},
    )


def _marked(row: ScoreRow) -> ScoreRow:
    return replace(row, name=f"{row.name}, {ADAPTED}")


def _held_out(problem: Problem, division: Division, config: AnyConfig) -> dict[str, Any]:
    """Who chose the rounds, by pass; nothing where no rounds are chosen."""
    if not isinstance(config, MetaConfig):
        return {}
    held_out = {each.name: held_out_of(problem.rows(each.fit), config) for each in division.passes}
    return {name: own.to_dict(problem.targets.classes) for name, own in held_out.items() if own is not None}


def _learned(meta: MetaState, problem: Problem, division: Division) -> Learned | None:
    if meta.kind != LINEAR:
        return None
    fitted = problem.rows(division.passes[-1].fit)
    return learned(meta, fitted.choose([problem.members.index(member) for member in meta.members]))


def _check_name(store: FeatureStore, name: str) -> None:
    """Raise before the work if the name belongs to anything but an earlier ensemble's posteriors."""
    store.check_writable(name)
    if name in store and store[name].provenance.get("made_by") != MADE_BY:
        raise StoreError(
            f"{name!r} in {store.path} was not written by an ensemble and is kept; give the ensemble another name."
        )


def _store_predictions(
    store: FeatureStore,
    name: str,
    meta: MetaState,
    division: Division,
    judged: CrossFit,
    way: Technique,
    problem: Problem,
    report: EnsembleReport,
    in_use: Sequence[str],
    rule: str,
) -> None:
    """Write the predictions as a feature set, in place of those an earlier fit wrote under this name.

    in_use: the members that any of the fits has.
    """
    columns = column_names(meta.classes, tuple(meta.attributes))
    out_of_fold_by = "in-sample" if report.in_sample else "none" if division.folds is None else "fold"
    spec = FeatureSpec(
        kind="posteriors",
        encoder=name.removeprefix(PREFIX),
        weights=weights_digest(tensor.numpy().tobytes() for tensor in meta.tensors.values()),
        layers=LAYERS,
        dim=len(columns),
        dtype="float32",
        columns=columns,
        extra=(
            ("oof", out_of_fold_by),
            ("fitted_on", report.fitted_on),
            ("members", ",".join(report.members)),
            *([("adapted", "speaker")] if speaker_adapted(store, in_use) else []),
        ),
    )
    if name in store:
        store.remove(name)
    made_of = {member: store[member].spec.weights for member in problem.members}
    provenance = {
        "made_by": MADE_BY,
        MADE_ON: pack(division.record(name), rule),
        MEMBER_WEIGHTS: made_of,
        ATTRIBUTE_RANGES: pack_ranges(tuple(meta.attributes), meta.ranges),
        **({NORMALISED_BY: "corpus"} if corpus_normalised(store, in_use) else {}),
    }
    with store.writer(name, spec, provenance=provenance) as writer:
        for part, fused in judged.predictions[CHOSEN, way.name].items():
            p = fused.whole
            posteriors = np.concatenate([p.probabilities, p.attributes], 1)[:, None]
            logits = np.concatenate([p.logits, p.attributes], 1)[:, None]
            keys = [problem.targets.keys[i] for i in division.rows(part)]
            durations_s, identities = origins(store, problem.members, keys)
            for n, key in enumerate(keys):
                writer.append(key, [posteriors[n], logits[n]], float(durations_s[n]), identities[n])
