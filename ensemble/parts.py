"""A system's scores on each part of a corpus that it was judged on: all folds together, or split by split."""

from deepser.metrics import Evaluation
from ensemble.evaluation import evaluate_posteriors, posteriors_name, split_rows
from featurestore.errors import ManifestError
from featurestore.manifest import Manifest
from featurestore.store import FeatureStore

ALL = "all folds"


def evaluate_parts(
    store: FeatureStore, manifest: Manifest, name: str, *, cv: str | None = None, split: str | None = None
) -> dict[str, Evaluation]:
    """Scores by part: {"all folds": ...} with spreads over the fold column, or one entry for each judged split.

    cv: the fold column; by default the one that the member was cross-validated over, else `fold` where the manifest has
    no `split`. split: one split alone. Without either, every split that the posteriors cover and that has labels.
    Raises AlignmentError when utterances of a part have no posteriors, ManifestError when nothing can be scored.
    """
    name = posteriors_name(store, name)
    if split is not None:
        return {split: evaluate_posteriors(store, manifest, name, cv, split)}
    rule = dict(store[name].spec.extra).get("folds", "")
    if cv is None and rule.startswith("cv:") and manifest.has(rule.removeprefix("cv:")):
        cv = rule.removeprefix("cv:")
    if cv is None and manifest.has("split"):
        return _by_split(store, manifest, name)
    if cv is None and manifest.has("fold"):
        cv = "fold"
    return {ALL if cv else "all": evaluate_posteriors(store, manifest, name, cv)}


def _by_split(store: FeatureStore, manifest: Manifest, name: str) -> dict[str, Evaluation]:
    judged = store[name]
    parts = {}
    for split in dict.fromkeys(value for value in manifest.column("split").tolist() if value is not None):
        rows = split_rows(manifest, split)
        labelled = rows.votes is not None or (rows.has("label") and any(label is not None for label in rows.labels))
        # A split is judged whole or not at all; evaluate_posteriors names what is missing.
        if labelled and any(key in judged for key in rows.keys):
            parts[split] = evaluate_posteriors(store, rows, name)
    if not parts:
        raise ManifestError(f"No split of manifest {manifest.name} has both labels and posteriors of {name!r}.")
    return parts
