"""The field's ways from files to rows on disk: transformers alone, one file at a time, in padded batches, with workers.

Each takes a `PeerModel` and a manifest and leaves one float32 `.npy` per utterance in `out`, of the last layer's rows.
DataLoader workers are forked, as is the rule on Linux: spawned ones take longer to start than small corpora to encode.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import torch
import transformers
from torch.utils.data import DataLoader, Dataset

from featurestore.audio import SAMPLE_RATE_HZ
from featurestore.corpus.manifest import Manifest
from featurestore.encoders.base import Encoder
from featurestore.encoders.speech import SpeechEncoder
from featurestore.encoders.text import TextEncoder

ARRIVAL_BATCH = 8


@dataclass(frozen=True)
class PeerModel:
    """transformers' stock model with its processor. family: speech, whisper or text."""

    family: str
    model: Any
    processor: Any
    device: torch.device

    @classmethod
    def load(cls, directory: Path, encoder: Encoder, compute: torch.dtype = torch.float32) -> "PeerModel":
        """Return the stock model from the directory that ours was loaded from."""
        device = torch.device(encoder.device)
        model = transformers.AutoModel.from_pretrained(directory, dtype=compute, local_files_only=True)
        processor: Any
        if isinstance(encoder, TextEncoder):
            family, processor = "text", transformers.AutoTokenizer.from_pretrained(directory, local_files_only=True)
        elif isinstance(encoder, SpeechEncoder):
            stable = encoder.normalize
            family = "speech"
            processor = transformers.Wav2Vec2FeatureExtractor(do_normalize=stable, return_attention_mask=True)
        else:
            family, model = "whisper", model.encoder
            processor = transformers.WhisperFeatureExtractor(feature_size=model.config.num_mel_bins)
        return cls(family, model.eval().to(device), processor, device)

    def read(self, source: Path | str) -> Any:
        """Return the processor's input: samples of a file as soundfile reads them, or the text."""
        return source if self.family == "text" else soundfile.read(source, dtype="float32")[0]

    def prepare(self, inputs: Sequence[Any]) -> dict[str, torch.Tensor]:
        """Return the processor's tensors for one batch, padded where it holds several."""
        if self.family == "text":
            return dict(self.processor(list(inputs), return_tensors="pt", padding=len(inputs) > 1))
        options = {} if self.family == "whisper" else {"padding": len(inputs) > 1}
        return dict(self.processor(list(inputs), sampling_rate=SAMPLE_RATE_HZ, return_tensors="pt", **options))

    @torch.inference_mode()
    def rows(self, prepared: dict[str, torch.Tensor], inputs: Sequence[Any]) -> list[np.ndarray]:
        """Return the rows of each input's own frames or tokens, (T, D) float32."""
        tensors = {
            key: value.to(self.device, self.model.dtype if value.is_floating_point() else value.dtype)
            for key, value in prepared.items()
        }
        if "input_features" in tensors:
            hidden = self.model(tensors["input_features"]).last_hidden_state
        else:
            if len(inputs) == 1:
                tensors.pop("attention_mask", None)
            hidden = self.model(**tensors).last_hidden_state
        counts = [self._n_rows(each, prepared, b) for b, each in enumerate(inputs)]
        return [hidden[b, self._first : self._first + n].float().cpu().numpy() for b, n in enumerate(counts)]

    @property
    def _first(self) -> int:
        return 1 if self.family == "text" else 0

    def _n_rows(self, source: Any, prepared: dict[str, torch.Tensor], b: int) -> int:
        if self.family == "text":
            return int(prepared["attention_mask"][b].sum()) - 2
        if self.family == "whisper":
            return -(-len(source) // 320)
        return int(self.model._get_feat_extract_output_lengths(len(source)))


def sources(manifest: Manifest, family: str) -> list[Any]:
    """Return the texts of the utterances for a text encoder, else their audio paths."""
    if family == "text":
        return list(manifest.texts)
    return [manifest.audio_path(i) for i in range(len(manifest))]


def per_file(peer: PeerModel, manifest: Manifest, out: Path) -> None:
    """Run the loop of most papers' scripts: a file, a forward pass, an np.save."""
    for key, source in zip(manifest.keys, sources(manifest, peer.family), strict=True):
        inputs = [peer.read(source)]
        np.save(out / f"{key}.npy", peer.rows(peer.prepare(inputs), inputs)[0])


def arrival_batches(peer: PeerModel, manifest: Manifest, out: Path) -> None:
    """Run batches of eight in the manifest's order, each padded to its longest."""
    items = list(zip(manifest.keys, sources(manifest, peer.family), strict=True))
    for start in range(0, len(items), ARRIVAL_BATCH):
        part = items[start : start + ARRIVAL_BATCH]
        inputs = [peer.read(source) for _, source in part]
        for (key, _), rows in zip(part, peer.rows(peer.prepare(inputs), inputs), strict=True):
            np.save(out / f"{key}.npy", rows)


class _Files(Dataset[tuple[str, Any]]):
    def __init__(self, peer: PeerModel, manifest: Manifest) -> None:
        self.keys = list(manifest.keys)
        self.sources = sources(manifest, peer.family)
        self.family = peer.family

    def __len__(self) -> int:
        return len(self.keys)

    def __getitem__(self, i: int) -> tuple[str, Any]:
        source = self.sources[i]
        return self.keys[i], source if self.family == "text" else soundfile.read(source, dtype="float32")[0]


@dataclass(frozen=True)
class _Collate:
    """Runs in the workers, so that it holds the processor and no model."""

    family: str
    processor: Any

    def __call__(self, batch: Sequence[tuple[str, Any]]) -> tuple[list[str], list[Any], dict[str, torch.Tensor]]:
        inputs = [each for _, each in batch]
        peer = PeerModel(self.family, None, self.processor, torch.device("cpu"))
        return [key for key, _ in batch], inputs, peer.prepare(inputs)


def worker_batches(peer: PeerModel, manifest: Manifest, out: Path, workers: int = 2) -> None:
    """Run a DataLoader whose workers decode and prepare batches of eight while the model computes."""
    collate = _Collate(peer.family, peer.processor)
    loader = DataLoader(_Files(peer, manifest), batch_size=ARRIVAL_BATCH, num_workers=workers, collate_fn=collate)
    for keys, inputs, prepared in loader:
        for key, rows in zip(keys, peer.rows(prepared, inputs), strict=True):
            np.save(out / f"{key}.npy", rows)


PEERS = {
    "per-file": ("transformers, file by file, np.save", per_file),
    "arrival": (f"padded batches of {ARRIVAL_BATCH} in arrival order", arrival_batches),
    "workers": ("the same, prepared by DataLoader workers", worker_batches),
}
