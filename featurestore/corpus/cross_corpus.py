"""Training on some corpora of a joined manifest and testing on others."""

import json
from collections.abc import Sequence
from dataclasses import dataclass

from featurestore.corpus import arrow
from featurestore.corpus.join import CORPUS, SEPARATOR
from featurestore.corpus.manifest import Manifest
from featurestore.corpus.splits import with_column
from featurestore.errors import ConfigError, ManifestError
from featurestore.runtime.wording import split_names

TRAIN, TEST = "train", "test"
_RULE = "corpora "  # what the rule of a fold plan begins with, before the corpora as JSON


@dataclass(frozen=True)
class CrossCorpus:
    """The corpora that models learn from, and those that they are tested on, by their names in column `corpus`."""

    train: tuple[str, ...]
    test: tuple[str, ...]

    @classmethod
    def of_options(cls, train_on: str | None, test_on: str | None) -> "CrossCorpus | None":
        """Parse --train-on A,B and --test-on C; None for neither, ConfigError for one alone."""
        if train_on is None and test_on is None:
            return None
        if train_on is None or test_on is None:
            raise ConfigError("--train-on and --test-on go together: corpora to learn from, and others to test on.")
        train, test = tuple(split_names(train_on)), tuple(split_names(test_on))
        twice = [name for name in train if name in test]
        if twice:
            raise ConfigError(
                f"{twice[0]!r} stands in both --train-on and --test-on. To train and test within one corpus, leave the "
                "two options out and use --cv, or a column split."
            )
        if not train or not test:
            raise ConfigError(f"--{'test' if train else 'train'}-on names no corpus; give one or more: A,B.")
        return cls(train, test)

    @classmethod
    def of_rule(cls, rule: str) -> "CrossCorpus | None":
        """Return the corpora that a recorded rule names, None for a rule of another kind."""
        if not rule.startswith(_RULE):
            return None
        try:
            names, _ = json.JSONDecoder().raw_decode(rule.removeprefix(_RULE))
            return cls(tuple(map(str, names[TRAIN])), tuple(map(str, names[TEST])))
        except (ValueError, KeyError, TypeError, RecursionError):
            return None

    @classmethod
    def of_manifest(cls, manifest: Manifest) -> "CrossCorpus | None":
        """Return the corpora that a manifest's `split` separates, None where a corpus is in two splits."""
        if not (manifest.has(CORPUS) and manifest.has("split")):
            return None
        pairs = dict.fromkeys(zip(manifest.column(CORPUS).tolist(), manifest.column("split").tolist(), strict=True))
        of = {str(corpus): split for corpus, split in pairs}
        if len(of) != len(pairs) or not {TRAIN, TEST} <= set(of.values()) <= {TRAIN, TEST}:
            return None
        return cls(*(tuple(name for name, split in of.items() if split == part) for part in (TRAIN, TEST)))

    @property
    def rule(self) -> str:
        """The corpora as text, which `of_rule` reads."""
        return _RULE + json.dumps({TRAIN: self.train, TEST: self.test}, ensure_ascii=False)

    def __str__(self) -> str:
        return f"trained on {', '.join(self.train)}, tested on {', '.join(self.test)}"

    def divide(self, manifest: Manifest) -> Manifest:
        """Return the utterances of these corpora, whole, with a `split` of train and test; what it held: `split_was`.

        ManifestError: the manifest has no column `corpus`, or none of the corpora named.
        """
        if not manifest.has(CORPUS):
            raise ManifestError(
                f"Manifest {manifest.name} has no column {CORPUS!r}, by which --train-on and --test-on choose. Join "
                "manifests of several corpora first: medusa prepare join A.csv B.csv -o joined.csv."
            )
        corpora = [None if name is None or name != name else str(name) for name in manifest.column(CORPUS).tolist()]
        corpus_names = sorted({name for name in corpora if name is not None})
        for name in (*self.train, *self.test):
            if name not in corpus_names:
                near = arrow.near_names(name, corpus_names)
                hint = f"did you mean {near[0]!r}?" if near else f"it has {', '.join(corpus_names) or 'none'}."
                raise ManifestError(f"Manifest {manifest.name} has no corpus {name!r}; {hint}")
        part = dict.fromkeys(self.train, TRAIN) | dict.fromkeys(self.test, TEST)
        chosen = manifest.rows([i for i, name in enumerate(corpora) if name in part])
        chosen.notes = list(manifest.notes)
        if chosen.has("split"):
            chosen.notes.append("corpora are taken whole: the manifest's own column split is not used")
        return with_column(chosen, "split", [part[name] for name in corpora if name is not None and name in part])

    def part_names(self, manifest: Manifest) -> list[str]:
        """Return (N,) the split of each utterance with its corpora: "train (A, B)", "test (C)"."""
        names = {TRAIN: f"{TRAIN} ({', '.join(self.train)})", TEST: f"{TEST} ({', '.join(self.test)})"}
        return [names[split] for split in manifest.column("split").tolist()]

    @property
    def learned(self) -> tuple[str, ...]:
        """The part of `part_names` that models learn from."""
        return (f"{TRAIN} ({', '.join(self.train)})",)


def shared_names(names: Sequence[str | None], parts: Sequence[str]) -> list[str]:
    """Return speakers' names without their corpus that stand in more than one part, in their order."""
    of: dict[str, set[str]] = {}
    for name, part in zip(names, parts, strict=True):
        if name is not None:
            of.setdefault(name.partition(SEPARATOR)[2] or name, set()).add(part)
    return [name for name, places in of.items() if len(places) > 1]
