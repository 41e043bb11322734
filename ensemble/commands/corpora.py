"""The options `--train-on` and `--test-on`: some corpora of a joined manifest teach, others test."""

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from featurestore.errors import ConfigError
from featurestore.terminal import reads, say

if TYPE_CHECKING:
    from featurestore.corpus.cross_corpus import CrossCorpus
    from featurestore.corpus.manifest import Manifest
    from featurestore.store.feature_store import FeatureStore

TrainOnOption = Annotated[
    str | None, reads("Corpora to learn from, by column corpus of a joined manifest: A,B.", "--train-on")
]
TestOnOption = Annotated[str | None, reads("Corpora to test on: C. They are taken whole.", "--test-on")]


def divided(
    manifest: "Manifest", train_on: str | None, test_on: str | None, cv: str | None = None
) -> "tuple[Manifest, CrossCorpus | None]":
    """Return a manifest divided by the corpora asked for, and these; unchanged and None where none are."""
    from featurestore.corpus.cross_corpus import CrossCorpus

    corpora = CrossCorpus.of_options(train_on, test_on)
    if corpora is None:
        return manifest, None
    if cv is not None:
        raise ConfigError(
            "--cv spreads folds over all corpora; with --train-on and --test-on leave it out. --folds N makes folds "
            "within the corpora that are trained on."
        )
    return corpora.divide(manifest), corpora


def divided_as_made(
    manifest: "Manifest",
    store: "FeatureStore | Path",
    systems: Sequence[str],
    train_on: str | None,
    test_on: str | None,
    *,
    cv: str | None,
    split: str | None = None,
    stderr: bool = False,
) -> "Manifest":
    """Return a manifest divided by the corpora asked for, else by those that posteriors in the store were made over.

    store: opened where a system is not a file. systems: sets of posteriors, or files of predictions. cv, split: folds
    or a split that are named, so that nothing is taken from the record. stderr: see `say_corpora`.
    ConfigError: systems that were made over other
    corpora.
    """
    from ensemble.evaluation.posteriors import posteriors_name
    from ensemble.evaluation.prediction_files import SUFFIXES
    from ensemble.evaluation.systems import corpora_of, fold_column
    from featurestore.store.feature_store import FeatureStore

    stored = [name for name in systems if Path(name).suffix.lower() not in SUFFIXES]
    if any(each is not None for each in (train_on, test_on, cv, split)) or not manifest.has("corpus"):
        table, corpora = divided(manifest, train_on, test_on, cv)
        say_corpora(table, corpora, stderr=stderr)
        if corpora is not None and stored:
            opened = FeatureStore.open(store) if isinstance(store, Path) else store
            _refuse_folds({name: fold_column(opened, posteriors_name(opened, name)) for name in stored})
        return table
    if stored and isinstance(store, Path):
        store = FeatureStore.open(store)
    corpora_of_set = {name: corpora_of(store, name) for name in stored} if isinstance(store, FeatureStore) else {}
    recorded = {each for each in corpora_of_set.values() if each is not None}
    if not recorded:
        return manifest
    if len(recorded) > 1 or None in corpora_of_set.values():
        divisions = "; ".join(f"{name}: {each or 'not by corpora'}" for name, each in corpora_of_set.items())
        raise ConfigError(f"These systems were made over different corpora ({divisions}). {_way_out(recorded)}")
    cross_corpus = recorded.pop()
    table = cross_corpus.divide(manifest)
    say_corpora(table, cross_corpus, stderr=stderr)
    return table


def _refuse_folds(columns: dict[str, str]) -> None:
    """Raise ConfigError for a cross-validated system, whose models learned from all corpora, those under test too."""
    for name, column in columns.items():
        if column:
            raise ConfigError(
                f"{name} was cross-validated over {column!r}, so its models learned from the corpora under test, too. "
                "Leave --train-on and --test-on out, or fit it again with them."
            )


def _way_out(recorded: "Collection[CrossCorpus]") -> str:
    """Return advice for systems of different corpora: the options under which all can be scored."""
    train = sorted({name for each in recorded for name in each.train})
    test = sorted(set.intersection(*(set(each.test) for each in recorded)) - set(train))
    if not test:
        return "No corpus is a test of all of them; name those that were made alike."
    return f"Name those that were made alike, or score all: --train-on {','.join(train)} --test-on {','.join(test)}."


def say_corpora(table: "Manifest", corpora: "CrossCorpus | None", *, stderr: bool = False) -> None:
    """Print which corpora a divided manifest learns from and tests on, and what was left out of it.

    stderr: there, since stdout holds a table for another program.
    """
    if corpora is None:
        return
    n_train = int((table.column("split") == "train").sum())
    say(f"{corpora}: {n_train:,} utterances to learn from, {len(table) - n_train:,} to test on", stderr=stderr)
    for note in table.notes:
        say(f"note: {note}", "dim", stderr=stderr)
