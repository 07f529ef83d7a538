"""Shards at a URL: fetched when they are needed, checked, and kept within a bound."""

import http.server
import shutil
import subprocess
import sys
import threading
import time
from collections import Counter
from functools import partial
from pathlib import Path

import pytest
from test_corpus import expected, module, small, tokens_of, write_jsonl  # noqa: F401
from test_corpus import rows as texts_of

from hydralight.config.trust import Leaf, writes_elsewhere
from hydralight.data.corpus import corpus
from hydralight.data.corpus.cache import Ahead, Cache, bytes_of
from hydralight.data.corpus.home import Here
from hydralight.data.corpus.shards import Done, read_index
from hydralight.errors import UserError
from hydralight.stores import retries
from hydralight.tokenizers import Trained


class Server(http.server.ThreadingHTTPServer):
    """Serves a folder on loopback, and does wrong what it is told to."""

    def __init__(self, folder):
        super().__init__(("127.0.0.1", 0), partial(Handler, directory=str(folder)))
        self.got: Counter[str] = Counter()
        self.cut: set[str] = set()  # files of which half comes, once
        self.refused: Counter[str] = Counter()  # how often a file is answered with 503
        threading.Thread(target=self.serve_forever, daemon=True).start()

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_port}"


class Handler(http.server.SimpleHTTPRequestHandler):
    def do_GET(self):
        name = self.path.lstrip("/")
        self.server.got[name] += 1
        if self.server.refused[name] > 0:
            self.server.refused[name] -= 1
            self.send_error(503)
        elif name in self.server.cut:
            self.server.cut.discard(name)
            content = (Path(self.directory) / name).read_bytes()
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content[: len(content) // 2])
            self.close_connection = True
        else:
            super().do_GET()

    def log_message(self, *args):
        pass


@pytest.fixture
def folder(tmp_path):
    """A prepared corpus of some shards."""
    for number in range(3):
        write_jsonl(tmp_path / f"files/{number}.jsonl", texts_of(20 * number, 20 * number + 20))
    module(tmp_path / "files/*.jsonl", tmp_path / "shards").encoded("train")
    shutil.rmtree(tmp_path / "files")
    return tmp_path / "shards"


@pytest.fixture
def server(folder, monkeypatch, tmp_path):
    monkeypatch.setattr(retries, "WAITS", (0.01,) * 4)
    monkeypatch.setattr(corpus, "cache_folder", lambda kind: tmp_path / "cache")
    served = Server(folder)
    yield served
    served.shutdown()


def shards_of(folder):
    return Done.of(read_index(Here(folder))).train


def kept(tmp_path):
    return list((tmp_path / "cache").rglob("*.tokens"))


def test_a_corpus_at_a_url_is_the_one_that_was_copied_there(server, folder, tmp_path):
    names = [shard.file for shard in shards_of(folder)]
    server.cut |= {names[0], names[4]}
    server.refused[names[2]] = 2
    data = module(tmp_path / "gone/*.jsonl", server.url)
    assert tokens_of(data) == expected()
    assert len(kept(tmp_path)) == len(names)
    before = Counter(server.got)
    assert tokens_of(module(tmp_path / "gone/*.jsonl", server.url)) == expected()
    assert server.got - before == {"index.json": 1}  # the shards are there
    found = [batch["input_ids"].tolist() for batch in data.train_dataloader()]
    for place in (folder, server.url):
        other = module(tmp_path / "gone/*.jsonl", place, num_workers=2)
        other.encoded("train")
        if place == server.url:
            shutil.rmtree(tmp_path / "cache")  # so that workers fetch, beside the thread
        assert found == [batch["input_ids"].tolist() for batch in other.train_dataloader()]


def test_what_comes_is_looked_through(server, folder, tmp_path):
    shard = folder / shards_of(folder)[1].file
    content = bytearray(shard.read_bytes())
    content[7] ^= 1
    shard.write_bytes(content)
    data = module(tmp_path / "gone/*.jsonl", server.url)
    with pytest.raises(
        UserError, match=f"{shard.name} cannot be read: what came is not what index"
    ):
        tokens_of(data)
    assert not list((tmp_path / "cache").rglob("*.partial"))
    shard.unlink()
    with pytest.raises(UserError, match=f"There is no file {server.url}/.*{shard.name}"):
        tokens_of(data)


def test_the_least_recently_used_are_removed(server, folder, tmp_path):
    shards = shards_of(folder)
    size = max(shard.bytes for shard in shards)
    limit = 3 * size
    fetch = Cache(server.url, tmp_path / "cache", limit)
    for shard in shards[:2]:
        fetch(shard)
    for shard in shards[2:]:
        time.sleep(0.01)  # clocks are coarse
        fetch(shards[0])  # used again and again
        time.sleep(0.01)
        fetch(shard)
        there = kept(tmp_path)
        assert sum(path.stat().st_size for path in there) <= limit
        assert {shards[0].file, shard.file} <= {f"train/{path.name}" for path in there}
    assert server.got[shards[0].file] == 1
    with pytest.raises(UserError, match="has no room for"):
        Cache(server.url, tmp_path / "small", size // 2)(shards[0])
    data = module(tmp_path / "gone/*.jsonl", server.url, corpus={"cache_size": str(limit)})
    assert tokens_of(data) == expected()


def test_several_processes_fetch_a_shard_once(server, folder, tmp_path):
    code = (
        "import sys; from pathlib import Path\n"
        "from hydralight.data.corpus.cache import Cache\n"
        "from hydralight.data.corpus.home import Here\n"
        "from hydralight.data.corpus.shards import Done, read_index\n"
        "fetch = Cache(sys.argv[1], Path(sys.argv[2]), 10**6)\n"
        "for shard in Done.of(read_index(Here(Path(sys.argv[3])))).train: fetch(shard)"
    )
    arguments = [sys.executable, "-c", code, server.url, tmp_path / "cache", folder]
    both = [subprocess.Popen(arguments) for _ in range(2)]
    assert [process.wait(120) for process in both] == [0, 0]
    assert {server.got[shard.file] for shard in shards_of(folder)} == {1}


def test_shards_of_the_next_window_are_fetched_ahead(server, folder, tmp_path):
    data = module(tmp_path / "gone/*.jsonl", server.url, window_shards=2)
    train = data.encoded("train")
    batches = iter(data.train_dataloader())
    next(batches)
    order = data.batching.in_windows(train.sizes, data.place).plan.batches(0).shards[:4]
    until = time.monotonic() + 20
    while len(kept(tmp_path)) < 4 and time.monotonic() < until:
        time.sleep(0.02)
    assert {f"train/{path.name}" for path in kept(tmp_path)} == {
        train.shards[number].file for number in order
    }


def test_a_thread_that_fetches_ahead_survives_what_fails(folder):
    seen, done = [], threading.Event()

    def fetch(shard):
        seen.append(shard)
        if len(seen) == 2:
            done.set()
        raise OSError

    Ahead(fetch, ["a", "b"])([0, 1])
    assert done.wait(20)


@pytest.mark.parametrize(
    ("size", "number"), [("50GB", 50e9), ("1.5 TB", 1.5e12), ("300", 300), ("2kb", 2000)]
)
def test_sizes(size, number):
    assert bytes_of(size) == number
    with pytest.raises(UserError, match="such as 50GB"):
        bytes_of(f"{size}x")


def test_a_config_that_was_read_may_name_a_corpus_that_is_there_alone(folder, tmp_path):
    def refused(place):
        leaf = Leaf(
            "data.prepared", "prepared", str(place), str(place), "hydralight.data.x", "data"
        )
        return writes_elsewhere(leaf, tmp_path / "run")

    assert not refused(folder)
    assert not refused("https://example.org/corpus")  # which nothing is written to
    assert not refused(f"file://{folder}")
    assert refused(tmp_path / "new")
    for name in (f"file://{tmp_path}/new", f"FILE://{tmp_path}/new", "file:/../new"):
        assert refused(name)


# ---------------------------------------------------------------- the tokenizer


def trained(path, prepared, **arguments):
    data = module(path, prepared)
    data.make_processor = data.corpus.keeping(Trained(vocab_size=300, **arguments))
    return data


def test_a_tokenizer_that_was_trained_for_a_corpus_stays_with_it(server, tmp_path):
    """When it grows, on another machine, and from a URL; what was done is not done again."""
    files, folder = tmp_path / "grown", tmp_path / "kept"
    write_jsonl(files / "0.jsonl", texts_of(0, 20))
    tokens = tokens_of(trained(files / "*.jsonl", folder))
    done = {(path.name, path.stat().st_mtime_ns) for path in (folder / "train").iterdir()}
    write_jsonl(files / "1.jsonl", [{"text": "Quite another language, zqx zqx zqx."}] * 40)
    grown = trained(files / "*.jsonl", folder)
    grown.prepare_corpus()
    assert done <= {(path.name, path.stat().st_mtime_ns) for path in (folder / "train").iterdir()}
    assert tokens_of(grown)[: len(tokens)] == tokens
    # the negative control: one that is trained on what there is now
    anew = trained(files / "*.jsonl", tmp_path / "anew")
    assert tokens_of(anew)[: len(tokens)] != tokens
    other = Server(folder)
    there = trained(tmp_path / "gone/*.jsonl", other.url)
    assert tokens_of(there) == tokens_of(grown)
    other.shutdown()
    with pytest.raises(
        UserError, match=r"another value of tokenizer\.min_frequency \(2, and now 3\)"
    ):
        trained(files / "*.jsonl", folder, min_frequency=3).encoded("train")
    content = (folder / "tokenizer.json").read_text()
    (folder / "tokenizer.json").write_text(content.replace("<unk>", "<nku>"))
    with pytest.raises(UserError, match=r"tokenizer\.json is damaged"):
        trained(files / "*.jsonl", folder).encoded("train")
