"""How a meta-classifier is trained, as one frozen dataclass that is saved beside its weights."""

from dataclasses import dataclass

from featurestore.errors import ConfigError

INPUTS = ("posteriors", "logits")
STARTS = ("soft_vote", "random")
SELECTIONS = ("last", "macro_f1")


@dataclass(frozen=True)
class MetaConfig:
    """How a meta-classifier is trained. Batch, rate, loss and sampling are the paper's; the rest is marked ours.

    The start at the soft vote is ours: on five weak members' out-of-fold posteriors of RAVDESS (1,440 utterances, six
    folds; soft vote .733) the soup reached macro-F1 .751 from it, .745 from a random start. Training all rounds
    ("last") instead of the paper's selection was better there (.751 against .742) but worse on two sets of DeepSER
    members: .746 against .768 on RAVDESS (benchmarks/ravdess.sh), and below the soft vote on the demo's corpus. So
    selection stays the default. These figures are from the folds the choice was made on.
    """

    inputs: str = "posteriors"
    seeds: tuple[int, ...] = (0, 1, 2, 3, 4, 5)
    lr: float = 1e-3
    batch_size: int = 128
    classification_weight: float = 1.5
    attribute_weight: float = 0.4
    no_consensus_share: float = 0.125
    start: str = "soft_vote"  # ours: a departure from the soft vote is learned; "random": a usual linear layer
    start_std: float = 0.01  # ours: deviation of the departure that each seed starts with
    weight_decay: float = 0.1  # ours: AdamW's, on the departure, so towards the soft vote ("random": on the weights)
    rounds: int = 40  # ours: the most there are
    steps_per_round: int = 50  # ours: a round is as many epochs (new balanced subsets) as make this many steps
    select: str = "macro_f1"  # paper: the best round on balanced held-out sets, with early stopping; "last": ours
    held_out: float = 0.1  # for "macro_f1": the share kept from training, speaker-disjoint where speakers are known
    n_held_out_sets: int = 10
    patience: int = 10  # for "macro_f1": rounds without a better score before a seed stops

    def __post_init__(self) -> None:
        for name, allowed in (("inputs", INPUTS), ("start", STARTS), ("select", SELECTIONS)):
            if getattr(self, name) not in allowed:
                raise ConfigError(f"{name} must be one of {', '.join(allowed)}; found {getattr(self, name)!r}.")
        for name in ("lr", "batch_size", "steps_per_round", "rounds", "patience", "n_held_out_sets"):
            if getattr(self, name) <= 0:
                raise ConfigError(f"{name} must be above zero, found {getattr(self, name)}.")
        if not self.seeds or len(set(self.seeds)) != len(self.seeds) or min(self.seeds) < 0:
            raise ConfigError(f"seeds must be one or more different numbers from 0 up, found {self.seeds}.")
        if not 0 < self.held_out < 1:
            raise ConfigError(f"held_out must lie between 0 and 1, found {self.held_out}.")
