#!/usr/bin/env bash
# Importing silero-vad sets the number of threads of PyTorch to 1 for the whole process: training or encoding that comes
# after the import runs on one core, without a word.
#
# Seen with: silero-vad 6.2.3, torch 2.13.0, Python 3.11, Linux x86_64.
# Output seen: threads before the import: 2; after it: 1.
set -euo pipefail
here=$(mktemp -d); trap 'rm -rf "$here"' EXIT; cd "$here"
python3 -m venv venv
venv/bin/pip install --quiet torch==2.13.0 silero-vad==6.2.3 numpy==2.4.6
venv/bin/python - <<'PY'
import torch

torch.set_num_threads(2)
before = torch.get_num_threads()
import silero_vad  # noqa: E402, F401

after = torch.get_num_threads()
print(f"threads before the import: {before}; after it: {after}")
assert (before, after) == (2, 1), "silero-vad leaves the threads alone now: the finding has changed"
PY
