"""One exception class per kind of failure; every message names the thing, what was expected and the remedy."""

from collections.abc import Mapping, Sequence


class MedusaError(Exception):
    """Base of every error a user can cause or mend; the command line prints it as one line."""


class ManifestError(MedusaError):
    """A corpus table is missing, unreadable, or has a wrong row or column."""


class ProtocolError(MedusaError):
    """A division of a corpus leaks or lacks classes, or predictions were made on another division."""


class AudioError(MedusaError):
    """An audio file can't be decoded to finite samples."""


class ShortOfMemory(AudioError):
    """Memory was too short to read an audio file, which may be sound: another attempt may succeed."""


class StoreError(MedusaError):
    """A feature store, feature set or key is missing, damaged, or refused."""


class SegmentGone(StoreError):
    """A segment that was listed is no longer there, since others compacted or removed it; refreshing helps."""


class RemoteError(StoreError):
    """A remote store doesn't answer (`transient`: it may later), or refuses."""

    def __init__(self, message: str, transient: bool = False) -> None:
        super().__init__(message, transient)
        self.transient = transient

    def __str__(self) -> str:
        return str(self.args[0])


class SpecMismatch(StoreError):
    """A feature set exists under this name with another fingerprint."""


class IdentityMismatch(StoreError):
    """A feature set holds an id whose rows were made from other audio or text."""


class EncoderError(MedusaError):
    """An encoder is unknown, or its weights can't be loaded."""


class TranscriptError(MedusaError):
    """A transcript table is missing or damaged, or another model's than asked for."""


class ConfigError(MedusaError):
    """A setting is out of range, or settings contradict each other."""


class AlignmentError(MedusaError):
    """Posteriors or predictions differ in keys or columns, so their rows can't be put side by side.

    missing, surplus: every key or column that differs, by member or system; the message names the first of them.
    """

    def __init__(
        self,
        message: str,
        missing: Mapping[str, Sequence[str]] | None = None,
        surplus: Mapping[str, Sequence[str]] | None = None,
    ) -> None:
        super().__init__(message, missing, surplus)
        self.missing, self.surplus = dict(missing or {}), dict(surplus or {})

    def __str__(self) -> str:
        return str(self.args[0])


class PredictionsError(MedusaError):
    """A file of predictions is unreadable, lacks a column, or holds a value that is none."""


class SubmissionError(MedusaError):
    """A submission file is not what the challenge takes, or would not be."""


class ProcessError(MedusaError):
    """One of several processes that work together ended, or is out of reach."""
