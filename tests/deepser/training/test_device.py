"""The trainer's arithmetic on CUDA, shown without a card."""

import os

import pytest
import torch

from deepser.config import NetworkConfig
from deepser.networks import srpol
from deepser.networks.srpol import Srpol
from deepser.training.device import CUBLAS_WORKSPACE, arithmetic, deterministic, resolve_precision
from tests.helpers.fake_cuda import fake_cuda

CUDA, CPU = torch.device("cuda"), torch.device("cpu")


def test_precision_auto_is_float32_on_cards_without_bfloat16_units(monkeypatch: pytest.MonkeyPatch) -> None:
    fake_cuda(monkeypatch, (8, 0), (7, 5))
    assert resolve_precision("auto", torch.device("cuda:0")) == "bfloat16"
    assert resolve_precision("auto", torch.device("cuda:1")) == "float32"


def test_float32_training_turns_tf32_off_on_cuda_alone() -> None:
    with arithmetic("float32", CUDA):
        assert torch.backends.cudnn.rnn.fp32_precision == "ieee"
    for precision, device in (("bfloat16", CUDA), ("float32", CPU)):
        with arithmetic(precision, device):
            assert torch.backends.cudnn.rnn.fp32_precision == "tf32"


def test_deterministic_kernels_are_requested_on_cuda_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(CUBLAS_WORKSPACE, raising=False)
    with deterministic(CPU):
        assert not torch.are_deterministic_algorithms_enabled()
        assert CUBLAS_WORKSPACE not in os.environ
    with deterministic(CUDA):
        assert torch.are_deterministic_algorithms_enabled()
        assert not torch.is_deterministic_algorithms_warn_only_enabled()
        assert os.environ[CUBLAS_WORKSPACE] in (":4096:8", ":16:8")  # the two with which cuBLAS repeats itself
    assert not torch.are_deterministic_algorithms_enabled()


def test_the_lstm_of_srpol_computes_in_float32_where_autocast_would_make_it_float16(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    network = Srpol([6, 4], NetworkConfig(d=8, kind="srpol", lstm_dim=8, n_layers=1, dropout=0.0)).eval()
    dtypes: list[torch.dtype] = []
    network.lstm.register_forward_hook(lambda _, inputs, outputs: dtypes.extend([inputs[0].dtype, outputs[0].dtype]))
    sequences = [(torch.randn(2, 5, dim), torch.ones(2, 5, dtype=torch.bool)) for dim in (6, 4)]
    monkeypatch.setattr(srpol, "WITHOUT_AUTOCAST", ("cpu",))
    with torch.autocast("cpu", torch.bfloat16):
        x = network(sequences)
    assert dtypes == [torch.float32, torch.float32]
    assert x.dtype == torch.float32
