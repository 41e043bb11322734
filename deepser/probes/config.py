"""The settings of a probe, as a frozen dataclass that is saved beside its weights."""

from dataclasses import dataclass

from deepser.config import NORMALISATIONS
from featurestore.errors import ConfigError

SOLVERS = ("auto", "rbf", "linear", "streaming", "logistic")
PROBE_POOLS = ("auto", "mean", "mean+std")
PROBE_SELECTIONS = ("auto", "uar", "macro_f1", "accuracy", "mean_ccc")
PROBE_TARGETS = ("soft", "one-hot")
REFINEMENTS = ("none", "speaker", "shares")  # see deepser.probes.refine
# Above so many training utterances "auto" streams: the time of a kernel grows with their cube.
KERNEL_UTTERANCES = 5000
# A kernel matrix of so many utterances takes 1.6 GB in float32, and there are three of them at once.
MOST_KERNEL_UTTERANCES = 20_000


@dataclass(frozen=True)
class ProbeConfig:
    """What a probe reads, how it is solved, and what its nested selection may choose from.

    features: references such as "whisper-base@3+4"; every layer of each is a candidate. normalise: the candidates of
    normalisation, in the order in which ties are decided. refine: the candidates of `REFINEMENTS`. lambdas:
    ridge penalties, in units of the kernel's diagonal (for "logistic": values of 1 / C). bandwidths: of the RBF kernel,
    in units of the square root of the number of dims. Empty lambdas or bandwidths stand for the solver's own.
    balanced: all classes of the training part count alike.
    """

    name: str
    features: tuple[str, ...]
    solver: str = "auto"
    pool: str = "auto"
    normalise: tuple[str, ...] = ("none",)
    refine: tuple[str, ...] = ("none",)
    lambdas: tuple[float, ...] = ()
    bandwidths: tuple[float, ...] = ()
    balanced: bool = True
    targets: str = "soft"
    select: str = "auto"
    combine: bool = True
    shrinkage: float = 5.0  # clips that the corpus's statistics count for beside a speaker's own
    seed: int = 0

    def __post_init__(self) -> None:
        if not self.features:
            raise ConfigError("A probe reads one feature set or more; none was given.")
        for name, allowed in (
            ("solver", SOLVERS), ("pool", PROBE_POOLS), ("targets", PROBE_TARGETS), ("select", PROBE_SELECTIONS),
        ):  # fmt: skip
            value = getattr(self, name)
            if value not in allowed:
                raise ConfigError(
                    f"The probe's {name} (--{name}) must be one of {', '.join(allowed)}; found {value!r}."
                )
        unknown = [name for name in self.normalise if name not in NORMALISATIONS]
        if unknown or not self.normalise or len(set(self.normalise)) != len(self.normalise):
            raise ConfigError(
                f"The probe's normalise (--normalise) takes one or more of {', '.join(NORMALISATIONS)}, each once; "
                f"found {', '.join(self.normalise) or 'none of them'}."
            )
        check_refinements(self.refine)
        for name in ("lambdas", "bandwidths"):
            if any(not value > 0 or value == float("inf") for value in getattr(self, name)):
                raise ConfigError(f"The probe's {name} must be finite numbers above zero, found {getattr(self, name)}.")
        if not self.shrinkage >= 0:
            raise ConfigError(f"shrinkage must not be below zero, found {self.shrinkage}.")

    @property
    def speaker_adapted(self) -> bool:
        """Is a use of the speaker's other clips among the candidates?"""
        return "speaker" in self.normalise or self.refine != ("none",)


def check_refinements(names: tuple[str, ...]) -> None:
    """Raise ConfigError unless these are one or more of REFINEMENTS, each once."""
    if not names or set(names) - set(REFINEMENTS) or len(set(names)) != len(names):
        raise ConfigError(
            f"The probe's refine (--refine) takes one or more of {', '.join(REFINEMENTS)}, each once; found "
            f"{', '.join(names) or 'none'}."
        )
