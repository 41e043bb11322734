"""A web server for a directory, with or without ranges and listings, which records its answers.

`Web` is a test's end of it: a process of its own, so that it can be killed.
"""

import argparse
import json
import os
import re
import subprocess
import sys
import time
from dataclasses import dataclass
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

PART_BYTES = 8192


@dataclass(frozen=True)
class Sent:
    """One answer: the bytes start:stop of a file's body."""

    method: str
    path: str
    status: int
    start: int
    stop: int


class Web:
    """The server as a process; a context manager.

    options: "--no-ranges", "--no-listings", "--pause=SECONDS", "--strict-slash" (a directory without its final slash
    is 404, as rclone has it).
    """

    def __init__(self, root: Path, log: Path, *options: str) -> None:
        self._command = [sys.executable, __file__, str(root), str(log), *options]
        self._log = log

    def __enter__(self) -> "Web":
        self._server = subprocess.Popen(self._command, stdout=subprocess.PIPE, text=True)
        assert self._server.stdout is not None
        self.url = f"http://127.0.0.1:{int(self._server.stdout.readline())}"
        return self

    def __exit__(self, kind: type[BaseException] | None, *details: object) -> None:
        self.kill()

    def kill(self) -> None:
        self._server.kill()
        self._server.wait()
        if self._server.stdout is not None:
            self._server.stdout.close()

    def sent(self, of: str = "", method: str = "GET") -> list[Sent]:
        """Return the answers so far for paths that contain `of`."""
        lines = self._log.read_text().splitlines() if self._log.exists() else []
        answers = [Sent(*json.loads(line)) for line in lines]
        return [answer for answer in answers if of in answer.path and answer.method == method]


class Handler(SimpleHTTPRequestHandler):
    options: argparse.Namespace

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def do_HEAD(self) -> None:
        self._answer(with_body=False)

    def do_GET(self) -> None:
        self._answer(with_body=True)

    def _answer(self, with_body: bool) -> None:
        path = Path(self.translate_path(self.path))
        if path.is_dir() and self.options.strict_slash and not self.path.endswith("/"):
            self._note(404, 0, 0)
            self.send_error(404)
            return
        if path.is_dir() and not self.options.no_listings:
            self._note(200, 0, 0)
            super().do_GET()
            return
        if not path.is_file():
            self._note(404, 0, 0)
            self.send_error(404)
            return
        size = path.stat().st_size
        start, stop, status = 0, size, 200
        requested = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", ""))
        if requested and not self.options.no_ranges:
            start, stop, status = int(requested[1]), min(int(requested[2]) + 1, size), 206
        self._note(status, start, stop)
        self.send_response(status)
        self.send_header("Content-Type", "application/octet-stream")
        self.send_header("Content-Length", str(stop - start))
        self.send_header("ETag", f'"{path.stat().st_mtime_ns:x}-{size:x}"')
        if status == 206:
            self.send_header("Content-Range", f"bytes {start}-{stop - 1}/{size}")
        self.end_headers()
        if with_body:
            data = path.read_bytes()[start:stop]
            for first in range(0, len(data), PART_BYTES):
                self.wfile.write(data[first : first + PART_BYTES])
                time.sleep(self.options.pause)

    def _note(self, status: int, start: int, stop: int) -> None:
        line = json.dumps([self.command, self.path, status, start, stop]) + "\n"
        handle = os.open(self.options.log, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        os.write(handle, line.encode())
        os.close(handle)

    def handle(self) -> None:
        try:
            super().handle()
        except ConnectionError:  # the client was killed
            self.close_connection = True


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("root")
    parser.add_argument("log")
    parser.add_argument("--no-ranges", action="store_true")
    parser.add_argument("--no-listings", action="store_true")
    parser.add_argument("--strict-slash", action="store_true")
    parser.add_argument("--pause", type=float, default=0.0)
    Handler.options = parser.parse_args()
    root = Handler.options.root
    server = ThreadingHTTPServer(("127.0.0.1", 0), lambda *args: Handler(*args, directory=root))  # type: ignore[arg-type]
    print(server.server_address[1], flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main()
