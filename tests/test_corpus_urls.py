"""A corpus whose files are at URLs: the shards of local files, whatever happens on the way."""

import gzip
import io
import json
import signal
import subprocess
import sys

import datasets
import pandas as pd
import pytest
import test_corpus
import zstandard
from serving import serving
from test_corpus import NUMBER, expected, index_of, module, rows, small, tokens_of  # noqa: F401
from test_stores import bucket, moto  # noqa: F401

from hydralight.data.corpus import pieces, reading, sample
from hydralight.data.shapes.text_classification import TextClassification
from hydralight.errors import UserError
from hydralight.stores import fetched, retries
from hydralight.stores.listing import listed

SIGNATURE = "Zx9signatureQ7"


@pytest.fixture(autouse=True)
def small_steps(monkeypatch, tmp_path):
    """Ranges of 500 bytes, short waits, and a cache of the test's own."""
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.setattr(fetched, "RANGE", 500)
    monkeypatch.setattr(pieces, "AHEAD", 500)
    monkeypatch.setattr(retries, "WAITS", (0.01,) * 4)


def lines(found):
    return "".join(json.dumps(row) + "\n" for row in found).encode()


def table(found, write, **options):
    out = io.BytesIO()
    getattr(pd.DataFrame(found), write)(out, **options)
    return out.getvalue()


FORMATS = {
    "jsonl": lines,
    "jsonl.gz": lambda found: gzip.compress(lines(found)),
    "jsonl.zst": lambda found: zstandard.compress(lines(found)),
    "csv": lambda found: table(found, "to_csv", index=False),
    "parquet": lambda found: table(found, "to_parquet", row_group_size=5),
    "arrow": lambda found: table(found, "to_feather", compression="uncompressed"),
    "txt": lambda found: b"".join(f"{row['text']}\n".encode() for row in found),
}


def parts(suffix="jsonl"):
    """Three files of 20 rows, by their path."""
    return {f"/d/{n}.{suffix}": FORMATS[suffix](rows(20 * n, 20 * n + 20)) for n in range(3)}


@pytest.fixture
def server():
    with serving(parts()) as served:
        yield served


def copies(tmp_path):
    """What is kept of files, whole or not."""
    return [path for path in (tmp_path / "cache").rglob("*") if path.match("fetched/*/*/*")]


@pytest.mark.parametrize("suffix", FORMATS)
def test_files_at_urls_make_the_shards_of_files_here(server, tmp_path, suffix):
    workers = 2 if suffix == "jsonl" else 0
    server.files = parts(suffix)
    for path, content in server.files.items():
        (tmp_path / path[1:]).parent.mkdir(exist_ok=True)
        (tmp_path / path[1:]).write_bytes(content)
    here = module(tmp_path / f"d/*.{suffix}", tmp_path / "here")
    tokens = tokens_of(here)  # but for one alone at the end of a shard
    assert len(tokens) > 0.99 * len(expected())
    server.faults = ["slow", "cut", 503, "short"]
    for name, path in (("url", server.url), ("file", f"file://{tmp_path}")):
        there = module(f"{path}/d/*.{suffix}", tmp_path / name, corpus={"workers": workers})
        assert tokens_of(there) == tokens
        shards = [s.checksum for s in there.encoded("train").shards]
        assert shards == [s.checksum for s in here.encoded("train").shards]
    assert server.faults == []
    assert copies(tmp_path) == []


def test_a_large_file_is_read_by_its_ranges_and_never_kept(server, tmp_path, monkeypatch):
    """Each unit asks for its part of the file, and a little behind it."""
    monkeypatch.setattr(reading, "fetched", None)
    whole = lines(rows(0, NUMBER))
    server.files = {"/d/a.jsonl": whole}
    assert tokens_of(module(f"{server.url}/d/a.jsonl", tmp_path / "shards")) == expected()
    assert len(list((tmp_path / "shards/units").iterdir())) == -(-len(whole) // 1000) > 5
    spans = [part.removeprefix("bytes=").split("-") for part in server.parts()]
    assert sum(int(last) - int(first) + 1 for first, last in spans) < 4 * len(whole)
    assert copies(tmp_path) == []


def test_a_server_without_parts_of_files(server, tmp_path):
    server.ranges = False
    assert tokens_of(module(f"{server.url}/d/*.jsonl", tmp_path / "shards")) == expected()
    assert copies(tmp_path) == []


@pytest.mark.parametrize("suffix", ["jsonl", "jsonl.gz"])
def test_a_file_that_changes_while_it_is_read(server, tmp_path, suffix):
    """No unit is of two versions; the next start does what is new, and that alone."""
    server.files = parts(suffix)
    data = module(f"{server.url}/d/*.{suffix}", tmp_path / "shards")
    data.rows()  # the sample is another look

    def change():
        server.files[f"/d/1.{suffix}"] = FORMATS[suffix](rows(20, 41))

    server.faults = ["slow"] * (12 if suffix == "jsonl" else 3) + [change]
    with pytest.raises(UserError, match=rf"/d/1\.{suffix} has changed while it was read"):
        data.encoded("train")
    assert not (tmp_path / "shards/index.json").exists()
    assert server.faults == []
    done = {(p.name, p.stat().st_mtime_ns) for p in (tmp_path / "shards/units").iterdir()}
    tokens = tokens_of(module(f"{server.url}/d/*.{suffix}", tmp_path / "shards"))
    assert tokens == tokens_of(module(f"{server.url}/d/*.{suffix}", tmp_path / "anew"))
    assert done <= {(p.name, p.stat().st_mtime_ns) for p in (tmp_path / "shards/units").iterdir()}
    assert copies(tmp_path) == []


def test_a_file_that_changed_is_told_by_a_training(server, tmp_path):
    path, folder = f"{server.url}/d/*.jsonl", tmp_path / "shards"
    module(path, folder).encoded("train")
    server.files["/d/1.jsonl"] = lines(rows(20, 41))
    data = module(path, folder)
    with pytest.raises(UserError, match=r"/d/1\.jsonl changed since .*: run prepare\.py"):
        data.encoded("train")
    data.prepare_corpus()
    assert tokens_of(data) == tokens_of(module(path, tmp_path / "anew"))


def test_files_that_are_gone_are_no_longer_needed(server, tmp_path):
    module(f"{server.url}/d/*.jsonl", tmp_path / "shards").encoded("train")
    server.files.clear()
    assert tokens_of(module(f"{server.url}/d/*.jsonl", tmp_path / "shards")) == expected()


def test_a_bad_row_is_named_by_its_url(server, tmp_path, monkeypatch):
    url = f"{server.url}/d/1.jsonl"
    server.files["/d/1.jsonl"] += b'{"text": oh no}\n'
    with pytest.raises(UserError, match=f"^Line 21 of {url} is not valid JSON"):
        module(url, tmp_path / "shards").encoded("train")
    monkeypatch.setattr(sample, "ROWS", 6)
    labelled = [{**row, "label": row["id"] % 3 if row["id"] != 37 else 9} for row in rows(20, 40)]
    server.files["/d/1.jsonl"] = lines(labelled)
    shape = TextClassification(labels=["a", "b", "c"])
    with pytest.raises(UserError, match=f"^{url}, row 18: .*9"):
        module(url, tmp_path / "shards", shape).encoded("train")
    server.files["/d/cut.jsonl.zst"] = zstandard.compress(lines(rows(0, 20)))[:-9]
    with pytest.raises(UserError, match=f"^{server.url}/d/cut.jsonl.zst is damaged"):
        module(f"{server.url}/d/cut.jsonl.zst", tmp_path / "shards").encoded("train")
    with pytest.raises(UserError, match="a corpus is prepared whole; leave out the slice"):
        module(f"{url}[:5]", tmp_path / "shards").encoded("train")
    with pytest.raises(UserError, match=f"^There is no file {server.url}/d/9.jsonl"):
        module(f"{server.url}/d/9.jsonl", tmp_path / "shards").encoded("train")
    assert copies(tmp_path) == []


def test_a_signature_is_written_nowhere(server, tmp_path):
    path = f"{server.url}/d/0.jsonl?X-Amz-Signature="
    data = module(path + SIGNATURE, tmp_path / "shards")
    tokens = tokens_of(data)
    assert tokens == tokens_of(module(path + "another", tmp_path / "shards"))
    assert any(SIGNATURE in asked for _, asked, _ in server.asked)
    files = [one for one in tmp_path.rglob("*") if one.is_file()]
    assert [one for one in files if SIGNATURE.encode() in one.read_bytes()] == []
    said = json.loads((tmp_path / "shards/index.json").read_text())["inputs"]
    assert [one["file"] for one in said] == [f"{server.url}/d/0.jsonl"]
    server.files["/d/0.jsonl"] += b"{}\n"
    with pytest.raises(UserError) as caught:
        module(path + SIGNATURE, tmp_path / "shards").encoded("train")
    assert SIGNATURE not in str(caught.value)


@pytest.mark.thorough
def test_killed_it_goes_on_and_leaves_no_copies(server, tmp_path):
    """In the middle of a file, between the names of a unit's shards, and before its record."""
    url, folder = f"{server.url}/d/*.csv", tmp_path / "shards"
    server.files = parts("csv")
    units: set = set()
    code = test_corpus.KILLED.format(tests=str(test_corpus.__file__).rpartition("/")[0])
    for moment, number in (("batch", 5), ("name", 6), ("record", 2)):
        arguments = [sys.executable, "-c", code, url, folder, moment, str(number)]
        env = {**test_corpus.os.environ, "HF_DATASETS_CACHE": str(tmp_path / "cache")}
        done = subprocess.run(arguments, capture_output=True, text=True, timeout=120, env=env)
        assert done.returncode == -signal.SIGKILL, done.stderr
        there = {(p.name, p.stat().st_mtime_ns) for p in (folder / "units").glob("*")}
        assert units <= there
        units = there
    data = module(url, folder, corpus={"deduplicate": True})
    assert tokens_of(data) == expected()
    module(url, tmp_path / "whole", corpus={"deduplicate": True}).encoded("train")
    assert index_of(folder) == index_of(tmp_path / "whole")
    assert copies(tmp_path) == []


def test_s3(bucket, tmp_path):  # noqa: F811
    for path, content in parts("jsonl.zst").items():
        bucket.put(path[1:], content)
    bucket.put("e/all.parquet", FORMATS["parquet"](rows(0, NUMBER)))
    bucket.faults = ["slow", "cut", 503, "short"]
    assert tokens_of(module("s3://ours/d/*.jsonl.zst", tmp_path / "zst")) == expected()
    assert bucket.faults == []
    (file,) = listed("s3://ours/e/all.parquet")
    assert file.etag
    assert len(tokens_of(module("s3://ours/e/*.parquet", tmp_path / "parquet"))) > 2000
    with pytest.raises(UserError, match="no bucket or container of s3://nowhere"):
        module("s3://nowhere/d/*.jsonl", tmp_path / "no").encoded("train")
    assert copies(tmp_path) == []
