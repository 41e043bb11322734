#!/bin/sh
# Encoders on one GPU, step by step: packaged ones against a CPU, then those that corpora are encoded with at their true
# size with random weights. Each step takes eight minutes at most and adds to gpu.json; gpu.md is the table, and the
# missed aims are printed at the end. Needs 20 GB below --directory (default: /tmp). Options reach every step:
#   sh benchmarks/featurize-gpu.sh --tiny --device cpu     # tries each line on any machine, in a few minutes
set -eu
cd "$(dirname "$0")/.."
exec "${PYTHON:-python}" -m benchmarks.gpu machine rows attention featurize featurize-30s featurize-layers memory "$@"
