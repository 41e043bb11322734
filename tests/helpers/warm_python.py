"""Python programs in forks of one warm process that has imported what most of them import: each starts in milliseconds.

For tests of programs of their own (one is killed, runs out of disk, may not write). What a fresh
interpreter imports or how it starts is tested with `subprocess`.
"""

import atexit
import contextlib
import gc
import importlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
import threading
import time
import types
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

ROOT = Path(__file__).resolve().parents[2]
MEDUSA = "import cli; cli.main()"  # the command; its arguments are the program's
IMPORTED = (
    "torch", "zarr", "h5py", "cli", "featurestore.rows.kernels", "featurestore.rows.runs",
    "featurestore.featurize.run", "featurestore.store.verify", "featurestore.loaders.torch", "deepser.members.fit",
    "ensemble.fusion.fit", "ensemble.commands.probe", "ensemble.commands.fit_meta", "ensemble.commands.fit_deepser",
)  # fmt: skip
_servers: dict[int, socket.socket] = {}  # the one of this process


class WarmProcess:
    """A running program, as `subprocess.Popen` of `python -c CODE ARGUMENTS...` with text pipes would be one.

    environment: all variables. stdout, stderr: a file to write to; a pipe by default.
    """

    def __init__(
        self,
        code: str,
        *arguments: object,
        environment: Mapping[str, str] | None = None,
        cwd: Path | str | None = None,
        stdout: IO[Any] | None = None,
        stderr: IO[Any] | None = None,
        warnings_are_errors: bool = False,
    ) -> None:
        request = {
            "code": code,
            "arguments": [str(argument) for argument in arguments],
            "environment": dict(os.environ if environment is None else environment),
            "cwd": str(cwd or Path.cwd()),
            "warnings_are_errors": warnings_are_errors,
        }
        text = json.dumps(request).encode()
        ended, of_server = os.pipe()
        child_fds = [os.open(os.devnull, os.O_RDONLY), *(self._end_of(name, to) for name, to in
                                                     (("stdout", stdout), ("stderr", stderr))), of_server]  # fmt: skip
        server = _server()
        socket.send_fds(server, [len(text).to_bytes(8, "big")], child_fds)
        server.sendall(text)
        for fd in child_fds:
            os.close(fd)
        self._ended = os.fdopen(ended)
        self.pid = int(self._ended.readline())
        self.returncode: int | None = None

    def _end_of(self, name: str, file: IO[Any] | None) -> int:
        """Return the file descriptor that the program gets; a pipe's other end becomes the attribute `name`."""
        if file is not None:
            return os.dup(file.fileno())
        reading, writing = os.pipe()
        setattr(self, name, os.fdopen(reading))
        return writing

    stdout: IO[str]
    stderr: IO[str]

    def send_signal(self, signum: int) -> None:
        """Send a signal; nothing where the program has ended."""
        if self.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, signum)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def poll(self) -> int | None:
        if self.returncode is None and select.select([self._ended], [], [], 0)[0]:
            self.wait()
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Return the exit code, or minus the signal; TimeoutExpired if there is none after `timeout` seconds."""
        if self.returncode is None:
            if not select.select([self._ended], [], [], timeout)[0]:
                raise subprocess.TimeoutExpired("a warm process", timeout or 0)
            self.returncode = int(self._ended.readline())
            self._ended.close()
        return self.returncode

    def close(self) -> None:
        """Close the pipes, read or not."""
        for name in ("stdout", "stderr"):
            if name in vars(self):
                getattr(self, name).close()

    def communicate(self, timeout: float = 300) -> tuple[str, str]:
        """Return the program's output on the two pipes, once it has ended."""
        pipes = [self.stdout, self.stderr]
        texts: dict[int, bytes] = {pipe.fileno(): b"" for pipe in pipes}
        open_fds, deadline = set(texts), time.monotonic() + timeout
        while open_fds:
            ready = select.select(list(open_fds), [], [], max(0, deadline - time.monotonic()))[0]
            if not ready:
                self.kill()
                raise subprocess.TimeoutExpired("a warm process", timeout)
            for fd in ready:
                part = os.read(fd, 1 << 16)
                texts[fd] += part
                if not part:
                    open_fds.remove(fd)
        self.wait(max(0, deadline - time.monotonic()))
        stdout, stderr = (texts[pipe.fileno()].decode() for pipe in pipes)
        self.close()
        return stdout, stderr


def run_warm(
    code: str, *arguments: object, timeout: float = 300, **settings: Any
) -> "subprocess.CompletedProcess[str]":
    """Return how `python -c CODE ARGUMENTS...` ended and its output. settings: those of `WarmProcess`."""
    process = WarmProcess(code, *arguments, **settings)
    stdout, stderr = process.communicate(timeout)
    return subprocess.CompletedProcess(["python", "-c", code, *arguments], process.wait(), stdout, stderr)


def _server() -> socket.socket:
    """Return the connection to this process's server, started at first use."""
    if os.getpid() not in _servers:
        parent_end, child_end = socket.socketpair()
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
        server = subprocess.Popen(
            [sys.executable, __file__, str(child_end.fileno())], pass_fds=[child_end.fileno()], env=environment,
            cwd=ROOT, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
        )  # fmt: skip
        child_end.close()
        _servers[os.getpid()] = parent_end

        def end() -> None:
            parent_end.close()
            server.wait(60)

        atexit.register(end)
    return _servers[os.getpid()]


def _serve(connection: socket.socket) -> dict[str, Any]:
    """Fork for each request; returns the request in the fork, and never in the server."""
    for name in IMPORTED:
        importlib.import_module(name)
    _compile_kernels()
    threads = [path.read_text().strip() for path in Path("/proc/self/task").glob("*/comm")]
    # pyarrow's allocator starts its thread anew in a fork; of any other only the locks it held would be left there.
    assert len([name for name in threads if name != "jemalloc_bg_thd"]) <= 1, threads
    gc.collect()
    gc.freeze()  # else the first collection in a fork copies all of it
    woken, wake = os.pipe()
    os.set_blocking(wake, False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(wake)
    running: dict[int, int] = {}
    while True:
        ready = select.select([connection, woken], [], [])[0]
        if woken in ready:
            os.read(woken, 4096)
            _report_ended(running)
        if connection not in ready:
            continue
        length, fds, _, _ = socket.recv_fds(connection, 8, 4)
        if not length:
            os._exit(0)
        text = b""
        while len(text) < int.from_bytes(length, "big"):
            text += connection.recv(1 << 20)
        pid = os.fork()
        if pid == 0:
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            for standard, fd in enumerate(fds[:3]):
                os.dup2(fd, standard)
            for fd in (*fds, *running.values(), woken, wake, connection.detach()):
                os.close(fd)
            request: dict[str, Any] = json.loads(text)
            return request
        os.write(fds[3], b"%d\n" % pid)
        running[pid] = fds[3]
        for fd in fds[:3]:
            os.close(fd)


def _compile_kernels() -> None:
    """Encode and decode a row, which takes seconds the first time and every program would do anew."""
    import numpy as np

    from featurestore.rows.rowtypes import ROW_TYPES, encode
    from featurestore.rows.runs import Runs, read_runs

    encoded, _ = encode(np.ones((1, 1), np.float32), ROW_TYPES["float16"])
    for rows in (encoded, np.ones((1, 1), np.float32)):
        read_runs(Runs.of([rows], None), np.empty((1, 1, 1), np.float32))


def _report_ended(running: dict[int, int]) -> None:
    while running:
        pid, status = os.waitpid(-1, os.WNOHANG)
        if not pid:
            return
        fd = running.pop(pid)
        os.write(fd, b"%d\n" % os.waitstatus_to_exitcode(status))
        os.close(fd)


def _run(request: dict[str, Any]) -> None:
    """Run the program in this fork as `python -c` does, and end the fork."""
    os.environ.clear()
    os.environ.update(request["environment"])
    os.chdir(request["cwd"])
    sys.argv[:] = ["-c", *request["arguments"]]
    sys.path[0] = ""
    if request["warnings_are_errors"]:
        sys.warnoptions[:] = ["error"]
        warnings.simplefilter("error")
    main = types.ModuleType("__main__")
    sys.modules["__main__"] = main
    code = 0
    try:
        exec(compile(request["code"], "<string>", "exec"), main.__dict__)
    except SystemExit as done:
        code = done.code if isinstance(done.code, int) else int(done.code is not None)
        if isinstance(done.code, str):
            print(done.code, file=sys.stderr)
    except BaseException as error:
        error.__traceback__ = error.__traceback__ and error.__traceback__.tb_next  # without this file's line
        sys.excepthook(type(error), error, error.__traceback__)
        code = -signal.SIGINT if isinstance(error, KeyboardInterrupt) else 1
    # Without the interpreter's own end, which would first copy all of the memory that the fork shares.
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    if code == -signal.SIGINT:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGINT)
    os._exit(code & 0xFF)


if __name__ == "__main__":
    _run(_serve(socket.socket(fileno=int(sys.argv[1]))))
