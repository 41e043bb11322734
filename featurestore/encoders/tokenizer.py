"""A text encoder's tokenizer, as its publisher wrote it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from featurestore.encoders.weights import first_line
from featurestore.errors import EncoderError

# Case, accents, contractions, digits, punctuation, runs of blanks: where tokenizers of one vocabulary differ.
SAMPLE_TEXT = "I can't BELIEVE it's 30 of them: Zoë said »naïve«... twice,  really? yes"
VOCABULARIES = (
    "tokenizer.json",
    "vocab.txt",
    "vocab.json",
    "spm.model",
    "tokenizer.model",
    "spiece.model",
    "sentencepiece.bpe.model",
)


def load_tokenizer(directory: Path, label: str, as_it_stands: bool = False) -> Any:
    """Return the directory's own fast tokenizer.

    as_it_stands: tokenizer.json is all of it, where there is one. AutoTokenizer builds some families' anew from their
    vocabulary (Qwen, GPT-2, Phi, ...), and what the publisher added after it may be lost, such as a last token.
    """
    import transformers

    _check_vocabulary(directory, label)
    whole = as_it_stands and (directory / "tokenizer.json").is_file()
    loader: Any = transformers.PreTrainedTokenizerFast if whole else transformers.AutoTokenizer
    options = {} if whole else {"trust_remote_code": False}
    try:
        tokenizer = loader.from_pretrained(directory, local_files_only=True, **options)
    except Exception as error:  # of many kinds, as a model's
        raise EncoderError(
            f"{label}: the tokenizer in {directory} can't be loaded ({first_line(error)}); expected tokenizer.json "
            "beside the weights."
        ) from None
    if not tokenizer.is_fast:
        raise EncoderError(
            f"{label}: the tokenizer in {directory} is a {type(tokenizer).__name__}, which doesn't say which "
            "characters a token stands for; expected tokenizer.json beside the weights."
        )
    if not whole and (directory / "tokenizer.json").is_file():
        _check_as_published(tokenizer, directory, label)
    return tokenizer


def _check_vocabulary(directory: Path, label: str) -> None:
    """Raise EncoderError where no file holds the vocabulary: transformers then makes one in which no word is known."""
    vocabularies = [name for name in VOCABULARIES if (directory / name).is_file()]
    if not vocabularies:
        raise EncoderError(
            f"{label}: {directory} has no tokenizer, expected {', '.join(VOCABULARIES[:-1])} or {VOCABULARIES[-1]}. "
            "Copy its files from the model's hub page, of a fine-tuned model from that of its base."
        )
    if vocabularies == ["vocab.json"] and not (directory / "merges.txt").is_file():
        raise EncoderError(
            f"{label}: {directory / 'vocab.json'} has no merges.txt beside it, without which every letter is a token. "
            "Copy it, or better tokenizer.json, from the model's hub page."
        )


def _check_as_published(tokenizer: Any, directory: Path, label: str) -> None:
    """Raise EncoderError where a tokenizer built from its vocabulary splits a text otherwise than its file."""
    from tokenizers import Tokenizer

    file = Tokenizer.from_file(str(directory / "tokenizer.json"))
    file.no_truncation()
    file.no_padding()
    published = file.encode(SAMPLE_TEXT, add_special_tokens=False).ids
    built = tokenizer(SAMPLE_TEXT, add_special_tokens=False)["input_ids"]
    if built != published:
        raise EncoderError(
            f"{label}: {directory / 'tokenizer.json'} splits a text into {len(published)} tokens ({published[:5]}...), "
            f"the {type(tokenizer).__name__} that transformers builds from its vocabulary into {len(built)} "
            f'({built[:5]}...). To use the file as it stands, set "tokenizer_class": "PreTrainedTokenizerFast" in '
            "tokenizer_config.json."
        )
