"""Text encoders: one row per token, without the special tokens, whatever the batch and however long the text."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from featurestore.encoders.base import Encoder
from featurestore.encoders.device import arithmetic, default_batch_frames, frozen
from featurestore.encoders.layers import LayerChoice, chosen
from featurestore.encoders.row_builder import Batch, Piece, run_windows
from featurestore.encoders.windows import windows
from featurestore.errors import ConfigError, EncoderError
from featurestore.format.spec import FeatureSpec
from featurestore.runtime.stage_clock import padded_batch, stage
from featurestore.runtime.transfer import Padded, is_queued, to_device

# These count positions from pad_token_id + 1, so that many of their position embeddings are never used.
POSITIONS_AFTER_PADDING = (
    "camembert",
    "data2vec-text",
    "mpnet",
    "roberta",
    "roberta-prelayernorm",
    "xlm-roberta",
    "xlm-roberta-xl",
)
OWN_MASKS = ("deberta", "deberta-v2")  # these mask more than attention, and read nothing back from the device for it
MAX_TOKENS = 512  # of a default window, also where a model has more positions: memory grows with the square
MARGIN_TOKENS = 32
TOKENIZED_TEXTS = 1 << 16  # kept
CPU_BATCH_TOKENS = 256  # measured: texts of 15 tokens go three times as fast as one by one


class TextEncoder(Encoder):
    """A transformers text encoder (BERT, RoBERTa, ModernBERT, MPNet, DeBERTa and their kin).

    Rows are the hidden states of the text's own tokens, in order. A text without any token (empty, or only spaces)
    gives one row: the hidden state of the first special token ([CLS] or <s>) of the empty text. A text longer than a
    window ("512tok+32": 512 tokens with the special ones, fewer where the model's positions end) is encoded in full
    windows, of which 32 tokens at either inner end are context and dropped. Special tokens surround each window.
    """

    kind = "text"

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        *,
        spec: FeatureSpec,
        choice: LayerChoice,
        device: torch.device,
        compute: torch.dtype,
        keep_special: bool = False,
    ) -> None:
        self.model = frozen(model, device, compute)
        self.tokenizer = tokenizer
        self.name = spec.encoder
        self.spec = spec
        self.choice = choice
        self.device = str(device)
        self._device = device
        self.compute = compute
        self.keep_special = keep_special
        self.layers_available: int = model.config.num_hidden_layers
        # It reads tokens back from the device to warn of what does not happen here: padding without a mask.
        self.model.warn_if_padding_and_no_attention_mask = lambda *_: None
        self._prefix, self._suffix = special_tokens(tokenizer)
        size, self._margin = parse_window(spec.window)
        limit = max_positions(model.config, tokenizer)
        self.overlaps = is_queued(device)
        self.window_frames = size
        self.default_batch_frames = default_batch_frames(device, CPU_BATCH_TOKENS, spec, size)
        self._window_tokens = size - self._n_special
        # A run asks three times for a text's tokens: its length, its rows, whether it is empty.
        self._tokens = lru_cache(TOKENIZED_TEXTS)(self._tokenized)
        if size > limit or self._window_tokens <= 2 * self._margin:
            raise ConfigError(
                f"--window {spec.window}: expected at most {limit} tokens for {self.name}, and more than twice the "
                f"context beside its {self._n_special} special ones. Its default is "
                f"{default_window(model.config, tokenizer)}."
            )
        if not self._n_special:
            raise EncoderError(
                f"{self.name}: its tokenizer adds no special tokens, expected one such as [CLS] or <s> at the start "
                "(an empty text needs a row). Use an encoder of the BERT or RoBERTa kind."
            )
        self._pad_id: int = 0 if tokenizer.pad_token_id is None else tokenizer.pad_token_id

    @property
    def _n_special(self) -> int:
        return len(self._prefix) + len(self._suffix)

    def n_frames(self, n_samples: int) -> int:
        """Texts have no samples; see `cost`."""
        raise TypeError(f"{self.name} encodes text, not audio")

    def cost(self, item: int | str) -> int:
        """Padded tokens of one text, special ones included."""
        plan = windows(len(self._tokens(str(item))), self._window_tokens, self._margin)
        return sum(w.stop - w.start + self._n_special for w in plan)

    def is_empty(self, item: Any) -> bool:
        """Return whether a text has no tokens, and so gets the defined row."""
        return not self._tokens(str(item))

    def start(self, batch: Sequence[str], max_frames: int | None = None) -> Callable[[], list[np.ndarray]]:
        """Start on texts: T rows for T tokens, 1 for an empty text; see `Encoder.start`."""
        return self.start_prepared(batch, max_frames)

    def start_prepared(
        self, batch: Sequence[str], max_frames: int | None = None, *, stored: bool = False
    ) -> Callable[[], list[np.ndarray]]:
        """Start on texts; see `Encoder.start_prepared`."""
        pieces = list(self._pieces(batch))
        return run_windows(
            pieces,
            [len(piece.data) for piece in pieces],
            self._forward,
            self._kept,
            n_inputs=len(batch),
            max_frames=max_frames or self.default_batch_frames,
            spec=self.spec,
            stored=stored,
        )

    def _kept(self, piece: Piece) -> slice:
        """Return which rows of one window, special tokens among them, are kept."""
        window, n_ids = piece.window, len(piece.data)
        first = window.keep_start - window.start + len(self._prefix)
        last = window.keep_stop - window.start + len(self._prefix)
        if self.keep_special:
            is_first, is_last = window.start == 0, last + len(self._suffix) == n_ids
            return slice(0 if is_first else first, n_ids if is_last else last)
        return slice(first, last) if last > first else slice(0, 1)

    def _tokenized(self, text: str) -> tuple[int, ...]:
        encoded = self.tokenizer(text, add_special_tokens=False, truncation=False, padding=False, verbose=False)
        return tuple(encoded["input_ids"])

    def _pieces(self, batch: Sequence[str]) -> Iterator[Piece]:
        """Yield the windows over each text's own tokens, with their ids and the special ones around them."""
        for index, text in enumerate(batch):
            tokens = self._tokens(text)
            for window in windows(len(tokens), self._window_tokens, self._margin):
                ids = [*self._prefix, *tokens[window.start : window.stop], *self._suffix]
                yield Piece(index, np.array(ids), window)

    @torch.inference_mode()
    def _forward(self, batch: Batch, dtype: torch.dtype) -> list[Tensor]:
        """Token ids of each window -> what `Batch.take` returns."""
        lengths = [len(piece.data) for piece in batch.pieces]
        n_longest = max(lengths)
        padded_batch(lengths, n_longest)
        ids = Padded([piece.data for piece in batch.pieces], n_longest, self._pad_id)
        input_ids, on_device, selection = to_device([ids, np.array(lengths), batch.selection(n_longest)], self._device)
        with stage("encode", self._device), arithmetic(self.compute, self._device):
            mask = None
            # Fused attention is faster without one; what has none would make one and read it back.
            if min(lengths) < n_longest or self.model.config._attn_implementation != "sdpa":
                mask = self._mask(torch.arange(n_longest, device=self._device) < on_device[:, None])
            output = self.model(input_ids=input_ids, attention_mask=mask, output_hidden_states=True)
            return batch.take(chosen(enumerate(output.hidden_states), self.choice), selection, dtype)

    def _mask(self, valid: Tensor) -> Any:
        """(B, T) bool -> the mask as the model's attention takes it; from a plain one it would be made with a wait."""
        config = self.model.config
        if config.model_type in OWN_MASKS:
            return valid.long()
        full = valid[:, None, None]
        if config.model_type != "modernbert":
            return self._as_added(full)
        places = torch.arange(valid.shape[1], device=valid.device)
        near = (places - places[:, None]).abs() <= config.sliding_window
        return {"full_attention": self._as_added(full), "sliding_attention": self._as_added(full & near)}

    def _as_added(self, attended: Tensor) -> Tensor:
        """Bool (B, 1, T or 1, T) as fused attention takes it, or as what eager attention adds to its logits."""
        if self.model.config._attn_implementation == "sdpa":
            return attended
        return torch.zeros(attended.shape, device=attended.device).masked_fill(
            ~attended, torch.finfo(torch.float32).min
        )


def special_tokens(tokenizer: Any) -> tuple[list[int], list[int]]:
    """The special token ids that this tokenizer puts before and after a text."""
    encoded = tokenizer("a", return_special_tokens_mask=True, truncation=False, padding=False)
    ids, special = encoded["input_ids"], encoded["special_tokens_mask"]
    first = special.index(0)
    last = len(special) - special[::-1].index(0)
    return ids[:first], ids[last:]


def max_positions(config: Any, tokenizer: Any) -> int:
    """Tokens, special ones included, that the model has positions for."""
    limit = getattr(config, "max_position_embeddings", None) or MAX_TOKENS
    if config.model_type in POSITIONS_AFTER_PADDING:
        limit -= config.pad_token_id + 1
    n_positions: int = min(limit, tokenizer.model_max_length)
    return n_positions


def default_window(config: Any, tokenizer: Any) -> str:
    """`512tok+32`, or what the model has positions for, and at most an eighth of it as context."""
    size = min(MAX_TOKENS, max_positions(config, tokenizer))
    return f"{size}tok+{min(MARGIN_TOKENS, size // 8)}"


def parse_window(window: str) -> tuple[int, int]:
    """`512tok+32` -> (512, 32): tokens of a window with its special ones, and of context at each inner end."""
    match = re.fullmatch(r"(\d+)tok\+(\d+)", window)
    if not match:
        raise ConfigError(f"--window {window}: expected TOKENStok+CONTEXT, such as 512tok+32.")
    return int(match[1]), int(match[2])
