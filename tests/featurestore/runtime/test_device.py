"""What a CUDA device is asked before anything runs on it, shown without one."""

import pytest
import torch

from featurestore.encoders.device import arithmetic, out_of_memory, pick_compute
from featurestore.runtime.device import ieee_float32, multiplies_bfloat16
from tests.helpers.fake_cuda import fake_cuda

V100, T4, A100, H100 = (7, 0), (7, 5), (8, 0), (9, 0)


def precisions() -> list[str]:
    backends = torch.backends
    return [each.fp32_precision for each in (backends.cudnn.conv, backends.cudnn.rnn, backends.cuda.matmul)]


def test_bfloat16_is_for_cards_that_multiply_it_in_hardware(monkeypatch: pytest.MonkeyPatch) -> None:
    fake_cuda(monkeypatch, V100, T4, A100, H100)
    assert [multiplies_bfloat16(torch.device("cuda", i)) for i in range(4)] == [False, False, True, True]


def test_compute_auto_asks_the_chosen_card_and_not_the_first(monkeypatch: pytest.MonkeyPatch) -> None:
    fake_cuda(monkeypatch, A100, T4)
    assert pick_compute("auto", torch.device("cuda:1")) == torch.float16
    assert pick_compute("auto", torch.device("cuda:0")) == torch.bfloat16
    assert pick_compute("auto", torch.device("cuda")) == torch.bfloat16


def test_float32_is_ieee_within_the_block_and_what_it_was_behind_it() -> None:
    before = precisions(), torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    assert "tf32" in before[0]  # torch's default rounds convolutions
    with ieee_float32():
        assert precisions() == ["ieee"] * 3
        assert not torch.backends.cudnn.allow_tf32  # the older switches agree, else torch refuses to multiply
        assert not torch.backends.cuda.matmul.allow_tf32
    assert (precisions(), torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32) == before


def test_a_users_own_choice_of_tf32_comes_back_after_an_error() -> None:
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high")
    chosen = precisions()
    try:
        with pytest.raises(ValueError, match="within"), ieee_float32():
            raise ValueError("within")
        assert torch.get_float32_matmul_precision() == "high"
        assert precisions() == chosen
    finally:
        torch.set_float32_matmul_precision(before)
    assert torch.backends.cuda.matmul.allow_tf32 is False


def test_an_encoder_in_float32_turns_tf32_off_on_cuda_alone() -> None:
    with arithmetic(torch.float32, torch.device("cuda")):
        assert precisions() == ["ieee"] * 3
    for compute, device in ((torch.float32, "cpu"), (torch.bfloat16, "cpu")):
        with arithmetic(compute, torch.device(device)):
            assert torch.is_autocast_enabled("cpu") == (compute == torch.bfloat16)
            assert "tf32" in precisions()


@pytest.mark.parametrize(
    "message",
    [
        "CUDA out of memory. Tried to allocate 2.00 GiB.",
        "GET was unable to find an engine to execute this computation",
        "cuDNN error: CUDNN_STATUS_ALLOC_FAILED",
        "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`",
        "cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_HOST_ALLOCATION_FAILED",
        "[enforce fail at alloc_cpu.cpp:124] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes",
    ],
)
def test_every_wording_of_out_of_memory_is_known(message: str) -> None:
    assert out_of_memory(RuntimeError(message))


def test_another_error_is_not_out_of_memory() -> None:
    assert not out_of_memory(RuntimeError("CUDA error: an illegal memory access was encountered"))
    assert not out_of_memory(RuntimeError("Expected all tensors to be on the same device"))
