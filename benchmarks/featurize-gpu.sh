#!/bin/sh
# The encoders that corpora are encoded with, at their true size with random weights, on one GPU in bfloat16: MFU, idle
# share, stages, and the per-file float32 loop beside them. Options after the name replace these, so that
#   sh benchmarks/featurize-gpu.sh --device cpu --compute float32 --tiny --utterances 4 --repeats 1
# tries it on any machine. Needs 8 GB of disk for the largest encoder's weights, below --directory (default: /tmp).
set -eu
for encoder in wavlm-large hubert-large whisper-large-v3 roberta-large; do
    medusa bench featurize --encoder "$encoder" --random --device cuda --compute bfloat16 --utterances 2000 \
        --workers "$(getconf _NPROCESSORS_ONLN)" --peers per-file --json "featurize-gpu-$encoder.json" "$@"
done
