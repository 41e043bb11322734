"""Augmented views of a corpus: what is done to every utterance's audio, as a pure function of (key, seed, view number).

A view is a feature set beside the clean one, `wavlm-large+noise1` beside `wavlm-large`. Its specification says what was
done, so that views mix neither with clean rows nor with each other; every encoder reads the same waveforms.
"""

import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from featurestore.audio import AUDIO_SUFFIXES, SAMPLE_RATE_HZ, Recording, decode, duration_s, search
from featurestore.augment.signals import (
    coloured_noise,
    excerpt,
    in_room,
    n_overlapping,
    overlapped,
    synthetic_room,
    with_gain,
    with_noise,
)
from featurestore.errors import AudioError, ConfigError
from featurestore.format.spec import FeatureSpec
from featurestore.sets.sources import files_of, piece_of

VERSION = 1  # raised when the same draw gives other samples
PREFIX = "view"  # of the pairs in FeatureSpec.extra that tell a view, see FeatureSpec.view
KEPT_FILES = 16  # decoded noises and rooms that stay in memory

Range = tuple[float, float]
Rng = np.random.Generator


@dataclass(frozen=True)
class AudioFiles:
    """A directory of noises or impulse responses: its files by relative name, in order."""

    directory: Path
    names: tuple[str, ...]
    identity: str  # over names and sizes

    @classmethod
    def of(cls, directory: Path | str, option: str) -> "AudioFiles":
        """Every audio file below a directory; ConfigError when there is none."""
        directory = Path(directory)
        files = search(directory).files if directory.is_dir() else []
        if not files:
            raise ConfigError(f"{option} {directory}: no audio in there ({', '.join(AUDIO_SUFFIXES)}).")
        names = [path.relative_to(directory).as_posix() for path in files]
        listing = json.dumps([[name, path.stat().st_size] for name, path in zip(names, files, strict=True)])
        digest = hashlib.blake2b(listing.encode(errors="surrogatepass"), digest_size=8).hexdigest()
        return cls(directory.resolve(), tuple(names), f"{len(names)} files {digest}")

    def draw(self, rng: Rng) -> np.ndarray:
        """One of them, decoded; AudioError when it can't be, or is silent."""
        path = self.directory / self.names[int(rng.integers(len(self.names)))]
        samples = _decoded(path)
        if not samples.any():
            raise AudioError(f"{path}: is silent, so it is neither a noise nor a room. Remove it.")
        return samples


class Step(Protocol):
    """One thing done to a waveform; `files`: recordings instead of synthetic ones."""

    files: AudioFiles | None

    def __call__(self, samples: np.ndarray, rng: Rng) -> np.ndarray: ...


@dataclass(frozen=True)
class Noise:
    """Additive noise: a random excerpt of a random file, or synthetic white, pink or brown noise, one as likely."""

    snr: Range = (5.0, 20.0)  # dB
    files: AudioFiles | None = None

    def __call__(self, samples: np.ndarray, rng: Rng) -> np.ndarray:
        snr_db = rng.uniform(*self.snr)
        if self.files is None:
            noise = coloured_noise(len(samples), float(rng.integers(3)), rng)
        else:
            noise = excerpt(self.files.draw(rng), len(samples), rng)
        return with_noise(samples, noise, snr_db)


@dataclass(frozen=True)
class Reverb:
    """A room: a random impulse response of the files, or a synthetic one that decays exponentially."""

    t60: Range = (0.2, 0.8)  # s to fall by 60 dB
    direct: Range = (0.0, 10.0)  # dB of the direct sound over the tail
    files: AudioFiles | None = None

    def __call__(self, samples: np.ndarray, rng: Rng) -> np.ndarray:
        if self.files is not None:
            return in_room(samples, self.files.draw(rng))
        return in_room(samples, synthetic_room(rng.uniform(*self.t60), rng.uniform(*self.direct), rng))


@dataclass(frozen=True)
class Gain:
    """Louder or softer, by decibels drawn evenly (SRPOL: -5 to +5)."""

    db: Range = (-5.0, 5.0)
    files: AudioFiles | None = None

    def __call__(self, samples: np.ndarray, rng: Rng) -> np.ndarray:
        return with_gain(samples, rng.uniform(*self.db))


@dataclass(frozen=True)
class Mix:
    """Another utterance of the same part of the corpus behind this one, partly over it (SAIL); targets are averaged."""

    overlap: Range = (0.2, 0.8)  # share of the shorter clip
    level: Range = (0.0, 0.0)  # dB of the other clip over this one
    within: str = "auto"  # column in which both must be equal; auto: fold, else split; none: any
    files: AudioFiles | None = None

    def draw(self, rng: Rng) -> tuple[float, float]:
        return rng.uniform(*self.overlap), rng.uniform(*self.level)

    def __call__(self, samples: np.ndarray, rng: Rng) -> np.ndarray:
        return samples  # an utterance that has no partner stays as it is


STEPS: dict[str, type[Any]] = {"noise": Noise, "reverb": Reverb, "gain": Gain, "mix": Mix}
# With recordings these say nothing.
SYNTHETIC = {"reverb": ("t60", "direct")}
LIMITS: dict[str, Range] = {
    "snr": (-60, 100), "t60": (0.01, 10), "direct": (-40, 60), "db": (-60, 60), "overlap": (0, 1), "level": (-60, 60),
}  # fmt: skip


@dataclass(frozen=True)
class View:
    """One view: its label ("noise1", behind the + of a set's name), what is done in which order, seed and number."""

    label: str
    steps: tuple[tuple[str, Step], ...]
    seed: int
    number: int

    @property
    def mix(self) -> Mix | None:
        """How clips are mixed, in a view that mixes them."""
        first = self.steps[0][1]
        return first if isinstance(first, Mix) else None

    @property
    def pairs(self) -> tuple[tuple[str, str], ...]:
        """Return the entries for the view in a specification's FeatureSpec.extra."""
        done = "+".join(_step_text(name, step) for name, step in self.steps)
        files = {f"{PREFIX}_{name}": step.files.identity for name, step in self.steps if step.files is not None}
        recorded = {
            PREFIX: done,
            f"{PREFIX}_seed": self.seed,
            f"{PREFIX}_number": self.number,
            f"{PREFIX}_code": VERSION,
        }
        return tuple(sorted((name, str(value)) for name, value in {**recorded, **files}.items()))

    def name(self, base: str) -> str:
        """Return the view's feature set beside `base`."""
        return f"{base}+{self.label}"

    def spec(self, clean: FeatureSpec) -> FeatureSpec:
        """Return the specification of the view's set beside a clean one; ConfigError for text, which has no audio."""
        if clean.kind != "audio":
            raise ConfigError(
                f"--augment: {clean.encoder} encodes text, and views are of audio. Leave it out: trainers read a text "
                "encoder's clean set beside the audio's views."
            )
        return replace(clean, extra=(*clean.extra, *self.pairs))

    def rng(self, step: int, key: str) -> Rng:
        """Return the random numbers of one step on one utterance."""
        drawn_for = json.dumps([VERSION, self.seed, self.number, step, self.steps[step][0], key])
        return np.random.default_rng(
            int.from_bytes(hashlib.blake2b(drawn_for.encode(), digest_size=16).digest(), "little")
        )


@dataclass(frozen=True)
class AugmentedAudio:
    """One utterance as a view changes it: decoded like a file.

    partner: the audio mixed in. without_noise: gets the key where no noise was added, as its excerpt is silent.
    """

    key: str
    path: Path | Recording
    view: View
    partner: Path | Recording | None = None
    without_noise: list[str] = field(default_factory=list, compare=False)

    def __str__(self) -> str:
        return str(self.path)

    @property
    def files(self) -> tuple[Path, ...]:
        """The files it is made of, its own first; what a feature set records of it."""
        return files_of(self.path) + (() if self.partner is None else files_of(self.partner))

    @property
    def piece_s(self) -> tuple[float, float]:
        """Start and end of its own piece of the file, NaN for all of it."""
        return piece_of(self.path)

    def duration_s(self) -> float:
        """By the headers of the files; a mixed clip's to a sample's rounding."""
        clip_s = duration_s(self.path)
        if self.partner is None or self.view.mix is None:
            return clip_s
        partner_s, (share, _) = duration_s(self.partner), self.view.mix.draw(self.view.rng(0, self.key))
        shared = n_overlapping(round(clip_s * SAMPLE_RATE_HZ), round(partner_s * SAMPLE_RATE_HZ), share)
        return clip_s + partner_s - shared / SAMPLE_RATE_HZ

    def decode(self) -> np.ndarray:
        """Return the samples (n,) float32 at 16 kHz; AudioError as for a file."""
        samples = decode(self.path)
        for i, (_, step) in enumerate(self.view.steps):
            rng = self.view.rng(i, self.key)
            if isinstance(step, Mix) and self.partner is not None:
                samples = overlapped(samples, decode(self.partner), *step.draw(rng))
            else:
                clean, samples = samples, step(samples, rng)
                if isinstance(step, Noise) and samples is clean:
                    self.without_noise.append(self.key)
        return samples


def parse_views(
    texts: Sequence[str],
    *,
    n_views: int = 1,
    seed: int = 0,
    noises: Path | str | None = None,
    rooms: Path | str | None = None,
) -> list[View]:
    """Return views 1 to n_views of each "[LABEL=]STEP[:OPTION=VALUE,...][+STEP...]"; ConfigError names what is wrong.

    "noise:snr=0..10", "reverb+noise+gain", "loud=gain:db=3..6", "mix:overlap=0.3". noises, rooms: directories of
    recordings instead of synthetic noise and impulse responses.
    """
    files = {
        "noise": None if noises is None else AudioFiles.of(noises, "--noise"),
        "reverb": None if rooms is None else AudioFiles.of(rooms, "--rooms"),
    }
    views, labels, used = [], set(), set()
    for text in texts:
        match = re.fullmatch(r"(?:([A-Za-z][A-Za-z0-9._]*)=)?([a-z]+(?::[^+]*)?(?:\+[a-z]+(?::[^+]*)?)*)", text.strip())
        if match is None:
            raise ConfigError(
                f"--augment {text!r}: expected {', '.join(STEPS)}, such as noise:snr=0..10 or reverb+gain."
            )
        steps = tuple(_step(part, text, files) for part in match[2].split("+"))
        names = [name for name, _ in steps]
        if "mix" in names[1:] or len(set(names)) < len(names):
            raise ConfigError(f"--augment {text!r}: mix comes first, and every step once.")
        label = match[1] or "+".join(names)
        if label in labels:
            raise ConfigError(f"--augment {text!r}: there are two views named {label}; name one, as in soft={text}.")
        labels.add(label)
        used.update(names)
        views += [View(f"{label}{number}", steps, seed, number) for number in range(1, n_views + 1)]
    for option, name, folder in (("--noise", "noise", noises), ("--rooms", "reverb", rooms)):
        if folder is not None and name not in used:
            raise ConfigError(f"{option} {folder}: no view has {name}; ask for it with --augment.")
    return views


def viewed_spec(clean: FeatureSpec, view: View | None) -> FeatureSpec:
    """Return the specification of a view's set beside a clean one, or the clean one where there is no view."""
    return clean if view is None else view.spec(clean)


def without_view(spec: FeatureSpec) -> FeatureSpec:
    """Return the specification of the clean set beside a view."""
    return replace(spec, extra=tuple(pair for pair in spec.extra if pair not in spec.view))


def differences_of_view(clean: FeatureSpec, view: FeatureSpec) -> list[str]:
    """Return what keeps a set from being a view of a clean one: all that differs but the storage of rows and layers."""
    differences = clean.differences(without_view(view))
    return [line for line in differences if line.partition(":")[0] not in ("dtype", "layers")]


def check_beside_clean(name: str, clean_name: str, clean: FeatureSpec, view: FeatureSpec) -> str:
    """Raise ConfigError where a view would have no layer of the clean set, or rows of another kind.

    Returns a note where it lacks some of the clean set's layers; "" else.
    """
    lacking = [layer for layer in clean.layers if layer not in view.layers]
    differences = differences_of_view(clean, view)
    has_none = len(lacking) == len(clean.layers)
    if differences or has_none:
        listed = [f"layers: stored {', '.join(clean.layers)}, asked {', '.join(view.layers)}"] if has_none else []
        raise ConfigError(
            f"{name} would be no view of {clean_name}, which was made in another way: "
            f"{'; '.join(listed + differences)}. Give the options that {clean_name} was made with (medusa store info "
            "prints them), or another --name."
        )
    if not lacking:
        return ""
    return (
        f"{name} lacks layers that {clean_name} has ({', '.join(lacking)}); trainers read the same of both (--layers)."
    )


def _step(part: str, text: str, files: dict[str, AudioFiles | None]) -> tuple[str, Step]:
    name, _, options = part.partition(":")
    if name not in STEPS:
        raise ConfigError(f"--augment {text!r}: there is no {name!r}; there are {', '.join(STEPS)}.")
    kind, recordings = STEPS[name], files.get(name)
    field_names = [each.name for each in fields(kind) if each.name != "files"]
    settings: dict[str, Any] = {}
    for option in filter(None, options.split(",")):
        key, _, value = option.partition("=")
        if key not in field_names:
            raise ConfigError(f"--augment {text!r}: {name} has no option {key!r}; it has {', '.join(field_names)}.")
        if recordings is not None and key in SYNTHETIC.get(name, ()):
            raise ConfigError(f"--augment {text!r}: {key} is a synthetic room's; leave it out, or --rooms.")
        settings[key] = value if key == "within" else _range(key, value, text)
    return name, kind(**settings, files=recordings)


def _range(key: str, text: str, augment: str) -> Range:
    """Parse a range, "0..10" or "5"."""
    low, _, high = text.partition("..")
    least, most = LIMITS[key]
    try:
        first, last = float(low), float(high or low)
    except ValueError:
        first, last = float("nan"), float("nan")
    if not least <= first <= last <= most:
        raise ConfigError(
            f"--augment {augment!r}: {key} must be LOW..HIGH within {least:g} to {most:g}, found {text!r}."
        )
    return first, last


def _step_text(name: str, step: Step) -> str:
    """Return a step as text: every setting that counts, with defaults."""
    left_out = {"files", *(SYNTHETIC.get(name, ()) if step.files is not None else ())}
    values = {f.name: getattr(step, f.name) for f in fields(step) if f.name not in left_out}  # type: ignore[arg-type]
    settings = [
        f"{key}={value if isinstance(value, str) else f'{value[0]:g}..{value[1]:g}'}" for key, value in values.items()
    ]
    return f"{name}:{','.join(settings)}"


@lru_cache(KEPT_FILES)
def _decoded(path: Path) -> np.ndarray:
    return decode(path)
