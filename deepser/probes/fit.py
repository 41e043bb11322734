"""Fits a probe: every pass with its own nested selection, then one model of all training utterances."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from deepser.members.folds import FoldPlan
from deepser.members.sources import check_sources_once, refuse_mixed
from deepser.probes.calibrate import Calibration
from deepser.probes.config import KERNEL_UTTERANCES, MOST_KERNEL_UTTERANCES, ProbeConfig
from deepser.probes.confounding import Confounding
from deepser.probes.kernel import KernelSolver
from deepser.probes.logistic import LogisticSolver
from deepser.probes.normalise import NormalisedRows
from deepser.probes.problem import Pass, Passes, Problem, passes_of
from deepser.probes.rows import PooledRows, Source, check_pool, sources_of
from deepser.probes.select import Candidate, Chosen, Score, choose, choose_among, scorer
from deepser.probes.solver import Fitted, Solver
from deepser.probes.streaming import StreamingSolver
from deepser.training.normalise import Groups, check_speakers, corpora_of
from deepser.training.targets import Targets
from featurestore.corpus.manifest import Manifest
from featurestore.corpus.splits import speaker_groups
from featurestore.errors import ConfigError, ManifestError
from featurestore.runtime.device import one_thread, pick_device
from featurestore.store.feature_store import FeatureStore

NESTED = "nested"
RULE_NAMES = {"uar": "UAR", "macro_f1": "macro-F1", "mean_ccc": "mean CCC"}  # as a note spells them
RBF_PENALTIES, RBF_BANDWIDTHS = (0.02, 0.1), (0.7, 1.0, 1.4, 2.0)
LINEAR_PENALTIES = (0.1, 1.0, 10.0)
STREAMING_PENALTIES = (1.0, 10.0, 100.0)
LOGISTIC_PENALTIES = (10.0, 100.0, 1000.0)

Progress = Callable[[str, int, int], None]  # (what is going on, passes done, passes in all)


@dataclass(frozen=True)
class System:
    """Scores of one row of the table: (N, C + A), NaN where no pass judged the utterance.

    Attributes are on their scales, but for the nested row, whose are `ProbeResult.attributes`.
    nested: it was chosen inside each pass's training part, so that its score is an honest estimate. Otherwise the layer
    or combination was named beforehand and only its settings were chosen inside; the best of several such rows is
    chosen on the very utterances that are scored.
    """

    name: str
    scores: NDArray[np.float32]
    nested: bool
    n_layers: int
    source: Source | None  # of one layer


@dataclass(frozen=True, eq=False)
class ProbeResult:
    """What came of a probe: the table's systems, each pass's choice, the final model, and its out-of-fold outputs.

    logits and attributes (N, C), (N, A) of the nested choice, calibrated; valid where judged (N,).
    """

    config: ProbeConfig
    problem: Problem
    plan: FoldPlan
    speakers: NDArray[np.str_]
    systems: tuple[System, ...]
    passes: tuple[Chosen, ...]
    final: Candidate
    fitted: Fitted
    calibration: Calibration
    prior: dict[Source, tuple[NDArray[np.float32], NDArray[np.float32]]]
    logits: NDArray[np.float32]
    attributes: NDArray[np.float32]
    judged: NDArray[np.bool_]
    confounding: Confounding
    notes: tuple[str, ...]

    @property
    def nested(self) -> System:
        """The one row whose every choice was made inside the training part."""
        return self.systems[0]

    @property
    def speaker_adapted(self) -> bool:
        """Does any model read a speaker's other clips, to normalise rows or to refine scores?"""
        return self.normalises_by_speaker or self.refines

    @property
    def normalises_by_speaker(self) -> bool:
        """Does any model read rows that are normalised by their speaker's?"""
        return any(best.normalise == "speaker" for best in self.models)

    @property
    def refines(self) -> bool:
        """Are any model's scores refined by the speaker's other clips?"""
        return any(best.is_refined for best in self.models)

    @property
    def models(self) -> tuple[Candidate, ...]:
        """What each pass keeps, and what is kept of all."""
        return (*(chosen.best for chosen in self.passes), self.final)


def fit_probe(
    store: FeatureStore,
    manifest: Manifest,
    config: ProbeConfig,
    plan: FoldPlan,
    *,
    device: str = "auto",
    progress: Progress | None = None,
) -> ProbeResult:
    """Judge every layer and combination over a plan's folds, with nested selection, and fit the one that is chosen.

    ConfigError, ManifestError or StoreError for features that aren't there or don't fit what is asked.
    """
    targets = Targets.from_manifest(manifest)
    if config.solver == "logistic":
        targets = targets.without_attributes()
    all_attributes = targets.attributes
    targets = targets.rated([plan.train_at(fold) for fold in range(len(plan.names))])
    problem = Problem.of(targets, config.targets)
    groups = speaker_groups(manifest)
    sources = sources_of(store, config.features)
    _check(store, manifest, config, problem, sources)
    passes = passes_of(problem, plan, groups, config.seed)
    plain = PooledRows(store, problem.keys, config.pool)
    speakers, corpora = Groups.of(groups.tolist()), Groups.of(corpora_of(manifest))
    rows = NormalisedRows(plain, speakers, corpora, config.shrinkage)
    candidates = [replace(source, normalise=name) for name in config.normalise for source in sources]
    rule = _rule(config, problem)
    if rule != "mean_ccc" and not (problem.labels[passes.final.train] >= 0).any():
        raise ManifestError(
            f"--select {rule}: no training utterance of {manifest.name} has a label to choose settings by. Where votes "
            "are known of them, leave the label column out: their plurality is the label then."
        )
    score = scorer(problem, rule)
    solver = solver_of(config, problem, rows, passes, score, pick_device(device))

    listed = passes.outer or (passes.final,)
    n_passes = len(listed) + bool(passes.outer)
    done = 0

    def judge(each: Pass) -> Chosen:
        nonlocal done
        say = None if progress is None else lambda what: progress(what, done, n_passes)
        result = _light(
            choose(solver, each, candidates, score, combine=config.combine, refine=config.refine, progress=say),
            problem,
        )
        done += 1
        return result

    chosen = _each_at_once(judge, listed) if isinstance(solver, KernelSolver) else [judge(each) for each in listed]
    if passes.outer:
        if progress is not None:
            progress("all: fitting the choice", n_passes - 1, n_passes)
        choices = list(dict.fromkeys(pass_.best.parts for pass_ in chosen))
        final, solved = choose_among(solver, passes.final, choices, score, config.refine)
    else:
        final, solved = chosen[0].best, solver.on_pass(passes.final)
    fitted = solved.fit(final.parts)
    calibration = Calibration.of(problem, passes.final, final.inner, config.balanced)
    logits, attributes, judged = _outputs(problem, chosen, final, passes, config)
    notes = [f"Chosen by the held-out {RULE_NAMES.get(rule, rule)} inside each training part."]
    if passes.by_utterance:
        notes.append("A training part has one speaker only, so its inner folds cut through that speaker.")
    if any(best.setting.refine == "shares" for best in (*(each.best for each in chosen), final)):
        notes.append(
            "Refined with shares: each speaker's clips are taken to show the classes as often as the training part. "
            "A corpus that is balanced by design gives that away; where people choose what they say, nothing does."
        )
    unrated = [name for name in all_attributes if name not in targets.attributes]
    if unrated:
        notes.append(f"No output for {', '.join(unrated)}, which nobody rated in the training part of some fold.")
    return ProbeResult(
        config=config,
        problem=problem,
        plan=plan,
        speakers=groups,
        systems=_systems(problem, chosen, final if passes.outer else None, passes),
        passes=tuple(chosen),
        final=final,
        fitted=fitted,
        calibration=calibration,
        prior={part.source: rows.prior(part.source) for part in final.parts if part.source.normalise != "none"},
        logits=logits,
        attributes=attributes,
        judged=judged,
        confounding=Confounding.of(problem.labels[passes.final.train], groups[passes.final.train], problem.n_classes),
        notes=tuple(notes),
    )


def solver_of(
    config: ProbeConfig, problem: Problem, rows: NormalisedRows, passes: Passes, score: Score, device: torch.device
) -> Solver:
    """Return the solver that the settings name; "auto": an RBF kernel up to KERNEL_UTTERANCES, streaming above."""
    n, kind = len(passes.final.train), config.solver
    if kind == "auto":
        kind = "rbf" if n <= KERNEL_UTTERANCES else "streaming"
    if kind in ("rbf", "linear") and n > MOST_KERNEL_UTTERANCES:
        raise ConfigError(
            f"{n:,} training utterances are too many for a kernel matrix (at most {MOST_KERNEL_UTTERANCES:,}); use "
            "--solver streaming."
        )
    if kind != "rbf" and config.refine != ("none",):
        raise ConfigError(
            f"--refine needs the RBF kernel, which serves up to {MOST_KERNEL_UTTERANCES:,} training utterances; use "
            "--solver rbf, or leave --refine out."
        )
    if kind == "streaming":
        penalties = config.lambdas or STREAMING_PENALTIES
        return StreamingSolver(problem, rows, passes, config.balanced, penalties, score, device)
    if kind == "logistic":
        return LogisticSolver(problem, rows, config.balanced, config.lambdas or LOGISTIC_PENALTIES)
    rbf = kind == "rbf"
    penalties = config.lambdas or (RBF_PENALTIES if rbf else LINEAR_PENALTIES)
    bandwidths = (config.bandwidths or RBF_BANDWIDTHS) if rbf else ()
    speakers = rows.speakers.codes
    return KernelSolver(problem, rows, config.balanced, rbf, penalties, bandwidths, device, speakers=speakers)


def _each_at_once(judge: Callable[[Pass], Chosen], passes: Sequence[Pass]) -> list[Chosen]:
    """Run passes side by side, each on one thread: twice as fast as one after the other with two threads each."""
    n_threads = torch.get_num_threads()
    if n_threads == 1 or len(passes) == 1:
        return [judge(each) for each in passes]
    with (
        one_thread(),
        ThreadPoolExecutor(min(n_threads, len(passes)), initializer=lambda: torch.set_num_threads(1)) as pool,
    ):
        return list(pool.map(judge, passes))


def _check(
    store: FeatureStore,
    manifest: Manifest,
    config: ProbeConfig,
    problem: Problem,
    sources: Sequence[Source],
) -> None:
    checked: set[bytes] = set()
    for name in dict.fromkeys(source.features for source in sources):
        features = store[name]
        refuse_mixed(features)
        missing = features.missing(problem.keys)
        if missing:
            raise ConfigError(
                f"Feature set {name!r} lacks {len(missing)} of the manifest's {len(problem.keys)} utterances "
                f"({', '.join(missing[:3])}...). Run `medusa featurize` for them, or leave them out of the manifest."
            )
        check_sources_once(manifest, features, checked)
    for source in sources:
        check_pool(store, source, config.pool)
    if config.speaker_adapted:
        check_speakers(manifest)
    if config.select == "mean_ccc" and not problem.attributes:
        raise ConfigError("--select mean_ccc: the manifest has no attr_<attribute> column to select by.")


def _rule(config: ProbeConfig, problem: Problem) -> str:
    if config.select != "auto":
        return config.select
    return "uar" if (problem.labels >= 0).any() else "mean_ccc"


def _light(chosen: Chosen, problem: Problem) -> Chosen:
    """Without the held-out scores of what was not chosen, of which its attributes on their scales are made before."""
    nothing = np.zeros((0, 0), np.float32)
    best = chosen.best

    def light(candidate: Candidate) -> Candidate:
        if problem.attributes:
            scale = Calibration.of_attributes(problem, chosen.each, candidate.inner)
            candidate = replace(candidate, attributes=scale.outputs(problem, candidate.outer)[1])
        return candidate if candidate.inner is best.inner else replace(candidate, inner=nothing)

    return replace(chosen, candidates=tuple(map(light, chosen.candidates)))


def _outputs(
    problem: Problem, chosen: Sequence[Chosen], final: Candidate, passes: Passes, config: ProbeConfig
) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.bool_]]:
    n, n_classes = len(problem.keys), problem.n_classes
    logits = np.zeros((n, n_classes), np.float32)
    attributes = np.zeros((n, problem.values.shape[1] - n_classes), np.float32)
    judged = np.zeros(n, bool)
    choices: list[tuple[Pass, Any]] = [(each.each, each.best) for each in chosen]
    if passes.outer:
        choices.append((passes.final, final))
    for each, candidate in choices:
        if len(each.judged):
            calibration = Calibration.of(problem, each, candidate.inner, config.balanced)
            logits[each.judged], attributes[each.judged] = calibration.outputs(problem, candidate.outer)
            judged[each.judged] = True
    return logits, attributes, judged


def _systems(problem: Problem, chosen: Sequence[Chosen], final: Candidate | None, passes: Passes) -> tuple[System, ...]:
    shape = problem.values.shape
    nested = np.full(shape, np.nan, np.float32)
    table: dict[str, System] = {}
    for each in chosen:
        nested[each.each.judged] = each.best.outer
        for candidate in each.candidates:
            if not candidate.fixed:
                continue
            if candidate.name not in table:
                single = candidate.parts[0].source if len(candidate.parts) == 1 else None
                blank = np.full(shape, np.nan, np.float32)
                table[candidate.name] = System(candidate.name, blank, False, len(candidate.parts), single)
            scores = table[candidate.name].scores
            scores[each.each.judged] = candidate.outer
            if candidate.attributes is not None:
                scores[each.each.judged, problem.n_classes :] = candidate.attributes
    if final is not None:
        nested[passes.final.judged] = final.outer
    return (System(NESTED, nested, True, 0, None), *table.values())
