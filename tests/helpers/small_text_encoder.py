"""A BERT of random weights with a tokenizer of a hundred words, as a transformers directory."""

from collections.abc import Sequence
from pathlib import Path


def save_text_encoder(path: Path) -> Path:
    import torch
    import transformers

    words = save_tokenizer(path, [f"w{i}" for i in range(96)])
    torch.manual_seed(0)
    config = transformers.BertConfig(
        hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=24, vocab_size=len(words),
        max_position_embeddings=128, pad_token_id=0,
    )  # fmt: skip
    transformers.AutoModel.from_config(config).save_pretrained(path)
    return path


def save_tokenizer(path: Path, words: Sequence[str]) -> list[str]:
    """Write a tokenizer of whole words between [CLS] and [SEP]; return its vocabulary in the order of the ids."""
    import transformers
    from tokenizers import Tokenizer, models, pre_tokenizers, processors

    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *words]
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(vocabulary)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="[UNK]", cls_token="[CLS]", sep_token="[SEP]"
    ).save_pretrained(path)
    return vocabulary
