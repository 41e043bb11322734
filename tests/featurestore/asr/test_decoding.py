"""Rules and greedy search on a whole batch give whisper's own tokens, with one wait a step in place of four a clip."""

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import whisper
from hypothesis import given
from hypothesis import strategies as st
from whisper.decoding import ApplyTimestampRules, DecodingOptions, SuppressBlank, SuppressTokens
from whisper.model import ModelDimensions
from whisper.tokenizer import get_tokenizer

from featurestore.asr.decoding import _whole, batch_that_fits, clip_bytes, decode
from tests.helpers.device_work import META, DeviceWork, counted
from tests.helpers.small_whisper import N_TEXT_CTX, save_whisper

TOKENIZER = get_tokenizer(True, language="en", task="transcribe")
BEGIN = len(TOKENIZER.sot_sequence)
N_VOCAB = 51865
LARGE_V3 = ModelDimensions(
    n_mels=128, n_audio_ctx=1500, n_audio_state=1280, n_audio_head=20, n_audio_layer=32, n_vocab=51866, n_text_ctx=448,
    n_text_state=1280, n_text_head=20, n_text_layer=32,
)  # fmt: skip

# What a clip has said so far: words, timestamps and ends in any order, also such as whisper itself would not give.
token = st.one_of(
    st.integers(0, TOKENIZER.eot), st.integers(TOKENIZER.timestamp_begin, N_VOCAB - 1), st.just(TOKENIZER.eot)
)
histories = st.integers(0, 6).flatmap(
    lambda n: st.lists(st.lists(token, min_size=n, max_size=n), min_size=1, max_size=4)
)


@given(
    history=histories, seed=st.integers(0, 9), sharp=st.sampled_from([0.1, 3.0]), initial=st.sampled_from([None, 50])
)
def test_rules_on_a_batch_are_whispers_clip_by_clip(
    history: list[list[int]], seed: int, sharp: float, initial: int | None
) -> None:
    rules = [
        SuppressBlank(TOKENIZER, BEGIN),
        SuppressTokens([*TOKENIZER.non_speech_tokens, TOKENIZER.no_speech]),
        ApplyTimestampRules(TOKENIZER, BEGIN, initial),
    ]
    tokens = torch.tensor([[*TOKENIZER.sot_sequence, *each] for each in history])
    their_logits = sharp * torch.randn(len(history), N_VOCAB, generator=torch.Generator().manual_seed(seed))
    our_logits = their_logits.clone()
    vocabulary = torch.arange(N_VOCAB)
    for rule in rules:
        rule.apply(their_logits, tokens)
        _whole(rule, vocabulary).apply(our_logits, tokens)
    assert torch.equal(our_logits, their_logits)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return whisper.load_model(str(save_whisper(tmp_path_factory.mktemp("whisper") / "sure.pt")), device="cpu").eval()


@pytest.mark.parametrize("n", [1, 5])
def test_a_batch_is_decoded_to_whispers_own_results(model: Any, n: int) -> None:
    mel = torch.randn(n, 80, 3000, generator=torch.Generator().manual_seed(n))
    options = DecodingOptions(language="en", temperature=0.0, fp16=False)
    our_results, their_results = decode(model, mel, options), whisper.decode(model, mel, options)
    for our_result, their_result in zip(our_results, their_results, strict=True):
        assert (our_result.tokens, our_result.text) == (their_result.tokens, their_result.text)
        assert our_result.avg_logprob == pytest.approx(their_result.avg_logprob, abs=1e-6)
        assert our_result.no_speech_prob == pytest.approx(their_result.no_speech_prob, abs=1e-6)
    assert decode(model, mel[0], options).tokens == our_results[0].tokens


def test_beams_and_temperatures_are_searched_as_before(model: Any) -> None:
    mel = torch.randn(80, 3000, generator=torch.Generator().manual_seed(3))
    for options in (
        DecodingOptions(language="en", beam_size=3, fp16=False),
        DecodingOptions(language="en", temperature=0.4, best_of=2, fp16=False),
    ):
        results = []
        for search in (decode, whisper.decode):
            torch.manual_seed(0)
            results.append(search(model, mel, options).tokens)
        assert results[0] == results[1]


@pytest.fixture
def work(monkeypatch: pytest.MonkeyPatch) -> Iterator[DeviceWork]:
    with counted(monkeypatch) as work:
        work.truth = False  # no clip comes to its end
        yield work


def test_a_step_waits_once_whatever_the_number_of_clips(model: Any, work: DeviceWork) -> None:
    on_meta = whisper.model.Whisper(model.dims).to(META).eval()
    options = DecodingOptions(language="en", temperature=0.0, fp16=False)
    n_steps = N_TEXT_CTX // 2
    waits = {}
    for search in (decode, whisper.decode):
        for n in (2, 8):
            work.start_anew()
            with suppress(ZeroDivisionError):  # whisper ranks texts of no length: nothing was computed
                search(on_meta, torch.zeros(n, 80, 3000, device=META), options)
            waits[search, n] = work.waits
    assert waits[decode, 2] == waits[decode, 8]
    assert waits[decode, 8] <= n_steps + 8  # and once a batch: the rules, the numbers, the tokens
    assert waits[whisper.decode, 8] / n_steps > 32  # four a clip and step


def test_a_batch_is_as_large_as_memory_allows() -> None:
    gib = 1 << 30
    assert batch_that_fits(75 * gib, clip_bytes(LARGE_V3, 2)) == 128
    assert 8 <= batch_that_fits(13 * gib, clip_bytes(LARGE_V3, 2)) <= 32  # of a card of 16 GiB
    assert batch_that_fits(1, clip_bytes(LARGE_V3, 2)) == 1
    cached = 2 * 32 * 1280 * 1500 * 2  # of the window alone, float16
    assert cached < clip_bytes(LARGE_V3, 2) < 2 * cached
    tiny = SimpleNamespace(**{**vars(LARGE_V3), "n_text_layer": 4, "n_text_state": 384, "n_audio_state": 384})
    assert batch_that_fits(4 * gib, clip_bytes(tiny, 2)) >= 64


def test_the_rules_of_a_checkpoint_are_all_known(tmp_path: Path) -> None:
    model = whisper.load_model(str(save_whisper(tmp_path / "en.pt", multilingual=False)), device="cpu")
    task = whisper.decoding.DecodingTask(model, DecodingOptions(language="en", fp16=False))
    vocabulary = torch.arange(model.dims.n_vocab)
    assert all(type(_whole(rule, vocabulary)) is not type(rule) for rule in task.logit_filters)
