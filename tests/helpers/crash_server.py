"""A warm process that forks writers, which die at a chosen call; a fork costs far less than a new interpreter.

Reads one JSON request per line and answers each with one line; `Crashes` is the other end.
"""

import json
import os
import select
import signal
import subprocess
import sys
import time
import traceback
from pathlib import Path
from types import TracebackType
from typing import Any

STORE_ERROR, OTHER_ERROR = 3, 4  # exit codes


class Crashes:
    """Runs actions on stores in processes that are killed or refused calls; a context manager."""

    def __enter__(self) -> "Crashes":
        root = Path(__file__).resolve().parents[2]
        environment = {**os.environ, "PYTHONPATH": str(root), "OMP_NUM_THREADS": "1"}
        self._server = subprocess.Popen(
            [sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.communicate(timeout=60)

    def can_trace(self) -> bool:
        return bool(self("can trace", Path(), ("", ""))["can"])

    def __call__(self, action: str, path: Path, storage: tuple[str, str], **settings: Any) -> dict[str, Any]:
        """Run `action` in a process; return its code, calls and stderr. settings: see `_actions` and `_answer`."""
        assert self._server.stdin is not None
        assert self._server.stdout is not None
        request = {"action": action, "path": str(path), "storage": storage, **settings}
        print(json.dumps(request), file=self._server.stdin, flush=True)
        outcome: dict[str, Any] = json.loads(self._server.stdout.readline())
        return outcome


def _actions(request: dict[str, Any]) -> int:
    """Run the action in the child, and return its exit code."""
    from featurestore.errors import StoreError
    from featurestore.store.feature_store import FeatureStore
    from tests.helpers import small_store

    path, storage = Path(request["path"]), tuple(request["storage"])
    spec = small_store.with_dtype(request.get("dtype", "float16"))
    n = request["n"]
    try:
        if request["action"] == "write":
            small_store.write(path, storage, range(n), request.get("segment_bytes", 1 << 20), spec)
        elif request["action"] == "compact":
            FeatureStore.open(path).compact(small_store.NAME, segment_bytes=request.get("segment_bytes", 1 << 20))
        elif request["action"] == "remove":
            FeatureStore.open(path).remove(small_store.NAME)
        elif request["action"] == "read":
            features = FeatureStore.open(path)[small_store.NAME]
            for i in range(n):
                if not small_store.same_rows(features, i):
                    raise AssertionError(f"utterance {i} has wrong rows")
    except StoreError as error:
        print(error, file=sys.stderr)
        return STORE_ERROR
    except BaseException:
        traceback.print_exc()
        return OTHER_ERROR
    return 0


def _answer(request: dict[str, Any]) -> dict[str, Any]:
    """Return how the child ended, with the fields of `syscalls.Trace` unless the clock killed it.

    after_s: kill the child after this time. at: kill it at this call. error: refuse the call with this errno instead.
    """
    from tests.helpers import syscalls

    if request["action"] == "can trace":
        return {"can": syscalls.can_trace()}
    if "after_s" not in request:
        names = syscalls.READS if request["action"] == "read" else syscalls.CHANGES
        below = Path(request["path"]).parent
        trace = syscalls.traced(lambda: _actions(request), below, request.get("at", 0), request.get("error", 0), names)
        return vars(trace)
    started = time.perf_counter()
    pid = os.fork()
    if pid == 0:
        os._exit(_actions(request))
    handle = os.pidfd_open(pid)
    try:
        select.select([handle], [], [], request["after_s"])
        took_s = time.perf_counter() - started
        signal.pidfd_send_signal(handle, signal.SIGKILL)
        return {"code": os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), "took_s": took_s}
    finally:
        os.close(handle)


def main() -> None:
    import h5py  # noqa: F401
    import numcodecs.blosc
    import numcodecs.zstd  # noqa: F401

    import featurestore.rows.runs
    import featurestore.sets.compact  # noqa: F401
    from featurestore.rows.rowtypes import encode
    from tests.helpers import small_store

    encode(small_store.rows(1), small_store.SPEC.row_type)  # compiled here, not in every fork

    for line in sys.stdin:
        print(json.dumps(_answer(json.loads(line))), flush=True)


if __name__ == "__main__":
    main()
