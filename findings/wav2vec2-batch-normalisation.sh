#!/usr/bin/env bash
# What transformers' feature extractor of wav2vec 2.0, HuBERT and WavLM makes of a clip depends on the clips beside it. Mean and variance
# are taken over the padded row unless an attention mask is returned, and the class returns none unless told (its documentation
# recommends no mask for encoders with group norm): beside a clip that is ten times as long, a clip comes out 3.2 times as
# large as alone, without a warning. Padding to a fixed length makes the factor follow each clip's own length. Of a
# recording with an offset the padding isn't zero afterwards. With an attention mask the clip is the same in every batch.
#
# Seen with: transformers 5.23.0, numpy 2.4.6, Python 3.11, Linux x86_64.
# Output seen (deviations of a clip of 1 s, mean of the padding of a clip with an offset): no mask: alone 1.00, beside 2 s 1.41, beside
# 10 s 3.16, padding -0.23; with a mask: alone 1.00, beside 2 s 1.00, beside 10 s 1.00, padding 0.00
set -euo pipefail
here=$(mktemp -d); trap 'rm -rf "$here"' EXIT; cd "$here"
python3 -m venv venv && venv/bin/pip install --quiet transformers==5.23.0 numpy==2.4.6
HF_HUB_OFFLINE=1 venv/bin/python - <<'PY'
import numpy as np
from transformers import Wav2Vec2FeatureExtractor

RATE = 16_000
rng = np.random.default_rng(0)
clip, *others = (rng.normal(0, 0.1, seconds * RATE).astype("f4") for seconds in (1, 2, 10))


def values(extractor, *clips):
    return np.asarray(extractor(list(clips), sampling_rate=RATE, padding=True).input_values[0])


found = []
for mask, name in ((False, "no mask"), (True, "with a mask")):
    extractor = Wav2Vec2FeatureExtractor(**({"return_attention_mask": True} if mask else {}))
    alone = values(extractor, clip)
    beside = [values(extractor, clip, other)[:RATE] for other in others]
    padding = values(extractor, clip + np.float32(0.1), others[1])[RATE:]
    found.append([alone.std(), *(row.std() for row in beside), padding.mean()])
    print(f"{name}: alone {found[-1][0]:.2f}, beside 2 s {found[-1][1]:.2f}, beside 10 s {found[-1][2]:.2f}, padding {found[-1][3]:.2f}")
assert np.allclose(found[0][:3], [1, 2**0.5, 10**0.5], atol=0.03) and found[0][3] < -0.2, "the finding has changed"
assert np.allclose(found[1], [1, 1, 1, 0], atol=0.001), "the finding has changed"
PY
