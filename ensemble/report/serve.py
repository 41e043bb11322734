"""The page served from this machine to this machine, with its audio streamed; nothing else can be read.

Who may read: a browser here that knows the address. It has a token of 128 random bits, the server listens on 127.0.0.1
alone, and a request whose Host is another name is refused, so that a site in the same browser can't reach it by
pointing its own name here.
"""

import io
import re
import secrets
import threading
from collections.abc import Callable
from functools import lru_cache
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, BinaryIO

import soundfile

from ensemble.report.collect import Collected
from ensemble.report.page import page_of
from featurestore.audio import SAMPLE_RATE_HZ, Clip, decode
from featurestore.errors import AudioError, ConfigError, ManifestError, MedusaError

HOST = "127.0.0.1"
BLOCK_BYTES = 1 << 16
KEPT_CLIPS = 64  # decoded pieces that stay in memory
# What browsers play as it lies there; anything else, and each piece of a recording, is sent as WAV.
PLAYED = {
    ".wav": "audio/wav", ".flac": "audio/flac", ".mp3": "audio/mpeg", ".ogg": "audio/ogg", ".oga": "audio/ogg",
    ".opus": "audio/ogg", ".m4a": "audio/mp4", ".webm": "audio/webm",
}  # fmt: skip
_RANGE = re.compile(r"bytes=(\d*)-(\d*)")


class Explorer(ThreadingHTTPServer):
    """Serves one page and its clips until it is shut down.

    collect: makes the page's content, again when the page is asked for and `changed` returns another value than before.
    warn: receives why that failed; the page then stays as it was.
    """

    daemon_threads = True

    def __init__(
        self,
        collect: Callable[[], Collected],
        changed: Callable[[], object] = lambda: None,
        port: int = 0,
        warn: Callable[[str], None] = lambda text: None,
    ) -> None:
        self.token = secrets.token_urlsafe(16)
        self._collect, self._changed, self._warn = collect, changed, warn
        self._lock = threading.Lock()
        self._state = changed()
        self._show(collect())
        try:
            super().__init__((HOST, port), _Handler)
        except OSError as error:
            raise ConfigError(
                f"Port {port} of {HOST} can't be used: {error.strerror}. Choose another --port."
            ) from None

    def _show(self, collected: Collected) -> None:
        self.collected = collected
        audio: dict[str, Any] = {"links": None, "clips": {}, "note": "", "served": "audio/"}
        if not collected.rows.has("path"):
            audio = {"links": None, "clips": {}, "note": "the manifest has no audio"}
        self.page = page_of(collected.payload, audio)
        self.clip = lru_cache(KEPT_CLIPS)(self._clip)

    @property
    def url(self) -> str:
        return f"http://{HOST}:{self.server_address[1]}/{self.token}/"

    def fresh_page(self) -> bytes:
        """Return the page, collected again where the manifest or the store changed."""
        with self._lock:
            try:
                state = self._changed()
                if state != self._state:
                    self._show(self._collect())
                    self._state = state
            except MedusaError as error:
                self._warn(f"the page stays as it was: {error}")
            return self.page

    def audio(self, i: int) -> tuple[str, int, BinaryIO]:
        """Return content type, bytes and file of row i's audio; IndexError, ManifestError or AudioError."""
        rows = self.collected.rows
        if not 0 <= i < len(rows):
            raise IndexError(i)
        audio = rows.audio(i)
        if isinstance(audio, Path) and (kind := PLAYED.get(audio.suffix.lower())) is not None:
            try:
                return kind, audio.stat().st_size, open(audio, "rb")
            except OSError as error:
                raise AudioError(f"{audio}: {error.strerror}") from None
        data: bytes = self.clip(audio)
        return "audio/wav", len(data), io.BytesIO(data)

    def _clip(self, audio: Path | Clip) -> bytes:
        file = io.BytesIO()
        soundfile.write(file, decode(audio), SAMPLE_RATE_HZ, format="WAV", subtype="FLOAT")
        return file.getvalue()


class _Handler(BaseHTTPRequestHandler):
    server: Explorer
    protocol_version = "HTTP/1.1"
    server_version, sys_version = "medusa", ""

    def do_GET(self) -> None:
        port = self.server.server_address[1]
        if self.headers.get("Host", "") not in (f"{HOST}:{port}", f"localhost:{port}"):
            self._refuse(HTTPStatus.FORBIDDEN)
            return
        parts = self.path.split("/")
        if len(parts) < 3 or not secrets.compare_digest(parts[1].encode(), self.server.token.encode()):
            self._refuse(HTTPStatus.NOT_FOUND)
        elif parts[2:] == [""]:
            page = self.server.fresh_page()
            self._send(HTTPStatus.OK, "text/html; charset=utf-8", page)
        elif len(parts) == 4 and parts[2] == "audio" and parts[3].isascii() and parts[3].isdecimal():
            self._audio(int(parts[3]))
        else:
            self._refuse(HTTPStatus.NOT_FOUND)

    do_HEAD = do_GET

    def _audio(self, i: int) -> None:
        try:
            kind, n_bytes, file = self.server.audio(i)
        except (IndexError, ManifestError, AudioError):
            self._refuse(HTTPStatus.NOT_FOUND)
            return
        with file:
            first, last, status = 0, n_bytes - 1, HTTPStatus.OK
            match = _RANGE.fullmatch(self.headers.get("Range", ""))
            if match and (match[1] or match[2]):
                status = HTTPStatus.PARTIAL_CONTENT
                if match[1]:
                    first, last = int(match[1]), min(int(match[2] or last), last)
                else:
                    first = max(0, n_bytes - int(match[2]))
            if first > last:
                self._refuse(HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE, {"Content-Range": f"bytes */{n_bytes}"})
                return
            headers = {"Accept-Ranges": "bytes"}
            if status is HTTPStatus.PARTIAL_CONTENT:
                headers["Content-Range"] = f"bytes {first}-{last}/{n_bytes}"
            self._begin(status, kind, last - first + 1, headers)
            if self.command == "HEAD":
                return
            file.seek(first)
            n_left = last - first + 1
            while n_left and (block := file.read(min(BLOCK_BYTES, n_left))):
                self._write(block)
                n_left -= len(block)

    def _send(self, status: HTTPStatus, kind: str, body: bytes) -> None:
        self._begin(status, kind, len(body), {})
        if self.command != "HEAD":
            self._write(body)

    def _begin(self, status: HTTPStatus, kind: str, n_bytes: int, headers: dict[str, str]) -> None:
        self.send_response(status)
        always = {
            "Content-Type": kind, "Content-Length": str(n_bytes), "Cache-Control": "no-store",
            "X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer",
            "Cross-Origin-Resource-Policy": "same-origin", "X-Frame-Options": "DENY",
        }  # fmt: skip
        for name, value in (always | headers).items():
            self.send_header(name, value)
        self.end_headers()

    def _refuse(self, status: HTTPStatus, headers: dict[str, str] | None = None) -> None:
        body = f"{status.value} {status.phrase}\n".encode()
        self._begin(status, "text/plain; charset=utf-8", len(body), headers or {})
        if self.command != "HEAD":
            self._write(body)

    def _write(self, data: bytes) -> None:
        try:
            self.wfile.write(data)
        except (BrokenPipeError, ConnectionResetError):  # the browser has what it wants, or has gone
            self.close_connection = True

    def log_message(self, format: str, *args: object) -> None:
        """Print nothing: the address has the token in it."""
