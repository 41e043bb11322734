#!/usr/bin/env bash
# pyfive reads zeros, without an error, from an HDF5 file that begins with a user block (a space that the format leaves to
# the application before the superblock): it takes addresses from the file's start where the format counts them from the
# superblock's base address.
#
# Seen with: pyfive 1.3.0, h5py 3.16.0, numpy 2.4.6, Python 3.11.
# Output seen: without a user block both give 0 1 2 ... 11; with one of 512 bytes h5py does so too, pyfive gives 12 zeros.
set -euo pipefail
here=$(mktemp -d); trap 'rm -rf "$here"' EXIT; cd "$here"
python3 -m venv venv && venv/bin/pip install --quiet pyfive==1.3.0 h5py==3.16.0 numpy==2.4.6
venv/bin/python - <<'PY'
import h5py
import numpy as np
import pyfive

rows = np.arange(12, dtype="f4").reshape(3, 4)
found = {}
for size in (0, 512):
    name = f"userblock-{size}.h5"
    with h5py.File(name, "w", userblock_size=size) as file:
        file["rows"] = rows
    with h5py.File(name) as file:
        assert np.array_equal(file["rows"][...], rows)
    with pyfive.File(name) as file:
        found[size] = np.asarray(file["rows"][...])
    print(f"user block of {size} bytes: pyfive reads {found[size].ravel().tolist()}")
assert np.array_equal(found[0], rows)
assert not found[512].any(), "pyfive no longer reads zeros: the finding has changed"
PY
