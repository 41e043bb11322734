"""Text encoders: one row per token, without the special tokens, whatever the batch and however long the text."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from featurestore.encoders.device import arithmetic, default_batch_frames
from featurestore.encoders.families import T5_TYPES
from featurestore.encoders.layers import LayerChoice, chosen
from featurestore.encoders.model_encoder import WindowedEncoder
from featurestore.encoders.prompt import NO_PROMPT, Prompt, Tokens, tokenize
from featurestore.encoders.row_builder import Batch, Piece
from featurestore.encoders.sentence import OwnPooling
from featurestore.encoders.windows import Window, windows
from featurestore.errors import ConfigError, EncoderError
from featurestore.format.spec import FeatureSpec
from featurestore.runtime.stage_clock import padded_batch, stage
from featurestore.runtime.transfer import Padded, to_device

# These count positions from pad_token_id + 1, so that many of their position embeddings are never used; MPNet from 2.
POSITIONS_AFTER_PADDING = (
    "camembert",
    "data2vec-text",
    "roberta",
    "roberta-prelayernorm",
    "xlm-roberta",
    "xlm-roberta-xl",
)
# Rotary positions whose frequencies depend on the longest text of a batch.
ROPES_BY_LENGTH = ("longrope", "dynamic")
# DeBERTa masks more than attention, and reads nothing back from the device for it; T5 adds its positions to the mask.
OWN_MASKS = ("deberta", "deberta-v2", *T5_TYPES)
MAX_TOKENS = 512  # of a default window, also where a model has more positions: memory grows with the square
MARGIN_TOKENS = 32
TOKENIZED_TEXTS = 1 << 16  # kept
CPU_BATCH_TOKENS = 256  # measured: texts of 15 tokens go three times as fast as one by one


@dataclass(frozen=True)
class Tokenized:
    """The ids of one window, special tokens and the prompt's among them, and which of their rows are kept."""

    ids: np.ndarray  # (T,) int64
    keep: slice


class TextEncoder(WindowedEncoder):
    """A transformers text encoder: BERT and its kin, a T5's encoder, or a decoder-only language model.

    Rows are the hidden states of the text's own tokens, in order. A text without any token gives one row: the hidden
    state of the first special token ([CLS] or <s>) of the empty text, of a language model that of the last token
    before the text (of the start token, where nothing else is there). A text longer than a window ("512tok+32": 512
    tokens with the special ones and the prompt's, fewer where the model's positions end) is encoded in full windows,
    of which 32 tokens at either inner end are context and dropped. Special tokens and the prompt surround each window.
    Batches are padded on the right; a language model runs forward once and generates nothing.

    pooling: the model's own (`--pool model`), one row per text, which must fit into one window.
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
        causal: bool = False,
        prompt: Prompt = NO_PROMPT,
        pooling: OwnPooling | None = None,
    ) -> None:
        super().__init__(model, spec=spec, choice=choice, device=device, compute=compute)
        self.tokenizer = tokenizer
        self.keep_special = keep_special
        self.causal = causal
        self.prompt = prompt
        self.pooling = pooling
        self.layers_available: int = model.config.num_hidden_layers
        # It reads tokens back from the device to warn of what does not happen here: padding without a mask.
        self.model.warn_if_padding_and_no_attention_mask = lambda *_: None
        self._prefix, self._suffix = special_tokens(tokenizer)
        size, self._margin = parse_window(spec.window)
        limit = max_positions(model.config, tokenizer)
        self.window_frames = size
        # Rows go to the model's own pooling as they are.
        self._row_spec = spec if pooling is None else replace(spec, pool="none")
        self.default_batch_frames = default_batch_frames(device, CPU_BATCH_TOKENS, self._row_spec, size)
        # A run asks three times for a text's tokens: its length, its rows, whether it is empty.
        self._tokens = lru_cache(TOKENIZED_TEXTS)(self._tokenized)
        around = tokenize(tokenizer, "", prompt)
        n_around = len(self._prefix) + len(self._suffix) + len(around.before) + len(around.after)
        # A prompt may make a token more or fewer, where it meets the text.
        self._window_tokens = size - n_around - (2 if prompt.text else 0)
        if size > limit or self._window_tokens <= 2 * self._margin:
            raise ConfigError(
                f"--window {spec.window}: expected at most {limit} tokens for {self.name}, and more than twice the "
                f"context beside its {n_around} special ones and the prompt's. Its default is "
                f"{default_window(model.config, tokenizer)}."
            )
        if not (self._prefix or self._suffix or causal):
            raise EncoderError(
                f"{self.name}: its tokenizer adds no special tokens, expected one such as [CLS] or <s> at the start "
                "(an empty text needs a row). Use an encoder of the BERT or RoBERTa kind."
            )
        if keep_special and prompt.text and not prompt.keep:
            raise ConfigError("--keep-special with --prompt: the prompt stands between; add --keep-prompt.")
        self._n_ids: int = model.get_input_embeddings().num_embeddings
        special = [*self._prefix, *self._suffix, *around.before, *around.after]
        if tokenizer.vocab_size > self._n_ids or max(special, default=0) >= self._n_ids:
            raise EncoderError(
                f"{self.name}: its tokenizer has {max(tokenizer.vocab_size, *special, 0):,} tokens, but the model "
                f"embeds {self._n_ids:,}. The tokenizer is another model's; copy the right one beside the weights."
            )
        # Many a padding token was added to the tokenizer alone; padding is masked, whatever it is.
        pad_id = tokenizer.pad_token_id
        self._pad_id: int = pad_id if pad_id is not None and pad_id < self._n_ids else 0

    def n_frames(self, n_samples: int) -> int:
        """Raise TypeError: texts have no samples; see `cost`."""
        raise TypeError(f"{self.name} encodes text, not audio")

    def cost(self, item: int | str) -> int:
        """Return the padded tokens of one text, special ones and the prompt's included."""
        return sum(len(piece.data.ids) for piece in self._pieces([str(item)]))

    def is_empty(self, item: Any) -> bool:
        """Return whether a text has no tokens, and so gets the defined row."""
        return not self._tokens(str(item)).of_text

    def special_in(self, item: Any) -> str:
        """Return a special token that a text spells, such as </s>, and which is read as such; "" where it has none."""
        spelled = [token for token in self.tokenizer.all_special_tokens if token in str(item)]
        ids = self._tokens(str(item)).of_text if spelled else ()
        return next((token for token in spelled if self.tokenizer.convert_tokens_to_ids(token) in ids), "")

    def refusal(self, item: int | str) -> str:
        """Return why a text has no rows: a token that the model lacks, or its own pooling takes no text as long."""
        token_ids = self._tokens(str(item)).of_text
        if max(token_ids, default=0) >= self._n_ids:
            return f"token {max(token_ids)} of its tokenizer is none of the {self._n_ids:,} that the model embeds."
        n_tokens = len(token_ids)
        if self.pooling is None or n_tokens <= self._window_tokens:
            return ""
        return (
            f"{n_tokens} tokens, expected at most {self._window_tokens} by the model's own pooling (--pool model); "
            "--pool mean takes texts of any length."
        )

    def start_prepared(
        self, batch: Sequence[str], max_frames: int | None = None, *, stored: bool = False
    ) -> Callable[[], list[np.ndarray]]:
        """Start on texts: T rows for T tokens, 1 for an empty text; see `Encoder.start_prepared`."""
        rows = self._run(batch, max_frames, self._row_spec, stored and self.pooling is None)
        if self.pooling is None:
            return rows
        pooling = self.pooling
        return lambda: [pooling(each) for each in rows()]

    def _n_frames_of(self, piece: Piece) -> int:
        return len(piece.data.ids)

    def _kept_of(self, piece: Piece) -> slice:
        keep: slice = piece.data.keep
        return keep

    def _tokenized(self, text: str) -> Tokens:
        lower = self.pooling is not None and self.pooling.lower
        return tokenize(self.tokenizer, text.lower() if lower else text, self.prompt)

    def _pieces(self, batch: Sequence[str]) -> Iterator[Piece]:
        """Yield the windows over each text's own tokens, with their ids and what stands around them."""
        for index, text in enumerate(batch):
            tokens = self._tokens(text)
            before, after = [*self._prefix, *tokens.before], [*tokens.after, *self._suffix]
            if not (before or tokens.of_text or after) and self.causal:
                before = [start_token(self.tokenizer, self.name)]
            for window in windows(len(tokens.of_text), self._window_tokens, self._margin):
                ids = [*before, *tokens.of_text[window.start : window.stop], *after]
                keep = self._kept(window, tokens, len(before), len(ids))
                yield Piece(index, Tokenized(np.array(ids, np.int64), keep), window)

    def _kept(self, window: Window, tokens: Tokens, n_before: int, n_ids: int) -> slice:
        """Return which rows of one window are kept; n_before: tokens before the text's own, of n_ids in all."""
        if self.pooling is not None:
            return slice(0 if self.pooling.include_prompt else n_before, n_ids)
        first = window.keep_start - window.start + n_before
        last = window.keep_stop - window.start + n_before
        if self.keep_special or self.prompt.keep:
            kept_before = 0 if self.keep_special else n_before - len(tokens.before)
            kept_after = n_ids if self.keep_special else n_ids - len(self._suffix)
            first = kept_before if window.start == 0 else first
            last = kept_after if window.stop == len(tokens.of_text) else last
        if last > first:
            return slice(first, last)
        return slice(n_before - 1, n_before) if self.causal and n_before else slice(0, 1)

    @torch.inference_mode()
    def _forward(self, batch: Batch, dtype: torch.dtype) -> list[Tensor]:
        """Token ids of each window -> what `Batch.take` returns."""
        lengths = [len(piece.data.ids) for piece in batch.pieces]
        n_longest = max(lengths)
        padded_batch(lengths, n_longest)
        ids = Padded([piece.data.ids for piece in batch.pieces], n_longest, self._pad_id)
        input_ids, on_device, selection = to_device([ids, np.array(lengths), batch.selection(n_longest)], self._device)
        with stage("encode", self._device), arithmetic(self.compute, self._device):
            mask = None
            # Fused attention is faster without one; what has none would make one and read it back.
            if min(lengths) < n_longest or self.model.config._attn_implementation != "sdpa":
                mask = self._mask(torch.arange(n_longest, device=self._device) < on_device[:, None])
            options = {"use_cache": False} if self.causal else {}
            output = self.model(input_ids=input_ids, attention_mask=mask, output_hidden_states=True, **options)
            return batch.take(chosen(self._states(output), self.choice), selection, dtype)

    def _states(self, output: Any) -> Iterator[tuple[int, Tensor]]:
        """Yield number and (B, T, D) of each layer; the last one is last_hidden_state, a final norm included."""
        for number, state in enumerate(output.hidden_states):
            yield number, output.last_hidden_state if number == self.layers_available else state

    def _mask(self, valid: Tensor) -> Any:
        """Map (B, T) bool -> the mask that attention takes; the model itself would build it with a wait."""
        config = self.model.config
        if self.causal or config.model_type in OWN_MASKS:
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


def start_token(tokenizer: Any, label: str) -> int:
    """Return the id of the token that begins a text, of a tokenizer without one of the one that ends it."""
    for token in (tokenizer.bos_token_id, tokenizer.eos_token_id):
        if token is not None:
            return int(token)
    raise EncoderError(f"{label}: its tokenizer has neither a bos nor an eos token, and an empty text needs a row.")


def special_tokens(tokenizer: Any) -> tuple[list[int], list[int]]:
    """Return the special token ids that this tokenizer puts before and after a text."""
    encoded = tokenizer("a", return_special_tokens_mask=True, truncation=False, padding=False)
    ids, special = encoded["input_ids"], encoded["special_tokens_mask"]
    first = special.index(0)
    last = len(special) - special[::-1].index(0)
    return ids[:first], ids[last:]


def max_positions(config: Any, tokenizer: Any) -> int:
    """Return the number of tokens, special ones included, that the model has positions for."""
    limit = getattr(config, "max_position_embeddings", None) or MAX_TOKENS
    if config.model_type in POSITIONS_AFTER_PADDING:
        limit -= config.pad_token_id + 1
    if config.model_type == "mpnet":
        limit -= 2
    rope = getattr(config, "rope_parameters", None) or {}
    if rope.get("rope_type") in ROPES_BY_LENGTH:
        # Beyond it, one long text would change the rows of the short ones in its batch.
        limit = min(limit, rope.get("original_max_position_embeddings") or limit)
    n_positions: int = min(limit, tokenizer.model_max_length)
    return n_positions


def default_window(config: Any, tokenizer: Any) -> str:
    """Return `512tok+32`, or a window of the model's positions with at most an eighth of it as context."""
    size = min(MAX_TOKENS, max_positions(config, tokenizer))
    return f"{size}tok+{min(MARGIN_TOKENS, size // 8)}"


def parse_window(window: str) -> tuple[int, int]:
    """Parse `512tok+32` into (512, 32): tokens of a window with its special ones, and of context at each inner end."""
    match = re.fullmatch(r"(\d+)tok\+(\d+)", window)
    if not match:
        raise ConfigError(f"--window {window}: expected TOKENStok+CONTEXT, such as 512tok+32.")
    return int(match[1]), int(match[2])
