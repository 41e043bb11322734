"""A probe's out-of-fold judgement of a corpus, as a feature set like any other member's."""

import numpy as np

from deepser.members.posteriors import ADAPTED, NORMALISED_BY, made_on, origins, posteriors_name
from deepser.members.scales import ATTRIBUTE_RANGES, pack_ranges
from deepser.probes.fit import ProbeResult
from deepser.probes.member import ProbeMember
from deepser.scores.probabilities import softmax
from featurestore.corpus.made_on import MADE_ON
from featurestore.errors import ConfigError
from featurestore.format.spec import FeatureSpec, check_set_name
from featurestore.store.feature_store import FeatureStore

MADE_BY = "probe"


def check_free(store: FeatureStore, name: str, overwrite: bool) -> None:
    """Raise ConfigError for a name that another member's posteriors have, StoreError for a bad name."""
    full = check_set_name(posteriors_name(name))
    store.check_writable(full)
    if full in store and not overwrite and store[full].provenance.get("made_by") != MADE_BY:
        raise ConfigError(
            f"{full} in {store.path} was not written by a probe and is kept. Choose another --name, or --overwrite to "
            "replace it."
        )


def write_probe_posteriors(store: FeatureStore, member: ProbeMember, result: ProbeResult) -> None:
    """Write posteriors and logits of every utterance that a pass judged, in place of an earlier probe's."""
    name = posteriors_name(member.config.name)
    extra = [("oof", result.plan.oof), ("folds", result.plan.rule), ("features", ",".join(member.config.features))]
    extra += [ADAPTED] if result.speaker_adapted else []
    spec = FeatureSpec(
        kind="posteriors",
        encoder=member.config.name,
        weights=member.weights_digest,
        layers=("posteriors", "logits"),
        dim=len(member.columns),
        dtype="float32",
        columns=member.columns,
        extra=tuple(extra),
    )
    posteriors = np.concatenate([softmax(result.logits), result.attributes], 1).astype(np.float32)
    logits = np.concatenate([result.logits, result.attributes], 1).astype(np.float32)
    if name in store:
        store.remove(name)
    record = made_on(result.plan, result.problem, np.flatnonzero(result.judged))
    ranges = pack_ranges(result.problem.attributes, result.problem.attribute_ranges)
    provenance = {"member": member.config.name, "made_by": MADE_BY, MADE_ON: record, ATTRIBUTE_RANGES: ranges}
    if any(best.normalise == "corpus" for best in result.models):
        provenance[NORMALISED_BY] = "corpus"
    judged = np.flatnonzero(result.judged).tolist()
    keys = [result.problem.keys[i] for i in judged]
    durations_s, identities = origins(store, member.config.features, keys)
    with store.writer(name, spec, provenance=provenance) as writer:
        for n, i in enumerate(judged):
            rows = {"posteriors": posteriors[i : i + 1], "logits": logits[i : i + 1]}
            writer.append(keys[n], rows, float(durations_s[n]), identities[n])
