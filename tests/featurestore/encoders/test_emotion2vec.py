"""emotion2vec's encoder: numbers of a plain twin on random weights, files of the published form, and refusals."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from featurestore.encoders import load_encoder
from featurestore.encoders.emotion2vec import CONVS, Emotion2Vec, Emotion2VecConfig, head_slopes
from featurestore.errors import EncoderError

SMALL = Emotion2VecConfig(48, 3, 1, 2, 10, 1, 3, conv_dim=16)
PER_LAYER = Emotion2VecConfig(64, 2, 2, 1, 10, 3, 2, conv_dim=16)


def randomized(config: Emotion2VecConfig) -> Emotion2Vec:
    torch.manual_seed(0)
    model = Emotion2Vec(config)
    with torch.no_grad():
        for tensor in model.parameters():
            tensor.add_(0.1 * torch.randn_like(tensor).abs())
    return model.eval()


def twin(state: dict[str, torch.Tensor], config: Emotion2VecConfig, waveform: np.ndarray) -> list[np.ndarray]:
    """Every layer by the paper's equations in float64, head by head, from the tensors of a checkpoint."""
    w = {key: value.double() for key, value in state.items()}
    audio = "modality_encoders.AUDIO."

    def norm(x: torch.Tensor, name: str | None) -> torch.Tensor:
        centred = x - x.mean(-1, keepdim=True)
        scaled = centred / (centred.square().mean(-1, keepdim=True) + 1e-5).sqrt()
        return scaled if name is None else scaled * w[f"{name}.weight"] + w[f"{name}.bias"]

    def linear(x: torch.Tensor, name: str) -> torch.Tensor:
        return x @ w[f"{name}.weight"].T + w[f"{name}.bias"]

    def gelu(x: torch.Tensor) -> torch.Tensor:
        return 0.5 * x * (1 + torch.erf(x / math.sqrt(2)))

    x = torch.from_numpy(waveform).double()
    x = ((x - x.mean()) / (x.var(unbiased=False) + 1e-7).sqrt())[None]  # (channels, samples)
    for i, (kernel, stride) in enumerate(CONVS):
        windows = x.unfold(1, kernel, stride)  # (channels, T, kernel)
        x = torch.einsum("ctk,dck->td", windows, w[f"{audio}local_encoder.conv_layers.{i}.0.weight"])
        x = gelu(norm(x, f"{audio}local_encoder.conv_layers.{i}.2.1")).T
    x = linear(norm(x.T, f"{audio}project_features.1"), f"{audio}project_features.2")
    n_frames, dim = x.shape
    positions, width = x, dim // 16
    for i in range(1, 6):
        weight, bias = (w[f"{audio}relative_positional_encoder.{i}.0.{part}"] for part in ("weight", "bias"))
        padded = torch.cat([x.new_zeros(9, dim), positions, x.new_zeros(9, dim)]).unfold(0, 19, 1)  # (T, D, 19)
        groups = [
            torch.einsum("tck,dck->td", padded[:, g : g + width], weight[g : g + width]) for g in range(0, dim, width)
        ]
        positions = gelu(norm(torch.cat(groups, 1) + bias, None))
    x = norm(torch.cat([w[f"{audio}extra_tokens"][0], x + positions]), f"{audio}context_encoder.norm")
    names = [f"{audio}context_encoder.blocks.{i}" for i in range(config.n_context)]
    layers = [x]
    for number, name in enumerate([*names, *(f"blocks.{i}" for i in range(config.n_blocks))]):
        scale = w[f"{audio}alibi_scale"][number if config.n_scales > 1 else 0].clamp_min(0).flatten()
        query, key, value = linear(x, f"{name}.attn.qkv").chunk(3, 1)
        mixed = []
        for head in range(config.n_heads):
            part = slice(head * dim // config.n_heads, (head + 1) * dim // config.n_heads)
            logits = query[:, part] @ key[:, part].T / math.sqrt(dim // config.n_heads)
            for a in range(n_frames):
                for b in range(n_frames):
                    logits[10 + a, 10 + b] -= head_slopes(config.n_heads)[head] * scale[head] * abs(a - b)
            mixed.append(logits.softmax(1) @ value[:, part])
        x = norm(x + linear(torch.cat(mixed, 1), f"{name}.attn.proj"), f"{name}.norm1")
        x = norm(x + linear(gelu(linear(x, f"{name}.mlp.fc1")), f"{name}.mlp.fc2"), f"{name}.norm2")
        layers.append(x)
    return [layer[10:].float().numpy() for layer in layers]


def save(path: Path, model: Emotion2Vec, prefix: str = "", **further: Any) -> Path:
    state = {f"{prefix}{key}": value for key, value in model.state_dict().items()}
    state[f"{prefix}modality_encoders.AUDIO.decoder.proj.weight"] = torch.zeros(3)  # is in the files, and not read
    torch.save({"model": state, **further}, path)
    return path


def noise(n_samples: int) -> np.ndarray:
    return (0.1 * np.random.default_rng(1).standard_normal(n_samples)).astype(np.float32)


@pytest.mark.parametrize("config", [SMALL, PER_LAYER])
def test_every_layer_is_that_of_a_plain_twin(tmp_path: Path, config: Emotion2VecConfig) -> None:
    model = randomized(config)
    path = save(tmp_path / "emotion2vec_base.pt", model)
    encoder = load_encoder("emotion2vec_base", weights=path, layers="all", device="cpu", dtype="float32")
    waveform = noise(4_000)
    (rows,) = encoder.encode([waveform])
    expected = np.stack(twin(model.state_dict(), config, waveform))
    assert rows.shape == expected.shape == (config.num_hidden_layers + 1, 12, config.hidden_size)
    difference = np.linalg.norm(rows - expected, axis=-1) / np.linalg.norm(expected, axis=-1)
    assert difference.max() <= 1e-5


def test_rows_do_not_depend_on_batch_mates_and_are_read_from_every_published_form(tmp_path: Path) -> None:
    model = randomized(SMALL)
    plain = save(tmp_path / "emotion2vec_base.pt", model)
    (tmp_path / "plus").mkdir()
    save(tmp_path / "plus" / "model.pt", model, prefix="d2v_model.")
    encoder = load_encoder("emotion2vec_base", weights=plain, device="cpu")
    encoder_by_name = load_encoder("emotion2vec_plus_base", weights=tmp_path / "plus", device="cpu")
    waveforms = [noise(8_000), noise(3_000), noise(8_000)[::-1].copy()]
    for waveform, rows, rows_by_name in zip(
        waveforms, encoder.encode(waveforms, 1000), encoder_by_name.encode(waveforms, 1000), strict=True
    ):
        np.testing.assert_allclose(rows, encoder.encode([waveform])[0], rtol=1e-4, atol=1e-5)
        np.testing.assert_array_equal(rows, rows_by_name)
    assert (encoder.spec.frame_rate_hz, encoder.spec.dim, encoder.spec.encoder) == (50.0, 48, "emotion2vec_base")


def test_slopes_are_alibis() -> None:
    assert head_slopes(8) == [2.0**-k for k in range(1, 9)]
    assert head_slopes(12) == [*(2.0**-k for k in range(1, 9)), *(2.0 ** -(k + 0.5) for k in range(4))]


def test_files_of_another_form_are_refused_and_run_nothing(tmp_path: Path) -> None:
    marker = tmp_path / "it ran"

    class Evil:
        def __reduce__(self) -> tuple[Any, ...]:
            return (Path.touch, (marker,))

    save(tmp_path / "evil.pt", randomized(SMALL), extra=Evil())
    torch.save({"model": {"weight": torch.zeros(2)}}, tmp_path / "other.pt")
    for name in ("evil.pt", "other.pt"):
        with pytest.raises(EncoderError, match=r"emotion2vec checkpoint.*store import emotion2vec"):
            load_encoder("emotion2vec_base", weights=tmp_path / name, device="cpu")
    assert not marker.exists()
    for name in ("emotion2vec", "emotion2vec_plus_large", "emotion2vec/emotion2vec_base"):
        with pytest.raises(EncoderError, match=r"hf download.*--weights DIR.*store import emotion2vec"):
            load_encoder(name)
