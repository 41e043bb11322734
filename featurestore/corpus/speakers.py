"""How far a corpus's labels follow from who speaks: a model that knows voices may seem to know emotions."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from featurestore.corpus.division import Division, known_speakers
from featurestore.corpus.manifest import Manifest
from featurestore.corpus.overlap import PART_COLUMNS
from featurestore.corpus.splits import label_codes
from featurestore.runtime.wording import first_names

N_HALVES = 10  # random halves of each speaker's utterances
FEW_SPEAKERS, FEW_SHARE, MOST = 5, 0.1, 0.5
_STREAM = 9  # of random draws; featurestore.corpus.splits has others


@dataclass(frozen=True)
class SpeakerOnly:
    """What a classifier reaches that knows who speaks and nothing else, against one that knows nothing.

    column: "all" for halves of every speaker's utterances, one half learned from and the other tested; else the column
    of parts, where each fold is tested after learning from the others, and test splits after learning from train.
    uar_error: the standard error of its UAR, each class's hits taken as binomial.
    """

    column: str
    n_utterances: int
    uar: float
    accuracy: float
    chance_uar: float  # 1 / classes that occur
    majority_accuracy: float  # of always answering the most frequent class that was learned from
    uar_error: float = 0.0

    @property
    def is_informed(self) -> bool:
        """Does it know more than chance? A difference of less than two standard errors is none."""
        return self.uar > self.chance_uar + 2 * self.uar_error


@dataclass(frozen=True)
class SpeakerReport:
    """Speakers and labels: who has one class alone, which classes few speakers have, and the classifier by speaker."""

    n_speakers: int  # with a label
    single_class: dict[str, list[str]]  # class -> speakers of two utterances or more who have no other class
    few_speakers: dict[str, int]  # class -> speakers who have it, where these are few
    by_speaker: list[SpeakerOnly]


def speaker_report(manifest: Manifest) -> SpeakerReport | None:
    """Return how labels depend on speakers, None where no utterance has a known speaker and a label (or votes).

    A class has few speakers if fewer than 5 and less than half of the speakers have it, or less than a tenth of them.
    """
    codes, speakers = label_codes(manifest), known_speakers(manifest)
    if codes is None or not speakers:
        return None
    usable = np.array([speaker is not None for speaker in speakers]) & (codes >= 0)
    if not usable.any():
        return None
    rows = np.flatnonzero(usable)
    names, speaker_of = np.unique([str(speakers[int(i)]) for i in rows], return_inverse=True)
    counts = _counts(speaker_of, codes[usable], len(names), len(manifest.scheme.classes))
    one_class = np.flatnonzero(((counts > 0).sum(1) == 1) & (counts.sum(1) > 1))
    single: dict[str, list[str]] = {}
    for speaker in one_class:
        single.setdefault(manifest.scheme.classes[int(counts[speaker].argmax())], []).append(str(names[speaker]))
    n_having = (counts > 0).sum(0)
    few = {
        name: int(n) for name, n in zip(manifest.scheme.classes, n_having, strict=True)
        if n and ((n < FEW_SPEAKERS and n < MOST * len(names)) or n < FEW_SHARE * len(names))
    }  # fmt: skip
    by_speaker = [_by_halves(speaker_of, codes[rows], counts.shape)]
    for column in PART_COLUMNS:
        if manifest.has(column):
            division = Division.of_manifest(manifest, column)
            result = _by_parts(division, np.array(division.parts, object)[rows], speaker_of, codes[rows], counts.shape)
            by_speaker += [] if result is None else [result]
    return SpeakerReport(len(names), single, few, by_speaker)


def _by_halves(speaker_of: NDArray[np.int64], codes: NDArray[np.int64], shape: tuple[int, ...]) -> SpeakerOnly:
    """Learn from a random half of each speaker's utterances and test on the other, several times."""
    credit, plain = np.zeros(len(speaker_of)), np.zeros(len(speaker_of))
    for i in range(N_HALVES):
        order = np.random.default_rng((_STREAM, i)).permutation(len(speaker_of))
        order = order[np.argsort(speaker_of[order], kind="stable")]
        half = np.empty(len(speaker_of), bool)
        half[order] = np.arange(len(speaker_of)) % 2 == 0
        for learned, tested in ((half, ~half), (~half, half)):
            correct, most = _credit(speaker_of, codes, learned, tested, shape)
            credit[tested] += correct
            plain[tested] += most
    return _score("all", codes, credit / N_HALVES, plain / N_HALVES)


def _by_parts(
    division: Division, parts: NDArray[np.object_], speaker_of: NDArray[np.int64], codes: NDArray[np.int64],
    shape: tuple[int, ...],
) -> SpeakerOnly | None:  # fmt: skip
    """Learn and test as models do with this division; None where nothing is learned from or nothing is tested."""
    learned_from, names = division.learned_from, sorted(set(parts.tolist()) - {""})
    trained = parts == "train" if learned_from is not None else np.zeros(len(parts), bool)
    credit, plain = np.full(len(speaker_of), np.nan), np.full(len(speaker_of), np.nan)
    for name in names:
        learned = trained if learned_from is not None else (parts != name) & (parts != "")
        tested = parts == name
        if learned.any() and not (learned & tested).any():
            credit[tested], plain[tested] = _credit(speaker_of, codes, learned, tested, shape)
    done = ~np.isnan(credit)
    return _score(division.column, codes[done], credit[done], plain[done]) if done.any() else None


def _credit(
    speaker_of: NDArray[np.int64], codes: NDArray[np.int64], learned: NDArray[np.bool_], tested: NDArray[np.bool_],
    shape: tuple[int, ...],
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:  # fmt: skip
    """Return for each tested row the chance that the speaker's, and the corpus's, most frequent class is the right one.

    Classes that are equally frequent share the answer; a speaker who was not learned from gets the corpus's answer.
    """
    counts = _counts(speaker_of[learned], codes[learned], *shape)
    counts = np.vstack([counts, counts.sum(0)])
    best = counts == counts.max(1, keepdims=True)
    best[:-1] = np.where(counts[:-1].any(1, keepdims=True), best[:-1], best[-1])
    share = best / best.sum(1, keepdims=True)
    return share[speaker_of[tested], codes[tested]], share[-1, codes[tested]]


def _score(
    column: str, codes: NDArray[np.int64], credit: NDArray[np.float64], plain: NDArray[np.float64]
) -> SpeakerOnly:
    n_each = np.bincount(codes)
    occurring = n_each > 0
    recalls = np.bincount(codes, credit)[occurring] / n_each[occurring]
    error = np.sqrt((recalls * (1 - recalls) / n_each[occurring]).sum()) / occurring.sum()
    return SpeakerOnly(
        column, len(codes), float(recalls.mean()), float(credit.mean()), float(1 / occurring.sum()),
        float(plain.mean()), float(error),
    )  # fmt: skip


def _counts(
    speaker_of: NDArray[np.int64], codes: NDArray[np.int64], n_speakers: int, n_classes: int
) -> NDArray[np.int64]:
    counts = np.zeros((n_speakers, n_classes), np.int64)
    np.add.at(counts, (speaker_of, codes), 1)
    return counts


def sentences(report: SpeakerReport) -> Sequence[str]:
    """Return the findings of the report, one sentence each, without a full stop."""
    lines = []
    if report.single_class:
        names = "; ".join(f"{name}: {first_names(who, 3)}" for name, who in report.single_class.items())
        n = sum(map(len, report.single_class.values()))
        lines.append(f"{n:,} of {report.n_speakers:,} speakers have a single class ({names})")
    if report.few_speakers:
        classes = ", ".join(f"{name} {n}" for name, n in report.few_speakers.items())
        lines.append(f"classes that few of the {report.n_speakers:,} speakers have: {classes}")
    for each in report.by_speaker:
        place = {"all": "within speakers", "split": "on the splits"}.get(each.column, "on the folds")
        if each.is_informed:
            lines.append(
                f"knowing only the speaker, {place}, scores UAR {each.uar:.3f} (chance {each.chance_uar:.3f}), "
                f"accuracy {each.accuracy:.3f} (most frequent class {each.majority_accuracy:.3f})"
            )
        else:
            below = each.uar < each.chance_uar - 2 * each.uar_error
            why = (
                "; it is below chance because a class that is frequent in one part is rare in the other"
                if below
                else ""
            )
            lines.append(
                f"the speaker alone does not predict the label {place}: UAR {each.uar:.3f} is no more than chance "
                f"({each.chance_uar:.3f} ± {each.uar_error:.3f}){why}"
            )
    return lines
