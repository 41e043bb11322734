#!/usr/bin/env bash
# AutoTokenizer makes a BERT tokenizer without any file of a tokenizer: of a directory that holds a config.json alone it returns
# one whose vocabulary is its five special tokens, so that each word of every text is [UNK], and all texts of as many words
# have the same features. Neither an error nor a warning.
#
# Seen with: transformers 5.23.0, tokenizers 0.23.3, Python 3.11, Linux x86_64.
# Output seen: a vocabulary of 5; ['[UNK]', '[UNK]', '[UNK]'] and ['[UNK]', '[UNK]', '[UNK]']
set -euo pipefail
here=$(mktemp -d); trap 'rm -rf "$here"' EXIT; cd "$here"
mkdir bert && echo '{"model_type": "bert", "vocab_size": 30522}' >bert/config.json
python3 -m venv venv && venv/bin/pip install --quiet transformers==5.23.0 tokenizers==0.23.3
HF_HUB_OFFLINE=1 venv/bin/python - <<'PY'
from transformers import AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained("bert")
one, other = (tokenizer.tokenize(text) for text in ("I am happy", "you seem angry"))
print(f"a vocabulary of {len(tokenizer)}; {one} and {other}")
assert one == other == ["[UNK]"] * 3, "the finding has changed"
PY
