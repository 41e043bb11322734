"""What the folders of a corpus stand for: class, split, speaker, fold, or nothing, level by level."""

from collections.abc import Mapping, Sequence
from pathlib import Path, PurePath

from featurestore.corpus.checks import SPLIT_NAMES
from featurestore.errors import ManifestError
from featurestore.runtime.wording import first_names

IGNORED = "_"
LEVELS = ("label", "split", "speaker", "gender", "fold", IGNORED)
EVALUATION = ("evaluation", "eval")  # development where there is a test part beside it, as in ESD; else a test part
FORMATS = frozenset((
    "wav", "wave", "wavs", "flac", "mp3", "ogg", "opus", "m4a", "aac", "amr", "audio", "audios", "audiowav",
    "sound", "sounds", "speech", "clips", "recordings", "data", "raw", "files", "8k", "16k", "44k", "48k", "8khz",
    "16khz", "44khz", "48khz", "mono", "video", "videos",
))  # fmt: skip
EMOTIONS = frozenset((
    "ang", "anger", "angry", "rage", "hot_anger", "cold_anger", "hap", "happy", "happiness", "joy", "joyful", "sad",
    "sadness", "neu", "neutral", "fea", "fear", "fearful", "afraid", "dis", "disgust", "disgusted", "sur",
    "surprise", "surprised", "ps", "calm", "exc", "excited", "excitement", "fru", "frustrated", "frustration",
    "con", "contempt", "bor", "bored", "boredom", "anx", "anxious", "anxiety", "oth", "other", "amused",
    "amusement", "sleepy", "sleepiness", "pain", "tired", "relief", "desire", "pride", "shame", "love", "hate",
    "hatred",
))  # fmt: skip
N_SHOWN = 4
REMEDY = "Say what each level is with --layout, such as speaker/label/split, where _ is a level that means nothing."


def folder_columns(
    files: Sequence[Path], root: Path, layout: str | None, notes: list[str]
) -> dict[str, list[str | None]]:
    """Return columns label, split, ... of files, (N,) each, by the names of the folders that they lie in.

    layout: what each level below `root` is, such as "speaker/label/split". None: a level whose names are all splits is
    the split, one whose names are all formats (flac, wavs) is nothing, and of the others the class is the only one with
    two names or more, or the only one whose names are mostly known emotions. What is not read is added to `notes`.
    Files that all lie in `root` itself have no column. ManifestError: levels that can't be distinguished, a single
    class, a class named like a split or a format, files in different depths; each with the layout that helps.
    """
    parts = [path.relative_to(root).parts[:-1] for path in files]
    deepest = max(parts, key=len)
    shallow = min(parts, key=len)
    if len(shallow) != len(deepest):
        a, b = files[parts.index(shallow)], files[parts.index(deepest)]
        raise ManifestError(
            f"{root}: {a.relative_to(root)} lies {len(shallow)} folders deep and {b.relative_to(root)} "
            f"{len(deepest)}, so what a folder means differs. Move one, or write a metadata.csv (file_name, label)."
        )
    if not deepest:
        return {}
    names = [sorted({part[i] for part in parts}) for i in range(len(deepest))]
    roles = _guessed(root, names, notes) if layout is None else _given(root, names, layout)
    columns: dict[str, list[str | None]] = {
        role: [part[i] for part in parts] for i, role in enumerate(roles) if role != IGNORED
    }
    if "split" in columns:
        split_of = _splits(root, names[roles.index("split")], notes)
        columns["split"] = [split_of[str(name)] for name in columns["split"]]
    return columns


def _given(root: Path, names: Sequence[Sequence[str]], layout: str) -> list[str]:
    roles = [role.strip() for role in layout.strip("/").split("/")]
    wrong = [role for role in roles if role not in LEVELS]
    twice = [role for role in roles if role != IGNORED and roles.count(role) > 1]
    if wrong or twice:
        raise ManifestError(f"--layout {layout}: expected {', '.join(LEVELS)}, each but _ once, found {layout!r}.")
    if len(roles) != len(names):
        raise ManifestError(
            f"--layout {layout} has {len(roles)} levels, {root} has {len(names)}: {_levels_text(names)}."
        )
    return roles


def _guessed(root: Path, names: Sequence[Sequence[str]], notes: list[str]) -> list[str]:
    roles = ["" for _ in names]
    for i, of_level in enumerate(names):
        lower = {name.lower() for name in of_level}
        if lower <= {*SPLIT_NAMES, *EVALUATION}:
            roles[i] = "split"
        elif lower <= FORMATS:
            roles[i] = IGNORED
    if roles.count("split") > 1:
        raise ManifestError(f"{root} has splits on {roles.count('split')} levels: {_levels_text(names)}. {REMEDY}")
    unnamed = [i for i, role in enumerate(roles) if not role]
    several = [i for i in unnamed if len(names[i]) > 1]
    emotion_levels = [i for i in unnamed if 2 * sum(name.lower() in EMOTIONS for name in names[i]) >= len(names[i])]
    of_one_name = [i for i in emotion_levels if i not in several]
    if not several or (of_one_name and not set(emotion_levels) & set(several)):
        classes_text = (
            f"a single class, {names[(of_one_name or unnamed)[-1]][0]!r}"
            if unnamed
            else "no class, only splits or formats"
        )
        raise ManifestError(
            f"{root}: the folders name {classes_text}: {_levels_text(names)}. Point --root at the folder that holds "
            "the classes, write a metadata.csv (file_name, label), or give --layout (of _ alone for no labels)."
        )
    emotion_levels = [i for i in emotion_levels if i in several]
    if len(several) > 1 and len(emotion_levels) != 1:
        raise ManifestError(
            f"{root}: any of {len(several)} levels of folders may be the class: {_levels_text(names)}. {REMEDY}"
        )
    label = several[0] if len(several) == 1 else emotion_levels[0]
    strange = [name for name in names[label] if name.lower() in {*SPLIT_NAMES, *EVALUATION, *FORMATS}]
    if strange:
        others = first_names([name for name in names[label] if name not in strange], N_SHOWN)
        raise ManifestError(
            f"{root}: classes named like splits or formats ({', '.join(strange)}) beside {others}. "
            f"Move them elsewhere. {REMEDY}"
        )
    roles[label] = "label"
    level_text = f"folders of level {label + 1} ({first_names(names[label], N_SHOWN)})"
    if not any(name.lower() in EMOTIONS for name in names[label]):
        notes.append(
            f"the classes are {level_text}, none a known emotion; if they are speakers: {_layout(roles, label)}"
        )
    for i in several:
        if i != label:
            level_text = f"folders of level {i + 1} ({first_names(names[i], N_SHOWN)})"
            notes.append(f"{level_text} are not read; if they are speakers: {_layout(roles, i)}")
    return [role or IGNORED for role in roles]


def _layout(roles: Sequence[str], speaker: int) -> str:
    """Return the option that makes one level the speaker."""
    return "--layout " + "/".join("speaker" if i == speaker else role or IGNORED for i, role in enumerate(roles))


def _splits(root: Path, names: Sequence[str], notes: list[str]) -> Mapping[str, str]:
    """Return the split that each folder stands for; ManifestError for a name that stands for none."""
    split_of = {}
    for name in names:
        lower = name.lower()
        if lower in EVALUATION:
            beside_test = any(other.lower().startswith("test") for other in names)
            split_of[name] = "development" if beside_test else "test"
            notes.append(f"split {name!r} is taken as {split_of[name]}" + " beside a test part" * beside_test)
        elif lower in SPLIT_NAMES:
            split_of[name] = SPLIT_NAMES[lower]
        else:
            raise ManifestError(f"{root}: unknown split {name!r}, expected one of {', '.join(SPLIT_NAMES)}.")
    return split_of


def _levels_text(names: Sequence[Sequence[str]]) -> str:
    return "; ".join(f"level {i + 1}: {first_names(of_level, N_SHOWN)}" for i, of_level in enumerate(names))


def beside(root: Path, tables: Sequence[str]) -> list[Path]:
    """Return the tables in a directory that might hold its labels, other than those of the given names."""
    suffixes = (".csv", ".tsv", ".parquet", ".jsonl")
    return [
        path for path in sorted(root.iterdir())
        if PurePath(path).suffix.lower() in suffixes and path.name not in tables and not path.name.startswith(".")
    ]  # fmt: skip
