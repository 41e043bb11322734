"""A model: one member, or a meta-classifier and its members, as `fit-deepser`, `fit-meta` or `export` left it.

A meta-classifier's run directory names its members' run directories, and a member's config.json holds the specification
of each feature set it reads. So a model finds its encoders again, and the fingerprint says whether they are the same.
"""

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from deepser.probes.any_member import AnyMember, load_member
from ensemble.fusion.kinds import CONFIG, load_meta
from ensemble.fusion.members import MEMBERS_FILE, read_runs
from ensemble.fusion.state import MetaState
from ensemble.prediction.directory import require_directory
from ensemble.prediction.inputs import TEXT_OF_ALL, cut_files, files_manifest
from ensemble.prediction.predict import predict
from ensemble.prediction.predictions import Predictions
from ensemble.prediction.speech_to_text import OFF
from featurestore.errors import ConfigError
from featurestore.recordings.cut import cutter_of
from featurestore.recordings.places import find_files
from featurestore.runtime.json_text import read_json
from featurestore.runtime.weights_digest import weights_digest

ENCODER_NAMES = "encoders.json"  # which only an export has


@dataclass(frozen=True)
class Model:
    """What `--model` names: one member (meta is None), or a meta-classifier and its members in its order."""

    members: tuple[AnyMember, ...]
    meta: MetaState | None

    @classmethod
    def load(cls, directory: Path | str) -> "Model":
        """Read a run directory of fit-meta or fit-deepser, or an export; ConfigError: what is missing or changed."""
        directory = Path(directory)
        if not (directory / MEMBERS_FILE).is_file():
            if (directory / "model.safetensors").is_file():
                raise ConfigError(
                    f"{directory} does not say where its members are ({MEMBERS_FILE} is missing); run "
                    "`medusa fit-meta` again."
                )
            require_directory(directory)
            return cls((load_member(directory),), None)
        meta = load_meta(directory)
        runs = read_runs(directory)
        if (directory / ENCODER_NAMES).is_file():
            _check_inside(directory, runs)
        missing = [name for name in meta.members if name not in runs]
        if missing:
            raise ConfigError(
                f"{directory / MEMBERS_FILE} names no run directory for {', '.join(missing)}: fit-meta found none. "
                "Fit these members with `medusa fit-deepser`, then run `medusa fit-meta --runs DIR` again."
            )
        members: list[AnyMember] = []
        for name in meta.members:
            run, weights = runs[name]
            member = load_member(Path(os.path.normpath(directory / run)))
            if member.weights_digest != weights:
                raise ConfigError(
                    f"{member.directory} holds other weights than {directory} was fitted on; run `medusa fit-meta` "
                    "again."
                )
            members.append(member)
        return cls(tuple(members), meta)

    @property
    def identity(self) -> str:
        """A digest of all weights, and of how the meta-classifier reads the members."""
        parts = [member.weights_digest.encode() for member in self.members]
        if self.meta is not None:
            parts.append(repr((self.meta.config, self.meta.members, self.meta.classes, self.meta.attributes)).encode())
            parts += [name.encode() + tensor.numpy().tobytes() for name, tensor in sorted(self.meta.tensors.items())]
        return weights_digest(parts)

    @property
    def rules(self) -> tuple[str, ...]:
        """How each member's corpus was divided in what it learned from and what it was judged on, "" if unknown."""
        paths = [member.directory / CONFIG for member in self.members]
        return tuple(
            str(read_json(path.read_text(encoding="utf-8")).get("folds", {}).get("rule", "")) for path in paths
        )

    @property
    def speaker_adapted(self) -> bool:
        """Does a member read rows normalised by their own speaker?"""
        return any(member.speaker_adapted for member in self.members)

    @property
    def classes(self) -> tuple[str, ...]:
        return self.members[0].classes if self.meta is None else self.meta.classes

    @property
    def attributes(self) -> tuple[str, ...]:
        return tuple(self.attribute_ranges)

    @property
    def attribute_ranges(self) -> dict[str, tuple[float, float]]:
        """(low, high) of each attribute, in their order."""
        if self.meta is not None:
            return dict(self.meta.attributes)
        first = self.members[0]
        return dict(zip(first.attributes, first.attribute_ranges, strict=True))

    def predict(
        self,
        places: Iterable[Path | str],
        *,
        text: str | None = None,
        every: float | None = None,
        span: float | None = None,
        segments: str | None = None,
        **options: Any,
    ) -> Predictions:
        """Predict audio files, folders and patterns, whole or cut into pieces.

        every, span: windows, in seconds. segments: "vad" or a table of segments. options: those of `predict.predict`.
        """
        cutter = cutter_of(every, span, segments)
        if cutter is not None and text is not None:
            raise ConfigError(TEXT_OF_ALL)
        manifest, failed = cut_files(files_manifest(find_files(places), text), cutter)
        if text is not None:
            options["asr"] = OFF
        predictions = predict(self, manifest, **options)
        return replace(predictions, failed=(*failed, *predictions.failed))


def _check_inside(directory: Path, runs: Mapping[str, tuple[str, str]]) -> None:
    """Raise ConfigError unless every member of an export lies in it: what is handed on may point nowhere else."""
    root = directory.resolve()
    for name, (run, _) in runs.items():
        if not (root / run).resolve().is_relative_to(root):
            raise ConfigError(
                f"{directory / MEMBERS_FILE}: the member {name} is listed as {run}, which lies outside the export. It "
                "is damaged, or was altered; export the model again."
            )
