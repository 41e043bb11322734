"""What holds for every network: padding and batch mates change nothing, every parameter learns, sizes are as told."""

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor, nn

from deepser.config import NETWORKS, POOLINGS, NetworkConfig
from deepser.networks.network import BODIES, Network, pad
from deepser.networks.pooling import AttentivePool, MeanPool, make_pool
from featurestore.errors import ConfigError

INPUTS = [(2, 12), (3, 7), (2, 5)]
LENGTHS = [(9, 3, 4), (30, 1, 9), (2, 20, 1), (5, 0, 3)]  # of four clips; one has no row in the second feature set
RANGES = [(1.0, 7.0), (0.0, 1.0)]
Batch = list[tuple[Tensor, Tensor]]


def n_inputs(kind: str) -> int:
    return 1 if kind == "unimodal" else 3


def small(kind: str, pooling: str = "mean") -> NetworkConfig:
    return NetworkConfig(d=16, n_layers=2, n_heads=2, dropout=0.0, kind=kind, pooling=pooling, pool_dim=6, lstm_dim=20)


def clip(lengths: Sequence[int], seed: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    shapes = zip(INPUTS, lengths, strict=False)
    return [torch.randn(n_layers, t, dim, generator=generator) for (n_layers, dim), t in shapes]


def batch_of(*clips: list[Tensor]) -> Batch:
    return [
        (torch.cat(rows, 1), torch.tensor([0, *torch.tensor([r.shape[1] for r in rows]).cumsum(0).tolist()]))
        for rows in zip(*clips, strict=True)
    ]


def network_of(kind: str, pooling: str = "mean") -> Network:
    torch.manual_seed(0)
    return Network(INPUTS[: n_inputs(kind)], 4, RANGES, small(kind, pooling)).eval()


def test_the_kinds_of_the_config_are_the_bodies_there_are() -> None:
    assert tuple(BODIES) == NETWORKS


@pytest.mark.parametrize("pooling", POOLINGS)
@pytest.mark.parametrize("kind", NETWORKS)
def test_batch_mates_change_nothing(kind: str, pooling: str) -> None:
    network = network_of(kind, pooling)
    clips = [clip(lengths[: n_inputs(kind)], i) for i, lengths in enumerate(LENGTHS)]
    together = network(batch_of(*clips))
    turned = network(batch_of(*clips[::-1]))
    for i, clip_rows in enumerate(clips):
        for single, batched, backwards in zip(network(batch_of(clip_rows)), together, turned, strict=True):
            torch.testing.assert_close(single[0], batched[i], rtol=1e-5, atol=1e-5)
            torch.testing.assert_close(backwards[len(clips) - 1 - i], batched[i], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("pooling", POOLINGS)
@pytest.mark.parametrize("kind", NETWORKS)
def test_what_lies_in_the_padding_changes_nothing(kind: str, pooling: str) -> None:
    network = network_of(kind, pooling)
    rows = batch_of(*(clip(lengths[: n_inputs(kind)], i) for i, lengths in enumerate(LENGTHS)))
    sequences = [pad(read(values), offsets) for read, (values, offsets) in zip(network.inputs, rows, strict=True)]
    expected = network.body(sequences)
    longer = []
    for x, valid in sequences:
        x = torch.where(valid.unsqueeze(-1), x, torch.full_like(x, 1e4))
        x = torch.cat([x, torch.full_like(x, -1e4)], 1)
        longer.append((x, torch.cat([valid, torch.zeros_like(valid)], 1)))
    torch.testing.assert_close(network.body(longer), expected, rtol=1e-5, atol=1e-5)
    assert expected.shape == (len(LENGTHS), network.body.width)


@pytest.mark.parametrize("pooling", POOLINGS)
@pytest.mark.parametrize("kind", NETWORKS)
def test_gradient_reaches_every_parameter(kind: str, pooling: str) -> None:
    network = network_of(kind, pooling).train()
    clips = [clip([t + 2 for t in lengths[: n_inputs(kind)]], i) for i, lengths in enumerate(LENGTHS)]
    logits, attributes = network(batch_of(*clips))
    (logits.log_softmax(1)[:, 0].sum() + attributes.square().sum()).backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all(), name
        assert parameter.grad.abs().sum() > 0, name


@pytest.mark.parametrize("kind", NETWORKS)
def test_a_clip_of_one_frame_has_finite_outputs_and_gradients(kind: str) -> None:
    network = network_of(kind, "asp").train()
    logits, attributes = network(batch_of(clip([1, 1, 1][: n_inputs(kind)], 0)))
    (logits.sum() + attributes.sum()).backward()
    assert all(torch.isfinite(p.grad).all() for p in network.parameters() if p.grad is not None)


def linear(n_in: int, n_out: int) -> int:
    return n_in * n_out + n_out


def size(kind: str, dims: Sequence[int], config: NetworkConfig, n_outputs: int = 11) -> int:
    """Return the number of parameters by hand."""
    d, ff = config.d, config.ff_multiple * config.d
    layer = linear(d, 3 * d) + linear(d, d) + linear(d, ff) + linear(ff, d) + 4 * d
    between = linear(d, d) + config.n_layers * layer  # the second linear map of an Enc, and its layers

    def asp(dim: int) -> int:
        return linear(dim, config.pool_dim or dim) + (config.pool_dim or dim)

    inputs, head = len(dims), linear(d, n_outputs)
    encs = sum(linear(dim, d) + between for dim in dims)
    if kind == "deepser":
        return inputs + encs + config.n_layers * (linear(d, d) + between) + linear((len(dims) + 1) * d, d) + head
    if kind in ("late-fusion", "unimodal"):
        return inputs + encs + linear(len(dims) * d, d) + head
    if kind == "cross-attention":
        return inputs + encs + len(dims) * (layer + 2 * d) + linear(len(dims) * d, d) + head
    pools = sum(asp(dim) for dim in dims)
    if kind == "baseline":
        return inputs + pools + linear(2 * sum(dims), d) + 2 * d + head
    h = config.lstm_dim
    lstm = 4 * h * (d + h) + 8 * h + (config.n_layers - 1) * (4 * h * 2 * h + 8 * h)
    return inputs + pools + sum(linear(2 * dim, d) for dim in dims) + 2 * d + lstm + linear(h, n_outputs)


@pytest.mark.parametrize("kind", NETWORKS)
def test_sizes_are_those_counted_by_hand(kind: str) -> None:
    pooling = "asp" if kind in ("srpol", "baseline") else "mean"
    d = 1028 if kind == "srpol" else 1024
    config = NetworkConfig(d=d, kind=kind, pooling=pooling)
    dims = [1280, 1024, 1024][: n_inputs(kind)]
    with torch.device("meta"):
        network = Network([(1, dim) for dim in dims], 8, [(1, 7)] * 3, config)
    assert sum(p.numel() for p in network.parameters()) == size(kind, dims, config)


def test_a_network_refuses_feature_sets_that_it_cannot_take() -> None:
    for kind in NETWORKS:
        if kind not in ("unimodal", "baseline"):
            with pytest.raises(ConfigError, match=rf"{kind} .*two or more.*found 1.*--network"):
                Network(INPUTS[:1], 4, RANGES, small(kind))
    with pytest.raises(ConfigError, match=r"unimodal .*one feature set.*found 2"):
        Network(INPUTS[:2], 4, RANGES, small("unimodal"))
    assert Network(INPUTS[:1], 4, RANGES, small("baseline")).body.width == 16


def test_srpol_needs_no_width_that_its_heads_divide() -> None:
    assert NetworkConfig(kind="srpol", d=1028).d == 1028
    with pytest.raises(ConfigError, match="multiple of n_heads"):
        NetworkConfig(kind="cross-attention", d=1028)


def test_late_fusion_is_deepser_without_its_fusions() -> None:
    torch.manual_seed(0)
    with_fusion, late = (Network(INPUTS[:2], 4, RANGES, small(kind)).eval() for kind in ("deepser", "late-fusion"))
    state = {name: value for name, value in with_fusion.state_dict().items() if not name.startswith("body.fusion")}
    state["body.merge.weight"] = state["body.merge.weight"][:, : 2 * 16].clone()
    late.load_state_dict(state)
    with torch.no_grad():
        with_fusion.body.merge.weight[:, 2 * 16 :] = 0  # type: ignore[union-attr, operator]
    batch = batch_of(clip((6, 3), 0), clip((2, 8), 1))
    for a, b in zip(with_fusion(batch), late(batch), strict=True):
        torch.testing.assert_close(a, b)


def test_cross_attention_lets_a_modality_see_the_others() -> None:
    network = network_of("cross-attention")
    clip_a, clip_b = clip((6, 3, 4), 0), clip((6, 3, 4), 1)
    for m in range(3):
        changed = [clip_b[i] if i == m else clip_a[i] for i in range(3)]
        pooled = [
            network.body.pools[i](network.body.cross[i](*_seen(network, rows, i)), torch.ones(1, rows[i].shape[1]) > 0)  # type: ignore[union-attr, index, operator]
            for rows in (clip_a, changed)
            for i in range(3)
            if i != m
        ]
        for before, after in zip(pooled[:2], pooled[2:], strict=True):
            assert (before - after).abs().max() > 1e-4


def _seen(network: Network, rows: list[Tensor], i: int) -> tuple[Tensor, Tensor, Tensor]:
    padded = [pad(read(v), torch.tensor([0, v.shape[1]])) for read, v in zip(network.inputs, rows, strict=True)]
    ends = [enc(x, valid)[-1] for enc, (x, valid) in zip(network.body.unimodal, padded, strict=True)]  # type: ignore[union-attr, arg-type, operator]
    others = torch.cat([end for j, end in enumerate(ends) if j != i], 1)
    return ends[i], others, torch.ones(others.shape[:2], dtype=torch.bool)


def test_attentive_statistics_are_the_weighted_mean_and_deviation() -> None:
    torch.manual_seed(0)
    pool = make_pool("asp", 5, 3)
    assert isinstance(pool, AttentivePool)
    x, n = torch.randn(2, 9, 5) + 100, (9, 4)
    pooled = pool(x, torch.arange(9) < torch.tensor(n)[:, None])
    for b in range(2):
        frames = x[b, : n[b]].double()
        w = pool.double().score(torch.tanh(pool.hidden(frames)))[:, 0].softmax(0)
        pool.float()
        mean = (w[:, None] * frames).sum(0)
        deviation = (w[:, None] * (frames - mean) ** 2).sum(0).sqrt()
        torch.testing.assert_close(pooled[b].double(), torch.cat([mean, deviation]), rtol=1e-4, atol=1e-4)
    assert isinstance(make_pool("mean", 5), MeanPool)
    plain = make_pool("mean+std", 5)(x, torch.arange(9) < torch.tensor(n)[:, None])
    for b in range(2):
        frames = x[b, : n[b]].double()
        expected = torch.cat([frames.mean(0), frames.std(0, correction=0)])
        torch.testing.assert_close(plain[b].double(), expected, rtol=1e-4, atol=1e-4)
    assert make_pool("attention", 5)(x, torch.ones(2, 9, dtype=torch.bool)).shape == (2, 5)


def test_weights_saved_before_there_were_bodies_are_read() -> None:
    network = network_of("deepser")
    old = {name.removeprefix("body."): value for name, value in network.state_dict().items()}
    loaded = Network(INPUTS, 4, RANGES, small("deepser"))
    loaded.load_state_dict(old)
    for a, b in zip(network.parameters(), loaded.parameters(), strict=True):
        assert isinstance(a, nn.Parameter)
        assert (a == b).all()
