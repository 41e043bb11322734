"""The Hugging Face hub for directories on disk: repository information and files with ranges."""

import hashlib
import json
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

COMMIT = "0123456789abcdef0123456789abcdef01234567"


class Hub:
    """Serves root/org/name as repositories; a context manager.

    cut: bytes of a weights file after which its first transfer breaks off; those after it are whole.
    claimed: size of every weights file in the repository's information, in place of its own.
    ranges: what the Range headers of GET requests were, by file name.
    """

    def __init__(self, root: Path, cut: int | None = None, claimed: int | None = None) -> None:
        self.root = root
        self.cut = cut
        self.claimed = claimed
        self.ranges: dict[str, list[str | None]] = {}

    def __enter__(self) -> "Hub":
        hub = self
        handler = type("Handler", (_Handler,), {"hub": hub})
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        return self

    def __exit__(self, *details: object) -> None:
        self._server.shutdown()
        self._server.server_close()


class _Handler(BaseHTTPRequestHandler):
    hub: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def do_GET(self) -> None:
        self._answer(body=True)

    def _answer(self, body: bool) -> None:
        path = unquote(urlsplit(self.path).path)
        api = re.fullmatch(r"/api/models/([^/]+/[^/]+)(?:/revision/[^/]+)?", path)
        tree = re.fullmatch(r"/api/models/([^/]+/[^/]+)/tree/[^/]+", path)
        resolve = re.fullmatch(r"/([^/]+/[^/]+)/resolve/[^/]+/(.+)", path)
        repository = self.hub.root / (api or tree or resolve)[1] if api or tree or resolve else None
        if repository is None or not repository.is_dir():
            self._send(404, b"{}", {"X-Error-Code": "RepoNotFound"}, body)
        elif api:
            files = [{"rfilename": name, "size": self._size(repository / name)} for name in _names(repository)]
            values = {"id": api[1], "modelId": api[1], "sha": COMMIT, "private": False, "siblings": files}
            self._send(200, json.dumps(values).encode(), {"Content-Type": "application/json"}, body)
        elif tree:
            entries = [
                {"type": "file", "path": name, "size": self._size(repository / name), "oid": _etag(repository / name)}
                for name in _names(repository)
            ]
            self._send(200, json.dumps(entries).encode(), {"Content-Type": "application/json"}, body)
        else:
            assert resolve is not None
            self._file(repository / resolve[2], body)

    def _size(self, path: Path) -> int:
        heavy = path.suffix == ".safetensors" and self.hub.claimed is not None
        return int(self.hub.claimed or 0) if heavy else path.stat().st_size

    def _file(self, path: Path, body: bool) -> None:
        headers = {"X-Repo-Commit": COMMIT, "Accept-Ranges": "bytes"}
        if not path.is_file():
            self._send(404, b"", {**headers, "X-Error-Code": "EntryNotFound"}, body)
            return
        content, requested = path.read_bytes(), self.headers.get("Range")
        headers["ETag"] = f'"{_etag(path)}"'
        if body:
            self.hub.ranges.setdefault(path.name, []).append(requested)
        first = int(re.fullmatch(r"bytes=(\d+)-.*", requested)[1]) if requested else 0  # type: ignore[index]
        if requested:
            headers["Content-Range"] = f"bytes {first}-{len(content) - 1}/{len(content)}"
        broken = body and self.hub.cut is not None and path.suffix == ".safetensors"
        cut, self.hub.cut = (self.hub.cut, None) if broken else (None, self.hub.cut)
        self._send(206 if requested else 200, content[first:], headers, body, cut)

    def _send(self, status: int, content: bytes, headers: dict[str, str], body: bool, cut: int | None = None) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(content))}.items():
            self.send_header(name, value)
        self.end_headers()
        if body:
            self.wfile.write(content if cut is None else content[:cut])
        if cut is not None:
            self.close_connection = True


def _names(repository: Path) -> list[str]:
    return sorted(str(path.relative_to(repository)) for path in repository.rglob("*") if path.is_file())


def _etag(path: Path) -> str:
    return hashlib.sha1(path.read_bytes()).hexdigest()
