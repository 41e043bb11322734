"""MEDUSA's Table 2 on any corpus, and any systems side by side: each trained over the folds, set against the first.

A system is trained as one or more members (feature lists x seeds); its scores are means over them. Differences are
paired: both systems on the same utterances, resampled by speaker.
"""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from deepser.config import MemberConfig, to_dict
from deepser.members.fit import fit_members
from deepser.members.folds import FoldPlan
from deepser.scores.metrics import ScoreRow
from deepser.training.processes import World
from deepser.training.targets import Targets
from ensemble.evaluation.assess import scored
from ensemble.evaluation.bootstrap import Comparison, Interval, MeanSums, bootstrap, compare
from ensemble.evaluation.multiple import corrected_comparisons
from ensemble.evaluation.parts import parts_of
from ensemble.evaluation.posteriors import evaluate_posteriors
from ensemble.evaluation.system import System
from ensemble.evaluation.systems import ADAPTED, from_store
from featurestore.corpus.manifest import Manifest
from featurestore.errors import ConfigError
from featurestore.runtime.device import pick_device
from featurestore.runtime.jsonable import jsonable
from featurestore.store.feature_store import FeatureStore

FULL = "full system"

Progress = Callable[[float, str], None]  # (share done, what is going on)


@dataclass(frozen=True)
class Variant:
    """A system to be trained, as one member or more; without members it can't be, and `why_not` says why.

    table2: how much the paper's macro-F1 changed, relative, in per cent.
    """

    name: str
    about: str
    members: tuple[MemberConfig, ...] = ()
    why_not: str = ""
    table2: float | None = None


@dataclass(frozen=True)
class Result:
    """Hold a trained system's scores on one part of a corpus.

    against: comparison with the first system (this minus first); None for the first.
    """

    row: ScoreRow
    intervals: dict[str, Interval]
    against: Comparison | None


@dataclass(frozen=True)
class Trained:
    """What came of a variant: `results` by part, parameters of its (first) network, seconds spent in epochs."""

    variant: Variant
    n_parameters: int
    train_s: float
    results: dict[str, Result]


@dataclass(frozen=True)
class Ablations:
    """Every system, trained or not, in the order asked for; the first that was trained is what others are held to."""

    trained: tuple[Trained, ...]
    left_out: tuple[Variant, ...]
    folds: tuple[str, ...]
    rule: str
    n_speakers: dict[str, int]
    n_resamples: int

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON-able values."""
        systems = [
            {
                "name": each.variant.name, "about": each.variant.about, "table2_percent": each.variant.table2,
                "members": [{"name": m.name, "features": m.features, "seed": m.train.seed}
                            for m in each.variant.members],
                "n_parameters": each.n_parameters, "train_s": each.train_s,
                "parts": {
                    part: {
                        **result.row.to_dict(),
                        "intervals": {name: [i.value, i.low, i.high] for name, i in result.intervals.items()},
                        "against": None if result.against is None else result.against.to_dict(),
                    }
                    for part, result in each.results.items()
                },
            }
            for each in self.trained
        ]  # fmt: skip
        left_out = [{"name": each.name, "about": each.about, "why": each.why_not} for each in self.left_out]
        values: dict[str, Any] = jsonable({
            "folds": self.folds, "rule": self.rule, "n_speakers": self.n_speakers, "n_resamples": self.n_resamples,
            "systems": systems, "left_out": left_out,
        })  # fmt: skip
        return values


@dataclass(frozen=True)
class Ablation:
    """One part of the system taken out; why_not gives the reason where it does not apply, else ""."""

    about: str
    table2: float
    change: Callable[[MemberConfig], MemberConfig]
    why_not: Callable[[MemberConfig, Targets], str]


def _train(config: MemberConfig, **changes: Any) -> MemberConfig:
    return replace(config, train=replace(config.train, **changes))


def _without_attributes(config: MemberConfig) -> MemberConfig:
    stages = config.train.stages
    return _train(config, stages=tuple(replace(s, loss=replace(s.loss, attribute_weight=0.0)) for s in stages))


def _same_targets(config: MemberConfig, targets: Targets) -> str:
    if config.train.targets == "one-hot":
        return "the full system's targets are one-hot already"
    is_same = np.array_equal(targets.soft, targets.one_hot)
    return "the corpus has no votes that disagree, so that soft targets are the labels" if is_same else ""


def _one_task(config: MemberConfig, targets: Targets) -> str:
    if not targets.attributes or np.isnan(targets.attribute_values).all():
        return "the corpus has no attributes, so that classes are the only task"
    learns_both = all(s.loss.attribute_weight and s.loss.classification_weight for s in config.train.stages)
    return "" if learns_both else "not every stage of the full system learns classes and attributes"


# Table 2 of MEDUSA (arXiv 2506.09556), with its relative changes of macro-F1 (mean over four members, full = .421).
ABLATIONS = {
    "one-hot": Ablation(
        "the consensus label as target in place of the votes", -8.23, lambda c: _train(c, targets="one-hot"),
        _same_targets,
    ),
    "late-fusion": Ablation(
        "no fusion Encs: the modalities meet in the head", -6.31,
        lambda c: replace(c, network=replace(c.network, kind="late-fusion")),
        lambda c, _: "" if c.network.kind == "deepser" else f"the full system's network is {c.network.kind}",
    ),
    "no-mixup": Ablation(
        "no Manifold MixUp", -2.93, lambda c: _train(c, mixup_p=0.0),
        lambda c, _: "" if c.train.mixup_p else "the full system has no MixUp",
    ),
    "no-multitask": Ablation("classes alone, no attributes", -2.18, _without_attributes, _one_task),
    "no-stage2": Ablation(
        "stage 1 alone", -1.20, lambda c: _train(c, stages=c.train.stages[:1]),
        lambda c, _: "" if len(c.train.stages) > 1 else "the full system has one stage",
    ),
}  # fmt: skip


def named(config: MemberConfig) -> MemberConfig:
    """Return the member named after its network, features, seed and a digest of all settings.

    Another setting makes another member.

    So tables that share a directory share the members that they have in common.
    """
    settings = json.dumps([config.features, to_dict(config.network), to_dict(config.train)], sort_keys=True)
    digest = hashlib.blake2b(settings.encode(), digest_size=4).hexdigest()
    features = "_".join(ref.replace("@", ".").replace("/", "-") for ref in config.features)
    return replace(config, name=f"{config.network.kind}-{features}-s{config.train.seed}-{digest}")


def ablations_of(
    members: Sequence[MemberConfig], manifest: Manifest, only: Sequence[str] = (), about: str = "nothing taken out"
) -> list[Variant]:
    """Return the full system and its ablations; those that would change nothing on this corpus say why.

    members: the full system's, one for each feature list and seed.
    """
    unknown = [name for name in only if name not in ABLATIONS]
    if unknown:
        raise ConfigError(f"There is no ablation {unknown[0]!r}; there are {', '.join(ABLATIONS)}.")
    targets = Targets.from_manifest(manifest)
    variants = [Variant(FULL, about, tuple(map(named, members)))]
    for name, each in ABLATIONS.items():
        if only and name not in only:
            continue
        reasons = [reason for m in members if (reason := each.why_not(m, targets))]
        changed = () if reasons else tuple(named(each.change(m)) for m in members)
        variants.append(Variant(name, each.about, changed, reasons[0] if reasons else "", each.table2))
    return variants


def run_variants(
    store: FeatureStore,
    manifest: Manifest,
    variants: Sequence[Variant],
    plan: FoldPlan,
    directory: Path,
    *,
    cv: str | None = None,
    device: str = "auto",
    n_resamples: int = 1000,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> Ablations:
    """Train every variant and compare; members and their posteriors lie in `directory`, nothing in `store`.

    A second run goes on where the first stopped, or with `overwrite` starts anew. Raises ConfigError where no variant
    can be trained.
    """
    runnable = [each for each in variants if each.members]
    if not runnable:
        raise ConfigError(f"Nothing can be trained: {'; '.join(each.why_not for each in variants)}.")
    directory.mkdir(parents=True, exist_ok=True)
    into = FeatureStore.open_or_create(directory / "posteriors")
    todo = [(variant, member) for variant in runnable for member in variant.members]
    n_parameters: dict[str, int] = {}
    world = World(device=pick_device(device))
    for number, (variant, member) in enumerate(todo):

        def on_step(fold: str, done: int, total: int, step: str, number: int = number, name: str = member.name) -> None:
            if progress is not None:
                share = (plan.names.index(fold) + done / total) / len(plan.names)
                progress((number + share) / len(todo), f"{name}: fold {fold}, {step}")

        (fitted,) = fit_members(
            store, manifest, [member], plan, [directory / member.name], world=world, overwrite=overwrite, into=into,
            progress=on_step,
        )  # fmt: skip
        n_parameters[variant.name] = sum(p.numel() for p in fitted.new_network().parameters())
    if progress is not None:
        progress(1.0, "comparing")
    results, n_speakers = _results(into, manifest, runnable, cv, n_resamples)
    trained = [
        Trained(each, n_parameters[each.name], _train_s(directory, each), results[each.name]) for each in runnable
    ]
    left_out = tuple(each for each in variants if not each.members)
    return Ablations(tuple(trained), left_out, plan.names, plan.rule, n_speakers, n_resamples)


def _results(
    into: FeatureStore, manifest: Manifest, variants: Sequence[Variant], cv: str | None, n_resamples: int
) -> tuple[dict[str, dict[str, Result]], dict[str, int]]:
    """Return results by variant and part, and the number of speakers (or utterances without one) of each part."""
    first = variants[0]
    systems = {m.name: from_store(into, m.name, manifest) for each in variants for m in each.members}
    system = systems[first.members[0].name]
    parts = parts_of(manifest, system.name, [set(system.keys)], cv=cv or system.fold_column or None)
    results: dict[str, dict[str, Result]] = {each.name: {} for each in variants}
    n_speakers = {}
    for part, rows in parts.items():
        for each in variants:
            evaluations = {m.name: evaluate_posteriors(into, rows.manifest, m.name, rows.folds) for m in each.members}
            one_evaluation = next(iter(evaluations.values()))
            adapted = any(m.train.normalise == "speaker" for m in each.members)
            shown = f"{each.name}, {ADAPTED}" if adapted else each.name
            row = (
                ScoreRow.over_seeds(shown, evaluations) if len(evaluations) > 1 else ScoreRow.of(shown, one_evaluation)
            )
            sums = _mean_sums(each, systems, rows.manifest, _shared_attributes([each], systems, manifest))
            n_speakers[part] = len(sums.counting().values)
            against = None
            if each is not first:
                shared = _shared_attributes([first, each], systems, manifest)
                pair = [_mean_sums(variant, systems, rows.manifest, shared) for variant in (each, first)]
                if pair[0].values.shape == pair[1].values.shape and n_resamples:
                    against = compare(pair[0], pair[1], (each.name, first.name), n_resamples)
            results[each.name][part] = Result(row, bootstrap(sums, n_resamples), against)
        compared = {name: own[part].against for name, own in results.items()}
        for name, comparison in corrected_comparisons(compared).items():
            results[name][part] = replace(results[name][part], against=comparison)
    return results, n_speakers


def _mean_sums(
    variant: Variant, systems: Mapping[str, System], rows: Manifest, attributes: tuple[str, ...]
) -> MeanSums:
    """Return the sums behind the scores of a variant's members on some rows, so that their mean can be resampled."""
    members = [scored(systems[m.name], rows, attributes) for m in variant.members]
    return MeanSums.of([replace(each, means={}).sums() for each in members])


def _shared_attributes(
    variants: Sequence[Variant], systems: Mapping[str, System], manifest: Manifest
) -> tuple[str, ...]:
    """Return the scheme's attributes, in its order, that every member of the variants predicts."""
    predicted = [systems[m.name].attributes for each in variants for m in each.members]
    return tuple(name for name in manifest.scheme.attributes if all(name in names for names in predicted))


def _train_s(directory: Path, variant: Variant) -> float:
    """Return the seconds in the epochs of all folds, from their metrics."""
    files = [path for m in variant.members for path in (directory / m.name).glob("fold-*/metrics.jsonl")]
    return sum(float(json.loads(line)["seconds"]) for path in files for line in path.read_text().splitlines())
