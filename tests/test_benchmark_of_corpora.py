"""What the benchmark of corpora makes and looks at: its text, and the memory of all processes."""

import json
import sys
import zlib

import pytest
import zstandard

from hydralight.config.project import CONFIG_DIR

sys.path.insert(0, str(CONFIG_DIR.parent))  # the package `benchmarks` stands in the root

from benchmarks import synthetic, tree


@pytest.fixture(autouse=True)
def few_words(monkeypatch):
    monkeypatch.setattr(synthetic, "WORDS", 2_000)
    monkeypatch.setattr(synthetic, "PHRASES", 400)
    synthetic.phrases.cache_clear()
    yield
    synthetic.phrases.cache_clear()


def test_text_is_the_same_each_time_and_as_long_as_it_was_asked_to_be(tmp_path, monkeypatch):
    monkeypatch.setattr(synthetic, "PLAIN", 150_000)
    files, size = synthetic.corpus(tmp_path / "a/text", 400_000, 2)
    contents = [
        zstandard.ZstdDecompressor().stream_reader(file.open("rb")).read()
        if file.suffix == ".zst"
        else file.read_bytes()
        for file in files
    ]
    assert [file.suffix for file in files] == [".jsonl", ".jsonl", ".zst"]
    assert size == sum(map(len, contents))
    longest = max(len(line) for content in contents for line in content.splitlines())
    assert 400_000 <= size <= 400_000 + 3 * (longest + 1)
    documents = [json.loads(line)["text"] for one in contents for line in one.splitlines()]
    assert len({*documents}) == len(documents)
    ratio = len(zlib.compress(contents[0])) / len(contents[0])
    assert 0.1 < ratio < 0.6  # neither noise, nor one document again and again
    again, _ = synthetic.corpus(tmp_path / "b/text", 400_000, 1)
    assert [file.read_bytes() for file in again] == [file.read_bytes() for file in files]


HOLDS = """
import os, subprocess, sys, time
if len(sys.argv) == 1:
    subprocess.run([sys.executable, __file__, "child"])
else:
    held = os.urandom(1) * 120_000_000
    time.sleep(1.5)
"""


def test_the_memory_of_a_process_that_another_one_starts_counts(tmp_path):
    script = tmp_path / "holds.py"
    script.write_text(HOLDS)
    seen = tree.watched([str(script)], tmp_path)
    assert 120 < seen.memory < 400
    assert seen.resident >= seen.memory
    assert seen.processes == 2
    assert 0 < seen.cpu < seen.seconds
