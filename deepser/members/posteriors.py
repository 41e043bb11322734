"""A fitted member's judgement of a corpus, as a feature set: what it consists of, whether it is there, writing it."""

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np

from deepser.members.folds import FoldPlan
from deepser.members.member import Member, PosteriorMean
from deepser.members.scales import ATTRIBUTE_RANGES, pack_ranges
from deepser.training.data import Indices
from deepser.training.targets import Targets
from featurestore.corpus.division import PartRecord
from featurestore.corpus.made_on import MADE_ON, pack
from featurestore.errors import ConfigError
from featurestore.format.identity import Identities, Identity
from featurestore.format.spec import FeatureSpec, check_set_name
from featurestore.loaders.batch_loader import FeatureRef
from featurestore.store.feature_store import FeatureStore

ADAPTED = ("adapted", "speaker")  # in a specification's `extra`: of models that read each speaker's other clips
NORMALISED_BY = "normalised_by"  # in provenance: "corpus" of models that read rows normalised by all of their corpus


def posteriors_name(member: str) -> str:
    return f"posteriors/{member}"


def is_finished(store: FeatureStore, member: Member, plan: FoldPlan, targets: Targets) -> bool:
    """Are there all weights, and the posteriors that they give?"""
    has_weights = [(member.directory / f"fold-{fold}" / "model.safetensors").exists() for fold in plan.names]
    name = posteriors_name(member.config.name)
    if not all(has_weights) or name not in store:
        return False
    posteriors = store[name]
    judged = {int(i) for fold in range(len(plan.names)) for i in plan.judged_at(fold)}
    is_same = posteriors.spec.fingerprint == _spec(member, plan, member.weights_digest).fingerprint
    return is_same and all(targets.keys[i] in posteriors for i in judged)


def check_place(store: FeatureStore, member: Member, plan: FoldPlan) -> None:
    """Raise before training if the posteriors' name is invalid or taken by another member.

    StoreError, ConfigError. Posteriors of the same features and folds by other weights are found by `write_posteriors`
    alone.
    """
    name = check_set_name(posteriors_name(member.config.name))
    store.check_writable(name)
    if name not in store:
        return
    spec = store[name].spec
    differences = spec.differences(_spec(member, plan, spec.weights))
    if differences:
        raise ConfigError(
            f"{name} in {store.path} is another member's: {'; '.join(differences)}. Choose another --name, or "
            "--overwrite to replace it."
        )


def write_posteriors(
    store: FeatureStore, member: Member, plan: FoldPlan, targets: Targets, total: PosteriorMean
) -> None:
    """Write posteriors and logits, a row of C + A each, of every utterance that a model judged."""
    posteriors, logits = total.means()
    provenance = {
        "member": member.config.name,
        MADE_ON: made_on(plan, targets, np.flatnonzero(total.count)),
        ATTRIBUTE_RANGES: pack_ranges(member.attributes, member.attribute_ranges),
        **({NORMALISED_BY: "corpus"} if member.config.train.normalise == "corpus" else {}),
    }
    spec = _spec(member, plan, member.weights_digest)
    judged = np.flatnonzero(total.count)
    bad = [targets.keys[i] for i in judged if not np.isfinite(posteriors[i]).all() or not np.isfinite(logits[i]).all()]
    if bad:
        raise ConfigError(
            f"{member.config.name} gives no number for {len(bad)} utterances ({', '.join(bad[:3])}), so no posteriors "
            f"are written. Look at their rows in {', '.join(member.config.features)}: values of 1e18 and more overflow."
        )
    with store.writer(posteriors_name(member.config.name), spec, provenance=provenance) as writer:
        new = set(writer.set.missing(targets.keys))
        durations_s, identities = origins(store, member.config.features, targets.keys)
        for i in np.flatnonzero(total.count):
            if targets.keys[i] in new:
                rows = {"posteriors": posteriors[i : i + 1], "logits": logits[i : i + 1]}
                writer.append(targets.keys[i], rows, float(durations_s[i]), identities[i])


def origins(
    store: FeatureStore, features: Sequence[str], keys: Sequence[str]
) -> tuple[np.ndarray, list[Identity | None]]:
    """Return duration (N,) and identity of each utterance, as one of the feature sets that were read records them.

    features: as a member names what it reads, or posteriors. The first set that records files counts, else the first
    that records anything, such as texts.
    """
    texts: tuple[np.ndarray, Identities] | None = None
    for name in dict.fromkeys(FeatureRef.parse(text).name for text in features):
        if name not in store or store[name].missing(keys):
            continue
        identities = store[name].identities(keys)
        if (identities.n_bytes >= 0).any():
            return store[name].durations_s(keys), _each(identities)
        if texts is None and identities.recorded.any():
            texts = store[name].durations_s(keys), identities
    return (np.full(len(keys), np.nan), [None] * len(keys)) if texts is None else (texts[0], _each(texts[1]))


def _each(identities: Identities) -> list[Identity | None]:
    """Return the identity of each utterance, None where nothing is recorded."""
    return [identities[i] if known else None for i, known in enumerate(identities.recorded.tolist())]


class Labelled(Protocol):
    """N utterances with labels: `Targets`, or a probe's problem."""

    @property
    def keys(self) -> tuple[str, ...]: ...
    @property
    def classes(self) -> tuple[str, ...]: ...
    @property
    def labels(self) -> Indices: ...


def made_on(plan: FoldPlan, targets: Labelled, judged: Indices) -> dict[str, Any]:
    """Return the record of which model judged which of the utterances `judged` (n,), under which label."""
    record = PartRecord(
        [targets.keys[i] for i in judged],
        [plan.names[plan.folds[i]] if plan.folds[i] >= 0 else "" for i in judged],
        [targets.classes[targets.labels[i]] if targets.labels[i] >= 0 else None for i in judged],
    )
    return pack(record, plan.rule)


def _spec(member: Member, plan: FoldPlan, weights: str) -> FeatureSpec:
    return FeatureSpec(
        kind="posteriors",
        encoder=member.config.name,
        weights=weights,
        layers=("posteriors", "logits"),
        dim=len(member.columns),
        dtype="float32",
        columns=member.columns,
        extra=(
            ("oof", plan.oof),
            ("folds", plan.rule),
            ("features", ",".join(member.config.features)),
            *([ADAPTED] if member.speaker_adapted else []),
        ),
    )
