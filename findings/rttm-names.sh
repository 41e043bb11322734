#!/usr/bin/env bash
# pyannote.database takes names in an RTTM file for missing values: a turn whose speaker field is NA, N/A, None, NULL, null, nan or
# n/a gets the label nan, and all turns of a recording of such a name vanish, without a warning. The file is read by pandas, whose
# list of missing values is left switched on; "none", "nil" and "Nan" are not on it and stay as they are.
#
# Seen with: pyannote.database 6.1.1, pyannote.core 6.1.0, pandas 3.1.1, Python 3.11, Linux x86_64.
# Output seen: turn by "NA": labels [nan], recording "NA": lost (the same for N/A, None, NULL, null, nan, n/a);
# turn by "none": labels ['none'], recording "none": ['happy']
set -euo pipefail
here=$(mktemp -d); trap 'rm -rf "$here"' EXIT; cd "$here"
python3 -m venv venv && venv/bin/pip install --quiet pyannote.database==6.1.1 pyannote.core==6.1.0 pandas==3.1.1
venv/bin/python - <<'PY'
from pathlib import Path

from pyannote.database.util import load_rttm

found = {}
for name in ("NA", "N/A", "None", "NULL", "null", "nan", "n/a", "none"):
    turns = [("call", name), (name, "happy")]
    Path("turns.rttm").write_text("".join(f"SPEAKER {file} 1 0.0 1.5 <NA> <NA> {who} <NA> <NA>\n" for file, who in turns))
    read = load_rttm("turns.rttm")
    found[name] = read["call"].labels(), read[name].labels() if name in read else "lost"
    print(f'turn by "{name}": labels {found[name][0]}, recording "{name}": {found[name][1]}')
assert found.pop("none") == (["none"], ["happy"]), "the finding has changed"
for labels, recording in found.values():
    assert len(labels) == 1 and isinstance(labels[0], float) and recording == "lost", "the finding has changed"
PY
