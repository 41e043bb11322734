"""When each row of a network's inputs is spoken, and which rows of two inputs are near in time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from deepser.networks.attention import Masked
from featurestore.errors import ConfigError

COLUMNS = ("start_s", "end_s")  # of a set of times, as `featurize --times` writes it beside a text's
ENDING = "-times"  # of its name, behind the name of the text's set


@dataclass(frozen=True)
class Timing:
    """The sources of the times of each input's rows.

    window_s: rows whose times are that far apart, or nearer, see each other. rates_hz: rows per second as they are
    read, 0 where they aren't frames. times: of a text's rows the place of the input that holds their spans; None.
    """

    window_s: float
    rates_hz: tuple[float, ...]
    times: tuple[int | None, ...]

    @property
    def modalities(self) -> list[int]:
        """The inputs that a network attends to: all but those that hold times."""
        return [i for i in range(len(self.times)) if i not in self.times]

    def spans(self, inputs: Sequence[Masked | None]) -> list[Tensor]:
        """Return start and end in seconds, (B, T, 2) or (1, T, 2), of the rows of each modality.

        inputs: of every input, of those that hold times as they are stored. A row without a time, such as one of a
        whole utterance, is at every time.
        """
        bounds = []
        for i in self.modalities:
            rows, holder = inputs[i], self.times[i]
            assert rows is not None
            values = rows[0]
            if holder is not None:
                spans = inputs[holder]
                assert spans is not None
                bounds.append(spans[0].float())
            elif self.rates_hz[i]:
                starts = torch.arange(values.shape[1], device=values.device) / self.rates_hz[i]
                bounds.append(torch.stack([starts, starts + 1 / self.rates_hz[i]], -1)[None])
            else:
                always = torch.tensor([-torch.inf, torch.inf], device=values.device)
                bounds.append(always.expand(1, values.shape[1], 2))
        return bounds


def timing_of(specs: Sequence[Mapping[str, Any]], stride: int, window_s: float) -> Timing | None:
    """Return the timing of inputs by their sets' name and spec (JSON of a FeatureSpec); None without a window.

    stride: rows averaged into one on reading. ConfigError where a text has no set of times, or that has no window.
    """
    names = [str(each["name"]) for each in specs]
    holders = {name: i for i, name in enumerate(names) if tuple(specs[i].get("spec", {}).get("columns", ())) == COLUMNS}
    if not window_s:
        if holders:
            raise ConfigError(
                f"Feature set {next(iter(holders))!r} holds the times of tokens; give --align SECONDS with "
                "--network cross-attention, or leave it out."
            )
        return None
    times: list[int | None] = []
    for name, each in zip(names, specs, strict=True):
        of_tokens = each["spec"]["kind"] == "text" and each["spec"]["pool"] == "none" and name not in holders
        if of_tokens and name + ENDING not in holders:
            raise ConfigError(
                f"--align: feature set {name!r} has no {name + ENDING!r} beside it in --features; `medusa featurize "
                "--transcripts T --times` makes it, of transcripts with words."
            )
        times.append(holders[name + ENDING] if of_tokens else None)
    unused = [name for name, i in holders.items() if i not in times]
    if unused:
        raise ConfigError(f"--align: {unused[0]!r} holds the times of no feature set in --features.")
    return Timing(window_s, tuple(float(each["spec"]["frame_rate_hz"]) / stride for each in specs), tuple(times))


def near(queries: Tensor, keys: Tensor, valid: Tensor, window_s: float) -> Tensor:
    """Return the keys that each query sees, (B, T, S) bool: valid ones with a span at most window_s from its own.

    queries (B or 1, T, 2), keys (B or 1, S, 2): start and end in seconds. valid (B, S). A query that is near none, such
    as one of silence, sees all valid ones.
    """
    gaps_s = torch.maximum(keys[:, None, :, 0] - queries[:, :, None, 1], queries[:, :, None, 0] - keys[:, None, :, 1])
    visible = (gaps_s <= window_s) & valid[:, None]
    return visible | (valid[:, None] & ~visible.any(-1, keepdim=True))
