"""DeepSER: a clip's output depends on the clip alone, and fusion follows Algorithm 2."""

import pytest
import torch
from torch import Tensor

from deepser.config import NetworkConfig
from deepser.networks.attention import Dropout, attend
from deepser.networks.network import Network

INPUTS = [(2, 12), (1, 7), (1, 5)]
SMALL = NetworkConfig(d=16, n_layers=2, n_heads=2, dropout=0.0)
Batch = list[tuple[Tensor, Tensor]]


def clip(lengths: tuple[int, ...], seed: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [
        torch.randn(n_layers, t, dim, generator=generator) for (n_layers, dim), t in zip(INPUTS, lengths, strict=False)
    ]


def batch_of(*clips: list[Tensor]) -> Batch:
    return [
        (torch.cat(rows, 1), torch.tensor([0, *torch.tensor([r.shape[1] for r in rows]).cumsum(0).tolist()]))
        for rows in zip(*clips, strict=True)
    ]


@pytest.mark.parametrize("n_inputs", [2, 3])
@pytest.mark.parametrize("n_layers", [1, 2, 3])
def test_a_clip_alone_equals_the_clip_among_longer_and_shorter_mates(n_inputs: int, n_layers: int) -> None:
    torch.manual_seed(0)
    config = NetworkConfig(d=16, n_layers=n_layers, n_heads=2, dropout=0.0)
    network = Network(INPUTS[:n_inputs], 4, [(1, 7), (0, 1)], config).eval()
    clips = [clip(lengths[:n_inputs], i) for i, lengths in enumerate([(9, 3, 4), (30, 1, 9), (2, 20, 1), (5, 0, 3)])]
    together = network(batch_of(*clips))
    for i, single_clip in enumerate(clips):
        for single, batched in zip(network(batch_of(single_clip)), together, strict=True):
            torch.testing.assert_close(single[0], batched[i], rtol=1e-5, atol=1e-5)


def test_fusion_follows_algorithm_2() -> None:
    torch.manual_seed(0)
    network = Network(INPUTS[:2], 4, [(1, 7)], SMALL).eval()
    h, g = clip((6, 3), 0)
    all_valid = [torch.ones(1, t, dtype=torch.bool) for t in (6, 3, 9, 18)]
    body = network.body
    h1, h2 = body.unimodal[0](network.inputs[0](h)[None], all_valid[0])
    g1, g2 = body.unimodal[1](network.inputs[1](g)[None], all_valid[1])
    _, f1_last = body.fusion[0](torch.cat([h1, g1], 1), all_valid[2])
    _, f2_last = body.fusion[1](torch.cat([h2, g2, f1_last], 1), all_valid[3])
    x = body.merge(torch.cat([h2.mean(1), g2.mean(1), f2_last.mean(1)], 1))
    logits, attributes = network(batch_of([h, g]))
    torch.testing.assert_close(logits, network.head.classes(torch.relu(x)))
    assert network.head.attributes is not None
    torch.testing.assert_close(attributes, 1 + 6 * torch.sigmoid(network.head.attributes(torch.relu(x))))


def test_attributes_stay_on_their_own_scales() -> None:
    network = Network(INPUTS[:2], 3, [(1, 7), (-1, 1)], SMALL).eval()
    _, attributes = network(batch_of(*(clip((t, 4), t) for t in range(1, 20))))
    assert ((attributes[:, 0] > 1) & (attributes[:, 0] < 7)).all()
    assert (attributes[:, 1].abs() < 1).all()


def test_a_corpus_without_attributes_has_an_empty_output() -> None:
    logits, attributes = Network(INPUTS[:2], 3, [], SMALL)(batch_of(clip((4, 4), 0)))
    assert logits.shape == (1, 3)
    assert attributes.shape == (1, 0)


def test_the_bf16_attention_of_cpus_equals_the_fused_one() -> None:
    torch.manual_seed(0)
    q, k, v = (torch.randn(2, 2, 9, 8) for _ in range(3))
    valid = torch.arange(9) < torch.tensor([[9], [4]])
    exact = attend(q, k, v, valid)
    rounded = attend(q.bfloat16(), k.bfloat16(), v.bfloat16(), valid)
    torch.testing.assert_close(rounded.float(), exact, rtol=0.05, atol=0.05)


def test_the_papers_configuration_has_the_size_its_layers_imply() -> None:
    config = NetworkConfig()
    d, ff = config.d, config.ff_multiple * config.d
    layer = 4 * d * d + 4 * d + 2 * d * ff + d + ff + 4 * d
    enc = 2 * (d * d + d) + 2 * layer
    network = Network([(1, d), (1, d)], 8, [(1, 7)] * 3, config)
    assert sum(p.numel() for p in network.parameters()) == 4 * enc + 3 * d * d + d + 11 * (d + 1) + 2


def test_dropout_zeroes_its_share_and_keeps_the_mean() -> None:
    torch.manual_seed(0)
    dropout = Dropout(0.25)
    for dtype in (torch.float32, torch.bfloat16):
        dropped = dropout(torch.ones(1001, 333, dtype=dtype))
        assert abs((dropped == 0).float().mean().item() - 0.25) < 0.005
        assert abs(dropped.float().mean().item() - 1) < 0.01
    assert (dropout.eval()(torch.ones(5)) == 1).all()
