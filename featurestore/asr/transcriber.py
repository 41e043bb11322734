"""One openai-whisper model that transcribes many utterances at once, with whisper.transcribe's own text.

whisper.transcribe decodes windows of 30 s one after the other: greedily first, again at higher temperatures where the
text is repetitive or improbable, and drops what is no speech. Here it does all that for every utterance, but finds the
greedy decoding of an utterance's first window done, in one batch with others'. So most utterances cost a share of a
batch, the rest what they always cost, and no rule of whisper is written twice. Audio of more than 30 s goes alone.
"""

from __future__ import annotations

import difflib
import math
import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from featurestore.asr.source import TranscriptSource, Word
from featurestore.audio import SAMPLE_RATE_HZ
from featurestore.encoders.device import free_device_memory, out_of_memory
from featurestore.encoders.openai_checkpoint import file_identity
from featurestore.encoders.options import check_choice
from featurestore.errors import ConfigError, EncoderError
from featurestore.runtime.device import pick_device

if TYPE_CHECKING:
    import torch

DEFAULT_MODEL = "large-v3"
ALIASES = {"large": "large-v3", "turbo": "large-v3-turbo"}
WINDOW_FRAMES = 3000  # log-mel frames of 10 ms in 30 s
HOP_SAMPLES = 160
WINDOW_S = WINDOW_FRAMES * HOP_SAMPLES / SAMPLE_RATE_HZ
# As whisper.transcribe has them, written here so that a release with other ones changes no text unseen.
THRESHOLDS = {"compression_ratio_threshold": 2.4, "logprob_threshold": -1.0, "no_speech_threshold": 0.6}
TEMPERATURES = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)
SEED = 0  # of the draws at a temperature above 0: each utterance's are its own, whatever came before it


@dataclass(frozen=True)
class RecognisedText:
    """The words of one waveform; the numbers as in Transcript."""

    text: str
    language: str
    avg_logprob: float
    no_speech_prob: float
    words: tuple[Word, ...] | None = None


NO_ROOM = "out of memory on a single utterance; use a smaller model, another device, or split the file."


class Transcriber:
    """An openai-whisper model on its device. `batch` first windows are decoded at once; out of memory halves it."""

    def __init__(self, model: Any, source: TranscriptSource, *, batch: int) -> None:
        self.model = model
        self.source = source
        self.batch = batch
        self._language = None if source.language == "auto" else source.language
        self._fp16 = source.compute == "float16"
        self.decode = partial(_decode_windows, model)  # (mel, DecodingOptions) -> whisper's results
        # whisper refuses a beam with a temperature and `best_of` without one; None is neither.
        self._beam = {} if source.beam == 1 else {"beam_size": source.beam}

    def transcribe(self, waveforms: Sequence[np.ndarray]) -> Iterator[RecognisedText | str]:
        """Yield the text of each waveform (n_samples,) float32, 16 kHz, or the reason for none, in order."""
        for waveform, prepared in zip(waveforms, self._first_windows(waveforms), strict=True):
            recognised: RecognisedText | None = None
            try:
                recognised = self._transcribe(waveform, prepared)
            except (RuntimeError, MemoryError) as error:
                if not out_of_memory(error):
                    raise
            if recognised is None:  # out of the except block: the traceback no longer holds the failed pass's tensors
                free_device_memory()
            yield NO_ROOM if recognised is None else recognised

    def _transcribe(self, waveform: np.ndarray, prepared: Any) -> RecognisedText:
        import torch
        import whisper

        model = _Prepared(self.model, self.decode, prepared)
        with ExitStack() as stack:
            device = self.model.device
            stack.enter_context(torch.random.fork_rng([device] if device.type == "cuda" else []))
            stack.enter_context(warnings.catch_warnings())
            warnings.filterwarnings("ignore", "Performing inference on CPU when CUDA is available")
            torch.manual_seed(SEED)
            result = whisper.transcribe(
                model,
                torch.from_numpy(waveform).to(device),
                language=self._language if prepared is None else prepared.language,
                temperature=TEMPERATURES,
                fp16=self._fp16,
                word_timestamps=self.source.words,
                **THRESHOLDS,
                **self._beam,
            )
        weights = [len(window.tokens) + 1 for window in model.windows]  # the end counts as a token
        logprobs = [window.avg_logprob * weight for window, weight in zip(model.windows, weights, strict=True)]
        return RecognisedText(
            text=result["text"].strip(),
            language=result["language"],
            avg_logprob=sum(logprobs) / sum(weights) if weights else math.nan,
            no_speech_prob=min((window.no_speech_prob for window in model.windows), default=math.nan),
            words=_words_of(result) if self.source.words else None,
        )

    def _first_windows(self, waveforms: Sequence[np.ndarray]) -> list[Any]:
        """Return the greedy decoding of each first window, made in batches.

        None for what whisper had better do alone.
        """
        results: list[Any] = [None] * len(waveforms)
        short = [i for i, w in enumerate(waveforms) if 0 < len(w) // HOP_SAMPLES <= WINDOW_FRAMES]
        while len(short) > 1 and self.batch > 1:
            part = short[: self.batch]
            try:
                decoded = self._decode([waveforms[i] for i in part])
            except (RuntimeError, MemoryError) as error:
                if not out_of_memory(error):
                    raise
                decoded = []
            if decoded:
                for i, result in zip(part, decoded, strict=True):
                    results[i] = result
                short = short[len(part) :]
            else:  # out of the except block: the traceback no longer holds the failed pass's tensors
                free_device_memory()
                self.batch = len(part) // 2
        return results

    def _decode(self, waveforms: Sequence[np.ndarray]) -> list[Any]:
        """Decode waveforms of up to 30 s at temperature 0, in one batch per language: a DecodingResult each."""
        import torch
        from whisper.audio import N_SAMPLES, log_mel_spectrogram, pad_or_trim

        from featurestore.runtime.transfer import to_device

        dtype = torch.float16 if self._fp16 else torch.float32
        # What whisper.transcribe sees: it tells the language from a window that ends in silence, and the
        # words from one that is cut at the audio's end and filled with zeros.
        silent, zeroed = [], []
        for waveform, audio in zip(waveforms, to_device(waveforms, self.model.device), strict=True):
            mel = log_mel_spectrogram(audio, self.model.dims.n_mels, padding=N_SAMPLES)
            silent.append(pad_or_trim(mel, WINDOW_FRAMES))
            zeroed.append(pad_or_trim(mel[:, : len(waveform) // HOP_SAMPLES], WINDOW_FRAMES))
        if self._language is None:
            probabilities = self.model.detect_language(torch.stack(silent).to(dtype))[1]
            languages = [str(max(each, key=each.get)) for each in probabilities]
        else:
            languages = [self._language] * len(waveforms)
        results: list[Any] = [None] * len(waveforms)
        for language in sorted(set(languages)):
            indices = [i for i, each in enumerate(languages) if each == language]
            windows = torch.stack([zeroed[i] for i in indices]).to(dtype)
            for i, result in zip(indices, self.decode(windows, self._greedy(language)), strict=True):
                results[i] = result
        return results

    def _greedy(self, language: str) -> Any:
        from whisper import DecodingOptions

        return DecodingOptions(language=language, temperature=TEMPERATURES[0], fp16=self._fp16)


class _Prepared:
    """A Whisper model to whisper.transcribe, whose first decoding is known; remembers what each window came to."""

    def __init__(self, model: Any, decode: Callable[[torch.Tensor, Any], Any], first: Any) -> None:
        self.device, self.dims = model.device, model.dims
        self.is_multilingual, self.num_languages = model.is_multilingual, model.num_languages
        self.detect_language = model.detect_language
        self.decoder, self.alignment_heads = model.decoder, model.alignment_heads  # for the times of words
        self._model = model
        self.windows: list[Any] = []
        self._decode = decode
        self._first = first

    def __call__(self, mel: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self._model(mel, tokens)
        return logits

    def decode(self, segment: torch.Tensor, options: Any) -> Any:
        result = self._first
        if result is None:
            result = self._decode(segment, options)
        self._first = None
        if options.temperature == TEMPERATURES[0]:
            self.windows.append(result)
        else:
            self.windows[-1] = result
        return result


def load_transcriber(
    model: str = DEFAULT_MODEL,
    *,
    language: str = "auto",
    beam: int = 1,
    device: str = "auto",
    compute: str = "auto",
    batch: int | None = None,
    words: bool = False,
) -> Transcriber:
    """Load a model by openai-whisper's name of it (tiny.en ... large-v3, turbo) or from its checkpoint, a .pt file.

    language: code or English name, or auto. beam: beams of a search, 1 is greedy. compute: float16 on a GPU and float32
    on a CPU by default. batch: windows decoded at once; by default 1 on a CPU or with beams, on a GPU what its free
    memory holds, 128 at most. words: times of words too, by whisper's own method (cross-attention and time warping).
    Raises EncoderError (unknown name, weights not found or not loadable) and ConfigError (options).
    """
    check_choice("compute", compute, ("auto", "float32", "float16"))
    torch_device = pick_device(device)
    if compute == "auto":
        compute = "float16" if torch_device.type == "cuda" else "float32"
    if compute == "float16" and torch_device.type != "cuda":
        raise ConfigError(f"--compute float16: whisper has it on a GPU only, found device {torch_device}. Use float32.")
    if beam < 1 or (batch is not None and batch < 1):
        raise ConfigError(f"--beam {beam} and --batch {batch}: expected 1 or more.")
    if beam > 1 and (batch or 1) > 1:
        raise ConfigError(f"--beam {beam}: openai-whisper searches for one utterance at a time; leave --batch out.")
    label, loaded, path = _load(model)
    source = TranscriptSource(
        label, file_identity(path), _language_code(language, loaded, label), beam, compute, words=words
    )
    if words:
        _set_alignment_heads(loaded, label)
    if compute == "float16":
        halve(loaded)
    loaded = loaded.eval().requires_grad_(False).to(torch_device)
    if batch is None:
        batch = _batch_of_gpu(loaded, torch_device, compute) if torch_device.type == "cuda" and beam == 1 else 1
    return Transcriber(loaded, source, batch=batch)


def _decode_windows(model: Any, mel: torch.Tensor, options: Any) -> Any:
    from featurestore.asr.decoding import decode

    return decode(model, mel, options)


def _batch_of_gpu(model: Any, device: torch.device, compute: str) -> int:
    import torch

    from featurestore.asr.decoding import batch_that_fits, clip_bytes

    free_bytes, _ = torch.cuda.mem_get_info(device)
    return batch_that_fits(free_bytes, clip_bytes(model.dims, 2 if compute == "float16" else 4))


def _words_of(result: dict[str, Any]) -> tuple[Word, ...]:
    """Return the words of whisper.transcribe's result, with their times in seconds."""
    words = [word for segment in result["segments"] for word in segment["words"]]
    return tuple((str(word["word"]), float(word["start"]), float(word["end"])) for word in words)


def _set_alignment_heads(model: Any, label: str) -> None:
    """Choose the attention heads that whisper's authors did for a model of this name; else its upper layers stay."""
    from whisper import _ALIGNMENT_HEADS

    with suppress(RuntimeError, ValueError):  # of a model of other sizes
        if label in _ALIGNMENT_HEADS:
            model.set_alignment_heads(_ALIGNMENT_HEADS[label])


def halve(model: Any) -> None:
    """Cast to float16 what whisper casts at every step, to the same numbers; a step then reads half the bytes."""
    import torch

    for module in model.modules():
        if isinstance(module, torch.nn.Linear | torch.nn.Conv1d):
            module.half()


def _load(name: str) -> tuple[str, Any, Path]:
    """Return the model's name for the record, the model on the CPU, and the file of its weights."""
    import whisper
    from huggingface_hub import constants

    if name.endswith(".pt"):
        path = Path(name)
        if not path.is_file():
            raise EncoderError(f"--model {name}: no such file; expected an openai-whisper checkpoint such as base.pt.")
        return path.stem, _checkpoint(str(path), path, f"--model {name}"), path
    label = name.removeprefix("openai/").removeprefix("whisper-")
    model_names = whisper.available_models()
    if label not in model_names:
        near = difflib.get_close_matches(label.lower(), model_names, n=3, cutoff=0.5)
        hint = f"Did you mean {' or '.join(near)}?" if near else f"Known are {', '.join(model_names)}."
        raise EncoderError(
            f"--model {name}: unknown to openai-whisper. {hint} A checkpoint's path (.pt) works as well."
        )
    label = ALIASES.get(label, label)
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "whisper"
    path = cache / f"{label}.pt"
    if not path.is_file() and constants.HF_HUB_OFFLINE:
        raise _not_found(label, path, "HF_HUB_OFFLINE is set")
    return label, _checkpoint(label, path, f"--model {name}"), path


def _checkpoint(name: str, path: Path, label: str) -> Any:
    import whisper

    try:
        return whisper.load_model(name, device="cpu", download_root=str(path.parent))
    except Exception as error:  # urllib, torch and whisper raise many kinds; they mean one of two things to a user
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:160]
        if not path.is_file():
            raise _not_found(name, path, reason) from None
        raise EncoderError(
            f"{label}: {path} is not an openai-whisper checkpoint ({type(error).__name__}: {reason}). Pass one such as "
            "base.pt, or remove the file to have it downloaded again."
        ) from None


def _not_found(label: str, path: Path, reason: str) -> EncoderError:
    return EncoderError(
        f"whisper {label}: weights not found; tried {path} and the download ({reason}). With no network, copy "
        f"{label}.pt here and pass --model {label}.pt (with its path)."
    )


def _language_code(text: str, model: Any, label: str) -> str:
    """Map "German" or "de" -> "de"; an English-only model has "en" alone. ConfigError for unknown languages."""
    from whisper.tokenizer import LANGUAGES, TO_LANGUAGE_CODE

    language = text.strip().lower()
    codes = list(LANGUAGES)[: model.num_languages] if model.is_multilingual else ["en"]
    code: str = TO_LANGUAGE_CODE.get(language, language)
    if language == "auto":
        return "auto" if model.is_multilingual else "en"
    if code not in codes:
        names = {name: code for name, code in TO_LANGUAGE_CODE.items() if code in codes}
        near = difflib.get_close_matches(language, [*names, *codes], n=3)
        hint = f" Did you mean {' or '.join(near)}?" if near else ""
        expected = "a code such as en, its English name, or auto" if model.is_multilingual else "en, its only language"
        raise ConfigError(f"--language {text}: not one that {label} knows, expected {expected}.{hint}")
    return code
