"""What one transcript is, and what made it: the identity that is stored with a table of them."""

import dataclasses
import hashlib
import json
from dataclasses import dataclass
from typing import Any

from featurestore.errors import TranscriptError

PROVENANCE = "transcripts"  # what the provenance of a feature set of transcripts calls the fields of their source


@dataclass(frozen=True)
class TranscriptSource:
    """What made transcripts; equal identities may stand in one table, others never.

    model: openai-whisper's name of it, or a file's. weights: "sha256:..." of the checkpoint. language: a code, or auto
    (recorded for each utterance). beam: 1 is greedy. compute: arithmetic. version: raised when the code's texts change.
    words: times of words are stored; whisper then goes on after the last word, so that texts may differ.
    """

    model: str
    weights: str
    language: str = "auto"
    beam: int = 1
    compute: str = "float32"
    version: int = 1
    words: bool = False

    @property
    def identity(self) -> str:
        """`large-v3@<16 hex digits of the weights>+<8 hex digits over the other fields>`."""
        # Without the fields at their default, a later version can add one and old tables keep their identity.
        identity_fields = {
            field.name: getattr(self, field.name)
            for field in dataclasses.fields(self)
            if field.name not in ("model", "weights") and getattr(self, field.name) != field.default
        }
        options = hashlib.blake2b(json.dumps(identity_fields, sort_keys=True).encode(), digest_size=4).hexdigest()
        return f"{self.model}@{self.weights.removeprefix('sha256:')}+{options}"

    def differences(self, other: "TranscriptSource") -> list[str]:
        """Each differing field as "model: stored base, asked large-v3"; self is what is stored."""
        return [
            f"{field.name}: stored {getattr(self, field.name)}, asked {getattr(other, field.name)}"
            for field in dataclasses.fields(self)
            if getattr(self, field.name) != getattr(other, field.name)
        ]

    def to_json(self) -> dict[str, Any]:
        """Return the fields, and the identity for readers of the file."""
        return {**dataclasses.asdict(self), "identity": self.identity}

    @classmethod
    def from_json(cls, values: Any, place: str) -> "TranscriptSource":
        """Read what `to_json` wrote; TranscriptError names the place when it is something else."""
        try:
            source = cls(**{name: value for name, value in values.items() if name not in ("identity", "made_with")})
            for field in dataclasses.fields(cls):
                if type(getattr(source, field.name)) is not field.type:
                    raise TypeError(f"{field.name} is {getattr(source, field.name)!r}")
        except (TypeError, AttributeError) as error:
            raise TranscriptError(
                f"{place} does not say what made the transcripts ({error}): it is damaged, or a newer version of "
                "medusa-ser wrote it. Remove it; the model is still in the table's column."
            ) from None
        return source


Word = tuple[str, float, float]  # as it stands in the text, with its blank before; start and end in seconds


@dataclass(frozen=True)
class Transcript:
    """The words of one utterance: text ("" where no speech was detected) and the code of its language.

    avg_logprob: mean log-probability of the tokens, over all windows. no_speech_prob: of the window that is most like
    speech. Both are NaN where there was too little audio to look at (less than 10 ms). words: None where their times
    were not asked for. audio: JSON text of what the samples were decoded from, "" where it was not recorded.
    """

    key: str
    text: str
    language: str
    avg_logprob: float
    no_speech_prob: float
    duration_s: float
    words: tuple[Word, ...] | None = None
    audio: str = ""
