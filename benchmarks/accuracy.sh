#!/usr/bin/env bash
# Probes and members of a small corpus side by side, over its speaker-disjoint folds: the ladder of docs/probes.md.
#
#   MODELS=DIR benchmarks/accuracy.sh CORPUS.csv [OUT]
#
# CORPUS.csv: a manifest with speakers and a column `fold`. MODELS: transformers directories whisper-base,
# whisper-tiny.en, tiny-hubert and tiny-wavlm (the Whisper ones may hold the model in hf/). OUT: accuracy-run by default.
set -euo pipefail

manifest=${1:?name a manifest}
models=${MODELS:?set MODELS to the directory of the weights}
out=${2:-accuracy-run}
mkdir -p "$out"
weights() { if [ -d "$models/$1/hf" ]; then echo "$models/$1/hf"; else echo "$models/$1"; fi; }

for encoder in whisper-base whisper-tiny.en tiny-hubert tiny-wavlm; do
  window=()
  case $encoder in whisper-*) window=(--window short) ;; esac
  medusa featurize --encoder "$encoder" --weights "$(weights "$encoder")" "${window[@]}" --layers all --pool mean+std \
    -m "$manifest" -s "$out/store" --name "$encoder-pooled"
done

common=(-m "$manifest" -s "$out/store" --runs "$out/runs" --cv fold)
four=whisper-base-pooled@3+4,tiny-hubert-pooled@2+3
regular=(--batch-size 32 --weight-decay 0.1 --mixup 0.5 --label-smoothing 0.1 --select last --warmup-epochs 1
  --schedule cosine --set train.ema_decay=0.98 --stage2-epochs 0)

# As DeepSER was trained before there were probes; then one layer and every regularisation; then the preset.
medusa fit-deepser "${common[@]}" --features "$four" --name deepser --preset medusa --d 128 --n-heads 4 --dropout 0.2 \
  --batch-size 16 --weight-decay 0.05 --mixup 0.3 --select last --epochs 8 --lr 1e-3 --warmup-epochs 1 \
  --schedule cosine --stage2-epochs 2 --stage2-lr 2e-4
medusa fit-deepser "${common[@]}" --features "$four" --name regular --preset medusa --d 128 --n-heads 4 --n-layers 1 \
  --dropout 0.5 "${regular[@]}" --epochs 25 --lr 5e-4
medusa fit-deepser "${common[@]}" --features "$four" --name small --preset small
medusa probe "${common[@]}" --features "$four" --name four --json "$out/four.json"
for normalise in none speaker; do
  medusa probe "${common[@]}" --name "all-$normalise" --normalise "$normalise" --json "$out/all-$normalise.json" \
    --heat-map "$out/all-$normalise.png"
done
