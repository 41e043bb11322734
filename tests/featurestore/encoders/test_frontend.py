"""The arithmetic of a padded batch's front end under CUDA's autocast, imitated on a CPU, and its error."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
import transformers
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from featurestore.encoders.frontend import PaddedFrontEnd

ATEN = torch.ops.aten


class Dtypes(TorchDispatchMode):
    """The dtypes in which convolutions, norms and GELU compute."""

    def __init__(self) -> None:
        super().__init__()
        self.of: dict[str, set[torch.dtype]] = {"convolution": set(), "native_layer_norm": set(), "gelu": set()}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        if name in self.of:
            self.of[name].add(args[0].dtype)
        return func(*args, **(kwargs or {}))


@pytest.fixture(scope="module")
def extractor() -> Any:
    """Of a large model's kind: layer norm behind every convolution, with weights that 16 bits don't hold."""
    torch.manual_seed(0)
    config = transformers.HubertConfig(
        feat_extract_norm="layer", conv_bias=True, num_hidden_layers=1, hidden_size=16, num_attention_heads=2,
        intermediate_size=16, conv_dim=(64,) * 7,
    )  # fmt: skip
    result = transformers.AutoModel.from_config(config).eval().requires_grad_(False).feature_extractor
    for layer in result.conv_layers:
        layer.layer_norm.weight.uniform_(0.3, 1.7)
        layer.layer_norm.bias.normal_(0, 0.3)
    return result


def on_cuda(patch: pytest.MonkeyPatch, after: Callable[[Tensor], Tensor] = lambda values: values) -> None:
    """Compute layer norm as CUDA's autocast does, in float32; a CPU's keeps 16 bits. after: of its result."""
    norm = F.layer_norm

    def in_float32(values: Tensor, *arguments: Any) -> Tensor:
        with torch.autocast("cpu", enabled=False):
            return after(norm(values.float(), *arguments))

    patch.setattr(torch.nn.modules.normalization.F, "layer_norm", in_float32)


def test_convolutions_are_in_16_bits_and_what_is_between_them_in_float32(
    extractor: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    on_cuda(monkeypatch)
    samples = torch.randn(2, 16_000)
    with Dtypes() as dtypes, torch.autocast("cpu", torch.bfloat16):
        PaddedFrontEnd(extractor)(samples, torch.tensor([16_000, 12_000]))
    assert dtypes.of == {
        "convolution": {torch.bfloat16}, "native_layer_norm": {torch.float32}, "gelu": {torch.float32}
    }  # fmt: skip


def test_gelu_in_16_bits_would_add_to_the_error(extractor: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    samples, n_samples = torch.randn(2, 32_000), torch.tensor([32_000, 32_000])
    exact = PaddedFrontEnd(extractor)(samples, n_samples)

    def error(after: Callable[[Tensor], Tensor]) -> float:
        with monkeypatch.context() as patch, torch.autocast("cpu", torch.bfloat16):
            on_cuda(patch, after)
            rows = PaddedFrontEnd(extractor)(samples, n_samples).float()
        return float(((rows - exact).norm(dim=-1) / exact.norm(dim=-1)).median())

    assert error(lambda values: values.bfloat16()) > 1.1 * error(lambda values: values)
