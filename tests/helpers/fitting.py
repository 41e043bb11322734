"""Fitting a single member."""

from pathlib import Path
from typing import Any

from deepser.config import MemberConfig
from deepser.members.fit import fit_members
from deepser.members.folds import FoldPlan
from deepser.members.member import Member
from deepser.training.processes import World
from featurestore.corpus.manifest import Manifest
from featurestore.runtime.device import pick_device
from featurestore.store.feature_store import FeatureStore


def fit_member(
    store: FeatureStore,
    manifest: Manifest,
    config: MemberConfig,
    plan: FoldPlan,
    directory: Path | str,
    *,
    device: str = "auto",
    **options: Any,
) -> Member:
    """Fit one member in one process."""
    world = World(device=pick_device(device))
    return fit_members(store, manifest, [config], plan, [directory], world=world, **options)[0]
