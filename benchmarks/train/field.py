"""The loop that the field writes: a file per utterance, DataLoader, pad_sequence, float32, attention over padding.

The network is DeepSER from torch's own parts (`nn.TransformerEncoderLayer`, `nn.Dropout`), with the weights of ours.
On one utterance, where nothing is padded, both must have the same outputs; `check` compares them.
"""

import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import DataLoader, Dataset

from deepser.config import MemberConfig, NetworkConfig
from deepser.networks.network import Network
from deepser.training.losses import Mix, class_weights, total_loss

from .corpus import Made

TOLERANCE = 1e-3  # float32 rounding over the layers


class FileDataset(Dataset[Any]):
    """An utterance: its rows from a `.npy` file per feature set, its soft target and its attributes."""

    def __init__(self, corpus: Made) -> None:
        self.paths = [[corpus.npy(m, i) for m in range(len(corpus.names))] for i in range(len(corpus.targets.keys))]
        self.soft, self.values = corpus.targets.soft, corpus.targets.attribute_values

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, i: int) -> Any:
        return [torch.from_numpy(np.load(path)).float() for path in self.paths[i]], self.soft[i], self.values[i]


def collate(batch: list[Any]) -> tuple[list[Tensor], list[int], Tensor, Tensor]:
    """Return padded (B, T, D) per feature set, its rows that are no padding, soft targets (B, C), attributes (B, A)."""
    rows, soft, values = zip(*batch, strict=True)
    by_set = list(zip(*rows, strict=True))
    padded = [pad_sequence(list(own), batch_first=True) for own in by_set]
    n_rows = [sum(map(len, own)) for own in by_set]
    return padded, n_rows, torch.from_numpy(np.stack(soft)), torch.from_numpy(np.stack(values))


class PlainEnc(nn.Module):
    def __init__(self, dim: int, config: NetworkConfig) -> None:
        super().__init__()
        d = config.d
        self.project = nn.Sequential(nn.Linear(dim, d), nn.ReLU(), nn.Linear(d, d))
        layers = (
            nn.TransformerEncoderLayer(
                d, config.n_heads, config.ff_multiple * d, config.dropout, batch_first=True, norm_first=True
            )
            for _ in range(config.n_layers)
        )
        self.layers = nn.ModuleList(layers)
        for layer in self.layers:
            # Ours drops out what is added to the residual alone.
            layer.self_attn.dropout = 0.0  # type: ignore[union-attr]
            layer.dropout = nn.Identity()

    def forward(self, x: Tensor) -> list[Tensor]:
        x = self.project(x)
        sequences = []
        for layer in self.layers:
            x = layer(x)
            sequences.append(x)
        return sequences


class PlainDeepSER(nn.Module):
    """Algorithm 2 over padded sequences, nothing masked; the same parameters as ours."""

    def __init__(self, dims: list[int], n_classes: int, n_attributes: int, config: NetworkConfig) -> None:
        super().__init__()
        self.unimodal = nn.ModuleList(PlainEnc(dim, config) for dim in dims)
        self.fusion = nn.ModuleList(PlainEnc(config.d, config) for _ in range(config.n_layers))
        self.merge = nn.Linear((len(dims) + 1) * config.d, config.d)
        self.dropout = nn.Dropout(config.dropout)
        self.classes = nn.Linear(config.d, n_classes)
        self.attributes = nn.Linear(config.d, n_attributes)

    def forward(self, sequences: list[Tensor]) -> Tensor:
        """Return padded (B, T, D) per feature set -> x (B, d)."""
        layers = [enc(x) for enc, x in zip(self.unimodal, sequences, strict=True)]
        fused: list[Tensor] = []
        for layer, enc in enumerate(self.fusion):
            fused = [enc(torch.cat([*(own[layer] for own in layers), *fused], 1))[-1]]
        merged: Tensor = self.merge(torch.cat([*(own[-1].mean(1) for own in layers), fused[0].mean(1)], 1))
        return merged

    def head(self, x: Tensor) -> tuple[Tensor, Tensor]:
        x = self.dropout(torch.relu(x))
        return self.classes(x), 1 + 6 * torch.sigmoid(self.attributes(x))


def plain_like(network: Network, dims: list[int], config: NetworkConfig, n_attributes: int) -> PlainDeepSER:
    """Return the field's network with the weights of ours; its inputs are not standardised."""
    state = network.state_dict()
    plain = PlainDeepSER(dims, len(state["head.classes.bias"]), n_attributes, config)
    renamed = {
        ".qkv.weight": ".self_attn.in_proj_weight", ".qkv.bias": ".self_attn.in_proj_bias",
        ".out.": ".self_attn.out_proj.",
        ".norm_attention.": ".norm1.", ".norm_ff.": ".norm2.", ".ff_in.": ".linear1.", ".ff_out.": ".linear2.",
    }  # fmt: skip
    parameters = {}
    for name, value in state.items():
        if name.startswith("inputs.") or name in ("head.low", "head.span"):
            continue
        name = name.removeprefix("body.").removeprefix("head.")
        for our_name, plain_name in renamed.items():
            name = name.replace(our_name, plain_name)
        parameters[name] = value
    plain.load_state_dict(parameters)
    return plain


def check(network: Network, plain: PlainDeepSER, rows: list[Tensor]) -> float:
    """Return the greatest difference between both networks' outputs for one utterance.

    rows: (T, D) float32 per feature set.

    Raises AssertionError where it is more than rounding: the loops would not train the same network.
    """
    packed = [(own[None], torch.tensor([0, len(own)])) for own in rows]
    network.eval(), plain.eval()
    with torch.inference_mode():
        outputs, plain_outputs = network(packed), plain.head(plain([own[None] for own in rows]))
    difference = max(float((a - b).abs().max()) for a, b in zip(outputs, plain_outputs, strict=True))
    network.train(), plain.train()
    if not difference < TOLERANCE:
        raise AssertionError(f"bench train: the field's network has other outputs than ours, apart by {difference:.3g}")
    return difference


def train_plainly(
    corpus: Made,
    plain: PlainDeepSER,
    config: MemberConfig,
    workers: int,
    device: torch.device,
    on_step: Callable[[], None],
) -> Iterator[dict[str, float]]:
    """Train epoch by epoch and yield the seconds, shares of waiting and of padding, and mean loss of each."""
    train, targets = config.train, corpus.targets
    stage = train.stages[0]
    loader = DataLoader(
        FileDataset(corpus), batch_size=train.batch_size, shuffle=True, num_workers=workers, collate_fn=collate,
        persistent_workers=workers > 0, pin_memory=device.type == "cuda",
        generator=torch.Generator().manual_seed(train.seed),
    )  # fmt: skip
    optimiser = torch.optim.AdamW(plain.parameters(), lr=stage.lr, weight_decay=train.weight_decay)
    weights = torch.from_numpy(class_weights(targets.labels, len(targets.classes), stage.class_weight_exponent)).to(
        device
    )
    ranges = torch.tensor(targets.attribute_ranges, dtype=torch.float32, device=device)
    rng = np.random.default_rng(train.seed)
    plain.to(device).train()
    for _ in range(stage.epochs):
        started = requested = time.perf_counter()
        waited = total = 0.0
        n_rows = n_padded = 0
        for padded, rows, soft, values in loader:
            waited += time.perf_counter() - requested
            mix = Mix.draw(len(soft), train.mixup_p, train.mixup_alpha, rng).to(device)
            optimiser.zero_grad()
            x = plain([own.to(device) for own in padded])
            logits, attributes = plain.head(mix(x))
            loss = total_loss(
                stage.loss, logits, mix(soft.to(device)), weights, attributes, mix(values.to(device)), ranges
            )  # fmt: skip
            loss.backward()
            nn.utils.clip_grad_norm_(plain.parameters(), train.grad_clip)
            optimiser.step()
            total += loss.item()
            n_rows += sum(rows)
            n_padded += sum(own.shape[0] * own.shape[1] for own in padded)
            on_step()
            requested = time.perf_counter()
        seconds = time.perf_counter() - started
        yield {
            "seconds": seconds, "waiting_share": waited / seconds, "padding_share": 1 - n_rows / n_padded,
            "loss": total / len(loader),
        }  # fmt: skip
