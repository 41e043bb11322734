#!/usr/bin/env bash
# transformers 5 builds the tokenizers of many classes anew from their vocabulary and passes over the pre-tokenizer of
# tokenizer.json: a file of whole words that names LlamaTokenizer, Qwen2Tokenizer, GPT2Tokenizer or RobertaTokenizer gives
# other tokens than the file does, mostly unknown ones, without a warning. PreTrainedTokenizerFast takes the file as it is.
# A frozen text encoder then gets tokens that it was not trained with, and its rows are wrong without a word.
#
# Seen with: transformers 5.23.0, tokenizers 0.23.3, Python 3.11, Linux x86_64.
# Output seen: the file [1, 2, 3, 4, 5, 6, 7]; PreTrainedTokenizerFast the same; LlamaTokenizer [1, 7], Qwen2Tokenizer
# [1, 7], GPT2Tokenizer [1, 7], RobertaTokenizer [1, 7].
set -euo pipefail
here=$(mktemp -d); trap 'rm -rf "$here"' EXIT; cd "$here"
python3 -m venv venv && venv/bin/pip install --quiet transformers==5.23.0 tokenizers==0.23.3
HF_HUB_OFFLINE=1 venv/bin/python - <<'PY'
import json
from pathlib import Path

from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import AutoTokenizer, PreTrainedTokenizerFast

TEXT = "i am glad that you came."
words = ["<unk>", "i", "am", "glad", "that", "you", "came", "."]
tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="<unk>"))
tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unk>").save_pretrained("tokenizer")
config = Path("tokenizer/tokenizer_config.json")
fields = json.loads(config.read_text())

wanted = Tokenizer.from_file("tokenizer/tokenizer.json").encode(TEXT).ids
print("the file", wanted)
found = {}
for name in ("PreTrainedTokenizerFast", "LlamaTokenizer", "Qwen2Tokenizer", "GPT2Tokenizer", "RobertaTokenizer"):
    config.write_text(json.dumps({**fields, "tokenizer_class": name}))
    found[name] = AutoTokenizer.from_pretrained("tokenizer")(TEXT, add_special_tokens=False)["input_ids"]
    print(name, found[name])
assert found.pop("PreTrainedTokenizerFast") == wanted
assert all(ids != wanted for ids in found.values()), "transformers now keeps the pre-tokenizer: the finding has changed"
PY
