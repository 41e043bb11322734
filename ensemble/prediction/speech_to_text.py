"""Where the words come from that a model's text encoders read: the manifest, or openai-whisper."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from featurestore.asr.source import PROVENANCE, TranscriptSource
from featurestore.corpus.manifest import Manifest
from featurestore.errors import ConfigError, EncoderError, SpecMismatch

if TYPE_CHECKING:
    from featurestore.asr.transcriber import Transcriber

TRANSCRIPTS = "transcripts:"  # what FeatureSpec.source of a text encoder begins with, where its texts were transcribed
OFF = "off"


@dataclass(frozen=True)
class SpeechToText:
    """Which feature sets need ASR transcripts (`sets`; others read the manifest's texts), and their model.

    model: openai-whisper's name of it, or its checkpoint. identity: of the transcripts that members learned from, ""
    where they learned from other texts. source: the settings of those transcripts, None where the feature sets do not
    record them.
    """

    sets: frozenset[str]
    model: str
    identity: str
    source: TranscriptSource | None
    device: str

    @classmethod
    def of(
        cls, sets: Mapping[str, Mapping[str, Any]], manifest: Manifest, asr: str | None, device: str
    ) -> "SpeechToText":
        """Return the plan: members that learned from transcripts share a model, the others read the manifest's text.

        asr: the model that transcribes for all text encoders; "off": none, all read the manifest's texts; None: as
        the members learned. ConfigError where a text is needed and there is none.
        """
        sources = {name: saved["spec"]["source"] for name, saved in sets.items() if saved["spec"]["kind"] == "text"}
        transcribed_sets = {name for name, source in sources.items() if asr or source.startswith(TRANSCRIPTS)}
        transcribed_sets = set() if asr == OFF else transcribed_sets
        read = sorted(set(sources) - transcribed_sets)
        if read and not manifest.has("text"):
            raise ConfigError(
                f"The model reads text (feature set {', '.join(read)}): give the transcript with --text, a --manifest "
                "with a text column, or --asr MODEL, which transcribes the audio."
            )
        if transcribed_sets and not manifest.has("path"):
            raise ConfigError(
                f"The model reads transcripts of the audio ({', '.join(sorted(transcribed_sets))}): the manifest has "
                "no 'path'."
            )
        identities = sorted({sources[name].removeprefix(TRANSCRIPTS) for name in transcribed_sets
                             if sources[name].startswith(TRANSCRIPTS)})  # fmt: skip
        if len(identities) > 1:
            raise ConfigError(
                f"The members learned from transcripts of different models ({', '.join(identities)}); give the texts "
                "with --text or a --manifest, and --asr off."
            )
        identity = identities[0] if identities else ""
        recorded = (settings_of(name, sets[name]) for name in sorted(transcribed_sets))
        source = next((each for each in recorded if each is not None), None)
        return cls(frozenset(transcribed_sets), asr or identity.partition("@")[0], identity, source, device)

    @property
    def needed(self) -> int:
        """Return 1 where audio has to be transcribed, else 0."""
        return int(bool(self.sets))

    def reads(self, name: str) -> bool:
        """Return whether this feature set reads transcripts."""
        return name in self.sets

    def texts(
        self, manifest: Manifest, workers: int, progress: Callable[[int, int], None]
    ) -> tuple[Manifest, dict[str, str]]:
        """Return the manifest with transcripts as its text column, and by key why there is none of the others."""
        from featurestore.asr.transcribe import iter_transcribe
        from featurestore.featurize.items import audio_items

        items, without = audio_items(manifest)
        failed, texts = dict(without), {}
        for done, (key, result) in enumerate(iter_transcribe(self.transcriber, items, workers=workers), 1):
            if isinstance(result, str):
                failed[key] = result
            else:
                texts[key] = result.text
            progress(done, len(items))
        table = manifest.to_arrow().filter(pa.array([key in texts for key in manifest.keys], pa.bool_()))
        column = pa.array([texts[key] for key in table.column("utterance_id").to_pylist()], pa.string())
        if "text" in table.column_names:
            table = table.drop_columns(["text"])
        return manifest.with_table(table.append_column("text", column)), failed

    @cached_property
    def transcriber(self) -> "Transcriber":
        """The model, loaded once; SpecMismatch when it is not the one, or not set as the one, of the transcripts."""
        from featurestore.asr.transcriber import load_transcriber
        from featurestore.runtime.device import pick_device

        options: dict[str, Any] = {}
        if self.source is not None:
            options = {"language": self.source.language, "beam": self.source.beam}
            if not (self.source.compute == "float16" and pick_device(self.device).type != "cuda"):
                options["compute"] = self.source.compute
        try:
            loaded = load_transcriber(self.model, device=self.device, **options)
        except EncoderError as error:
            raise EncoderError(
                f"The model reads transcripts by Whisper {self.model}: {error} Give its file with --asr FILE.pt; or "
                "give transcripts with --text, or with --manifest and --asr off."
            ) from None
        self._check(loaded.source)
        return loaded

    def _check(self, loaded: TranscriptSource) -> None:
        """Raise SpecMismatch unless the model transcribes as the one did that the members learned from."""
        if not self.identity:
            return
        learned = f"The members learned from feature set {', '.join(sorted(self.sets))}, of transcripts of"
        weights, _, digest = self.identity.partition("@")[2].partition("+")
        if loaded.weights.removeprefix("sha256:") != weights:
            raise SpecMismatch(
                f"{learned} {self.identity}, and {self.model} has other weights ({loaded.weights}). Give the "
                "checkpoint with --asr FILE.pt, or the texts with --asr off."
            )
        if self.source is None and loaded.identity.rpartition("+")[2] != digest:
            raise SpecMismatch(
                f"{learned} {self.identity}, made with settings (language, beam, compute) that it does not record; "
                f"{self.model} as it was loaded would make those of {loaded.identity}. Transcribe with "
                "`medusa transcribe` and the settings that were used then, and give its texts in the text column of a "
                "--manifest with --asr off; or make the feature set again with `medusa featurize --transcripts`, which "
                "records them, and fit the members anew."
            )


def settings_of(name: str, saved: Mapping[str, Any]) -> TranscriptSource | None:
    """Return the settings of the transcripts that the feature set `name` was made of, as its provenance records them.

    None where it records none, or those of transcripts of another identity. TranscriptError when they are damaged.
    """
    values = (saved.get("provenance") or {}).get(PROVENANCE)
    if values is None:
        return None
    source = TranscriptSource.from_json(values, f"The provenance of feature set {name!r}")
    return source if saved["spec"]["source"] == TRANSCRIPTS + source.identity else None
