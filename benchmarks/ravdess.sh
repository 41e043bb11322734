#!/usr/bin/env bash
# RAVDESS over EmoBox's six speaker-disjoint folds: six DeepSER members, six-seed meta-classifier, scores per fold.
#
#   RAVDESS=DIR MODELS=DIR benchmarks/ravdess.sh [OUT]
#
# RAVDESS: the corpus (Actor_01 ... Actor_24). MODELS: transformers directories whisper-base, whisper-tiny.en and
# all-mpnet-base-v2 (the Whisper ones may hold the model in hf/). OUT: where everything goes, ravdess-run by default.
# Stopped at any moment, the same command goes on. MEMBERS="m1 m3" fits only those (two such calls share two cores).
set -euo pipefail

root=${RAVDESS:?set RAVDESS to the corpus}
models=${MODELS:?set MODELS to the directory of the weights}
out=${1:-ravdess-run}
mkdir -p "$out"
manifest=$out/ravdess.csv
store=$out/store
weights() { if [ -d "$models/$1/hf" ]; then echo "$models/$1/hf"; else echo "$models/$1"; fi; }

declare -A features=(
  [m1]=whisper-base@4+5,tiny-hubert@2+3
  [m2]=whisper-base@3+4,whisper-tiny.en@2+3
  [m3]=whisper-base@3+4,tiny-wavlm@2+3
  [m4]=whisper-tiny.en@3,tiny-hubert@2+3
  [m5]=whisper-base@4,whisper-tiny.en@3,tiny-hubert@3
  [m6]=whisper-base@3+4+5,all-mpnet-base-v2 # audio and text, as in MEDUSA; RAVDESS has two sentences only
)

declare -A epochs=([m1]=8 [m2]=8 [m3]=12 [m4]=8 [m5]=8 [m6]=12) # the two trained last got more
declare -A balanced_epochs=([m1]=2 [m2]=2 [m3]=3 [m4]=2 [m5]=2 [m6]=3)

medusa prepare ravdess --root "$root" -o "$manifest"
encode() { medusa featurize --manifest "$manifest" --store "$store" --encoder "$@"; }
encode tiny-hubert --layers 1,2,3,4
encode tiny-wavlm --layers 1,2,3,4
encode whisper-tiny.en --layers 2,3,4 --weights "$(weights whisper-tiny.en)"
encode whisper-base --layers 3,4,5,6 --weights "$(weights whisper-base)"
encode all-mpnet-base-v2 --weights "$(weights all-mpnet-base-v2)"

for member in ${MEMBERS:-m1 m2 m3 m4 m5 m6}; do
  medusa fit-deepser --manifest "$manifest" --store "$store" --runs "$out/runs" --cv fold \
    --name "$member" --features "${features[$member]}" --seed "${member#m}" \
    --d 128 --n-heads 4 --dropout 0.2 --stride 8 --batch-size 16 --weight-decay 0.05 --mixup 0.3 --select last \
    --epochs "${epochs[$member]}" --lr 1e-3 --warmup-epochs 1 --schedule cosine \
    --stage2-epochs "${balanced_epochs[$member]}" --stage2-lr 2e-4
done

if [ -z "${MEMBERS:-}" ]; then
  medusa fit-meta --seeds 6 --manifest "$manifest" --store "$store" --runs "$out/runs" --cv fold
  medusa evaluate meta --manifest "$manifest" --store "$store" --cv fold \
    --json "$out/meta.json" --confusion "$out/confusion.png"
  medusa compare --manifest "$manifest" --store "$store" --cv fold --members m1,m2,m3,m4,m5,m6 --rows all --greedy \
    --json "$out/compare.json"
fi
