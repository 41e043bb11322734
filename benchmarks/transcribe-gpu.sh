#!/bin/sh
# Transcription on one GPU, in batches beside whisper.transcribe; --whisper names the model. See featurize-gpu.sh.
set -eu
cd "$(dirname "$0")/.."
exec "${PYTHON:-python}" -m benchmarks.gpu machine transcribe "$@"
