#!/usr/bin/env bash
# The last of the hidden states of a speech model with a stable layer norm (the large WavLM, HuBERT, wav2vec 2.0 and
# UniSpeech-SAT, XLS-R) is another tensor in transformers 5 than in transformers 4: version 4 gave it behind the encoder's
# final layer norm, equal to last_hidden_state; version 5 gives it before the norm, without a warning. Features that were
# taken as hidden_states[-1] change with the version. Models without a stable layer norm (the base ones) give the same in both.
#
# Seen with: transformers 4.57.6 and 5.23.0, torch 2.13.0, Python 3.11, Linux x86_64.
# Output seen, the same for WavLM, HuBERT, wav2vec 2.0 and UniSpeech-SAT:
#   4.57.6: stable layer norm: hidden_states[-1] is last_hidden_state; without: it is, too
#   5.23.0: stable layer norm: hidden_states[-1] is not last_hidden_state; without: it is
set -euo pipefail
here=$(mktemp -d); trap 'rm -rf "$here"' EXIT; cd "$here"
cat >last_layer.py <<'PY'
import sys

import torch
import transformers

SIZES = {
    "hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4, "intermediate_size": 64,
    "conv_dim": (32, 32), "conv_kernel": (10, 3), "conv_stride": (5, 2),
    "num_conv_pos_embeddings": 16, "num_conv_pos_embedding_groups": 2,
}  # fmt: skip
expected_stable = sys.argv[1] == "equal"
print(transformers.__version__)
torch.manual_seed(0)
waveform = torch.randn(1, 4000)
for family in ("WavLM", "Hubert", "Wav2Vec2", "UniSpeechSat"):
    for stable in (True, False):
        config = getattr(transformers, f"{family}Config")(
            **SIZES, do_stable_layer_norm=stable, feat_extract_norm="layer" if stable else "group"
        )
        model = getattr(transformers, f"{family}Model")(config).eval()
        torch.nn.init.normal_(model.encoder.layer_norm.weight)
        with torch.no_grad():
            output = model(waveform, output_hidden_states=True)
        equal = torch.equal(output.hidden_states[-1], output.last_hidden_state)
        print(f"  {family}, {'stable layer norm' if stable else 'plain'}: hidden_states[-1] is last_hidden_state: {equal}")
        assert equal == (expected_stable if stable else True), "the finding has changed"
PY
for pair in 4.57.6:equal 5.23.0:other; do
    python3 -m venv "venv-${pair%:*}"
    "venv-${pair%:*}/bin/pip" install --quiet torch==2.13.0 numpy==2.4.6 "transformers==${pair%:*}"
    HF_HUB_OFFLINE=1 "venv-${pair%:*}/bin/python" last_layer.py "${pair#*:}"
done
