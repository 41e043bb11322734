"""The feature sets that members read, as their run directories describe them."""

from collections.abc import Sequence
from typing import Any

from deepser.probes.any_member import AnyMember
from featurestore.encoders.token_times import COLUMNS
from featurestore.errors import ConfigError, SpecMismatch
from featurestore.format.spec import FeatureSpec


def needed_sets(members: Sequence[AnyMember]) -> dict[str, dict[str, Any]]:
    """Return the feature sets that members read, by name, as their config.json describes them."""
    sets: dict[str, dict[str, Any]] = {}
    for member in members:
        for saved in member.specs:
            if tuple(saved.get("spec", {}).get("columns", ())) == COLUMNS:
                raise ConfigError(
                    f"A member reads {saved['name']}, the times of tokens (--align), which predict doesn't make of new "
                    "audio. Predict with members without it, or evaluate this one on a store that has them."
                )
            described = sets.setdefault(saved["name"], saved)
            if described["fingerprint"] != saved["fingerprint"]:
                listed = "; ".join(spec_of(described).differences(spec_of(saved)))
                raise SpecMismatch(
                    f"Members read two different feature sets named {saved['name']!r} ({listed}); fit them on features "
                    "of different names, or on the same ones."
                )
    return sets


def spec_of(saved: Any) -> FeatureSpec:
    """Return the specification of a feature set, as a member's config.json has it."""
    return FeatureSpec.from_json(saved["spec"])
