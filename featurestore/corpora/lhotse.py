"""lhotse's cuts (`cuts.jsonl`, `cuts.jsonl.gz`): a cut is an utterance, the whole or a piece of one mono file."""

from pathlib import Path
from typing import Any

from featurestore.audio import SAMPLE_RATE_HZ
from featurestore.corpora.assemble import named, of_columns
from featurestore.corpora.json_lines import field, json_lines
from featurestore.corpus.manifest import LabelScheme, Manifest
from featurestore.corpus.pieces import ENDS, LENGTHS, OFFSET, STARTS
from featurestore.corpus.times import end_of
from featurestore.errors import ManifestError

SLACK_S = 0.1  # that trimming and rounding leave of a cut before and behind its supervision, together
WHOLE_FILES = "Save each cut as a file of its own first: cuts.save_audios(DIR), then to_file."


def read_lhotse(path: Path, *, label: str = "emotion", audio: Path | None = None, check_audio: bool = True) -> Manifest:
    """Return the manifest of a file of cuts.

    label: the field of the supervision's, else of the cut's, `custom` that holds the class; where no cut has it there
    is no label column. audio: where relative sources start, by default the directory of the file. Columns: utterance_id
    (the cut's id), path, start_s and end_s where a cut is a piece of its recording, speaker, gender, label, text,
    duration_s, and what else `custom` holds (no lists). ManifestError names the line: mixed or padded cuts, several
    channels or supervisions, cuts beyond their recording, sources that are no files.
    """
    rows: list[dict[str, Any]] = []
    longer: list[str] = []
    for place, cut in json_lines(path):
        try:
            rows.append(_row(place, cut, label))
            if _unsupervised_s(cut) > SLACK_S:
                longer.append(str(cut["id"]))
        except (TypeError, ValueError, AttributeError, IndexError) as error:
            raise ManifestError(f"{place}: not a cut as lhotse writes it ({error}).") from None
    if not rows:
        raise ManifestError(f"{path} holds no cuts.")
    names = list(dict.fromkeys(name for row in rows for name in row))
    columns: dict[str, Any] = {name: [row.get(name) for row in rows] for name in names}
    columns = {name: values for name, values in columns.items() if any(value is not None for value in values)}
    labels = sorted({str(value) for value in columns.get("label", []) if value is not None})
    if "label" in columns:
        columns["label"] = [None if value is None else str(value) for value in columns["label"]]
    notes = [] if labels else [f"no labels: no cut has a custom field {label!r}; name another with --label"]
    if longer:
        notes.append(
            named("cuts are longer than their supervision, whose label is taken for all of the cut", longer)
            + "; for the supervised part alone: cuts.trim_to_supervisions(), then to_file"
        )
    start = path.parent if audio is None else audio
    return of_columns(
        columns, LabelScheme(tuple(labels)), start, path.name.partition(".")[0], source=path,
        check_audio=check_audio, notes=notes,
    )  # fmt: skip


def _row(place: str, cut: dict[str, Any], label: str) -> dict[str, Any]:
    if cut.get("type", "MonoCut") != "MonoCut":
        raise ManifestError(f"{place}: a {cut['type']}, expected a MonoCut. {WHOLE_FILES}")
    if "recording" not in cut and ("sources" in cut or "recording_id" in cut):
        kind = "recording" if "sources" in cut else "supervision"
        raise ManifestError(
            f"{place}: a {kind}, expected a cut. Make cuts of recordings and supervisions: "
            "CutSet.from_manifests(recordings, supervisions).trim_to_supervisions().to_file('cuts.jsonl.gz')."
        )
    recording = field(place, cut, "recording")
    sources = field(place, recording, "sources")
    if len(sources) != 1 or len(sources[0].get("channels", [0])) != 1:
        raise ManifestError(f"{place}: the recording has several channels, expected a mono file. {WHOLE_FILES}")
    if sources[0].get("type") != "file":
        raise ManifestError(f"{place}: the source is a {sources[0].get('type')!r}, expected a file. {WHOLE_FILES}")
    duration, recording_s = float(field(place, cut, "duration")), float(field(place, recording, "duration"))
    start = float(cut.get("start", 0.0))
    slack = 1.0 / float(field(place, recording, "sampling_rate"))
    if not (start >= 0 and start + duration <= recording_s + slack):  # also where one is NaN
        raise ManifestError(
            f"{place}: seconds {start:g} to {start + duration:g} of a recording of {recording_s:g}. Mend one of them."
        )
    _refuse_transforms(place, cut, recording)
    part = start > 0 or duration < recording_s - slack
    supervisions = cut.get("supervisions", [])
    if len(supervisions) > 1:
        raise ManifestError(f"{place}: {len(supervisions)} supervisions, expected one at most. {WHOLE_FILES}")
    supervision = supervisions[0] if supervisions else {}
    custom = {**(cut.get("custom") or {}), **(supervision.get("custom") or {})}
    return {
        **{
            name: value
            for name, value in custom.items()
            if isinstance(value, (str, int, float)) and name.casefold() not in (*STARTS, *ENDS, *LENGTHS, OFFSET)
        },
        "utterance_id": field(place, cut, "id"),
        "path": field(place, sources[0], "source"),
        "start_s": start if part else None,
        "end_s": end_of(start, duration) if part else None,
        "speaker": supervision.get("speaker"),
        "gender": supervision.get("gender"),
        "label": custom.get(label),
        "text": supervision.get("text"),
        "duration_s": duration,
    }


def _refuse_transforms(place: str, *records: dict[str, Any]) -> None:
    """Raise ManifestError for what lhotse would do with the samples on reading, but for a rate of ours or more."""
    for transform in [each for record in records for each in record.get("transforms") or []]:
        name, options = transform.get("name"), transform.get("kwargs") or {}
        if name != "Resample" or int(options.get("target_sampling_rate", 0)) < SAMPLE_RATE_HZ:
            raise ManifestError(f"{place}: has the transform {name} of the file's samples. {WHOLE_FILES}")


def _unsupervised_s(cut: dict[str, Any]) -> float:
    """Return the seconds of a cut that lie outside of its one supervision, whose start counts from the cut's."""
    if not cut.get("supervisions"):
        return 0.0
    (supervision,) = cut["supervisions"]
    duration, start = float(cut["duration"]), float(supervision.get("start", 0.0))
    stop = start + float(supervision.get("duration", duration))
    return duration - (min(stop, duration) - max(0.0, start))
