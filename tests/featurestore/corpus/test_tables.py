"""CSV is read as it was meant, or refused with the line: a forgiving parser loses rows without a word."""

import textwrap
from pathlib import Path

import pytest

from featurestore.corpora.json_lines import json_lines
from featurestore.corpora.kaldi import read_kaldi
from featurestore.corpus.manifest import Manifest
from featurestore.corpus.tables import read_table_file
from featurestore.errors import ManifestError
from tests.helpers.corpus_trees import write_files
from tests.helpers.small_corpus import medusa
from tests.helpers.warm_python import run_warm

HEADER = "utterance_id,label,text\n"


def written(tmp_path: Path, text: str) -> Path:
    return write_files(tmp_path, {"t.csv": text}) / "t.csv"


def interrupt_often(tmp_path: Path, times: int) -> None:
    path = written(tmp_path, HEADER + "".join(f"u{i},sad,hello\n" for i in range(4000)))
    code = """
        import os, random, signal, sys, threading, time
        from pathlib import Path
        from featurestore.corpus.tables import read_table_file

        path = Path(sys.argv[1])
        read_table_file(path)
        began = time.perf_counter()
        read_table_file(path)
        took = time.perf_counter() - began
        for _ in range(int(sys.argv[2])):
            def interrupt(delay=random.uniform(0, took)):
                time.sleep(delay)
                os.kill(os.getpid(), signal.SIGINT)

            thread, n_seen = threading.Thread(target=interrupt), 0
            try:
                thread.start()
                read_table_file(path)
                thread.join()
                time.sleep(0.01)
            except KeyboardInterrupt:
                n_seen += 1
            try:
                thread.join()
                time.sleep(0)
            except KeyboardInterrupt:
                n_seen += 1
            assert n_seen == 1
    """
    process = run_warm(textwrap.dedent(code), path, times)
    assert process.returncode == 0, process.stderr


def test_no_interrupt_is_lost_while_a_table_is_read(tmp_path: Path) -> None:
    """pyarrow's own handler of SIGINT lost one of ten."""
    interrupt_often(tmp_path, 20)


@pytest.mark.slow
def test_no_interrupt_of_many_is_lost_while_a_table_is_read(tmp_path: Path) -> None:
    interrupt_often(tmp_path, 300)


def test_a_quote_that_is_never_closed_is_named_by_its_line_among_many_rows(tmp_path: Path) -> None:
    rows = "".join(f"u{i},sad,hello\n" for i in range(100_000))
    path = written(tmp_path, HEADER + 'x,sad,"hello\n' + rows)
    with pytest.raises(ManifestError, match=r"t.csv: .*line 2 .*quote"):
        read_table_file(path)
    assert "line 2" in medusa("prepare", "csv", path, "-o", tmp_path / "m.csv", exit_code=2).stderr


@pytest.mark.parametrize(
    ("rows", "line"),
    [
        ('a,sad,x\nb,sad,"y\n', 3),
        ('a,sad,"x\nb,sad,"y"\n', 2),  # the quote that opens row b closes row a's
        ('a,sad,"x" or y\n', 2),
        ('a,"sad,x\nb,sad,y\nc,sad,z\n', 2),
        ('"a,sad,x\n', 2),
        ('a,sad,"one\ntwo"\nb,sad,"z', 4),
    ],
)
def test_a_stray_quote_anywhere_is_named_by_the_line_of_its_row(tmp_path: Path, rows: str, line: int) -> None:
    with pytest.raises(ManifestError, match=f"begins on line {line} "):
        Manifest.read(written(tmp_path, HEADER + rows))


def test_cells_may_hold_newlines_quotes_and_delimiters(tmp_path: Path) -> None:
    rows = 'a,sad,"one\ntwo, ""three"""\nb,sad,5" wide\nc,sad,\n'
    assert read_table_file(written(tmp_path, HEADER + rows)).column("text").to_pylist() == [
        'one\ntwo, "three"', '5" wide', None
    ]  # fmt: skip
    semicolons = written(tmp_path, HEADER.replace(",", ";") + 'a;sad;"x\n')
    with pytest.raises(ManifestError, match="begins on line 2"):
        read_table_file(semicolons, any_delimiter=True)


def test_json_lines_and_kaldi_files_name_the_line_of_an_open_quote_or_a_second_value(tmp_path: Path) -> None:
    for text, message in (
        ('{"a": 1}\n{"a": "x}\n', r"t.jsonl:2: expected one JSON object per line"),
        ('{"a": 1}\n\n{"a": 1, "a": 2}\n', r"t.jsonl:3: .*'a' stands in it twice"),
        ('{"b": {"a": 1, "a": 2}}\n', r"t.jsonl:1: .*'a' stands in it twice"),
    ):
        write_files(tmp_path, {"t.jsonl": text})
        with pytest.raises(ManifestError, match=message):
            list(json_lines(tmp_path / "t.jsonl"))
    write_files(tmp_path, {"wav.scp": 'a "x.wav\nb y.wav\n'})
    assert read_kaldi(tmp_path, check_audio=False).keys == ["a", "b"]
