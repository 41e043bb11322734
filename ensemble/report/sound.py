"""The audio of a report: links beside the page, or short clips inside it as Opus."""

import base64
import io
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np

from featurestore.audio import SAMPLE_RATE_HZ, Clip, decode
from featurestore.corpus.manifest import Manifest
from featurestore.errors import AudioError, ManifestError

WAYS = ("embed", "link", "none")
EMBEDDED_S = 30.0  # a longer clip is linked
OPUS_BITS = 24_000  # a second: speech of 16 kHz is wholly clear there, and a clip of 4 s takes 9 kB


def audio_of(
    rows: Manifest,
    way: str,
    page: Path,
    *,
    first: Sequence[int] = (),
    most_bytes: int = 5_000_000,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> dict[str, Any]:
    """Return {"links": [...] or None, "clips": {row: data URL}, "note"} of N utterances.

    way: "embed" puts clips of at most EMBEDDED_S into the page, in the order of `first` and as far as `most_bytes` of
    text last; the others are linked, relative to the page. A clip that can't be decoded is linked and named in the
    note.
    """
    if way == "none" or not rows.has("path"):
        return {"links": None, "clips": {}, "note": "" if way == "none" else "the manifest has no audio"}
    links = [_link(rows, i, page.absolute().parent) for i in range(len(rows))]
    clips: dict[int, str] = {}
    failed: list[str] = []
    bytes_left = most_bytes
    seconds = rows.column("duration_s") if rows.has("duration_s") else np.full(len(rows), np.nan)
    if way == "embed":
        order = list(dict.fromkeys([*first, *range(len(rows))]))
        for done, i in enumerate(order):
            progress(done, len(order))
            if bytes_left <= 0:
                break
            if links[i] is None or seconds[i] > EMBEDDED_S:
                continue
            try:
                url = _embedded(rows.audio(i))
            except (AudioError, ManifestError) as error:
                failed.append(str(error))
                continue
            if url is not None and len(url) <= bytes_left:
                clips[i] = url
                bytes_left -= len(url)
            elif url is not None:
                break
    note = f"{len(clips):,} of {len(rows):,} clips are inside the page, the hardest first; the others are linked" * (
        way == "embed" and len(clips) < len(rows)
    )
    note += f"; {len(failed):,} can't be decoded: {failed[0]}" if failed else ""
    return {"links": links, "clips": {str(i): url for i, url in clips.items()}, "note": note}


def _link(rows: Manifest, i: int, directory: Path) -> str | None:
    """Return a relative URL of row i's file, the piece as a media fragment; None where it has no path."""
    try:
        audio = rows.audio(i)
    except ManifestError:
        return None
    path, ends = (audio.path, audio.piece_s) if isinstance(audio, Clip) else (audio, None)
    relative = os.path.relpath(os.path.abspath(path), directory)
    # "./" and the quoting keep a name such as "javascript:..." a name.
    link = "./" + quote(os.fsencode(relative))
    if ends is None:
        return link
    end = "" if ends[1] != ends[1] else f",{ends[1]:g}"
    return f"{link}#t={ends[0]:g}{end}"


def _embedded(audio: Path | Clip) -> str | None:
    """Return audio as a data URL, None where it is longer than EMBEDDED_S."""
    samples = decode(audio)
    if len(samples) > EMBEDDED_S * SAMPLE_RATE_HZ:
        return None
    return "data:audio/ogg;base64," + base64.b64encode(opus(samples)).decode("ascii")


def opus(samples: np.ndarray) -> bytes:
    """Return (n,) samples at 16 kHz as Ogg Opus of OPUS_BITS a second, louder ones than full scale turned down."""
    import av

    peak = float(np.abs(samples).max(initial=0.0))
    frame = av.AudioFrame.from_ndarray(
        np.ascontiguousarray(samples[None] / np.float32(max(peak, 1.0)), np.float32), format="flt", layout="mono"
    )
    frame.sample_rate = SAMPLE_RATE_HZ
    file = io.BytesIO()
    # libopus's effort, 0 to 10: at 3 a clip of 4 s takes 30 ms, at 10 50 ms, and they sound alike.
    options = {"application": "voip", "compression_level": "3"}
    with av.open(file, "w", format="ogg") as container:
        stream = container.add_stream("libopus", rate=SAMPLE_RATE_HZ, options=options)
        stream.bit_rate, stream.layout = OPUS_BITS, "mono"
        for packet in (*stream.encode(frame), *stream.encode(None)):
            container.mux(packet)
    return file.getvalue()
