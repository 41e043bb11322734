"""whisper's decoding of a batch of windows, with its rules for tokens applied to all of them at once.

openai-whisper goes through a batch clip by clip at each step, and stops for the device four times a clip. Here the same
rules, and so the same tokens, are a few operators on the whole batch; the host stops once a step, to see whether every
clip has come to its end, and on a GPU looks at that a step late.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor
from whisper.decoding import (
    ApplyTimestampRules,
    DecodingOptions,
    DecodingTask,
    GreedyDecoder,
    SuppressBlank,
    SuppressTokens,
)

from featurestore.runtime.transfer import is_queued, to_host

MOST_AT_ONCE = 128
SHARE_OF_FREE_MEMORY = 0.7  # the rest is for what a pass needs in between, and for fragments


def decode(model: Any, mel: Tensor, options: DecodingOptions) -> Any:
    """Return whisper.decoding.decode's DecodingResult of a window (n_mels, 3000), or a list of those of a batch."""
    task = DecodingTask(model, options)
    device = model.device
    vocabulary = torch.arange(model.dims.n_vocab, device=device)
    task.logit_filters = [_whole(rule, vocabulary) for rule in task.logit_filters]
    if isinstance(task.decoder, GreedyDecoder) and task.decoder.temperature == 0:
        task.decoder = Greedy(task.decoder.eot)
    results = task.run(mel[None] if mel.ndim == 2 else mel)
    return results[0] if mel.ndim == 2 else results


class Suppressed:
    """No token of a list; only_at: where the context so far has this length, else always."""

    def __init__(self, tokens: list[int], vocabulary: Tensor, only_at: int | None = None) -> None:
        suppressed = torch.zeros(len(vocabulary), dtype=torch.bool)
        suppressed[tokens] = True
        self._suppressed = suppressed.to(vocabulary.device)
        self._only_at = only_at

    def apply(self, logits: Tensor, tokens: Tensor) -> None:
        """Write -inf into logits (B, V), in place; tokens (B, S): the context so far."""
        if self._only_at is None or tokens.shape[1] == self._only_at:
            logits.masked_fill_(self._suppressed, -math.inf)


class TimestampRules:
    """whisper's rules for timestamps: they come in pairs, never decrease, open a window, and win over text together."""

    def __init__(self, rules: ApplyTimestampRules, vocabulary: Tensor) -> None:
        tokenizer = rules.tokenizer
        self._first, self._eot = tokenizer.timestamp_begin, tokenizer.eot
        self._no_timestamps = tokenizer.no_timestamps
        self._sample_begin = rules.sample_begin
        self._last_initial = None
        if rules.max_initial_timestamp_index is not None:
            self._last_initial = self._first + rules.max_initial_timestamp_index
        self._stamps = vocabulary[self._first :]

    def apply(self, logits: Tensor, tokens: Tensor) -> None:
        """Write -inf into logits (B, V), in place; tokens (B, S): the context so far."""
        stamps, texts = logits[:, self._first :], logits[:, : self._first]
        if self._no_timestamps is not None:
            logits[:, self._no_timestamps].fill_(-math.inf)
        sampled = tokens[:, self._sample_begin :]
        if sampled.shape[1]:
            is_stamp = sampled >= self._first
            last = is_stamp[:, -1]
            opens = last & is_stamp[:, -2] if sampled.shape[1] > 1 else last  # a pair ends, or the window begins
            closes = last & ~opens
            # The place of the last timestamp of each clip, counted from 1; 0 where there is none.
            places = torch.arange(1, sampled.shape[1] + 1, device=sampled.device)
            place = torch.where(is_stamp, places, 0).amax(1)
            stamp = sampled.gather(1, (place - 1).clamp(min=0)[:, None])
            least = torch.where((place > 0)[:, None], stamp + (~closes)[:, None].to(stamp.dtype), 0)
            stamps.masked_fill_((self._stamps < least) | opens[:, None], -math.inf)
            logits[:, : self._eot].masked_fill_(closes[:, None], -math.inf)
        else:
            texts.fill_(-math.inf)
            if self._last_initial is not None:
                logits[:, self._last_initial + 1 :].fill_(-math.inf)
        logprobs = F.log_softmax(logits.float(), dim=-1)
        together = logprobs[:, self._first :].logsumexp(dim=-1)
        texts.masked_fill_((together > logprobs[:, : self._first].amax(-1))[:, None], -math.inf)


class Greedy:
    """whisper's greedy decoder at temperature 0."""

    def __init__(self, eot: int) -> None:
        self._eot = eot
        self._ended: Callable[[], NDArray[Any]] | None = None  # of the step before, on its way to the host

    def reset(self) -> None:
        """Begin another batch."""
        self._ended = None

    def update(self, tokens: Tensor, logits: Tensor, sum_logprobs: Tensor) -> tuple[Tensor, bool]:
        """Return tokens (B, S + 1) and whether all clips are at their end; adds to sum_logprobs (B,) in place.

        On a GPU the answer is that of the step before: a step more adds ends behind ends, and nothing else.
        """
        ended = tokens[:, -1] == self._eot
        next_tokens = logits.argmax(dim=-1)
        logprobs = F.log_softmax(logits.float(), dim=-1).gather(1, next_tokens[:, None])[:, 0]
        sum_logprobs += logprobs * ~ended
        next_tokens = torch.where(ended, self._eot, next_tokens)
        tokens = torch.cat([tokens, next_tokens[:, None]], dim=-1)
        all_ended = (next_tokens == self._eot).all()
        if not is_queued(tokens.device):
            return tokens, bool(all_ended)
        before, self._ended = self._ended, to_host(all_ended[None])
        return tokens, before is not None and bool(before()[0])

    def finalize(self, tokens: Tensor, sum_logprobs: Tensor) -> tuple[Tensor, list[list[float]]]:
        """Return tokens (n, 1, S + 1) on the host, each clip's with an end, and sum_logprobs as lists."""
        return F.pad(tokens.cpu(), (0, 1), value=self._eot), sum_logprobs.tolist()


def clip_bytes(dims: Any, n_bytes: int) -> int:
    """Return about what a clip takes on the device; n_bytes: of a number.

    Keys and values of every decoder layer, over the window and over the text, and the encoder's widest layer.
    """
    cached = 2 * dims.n_text_layer * dims.n_text_state * (dims.n_audio_ctx + dims.n_text_ctx)
    encoder = 12 * dims.n_audio_state * dims.n_audio_ctx  # queries, keys, values, the MLP's 4 and its input and output
    return int(n_bytes * (cached + encoder) + 3 * 4 * dims.n_vocab)


def batch_that_fits(free_bytes: int, of_clip: int) -> int:
    """Return the number of clips to decode at once: a multiple of 8 where there is room for so many, at most 128."""
    n = min(MOST_AT_ONCE, int(SHARE_OF_FREE_MEMORY * free_bytes) // of_clip)
    return max(1, n - n % 8 if n >= 8 else n)


def _whole(rule: Any, vocabulary: Tensor) -> Any:
    """Return a rule of whisper's in its form for whole batches; one that is unknown here as it is."""
    if isinstance(rule, SuppressBlank):
        blank = [*rule.tokenizer.encode(" "), rule.tokenizer.eot]
        return Suppressed(blank, vocabulary, only_at=rule.sample_begin)
    if isinstance(rule, SuppressTokens):
        return Suppressed(rule.suppress_tokens, vocabulary)
    if isinstance(rule, ApplyTimestampRules):
        return TimestampRules(rule, vocabulary)
    return rule
