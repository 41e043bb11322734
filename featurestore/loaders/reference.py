"""How a feature set and its layers are named in options and recipes: NAME or NAME@LAYER+LAYER."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from featurestore.errors import StoreError

if TYPE_CHECKING:
    from featurestore.sets.feature_set import FeatureSet


@dataclass(frozen=True)
class FeatureRef:
    """Which layers of which feature set to read; no layers stands for all that the set has."""

    name: str
    layers: tuple[str, ...] = ()

    @classmethod
    def parse(cls, text: str) -> FeatureRef:
        """ "whisper-base@3+4" -> layers layer_03 and layer_04 of whisper-base; "logmel" -> every layer of logmel."""
        name, separator, chosen = text.partition("@")
        layers = tuple(f"layer_{int(part):02d}" if part.isdecimal() else part for part in chosen.split("+"))
        if not name or (separator and not all(layers)) or len(set(layers)) != len(layers):
            raise StoreError(
                f"{text!r} names no features: expected NAME or NAME@LAYER+LAYER, such as whisper-base@3+4."
            )
        return cls(name, layers if separator else ())

    def __str__(self) -> str:
        short = [layer.removeprefix("layer_").lstrip("0") or "0" for layer in self.layers if _is_number(layer)]
        chosen = short if len(short) == len(self.layers) else list(self.layers)
        return f"{self.name}@{'+'.join(chosen)}" if chosen else self.name

    def resolve(self, features: FeatureSet) -> tuple[str, ...]:
        """Return the layers' array names in `features`; StoreError when one is not there."""
        for layer in self.layers:
            if layer not in features.layers:
                raise StoreError(
                    f"Feature set {features.name!r} has no {layer!r}; it has {', '.join(features.layers)}."
                )
        return self.layers or features.layers


def _is_number(layer: str) -> bool:
    return layer.startswith("layer_") and layer.removeprefix("layer_").isdecimal()
