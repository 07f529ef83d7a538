"""A corpus that is prepared at a URL: what is there is whole, and the same as in a folder."""

import json
import os
import signal
import subprocess
from collections import Counter
from itertools import chain

import datasets
import pytest
import test_corpus
from forked import served
from serving import serving
from standins import write_jsonl
from test_corpus import expected, files, module, rows, small, tokens_of  # noqa: F401
from test_stores import bucket, moto  # noqa: F401

from hydralight.config.trust import Leaf, writes_elsewhere
from hydralight.data.corpus import claims, leases
from hydralight.data.corpus.leases import Leases
from hydralight.errors import UserError
from hydralight.stores import retries
from hydralight.stores.written import content_of, create, objects_below, put, remove
from hydralight.tokenizers import Trained

URL = "s3://ours/corpus"


@pytest.fixture(autouse=True)
def own_cache(monkeypatch, tmp_path):
    """Short waits, and a cache of the test's own."""
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.setattr(retries, "WAITS", (0.01,) * 4)
    monkeypatch.setattr(Leases, "pause", 0.1)


@pytest.fixture
def place(bucket):  # noqa: F811
    """An empty corpus in the bucket."""
    for name in objects_below("s3://ours"):
        remove(f"s3://ours/{name}")
    return bucket


def index_at(url):
    content = json.loads(content_of(f"{url}/index.json"))
    return {key: content[key] for key in ("train", "validation", "counts")}


def named_alone(url):
    """Whether there are the shards that the index names, and no others."""
    content = json.loads(content_of(f"{url}/index.json"))
    named = {shard["file"] for split in ("train", "validation") for shard in content[split]}
    named |= {content["sample"]["file"], *content["previous"]}
    there = objects_below(url)
    return {name for name in there if name.split("/")[0] in ("train", "validation", "sample")} == (
        named
    )


def credentials():
    """What a process needs that was forked before the server was there."""
    return {name: value for name, value in os.environ.items() if name.startswith("AWS_")}


def left_here(tmp_path):
    """Files of preparing that are on this machine, except empty locks."""
    return [
        path
        for path in (tmp_path / "cache/hydralight/preparing").rglob("*")
        if path.is_file() and path.stat().st_size
    ]


def test_a_corpus_at_a_url_is_that_of_a_folder(place, files, tmp_path):  # noqa: F811
    """Whatever the store does with some of what is put; with all options."""
    own = {"deduplicate": True, "validation_hash": 0.2}
    here = module(files / "*.jsonl", tmp_path / "here", corpus=own)
    here.encoded("train")
    place.put_faults = [None, "cut", None, 503, None, "lost", None] * 2
    there = module(files / "*.jsonl", URL, corpus=own)
    assert tokens_of(there) == tokens_of(here)
    assert there.encoded("validation").to_list() == here.encoded("validation").to_list()
    assert place.put_faults == []
    assert index_at(URL) == test_corpus.index_of(tmp_path / "here")
    assert named_alone(URL)
    assert not objects_below(f"{URL}/claims")
    assert left_here(tmp_path) == []
    # the next start looks, and does nothing
    place.asked.clear()
    assert tokens_of(module(files / "*.jsonl", URL, corpus=own)) == tokens_of(here)
    assert {method for method, *_ in place.asked} <= {"GET", "HEAD"}
    gone = module(tmp_path / "gone/*.jsonl", URL, corpus=own)
    assert tokens_of(gone) == tokens_of(here)


@pytest.mark.thorough
def test_changed_files_are_done_again_at_a_url(place, files, tmp_path):  # noqa: F811
    running = module(files / "*.jsonl", URL)
    running.encoded("train")
    before = objects_below(URL)
    write_jsonl(files / "1.jsonl", rows(20, 41))
    with pytest.raises(UserError, match=rf"1\.jsonl changed since {URL} was prepared"):
        module(files / "*.jsonl", URL).encoded("train")
    module(files / "*.jsonl", URL).prepare_corpus()
    after = objects_below(URL)
    same = [name for name in before if name.startswith("train/") and after[name] == before[name]]
    assert len(same) > 2  # also those that a training may need that has begun
    assert tokens_of(running) == expected()
    assert named_alone(URL)
    tokens = tokens_of(module(files / "*.jsonl", URL))
    assert tokens == tokens_of(module(files / "*.jsonl", tmp_path / "anew"))
    with pytest.raises(UserError, match=r"another value of data\.min_chars \(None, and now 3\)"):
        module(files / "*.jsonl", URL, corpus={"min_chars": 3}).encoded("train")


KILLED = """
import os, signal, sys
from pathlib import Path
sys.path.insert(0, {tests!r})
import datasets, test_corpus
from hydralight.stores import retries, written
from hydralight.data.corpus import home, leases
leases.Leases.pause = 0.1
datasets.config.HF_DATASETS_CACHE = Path({cache!r})
original, left = written.put, [int(sys.argv[2])]
def put(url, content):
    if "/train/" in url or "/units/" in url or "/duplicates/" in url:
        left[0] -= 1
        if left[0] == 0:
            os.kill(os.getpid(), signal.SIGKILL)
    return original(url, content)
home.put = put
test_corpus.module(sys.argv[1], {url!r}, corpus={{"deduplicate": True}}).encoded("train")
"""


@pytest.mark.thorough
def test_killed_between_puts_it_goes_on(place, files, tmp_path):  # noqa: F811
    """Among the hashes, between the shards of a unit, and before its record."""
    module(files / "*.jsonl", tmp_path / "whole", corpus={"deduplicate": True}).encoded("train")
    *first, _ = test_corpus.KILLED.partition("calls, moment")
    start = first[0].replace("import test_corpus\n", "").format(tests="")
    units: dict = {}
    code = start + KILLED.format(
        tests=str(test_corpus.__file__).rpartition("/")[0], cache=str(tmp_path / "cache"), url=URL
    )
    code = f"import os\nos.environ.update({credentials()})\n{code}"
    for number in (4, 12, 8):
        (done,) = served().calls(
            test_corpus.execute, (code, str(files / "*.jsonl"), str(number)), 1
        )
        assert done.code == -signal.SIGKILL, done.err
        assert content_of(f"{URL}/index.json") is None
        there = objects_below(f"{URL}/units")
        assert units.items() <= there.items()  # what was done is not done again
        units = there
    assert left_here(tmp_path)
    data = module(files / "*.jsonl", URL, corpus={"deduplicate": True})
    assert tokens_of(data) == expected()
    assert index_at(URL) == test_corpus.index_of(tmp_path / "whole")
    assert units.items() <= objects_below(f"{URL}/units").items()
    assert named_alone(URL)
    assert left_here(tmp_path) == []


def test_an_object_is_made_once(place):
    """By a conditional put; also where the answer to it was lost."""
    assert create("s3://ours/a", b"1")
    assert not create("s3://ours/a", b"2")
    assert content_of("s3://ours/a") == b"1"
    put("s3://ours/a", b"3")
    assert content_of("s3://ours/a") == b"3"
    assert content_of("s3://ours/b") is None
    remove("s3://ours/a")
    remove("s3://ours/a")
    assert content_of("s3://ours/a") is None


def test_a_lease_is_one_processes_until_it_dies(place, monkeypatch):
    first, second = Leases(f"{URL}/claims"), Leases(f"{URL}/claims")
    place.put_faults = ["lost"]
    assert first.take("a")  # its own, whatever became of the answer
    assert not second.take("a")
    assert not first.take("a")
    first.release("a")
    second._listed = float("-inf")
    assert second.take("a")
    gone = subprocess.Popen(["true"])
    gone.wait()
    owner = {"host": claims.socket.gethostname(), "process": gone.pid}
    put(f"{URL}/claims/b", json.dumps(owner).encode())
    put(f"{URL}/claims/c", json.dumps({**owner, "host": "another"}).encode())
    first._listed = float("-inf")
    assert first.take("b")
    assert not first.take("c")
    monkeypatch.setattr(leases, "EXPIRES", -1)
    assert first.take("c")
    first.release_all()
    second.release_all()
    assert not objects_below(f"{URL}/claims")


@pytest.mark.thorough
def test_two_machines_share_the_units(place, files, tmp_path):  # noqa: F811
    """Each unit is done once, by one of them, although neither sees the other's disk."""
    *first, last = test_corpus.KILLED.format(
        tests=str(test_corpus.__file__).rpartition("/")[0]
    ).splitlines()
    code = "\n".join([*first, test_corpus.WAITING, last]).replace(
        "Path(sys.argv[2]).parent", f"Path({str(tmp_path)!r})"
    )
    own = "import datasets, tempfile\ndatasets.config.HF_DATASETS_CACHE = Path(tempfile.mkdtemp())"
    code = code.replace("import test_corpus\n", f"import test_corpus\n{own}\n", 1)
    code = f"import os\nos.environ.update({credentials()})\n{code}"
    arguments = (code, str(files / "*.jsonl"), URL, "", "0")
    both = served().calls(test_corpus.execute, arguments, 2)
    assert [process.code for process in both] == [0, 0], both
    done = [process.out.split() for process in both]
    assert set(Counter(chain(*done)).values()) == {1}
    assert min(map(len, done)) > 0
    assert tokens_of(module(files / "*.jsonl", URL, corpus={"deduplicate": True})) == expected()


@pytest.mark.thorough
def test_a_tokenizer_that_is_trained_is_kept_at_the_url(place, files, tmp_path):  # noqa: F811
    def trained(path):
        data = module(path, URL)
        data.make_processor = data.corpus.keeping(Trained(vocab_size=300))
        return data

    tokens = tokens_of(trained(files / "*.jsonl"))
    assert content_of(f"{URL}/tokenizer.json")
    write_jsonl(files / "3.jsonl", [{"text": "Quite another language, zqx zqx zqx."}] * 40)
    trained(files / "*.jsonl").prepare_corpus()
    assert tokens_of(trained(files / "*.jsonl"))[: len(tokens)] == tokens


def test_a_config_that_was_read_writes_no_corpus(place, tmp_path):
    """To a URL that has none; one that is there may be read."""

    def refused(url):
        leaf = Leaf("data.prepared", "prepared", url, url, "hydralight.data.x", "data")
        return writes_elsewhere(leaf, tmp_path)

    assert refused(URL)
    put(f"{URL}/index.json", b"{}")
    assert not refused(URL)


def test_mistakes(place, files, tmp_path):  # noqa: F811
    with pytest.raises(UserError, match="no bucket or container of s3://nowhere/corpus"):
        module(files / "*.jsonl", "s3://nowhere/corpus").encoded("train")
    with serving() as server:
        data = module(files / "*.jsonl", f"{server.url}/c")
        for call in (lambda: data.encoded("train"), data.prepare_corpus):
            with pytest.raises(UserError, match=f"{server.url}/c has no prepared corpus, and noth"):
                call()
    place.put_faults = [403] * 30
    with pytest.raises(UserError, match=rf"{URL}/\S+ may not be written"):
        module(files / "*.jsonl", URL).encoded("train")
