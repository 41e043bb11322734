"""A prompt around every text, and which tokens are the text's own."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from featurestore.errors import ConfigError

PLACE = "{text}"


@dataclass(frozen=True)
class Prompt:
    """What stands around every text: `text` holds it before, or before and after its `{text}`.

    keep: the prompt's rows are kept too. ConfigError where `{text}` stands more than once.
    """

    text: str = ""
    keep: bool = False

    def __post_init__(self) -> None:
        if self.text.count(PLACE) > 1:
            raise ConfigError(f"--prompt {self.text!r}: {PLACE} stands more than once, expected at most once.")
        if self.keep and not self.text:
            raise ConfigError("--keep-prompt: there is no prompt; give one with --prompt TEXT.")

    @property
    def before(self) -> str:
        """The part before the text."""
        return self.text.partition(PLACE)[0]

    @property
    def after(self) -> str:
        """The part after the text."""
        return self.text.partition(PLACE)[2]


NO_PROMPT = Prompt()


@dataclass(frozen=True)
class Tokens:
    """Token ids of the prompt before a text, of the text, and of the prompt after it; without special tokens."""

    before: tuple[int, ...]
    of_text: tuple[int, ...]
    after: tuple[int, ...]


def tokenize(tokenizer: Any, text: str, prompt: Prompt) -> Tokens:
    """Tokenize prompt and text as one string; a token with characters of both is the text's.

    tokenizer: a fast one (it knows which characters a token stands for).
    """
    if not prompt.text:
        encoded = tokenizer(text, add_special_tokens=False, truncation=False, padding=False, verbose=False)
        return Tokens((), tuple(encoded["input_ids"]), ())
    encoded = tokenizer(
        prompt.before + text + prompt.after,
        add_special_tokens=False, truncation=False, padding=False, verbose=False, return_offsets_mapping=True,
    )  # fmt: skip
    ids, places = encoded["input_ids"], encoded["offset_mapping"]
    first_char, end_char = len(prompt.before), len(prompt.before) + len(text)
    first = next((i for i, (_, stop) in enumerate(places) if stop > first_char), len(ids))
    end = next((i for i, (start, stop) in enumerate(places) if i >= first and stop > end_char <= start), len(ids))
    if not text:
        end = first
    return Tokens(tuple(ids[:first]), tuple(ids[first:end]), tuple(ids[end:]))
