"""A real S3 server as a process: moto's."""

import os
import re
import socket
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path

import pytest

BUCKET = "bucket"


class S3:
    """The server with one bucket; a context manager, within which the environment points clients to it."""

    def __init__(self, directory: Path) -> None:
        self._log = directory / "s3.log"
        self._environment = pytest.MonkeyPatch()

    def __enter__(self) -> "S3":
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        with open(self._log, "wb") as log:
            command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
            self._server = subprocess.Popen(command, stdout=log, stderr=log)
        settings = {
            "AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}", "AWS_EC2_METADATA_DISABLED": "true",
        }  # fmt: skip
        for name, value in settings.items():
            self._environment.setenv(name, value)
        self._wait(port)
        import s3fs

        self.files = s3fs.S3FileSystem(skip_instance_cache=True, use_listings_cache=False)
        self.files.mkdir(BUCKET)
        return self

    def _wait(self, port: int) -> None:
        for _ in range(600):
            with socket.socket() as connection:
                if connection.connect_ex(("127.0.0.1", port)) == 0:
                    return
            assert self._server.poll() is None, self._log.read_text()
            time.sleep(0.1)
        raise TimeoutError(self._log.read_text())

    def __exit__(self, kind: type[BaseException] | None, *details: object) -> None:
        self.kill()
        self._environment.undo()

    def kill(self) -> None:
        self._server.kill()
        self._server.wait()

    def url(self, name: str) -> str:
        return f"s3://{BUCKET}/{name}"

    def requests(self, method: str, of: str, status: int) -> list[str]:
        """Return the requested paths that contain `of` and were answered with this status."""
        log = re.sub(r"\x1b\[[0-9;]*m", "", self._log.read_text())
        result = re.findall(rf'"{method} (\S*) HTTP/1.1" {status} ', log)
        return [path for path in result if of in path]


def has_moto() -> bool:
    return os.name == "posix" and all(find_spec(name) is not None for name in ("flask", "moto", "s3fs"))
