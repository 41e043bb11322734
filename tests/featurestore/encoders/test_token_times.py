"""When tokens are spoken: spans by the words that they have characters of, in a set beside the text's rows."""

from pathlib import Path

import numpy as np
import pytest
import transformers
from tokenizers import Tokenizer, models, pre_tokenizers

from featurestore.asr.source import Transcript, TranscriptSource
from featurestore.asr.transcripts import Transcripts
from featurestore.asr.writer import TranscriptWriter
from featurestore.encoders import load_encoder
from featurestore.encoders.token_times import TokenTimes, spans
from featurestore.errors import ConfigError
from featurestore.store.feature_store import FeatureStore
from tests.helpers.small_corpus import medusa
from tests.helpers.small_text_encoder import save_text_encoder

SOURCE = TranscriptSource("tiny", "sha256:0123456789abcdef", words=True)
WORDS = ((" w1", 0.5, 0.8), (" w2,", 0.8, 1.1), (" w3", 1.4, 2.0))


def letters() -> transformers.PreTrainedTokenizerFast:
    """Return a tokenizer of single characters, blanks too."""
    tokenizer = Tokenizer(models.WordLevel({c: i for i, c in enumerate("?wx123, ")}, unk_token="?"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    return transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="?")


def test_a_token_has_the_time_of_the_words_that_it_has_characters_of() -> None:
    rows = spans(letters(), "w1 w2, w3", WORDS, 2.5)
    assert rows.shape == (9, 2)
    np.testing.assert_allclose(rows[[0, 1, 3, 5, 8]], [[0.5, 0.8], [0.5, 0.8], [0.8, 1.1], [0.8, 1.1], [1.4, 2.0]])
    np.testing.assert_allclose(rows[[2, 6]], [[0.8, 0.8], [1.1, 1.1]])  # blanks: the end of the word before


def test_a_word_that_the_text_lacks_is_passed_over_and_a_text_of_none_has_the_whole_time() -> None:
    np.testing.assert_allclose(spans(letters(), "w1", ((" x", 0.0, 0.1), *WORDS), 2.5), [[0.5, 0.8]] * 2)
    np.testing.assert_allclose(spans(letters(), "", (), 2.5), [[0.0, 2.5]])


def test_featurize_stores_a_span_for_each_row_of_the_text(tmp_path: Path) -> None:
    model = save_text_encoder(tmp_path / "bert")
    with TranscriptWriter(tmp_path / "t.csv", SOURCE) as writer:
        writer.append(Transcript("a", "w1 w2, w3", "en", -0.1, 0.1, 2.5, WORDS))
        writer.append(Transcript("b", "", "en", -0.1, 0.9, 1.5, ()))
    (tmp_path / "m.csv").write_text("utterance_id,path\na,a.wav\nb,b.wav\n")
    arguments = ("featurize", "--encoder", model, "--transcripts", tmp_path / "t.csv", "-m", tmp_path / "m.csv",
                 "-s", tmp_path / "store", "--times")  # fmt: skip
    medusa(*arguments)
    store = FeatureStore.open(tmp_path / "store")
    times = store["bert-times"]
    assert times.spec.columns == ("start_s", "end_s")
    keys = ["a", "b"]
    assert times.lengths(keys).tolist() == store["bert"].lengths(keys).tolist()
    np.testing.assert_allclose(times.array("a", "layer_00")[0], [0.5, 0.8])
    np.testing.assert_allclose(times.array("b", "layer_00"), [[0.0, 1.5]])
    assert "2 there already" in medusa(*arguments).output


def test_without_times_of_words_the_command_to_get_them_is_named(tmp_path: Path) -> None:
    model = save_text_encoder(tmp_path / "bert")
    plain = TranscriptSource("tiny", "sha256:0123456789abcdef")
    Transcripts([Transcript("a", "w1", "en", -0.1, 0.1, 1.0)], plain.identity, tmp_path / "t.csv").write()
    (tmp_path / "m.csv").write_text("utterance_id,path\na,a.wav\n")
    arguments = ("featurize", "--encoder", model, "-m", tmp_path / "m.csv", "-s", tmp_path / "store", "--times")
    assert "--words" in medusa(*arguments, "--transcripts", tmp_path / "t.csv", exit_code=2).output
    assert "--transcripts" in medusa(*arguments, exit_code=2).output
    with pytest.raises(ConfigError, match="--times"):
        TokenTimes(load_encoder(str(model), pool="mean", device="cpu"))  # type: ignore[arg-type]
