#!/bin/sh
# Training on one GPU: a run killed and continued, and the trainer beside the field's loop; see featurize-gpu.sh.
set -eu
cd "$(dirname "$0")/.."
exec "${PYTHON:-python}" -m benchmarks.gpu machine resume train "$@"
