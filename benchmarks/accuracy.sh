#!/usr/bin/env bash
# Probes, members and ensembles of a small corpus side by side, over its speaker-disjoint folds: the ladder of
# docs/small-corpora.md.
#
#   MODELS=DIR benchmarks/accuracy.sh CORPUS.csv [OUT]
#
# CORPUS.csv: a manifest with speakers and a column `fold`, as `medusa prepare` makes it. MODELS: transformers
# directories whisper-base, whisper-tiny.en, tiny-hubert and tiny-wavlm (the Whisper ones may hold the model in hf/).
# OUT: accuracy/NAME of the corpus by default. Stopped at any moment, the same command goes on. STEPS="features probes"
# does only these of: features probes before members ensembles table.
set -euo pipefail

manifest=${1:?name a manifest}
models=${MODELS:?set MODELS to the directory of the weights}
name=$(basename "$manifest" .csv)
out=${2:-accuracy/$name}
mkdir -p "$out"
store=$out/store
weights() { if [ -d "$models/$1/hf" ]; then echo "$models/$1/hf"; else echo "$models/$1"; fi; }
does() { [[ " ${STEPS:-features probes before members ensembles table} " == *" $1 "* ]]; }

if does features; then
  for encoder in whisper-base whisper-tiny.en tiny-hubert tiny-wavlm; do
    window=()
    case $encoder in whisper-*) window=(--window short) ;; esac
    medusa featurize --encoder "$encoder" --weights "$(weights "$encoder")" "${window[@]}" --layers all \
      --pool mean+std -m "$manifest" -s "$store" --name "$encoder-pooled"
  done
fi

common=(-m "$manifest" -s "$store" --runs "$out/runs" --cv fold)
four=whisper-base-pooled@3+4,tiny-hubert-pooled@2+3
whisper=whisper-base-pooled@1+2+3+4+5,whisper-tiny.en-pooled@1+2+3
all=whisper-base-pooled,whisper-tiny.en-pooled,tiny-hubert-pooled,tiny-wavlm-pooled

# Closed forms: the four layers that DeepSER read, Whisper's middle layers, all layers; each without and with the
# speakers' own statistics.
if does probes; then
  medusa probe "${common[@]}" --features "$four" --name four --json "$out/four.json"
  for normalise in none speaker; do
    own=$([ $normalise = speaker ] && echo -own || true)
    medusa probe "${common[@]}" --features "$whisper" --name "whisper$own" --normalise $normalise \
      --json "$out/whisper$own.json"
    medusa probe "${common[@]}" --features "$all" --name "all$own" --normalise $normalise --json "$out/all$own.json" \
      --heat-map "$out/all$own.png"
  done
  # And learning from the judged speaker's own clips, without labels.
  for layers in whisper all; do
    medusa probe "${common[@]}" --features "${!layers}" --name "$layers-refined" --normalise speaker --refine speaker \
      --json "$out/$layers-refined.json"
  done
  medusa probe "${common[@]}" --features "$whisper" --name whisper-shares --normalise speaker \
    --refine none,speaker,shares --json "$out/whisper-shares.json"
fi

# As DeepSER was trained before there were probes; then one layer and every regularisation.
if does before; then
  medusa fit-deepser "${common[@]}" --features "$four" --name deepser --preset medusa --d 128 --n-heads 4 \
    --dropout 0.2 --batch-size 16 --weight-decay 0.05 --mixup 0.3 --select last --epochs 8 --lr 1e-3 \
    --warmup-epochs 1 --schedule cosine --stage2-epochs 2 --stage2-lr 2e-4
  medusa fit-deepser "${common[@]}" --features "$four" --name regular --preset medusa --d 128 --n-heads 4 \
    --n-layers 1 --dropout 0.5 --batch-size 32 --weight-decay 0.1 --mixup 0.5 --label-smoothing 0.1 --select last \
    --warmup-epochs 1 --schedule cosine --set train.ema_decay=0.98 --stage2-epochs 0 --epochs 25 --lr 5e-4
fi

# The preset: on the four layers, and two seeds on Whisper's middle layers (members small_s1 and small_s2).
if does members; then
  medusa fit-deepser "${common[@]}" --features "$four" --name small4 --preset small
  for normalise in none speaker; do
    own=$([ $normalise = speaker ] && echo -own || true)
    medusa fit-deepser "${common[@]}" --features "$whisper" --name "small$own" --preset small --seeds 1,2 \
      --normalise $normalise
  done
fi

# What fuses them is chosen inside each fitting part; soft votes of the same members beside it.
if does ensembles; then
  plain=whisper,all,small_s1,small_s2
  adapted=whisper-refined,all-refined,small-own_s1,small-own_s2
  medusa fit-meta "${common[@]}" --members $plain --meta auto --name auto
  medusa fit-meta "${common[@]}" --members $plain --meta soft --name soft
  medusa fit-meta "${common[@]}" --members $adapted --meta auto --name auto-own
  medusa fit-meta "${common[@]}" --members $adapted --meta soft --name soft-own
fi

if does table; then
  cp "$manifest" "$out/corpus.csv"
  if [ -f "${manifest%.csv}.scheme.json" ]; then cp "${manifest%.csv}.scheme.json" "$out/corpus.scheme.json"; fi
  python -m benchmarks.results_table "$out" --json "$out/results.json" --markdown "$out/results.md"
fi
