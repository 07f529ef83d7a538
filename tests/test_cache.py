"""What is encoded and trained once: kept in whole parts, checked before use, and gone on with."""

import logging
import os
import resource
import signal
import threading

import pytest
from datasets import Dataset
from standins import article, tokenizer

from hydralight import cached
from hydralight.cached import intact, locked, seal
from hydralight.data import encoding, parts
from hydralight.data.encoding import Encoding, processor_id
from hydralight.data.parts import spans
from hydralight.data.shapes.causal_lm import CausalLM
from hydralight.data.shapes.seq2seq import Summarization
from hydralight.errors import UserError
from hydralight.tokenizers import Trained

ROWS = [{"text": article(i)["article"], "summary": article(i)["highlights"]} for i in range(45)]


@pytest.fixture
def encode(tmp_path, monkeypatch):
    """A function that encodes 45 rows in parts of 10, and keeps the numbers of those it encoded."""
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path)
    monkeypatch.setattr(parts, "PART_BYTES", 1)
    monkeypatch.setattr(parts, "BATCH", 10)
    monkeypatch.setattr(encoding, "BATCH", 10)
    original, stop_at = encoding._encode, []

    def watched(rows, indices, **kwargs):
        if indices[0] in stop_at:
            raise stop_at.pop()
        run.rows.extend(indices)
        return original(rows, indices, **kwargs)

    def run(shape=None, stop=None):
        run.rows, stop_at[:] = [], []
        if stop is not None:
            monkeypatch.setattr(encoding, "_encode", stopping(stop, watched))
        else:
            monkeypatch.setattr(encoding, "_encode", watched)
        shape = shape or Summarization(max_source_length=64)
        rows = Dataset.from_list(ROWS).select_columns(shape.roles)
        key = processor_id(tokenizer())
        return Encoding().encode(rows, shape, tokenizer(), key, "evaluate", "train")[0]

    def stopping(error, then):
        def function(rows, indices, **kwargs):
            if indices[0] == 30:
                raise error
            return then(rows, indices, **kwargs)

        return function

    run.folder = tmp_path / "hydralight" / "encoded"
    return run


def files(folder):
    return sorted(path for path in folder.rglob("*.arrow"))


@pytest.mark.parametrize("shape", [Summarization(max_source_length=64), CausalLM(block_size=16)])
def test_parts_hold_the_rows_that_one_pass_makes(encode, shape):
    found = encode(shape)
    assert len(files(encode.folder)) == 5
    rows = {role: [row[role] for row in ROWS] for role in shape.roles}
    expected = []
    for start in range(0, 45, 10):
        some = {role: values[start : start + 10] for role, values in rows.items()}
        indices = list(range(start, min(start + 10, 45)))
        columns = shape.encode(some, indices, tokenizer(), "evaluate")
        columns = {"row": indices, **columns}
        expected += list(zip(columns["input_ids"], columns["row"], strict=True))
    assert list(zip(found["input_ids"], found["row"], strict=True)) == expected


@pytest.mark.parametrize("error", [KeyboardInterrupt(), UserError("row 31: no"), OSError("x")])
def test_an_encoding_that_stopped_goes_on(encode, error):
    with pytest.raises(type(error)):
        encode(stop=error)
    assert encode.rows == list(range(30))
    stray = files(encode.folder)[0].parent / "tmpabc"
    stray.write_bytes(b"left by a process that was killed")
    found = encode()
    assert encode.rows == list(range(30, 45))
    assert found["row"][:] == list(range(45))
    left = {path.suffix for path in encode.folder.rglob("*") if path.is_file()}
    assert left == {".arrow", ".xxh3", ".lock"}
    assert not stray.exists()


@pytest.mark.parametrize("harm", ["a bit", "cut", "no checksum", "empty checksum"])
def test_a_damaged_part_is_named_and_made_again(encode, harm, caplog):
    whole = encode().to_list()
    part = files(encode.folder)[2]
    data = bytearray(part.read_bytes())
    if harm == "a bit":
        data[len(data) // 2] ^= 4
    part.write_bytes(data[:-100] if harm == "cut" else data)
    beside = part.with_name(part.name + ".xxh3")
    if "checksum" in harm:
        beside.unlink() if harm == "no checksum" else beside.write_text("")
    with caplog.at_level(logging.WARNING):
        assert encode().to_list() == whole
    assert encode.rows == list(range(20, 30))
    assert f"{part} is damaged" in caplog.text
    assert encode().to_list() == whole
    assert encode.rows == []


def test_every_flipped_bit_is_found(tmp_path):
    path, partial = tmp_path / "a.arrow", tmp_path / "a.partial"
    data = os.urandom(4000)
    partial.write_bytes(data)
    seal(partial, path)
    assert intact(path)
    for bit in range(7, len(data) * 8, len(data) * 8 // 200):
        changed = bytearray(data)
        changed[bit // 8] ^= 1 << bit % 8
        path.write_bytes(changed)
        assert not intact(path)


def test_parts_are_few_and_end_where_batches_end():
    short = Dataset.from_dict({"text": ["x"] * 45})
    assert spans(short) == [(0, 45)]
    long = Dataset.from_dict({"text": ["x" * 20_000] * 4500})
    found = spans(long)
    assert [start for start, _ in found] == [0, 2000, 4000]
    assert found[-1][1] == 4500


@pytest.fixture
def attempt(tmp_path, monkeypatch):
    """A function that encodes 45 rows in a process of its own, and returns its id and its log."""
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path)
    monkeypatch.setattr("hydralight.tokenizers.PARALLELISM", "false")  # threads and forks
    monkeypatch.setattr(parts, "PART_BYTES", 1)
    monkeypatch.setattr(parts, "BATCH", 10)
    original, key = encoding._encode, processor_id(tokenizer())
    rows = Dataset.from_list([{"text": "the storm " * (900 if i > 30 else 5)} for i in range(45)])

    def work(how, log):
        def watched(rows, indices, **kwargs):
            print("encoding", indices[0], file=log, flush=True)
            if how == "kill" and indices[0] == 30:
                os.kill(os.getpid(), signal.SIGKILL)
            return original(rows, indices, **kwargs)

        encoding._encode = watched
        if how == "full":  # a file that may not grow stands for a disk that has no room
            resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, 60_000))
        try:
            shape = CausalLM(max_length=9999)
            found, _ = Encoding().encode(rows, shape, tokenizer(), key, "train", "train")
            print("done", len(found), file=log, flush=True)
        except UserError as error:
            print(error, file=log, flush=True)

    def start(how):
        log = tmp_path / f"log{len(list(tmp_path.glob('log*')))}"
        log.touch()
        if (child := os.fork()) == 0:
            try:
                work(how, log.open("w"))
            finally:
                os._exit(0)
        return child, log

    return start


def test_a_full_disk_a_kill_and_two_at_once(tmp_path, attempt):
    """A full disk is a sentence, a kill loses the part at hand, and two processes wait."""
    child, log = attempt("full")
    os.waitpid(child, 0)
    last = log.read_text().splitlines()[-1]
    assert last.startswith("there is no room left for ")
    assert "HF_HOME or HF_DATASETS_CACHE; what is finished in it stays" in last
    child, log = attempt("kill")
    assert os.waitpid(child, 0)[1] == signal.SIGKILL
    assert log.read_text().splitlines() == ["encoding 30"]
    both = [attempt("both") for _ in range(2)]
    for child, _ in both:
        os.waitpid(child, 0)
    logs = sorted((log.read_text().splitlines() for _, log in both), key=len)
    assert logs == [["done 45"], ["encoding 30", "encoding 40", "done 45"]]
    left = {path.suffix for path in tmp_path.glob("hydralight/encoded/*/*")}
    assert left == {".arrow", ".xxh3"}


def test_a_lock_is_waited_for(tmp_path, caplog, monkeypatch):
    order = []

    def other():
        with locked(tmp_path / "a"):
            order.append("other")
            begun.set()
            threading.Event().wait(2.2)
            order.append("over")

    begun = threading.Event()
    thread = threading.Thread(target=other)
    thread.start()
    begun.wait()
    with caplog.at_level(logging.INFO, cached.log.name), locked(tmp_path / "a"):
        order.append("mine")
    thread.join()
    assert order == ["other", "over", "mine"]
    assert "waiting for another process" in caplog.text


# ---------------------------------------------------------------- trained tokenizers


def test_a_damaged_tokenizer_is_trained_again(tmp_path, caplog, monkeypatch):
    texts = [row["text"] for row in ROWS]
    asked = []

    def get():
        before = len(asked)
        made = Trained(vocab_size=300)(lambda: asked.append(1) or texts, "key", tmp_path)
        return made.backend_tokenizer.to_str(), len(asked) - before

    first, trained = get()
    assert (trained, get()) == (1, (first, 0))
    for file in sorted(tmp_path.rglob("*.json")):
        content = file.read_text()
        file.write_text(content.replace("storm", "stork").replace("<pad>", "<bad>") + " ")
        caplog.clear()
        assert get() == (first, 1)
        assert "is damaged; the tokenizer is trained again" in caplog.text
        assert get() == (first, 0)
    (tmp_path / "0.partial").mkdir()
    assert not [path for path in tmp_path.iterdir() if path.name.endswith(f".{os.getpid()}")]


def test_a_tokenizer_is_trained_on_all_cores(tmp_path, monkeypatch):
    seen = []

    def texts():
        seen.append(os.environ.get("TOKENIZERS_PARALLELISM"))
        yield "the storm"

    monkeypatch.setenv("TOKENIZERS_PARALLELISM", "false")
    Trained(vocab_size=300)(texts, "another", tmp_path)
    assert seen == ["true"]
    assert os.environ["TOKENIZERS_PARALLELISM"] == "false"


# ---------------------------------------------------------------- progress


@pytest.mark.parametrize(("shown", "lines"), [(True, 3), (False, 0)])
def test_a_line_now_and_then_where_there_is_no_terminal(shown, lines, caplog, monkeypatch):
    monkeypatch.setattr(parts, "INTERVAL", -1)
    monkeypatch.setattr(parts, "interactive", lambda: False)
    with caplog.at_level(logging.INFO), parts.progress("encoding train", 9, shown) as step:
        for _ in range(3):
            step(3)
    assert [record.message for record in caplog.records] == [
        f"encoding train: {done} of 9 rows" for done in (3, 6, 9)[:lines]
    ]


@pytest.mark.parametrize(("patience", "seen"), [(0, True), (99, False)])
def test_a_terminal_has_a_bar_after_a_while(patience, seen, capsys, monkeypatch):
    monkeypatch.setattr(parts, "PATIENCE", patience)
    monkeypatch.setattr(parts, "interactive", lambda: True)
    with parts.progress("encoding train", 9, True) as step:
        step(9)
    assert ("encoding train" in capsys.readouterr().err) == seen
