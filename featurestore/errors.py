"""One exception class per kind of failure; every message names the thing, what was expected and the remedy."""


class MedusaError(Exception):
    """Base of every error a user can cause or mend; the command line prints it as one line."""


class ManifestError(MedusaError):
    """A corpus table is missing, unreadable, or has a wrong row or column."""


class ProtocolError(MedusaError):
    """A division of a corpus leaks or lacks classes, or predictions were made on another division."""


class AudioError(MedusaError):
    """An audio file can't be decoded to finite samples."""


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


class EncoderError(MedusaError):
    """An encoder is unknown, or its weights can't be loaded."""


class TranscriptError(MedusaError):
    """A transcript table is missing or damaged, or another model's than asked for."""


class ConfigError(MedusaError):
    """A setting is out of range, or settings contradict each other."""


class ProcessError(MedusaError):
    """One of several processes that work together ended, or is out of reach."""
