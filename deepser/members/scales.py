"""The scales of attributes that posteriors record, and whether they are those of a manifest."""

from collections.abc import Mapping, Sequence

from featurestore.corpus.manifest import Manifest
from featurestore.errors import ConfigError
from featurestore.sets.feature_set import FeatureSet

ATTRIBUTE_RANGES = "attribute_ranges"  # in the provenance of posteriors: (low, high) by attribute


def pack_ranges(attributes: Sequence[str], ranges: Sequence[tuple[float, float]]) -> dict[str, list[float]]:
    """Return the (low, high) of each attribute as JSON values, by name."""
    return {name: [float(low), float(high)] for name, (low, high) in zip(attributes, ranges, strict=True)}


def ranges_of(features: FeatureSet) -> dict[str, tuple[float, float]]:
    """Return the (low, high) that posteriors record of their attributes; nothing where an earlier version made them."""
    packed = features.provenance.get(ATTRIBUTE_RANGES)
    if not isinstance(packed, dict):
        return {}
    pairs = {name: ends for name, ends in packed.items() if isinstance(ends, list) and len(ends) == 2}
    return {name: (float(low), float(high)) for name, (low, high) in pairs.items()}


def other_scales(
    manifest: Manifest, ranges: Mapping[str, tuple[float, float]]
) -> dict[str, tuple[tuple[float, float], tuple[float, float]]]:
    """Return the range of `ranges` and the manifest's, by attribute, where both have one and they differ."""
    scheme = manifest.scheme.attributes
    return {name: (ends, scheme[name]) for name, ends in ranges.items() if name in scheme and scheme[name] != ends}


def check_scales(manifest: Manifest, features: FeatureSet) -> None:
    """Raise ConfigError for posteriors on another scale than the manifest's, which CCC and a fusion would mix."""
    different = other_scales(manifest, ranges_of(features))
    if different:
        differences = "; ".join(
            f"{name} is on {low:g} to {high:g} in {features.name!r}, on {first:g} to {last:g} in manifest "
            f"{manifest.name}"
            for name, ((low, high), (first, last)) in different.items()
        )
        raise ConfigError(
            f"{differences}. Fit again on ratings of the manifest's scale (prepare join --rescale-attributes moves "
            "those of another), or name the scale of the manifest's ratings (prepare csv --attribute NAME:LOW:HIGH)."
        )
