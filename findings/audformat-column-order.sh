#!/usr/bin/env bash
# audformat goes by the order of a table's columns in db.yaml and passes over the first line of the CSV: where the two orders differ, it
# exchanges arousal and valence without an error or a warning. So it does after a header was sorted by PyYAML, which sorts the keys of
# whatever it writes, and with a CSV that was written again with its columns in another order. With one more column in the CSV
# the same rows are read by name, and right, and so is Parquet in any order. A mapping in YAML has no order by its standard.
#
# Seen with: audformat 1.4.3, pyarrow 26.0.1, pandas 3.1.1, PyYAML 6.0.3, numpy 2.4.6, Python 3.11, Linux x86_64.
# Output seen (arousal and valence of a file with 0.8 and 0.1): as saved 0.8 0.1; header sorted 0.1 0.8; columns of the CSV exchanged 0.1 0.8;
# exchanged, with one more column 0.8 0.1; columns of the Parquet exchanged 0.8 0.1
set -euo pipefail
here=$(mktemp -d); trap 'rm -rf "$here"' EXIT; cd "$here"
python3 -m venv venv && venv/bin/pip install --quiet audformat==1.4.3 pyarrow==26.0.1 pandas==3.1.1 PyYAML==6.0.3 numpy==2.4.6
venv/bin/python - <<'PY'
import audformat

database = audformat.Database("ratings")
database.schemes["rating"] = audformat.Scheme("float")
database["all"] = audformat.Table(audformat.filewise_index(["a.wav", "b.wav"]))
for name, values in (("valence", [0.1, 0.2]), ("arousal", [0.8, 0.9])):
    database["all"][name] = audformat.Column(scheme_id="rating")
    database["all"][name].set(values)
for root in ("saved", "sorted", "exchanged", "wider"):
    database.save(root, storage_format="csv")
database.save("parquet", storage_format="parquet")
PY
# In a process of its own: audformat imports oyaml, which changes how PyYAML writes.
venv/bin/python - <<'PY'
from pathlib import Path

import pandas as pd
import yaml

header = Path("sorted/db.yaml")
same = yaml.safe_load(header.read_text())
header.write_text(yaml.safe_dump(same))
assert yaml.safe_load(header.read_text()) == same
table = pd.read_csv("saved/db.all.csv")[["file", "arousal", "valence"]]
table.to_csv("exchanged/db.all.csv", index=False)
table.assign(remark="clear").to_csv("wider/db.all.csv", index=False)
pd.read_parquet("parquet/db.all.parquet")[["file", "arousal", "valence"]].to_parquet("parquet/db.all.parquet", index=False)
PY
venv/bin/python - <<'PY'
import audformat

found = {}
for root in ("saved", "sorted", "exchanged", "wider", "parquet"):
    row = audformat.Database.load(root)["all"].df.loc["a.wav"]
    found[root] = float(row["arousal"]), float(row["valence"])
    print(root, *found[root])
right, wrong = (0.8, 0.1), (0.1, 0.8)
assert found["saved"] == found["wider"] == found["parquet"] == right
assert found["sorted"] == found["exchanged"] == wrong, "the finding has changed"
PY
