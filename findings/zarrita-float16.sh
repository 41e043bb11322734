#!/usr/bin/env bash
# zarrita, the Zarr reader of browsers and Node, takes a valid array of float16 for one of an unknown type where the JavaScript engine
# has no Float16Array: every feature set in half precision is refused, while the same rows as float32 and as int8 are read. float16
# is a core type of Zarr 3, and nothing in the message says that the engine is what is too old.
#
# Seen with: zarrita 0.7.5, @zarrita/storage 0.2.0, Node 20.20.2; arrays by zarr 3.1.6 and numpy 2.4.6, Python 3.11, Linux x86_64.
# Output seen: Float16Array here: undefined; float16: Unknown or unsupported dataType: float16; float32: 0,1,2,3; int8: 0,1,2,3
set -euo pipefail
here=$(mktemp -d); trap 'rm -rf "$here"' EXIT; cd "$here"
python3 -m venv venv && venv/bin/pip install --quiet zarr==3.1.6 numpy==2.4.6
npm install --silent --no-fund --no-audit zarrita@0.7.5 @zarrita/storage@0.2.0
venv/bin/python - <<'PY'
import numpy as np
import zarr

for dtype in ("float16", "float32", "int8"):
    zarr.create_array(f"{dtype}.zarr", data=np.arange(4).astype(dtype), chunks=(4,))
PY
cat > read.mjs <<'JS'
import { FileSystemStore } from "@zarrita/storage";
import * as zarr from "zarrita";

const found = [];
for (const dtype of ["float16", "float32", "int8"]) {
  try {
    const array = await zarr.open(new FileSystemStore(`${dtype}.zarr`), { kind: "array" });
    found.push(`${dtype}: ${(await zarr.get(array)).data}`);
  } catch (error) {
    found.push(`${dtype}: ${error.message}`);
  }
}
console.log(`Float16Array here: ${typeof globalThis.Float16Array}; ${found.join("; ")}`);
const expected = ["float16: Unknown or unsupported dataType: float16", "float32: 0,1,2,3", "int8: 0,1,2,3"];
if (globalThis.Float16Array === undefined && found.join() !== expected.join()) throw new Error("the finding has changed");
if (globalThis.Float16Array !== undefined) throw new Error("this engine has Float16Array: run an older Node");
JS
node read.mjs
