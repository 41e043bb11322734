"""`medusa explore`: the page and its audio by ranges, to whoever knows the address, and nothing else."""

import http.client
import io
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import soundfile

from ensemble.report.collect import Collected
from ensemble.report.serve import HOST, Explorer
from featurestore.audio import Clip, decode
from featurestore.corpus.manifest import Manifest
from featurestore.errors import ConfigError
from tests.ensemble.report.test_browser import PLAYABLE, opened
from tests.helpers.warm_python import MEDUSA, WarmProcess

REPO = Path(__file__).resolve().parents[3]


@pytest.fixture(scope="module")
def server(collected: Collected) -> Iterator[Explorer]:
    with Explorer(lambda: collected) as explorer:
        thread = threading.Thread(target=explorer.serve_forever, daemon=True)
        thread.start()
        yield explorer
        explorer.shutdown()


def get(server: Explorer, path: str, host: str | None = None, method: str = "GET", **headers: str) -> Any:
    """Return the answer (status, headers, body) to a request below the server, with any Host."""
    connection = http.client.HTTPConnection(HOST, server.server_address[1], timeout=30)
    connection.putrequest(method, path, skip_host=True)
    connection.putheader("Host", host or f"{HOST}:{server.server_address[1]}")
    for name, value in headers.items():
        connection.putheader(name, value)
    connection.endheaders()
    response = connection.getresponse()
    body = response.read()
    connection.close()
    return response.status, response.headers, body


def test_the_page_is_read_with_the_token_alone(server: Explorer) -> None:
    status, headers, body = get(server, f"/{server.token}/")
    assert status == 200
    assert body == server.page
    assert headers["Cache-Control"] == "no-store"
    assert len(server.token) >= 22
    assert server.server_address[0] == "127.0.0.1"


@pytest.mark.parametrize(
    "path",
    ["/", "/wrong/", "/wrong/audio/0", "/{token}", "/{token}/audio/60", "/{token}/audio/-1", "/{token}/audio/0/x",
     "/{token}/audio/%C2%B2", "/{token}/../manifest.csv", "/{token}/audio/../../manifest.csv", "/{token}/manifest.csv",
     "//etc/passwd", "/{token}/%2e%2e/manifest.csv"],
)  # fmt: skip
def test_nothing_else_is_readable(server: Explorer, path: str) -> None:
    status, _, body = get(server, path.replace("{token}", server.token))
    assert status == 404
    assert body == b"404 Not Found\n"


def test_another_name_for_this_machine_is_refused(server: Explorer) -> None:
    assert get(server, f"/{server.token}/", host="evil.example")[0] == 403
    assert get(server, f"/{server.token}/", host=f"localhost:{server.server_address[1]}")[0] == 200


def test_audio_is_sent_by_ranges(server: Explorer, collected: Collected) -> None:
    path = f"/{server.token}/audio/4"
    content = collected.rows.audio_path(4).read_bytes()
    status, headers, body = get(server, path)
    assert (status, body, headers["Content-Type"], headers["Accept-Ranges"]) == (200, content, "audio/wav", "bytes")
    for requested, first, last in (("bytes=0-99", 0, 99), ("bytes=100-", 100, len(content) - 1),
                               ("bytes=-50", len(content) - 50, len(content) - 1)):  # fmt: skip
        status, headers, body = get(server, path, Range=requested)
        assert status == 206
        assert headers["Content-Range"] == f"bytes {first}-{last}/{len(content)}"
        assert body == content[first : last + 1]
    assert get(server, path, Range=f"bytes={len(content)}-")[0] == 416
    assert get(server, path, Range="lines=1-2")[0] == 200
    status, headers, body = get(server, path, method="HEAD")
    assert (status, headers["Content-Length"], body) == (200, str(len(content)), b"")


def test_a_piece_of_a_recording_is_sent_as_that_piece(tmp_path: Path, collected: Collected) -> None:
    tone = np.sin(np.arange(48_000) / 7).astype(np.float32) * 0.5
    soundfile.write(tmp_path / "long.flac", tone, 16_000)
    columns = {
        "utterance_id": ["a", "b"],
        "path": ["long.flac", "gone.flac"],
        "start_s": [1.0, 0.0],
        "end_s": [1.5, 1.0],
    }
    rows = Manifest(pa.table(columns), root=tmp_path)
    with Explorer(lambda: Collected(collected.payload, rows, [])) as explorer:
        threading.Thread(target=explorer.serve_forever, daemon=True).start()
        status, _, body = get(explorer, f"/{explorer.token}/audio/0")
        assert status == 200
        played, rate = soundfile.read(io.BytesIO(body), dtype="float32")
        assert rate == 16_000
        np.testing.assert_array_equal(played, decode(Clip(tmp_path / "long.flac", 1.0, 1.5)))
        assert get(explorer, f"/{explorer.token}/audio/0", Range="bytes=10-19")[2] == body[10:20]
        assert get(explorer, f"/{explorer.token}/audio/1")[0] == 404
        explorer.shutdown()


def test_the_page_is_collected_again_when_what_it_is_made_from_changed(collected: Collected) -> None:
    state, states = [0], []

    def collect() -> Collected:
        states.append(state[0])
        return collected

    with Explorer(collect, lambda: state[0]) as explorer:
        explorer.fresh_page()
        assert states == [0]
        state[0] = 1
        explorer.fresh_page()
        explorer.fresh_page()
        assert states == [0, 1]


def test_a_page_that_can_no_longer_be_made_stays_as_it_was(collected: Collected) -> None:
    state, warned = [0], []

    def collect() -> Collected:
        if state[0]:
            raise ConfigError("the store is gone")
        return collected

    with Explorer(collect, lambda: state[0], warn=warned.append) as explorer:
        page = explorer.page
        state[0] = 1
        assert explorer.fresh_page() == page
        assert "the store is gone" in warned[0]


def test_the_served_page_plays_in_the_browser(server: Explorer, chromium: Any) -> None:
    opened_page = opened(chromium, server.url)
    opened_page.page.locator("#table .play").nth(2).click()
    opened_page.page.wait_for_function(PLAYABLE)
    assert opened_page.page.evaluate("document.querySelector('audio').src") == f"{server.url}audio/2"
    assert opened_page.problems == []
    opened_page.page.close()


def test_the_command_serves_until_ctrl_c(run: Path) -> None:
    command = ["explore", "meta", "-m", run / "manifest.csv", "-s", run / "store"]
    process = WarmProcess(MEDUSA, *command, "--bootstrap", "0", "--projections", "pca", cwd=REPO)
    lines = [process.stdout.readline() for _ in range(2)]
    assert lines[1].startswith("http://127.0.0.1:")
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 0
    assert "Traceback" not in errors
