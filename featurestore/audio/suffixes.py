"""The suffixes of files that hold sound: the one list that every reader of folders and of file names goes by."""

from pathlib import PurePath

# Speech alone, then containers of video with a sound track.
SOUND_SUFFIXES = (
    ".wav", ".wave", ".flac", ".ogg", ".oga", ".opus", ".mp3", ".m4a", ".m4b", ".aac", ".amr", ".awb", ".spx",
    ".aif", ".aiff", ".aifc", ".au", ".snd", ".caf", ".w64", ".rf64", ".sph", ".nist", ".voc", ".gsm", ".mp2", ".mpga",
    ".ac3", ".eac3", ".wma", ".wv", ".tta", ".mka", ".weba",
)  # fmt: skip
VIDEO_SUFFIXES = (
    ".mp4", ".m4v", ".mov", ".3gp", ".3g2", ".mkv", ".webm", ".avi", ".ogv", ".mpg", ".mpeg", ".flv", ".asf",
    ".wmv",
)  # fmt: skip
AUDIO_SUFFIXES = (*SOUND_SUFFIXES, *VIDEO_SUFFIXES)


def has_audio_suffix(name: str | PurePath) -> bool:
    """Return whether a file's name or an utterance id ends in an audio suffix, in any letter case."""
    return str(name).lower().endswith(AUDIO_SUFFIXES)


def without_audio_suffix(name: str) -> str:
    """Return a file's name or an utterance id without its audio suffix, as it is where it has none."""
    return name[: name.rindex(".")] if has_audio_suffix(name) else name
