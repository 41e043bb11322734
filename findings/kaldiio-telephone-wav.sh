#!/usr/bin/env bash
# kaldiio takes the codes of telephone speech for samples: a WAV of A-law or mu-law in a wav.scp comes back as uint8, the logarithmic
# codes themselves, with the right rate and length and without a warning. Silence is 213 or 255 there, and a negative sample is
# as large as 128 less than its positive twin. The reader never looks at the format field of the header. Kaldi's own
# reader refuses such files by that field, soundfile decodes them.
#
# Seen with: kaldiio 2.18.1, kaldi_native_io 1.23.0, soundfile 0.14.0 (libsndfile 1.2.2), numpy 2.4.6, Python 3.11, Linux x86_64.
# Output seen: pcm.wav: kaldiio int16 [0, 100, -100, 9000, -9000], soundfile the same, Kaldi the same; alaw.wav: kaldiio uint8
# [213, 211, 83, 180, 52], soundfile [8, 104, -104, 8960, -8960], Kaldi refuses it: can read only PCM data, format id in file is: 6; ulaw.wav:
# kaldiio uint8 [255, 242, 114, 158, 30], soundfile [0, 104, -104, 8828, -8828], Kaldi refuses it: ... 7
set -euo pipefail
here=$(mktemp -d); trap 'rm -rf "$here"' EXIT; cd "$here"
python3 -m venv venv && venv/bin/pip install --quiet kaldiio==2.18.1 kaldi_native_io==1.23.0 soundfile==0.14.0 numpy==2.4.6
venv/bin/python - <<'PY'
import kaldi_native_io
import kaldiio
import numpy as np
import soundfile

RATE, SOUND = 8000, [0, 100, -100, 9000, -9000]
subtypes = {"pcm.wav": "PCM_16", "alaw.wav": "ALAW", "ulaw.wav": "ULAW"}
for name, subtype in subtypes.items():
    soundfile.write(name, np.array(SOUND * 1600, "i2"), RATE, subtype=subtype)
with open("wav.scp", "w") as scp:
    scp.writelines(f"{name} {name}\n" for name in subtypes)

found = {}
for name, (rate, samples) in kaldiio.load_scp("wav.scp").items():
    assert rate == RATE and samples.shape == (8000,)
    decoded = soundfile.read(name, dtype="int16")[0][:5].tolist()
    try:
        kaldi = np.asarray(kaldi_native_io.read_wave(name).data)[0, :5].astype(int).tolist()
    except RuntimeError as error:
        kaldi = "refuses it: " + str(error).split("WaveData: ")[-1]
    found[name] = str(samples.dtype), samples[:5].tolist(), decoded, kaldi
    print(f"{name}: kaldiio {samples.dtype} {samples[:5].tolist()}, soundfile {decoded}, Kaldi {kaldi}")
assert found["pcm.wav"] == ("int16", SOUND, SOUND, SOUND)
for name, codes in (("alaw.wav", [213, 211, 83, 180, 52]), ("ulaw.wav", [255, 242, 114, 158, 30])):
    assert found[name][:2] == ("uint8", codes), "the finding has changed"
    assert np.allclose(found[name][2], SOUND, atol=200) and "can read only PCM" in found[name][3]
PY
