"""Data at URLs: files of a web server and of S3, with all that goes wrong on the way."""

import gzip
import io
import json
import os
import random
import resource
import signal
import subprocess
import sys
import tarfile
import threading
from concurrent.futures import ThreadPoolExecutor

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard
from PIL import Image
from serving import serving

import hydralight
from hydralight.data.source import Source
from hydralight.errors import UserError
from hydralight.runs.secrets import REDACTED
from hydralight.stores import fetched, retries
from hydralight.stores.fetched import Changed, files_at, opened
from hydralight.stores.listing import listed, unchanged

datasets.disable_progress_bars()

ROWS = [{"text": f"text {i}", "n": i} for i in range(2000)]
OTHER = [{"text": f"TEXT {i}", "n": i} for i in range(2000)]  # as long


def lines(rows):
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def parquet(rows, **kwargs):
    out = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows), out, **kwargs)
    return out.getvalue()


def arrow(rows):
    table, out = pa.Table.from_pylist(rows), io.BytesIO()
    with pa.ipc.new_stream(out, table.schema) as writer:
        writer.write_table(table)
    return out.getvalue()


def csv(rows, sep=","):
    return f"text{sep}n\n".encode() + b"".join(f"{r['text']}{sep}{r['n']}\n".encode() for r in rows)


FORMATS = {
    "jsonl": lines,
    "jsonl.gz": lambda rows: gzip.compress(lines(rows)),
    "jsonl.zst": lambda rows: zstandard.compress(lines(rows)),
    "json": lambda rows: json.dumps(rows).encode(),
    "parquet": parquet,
    "arrow": arrow,
    "csv": csv,
    "tsv": lambda rows: csv(rows, "\t"),
    "txt": lambda rows: b"".join(f"{row['text']}\n".encode() for row in rows),
}


SIZE = len(lines(ROWS))
PARTS = [f"bytes={start}-{min(start + 9999, SIZE - 1)}" for start in range(0, SIZE, 10_000)]


@pytest.fixture(autouse=True)
def small_steps(monkeypatch, tmp_path):
    """Ranges of 10,000 bytes, short waits, and a cache of the test's own."""
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.setattr(fetched, "RANGE", 10_000)
    monkeypatch.setattr(retries, "WAITS", (0.01,) * 4)


@pytest.fixture
def server():
    with serving({"/d/a.jsonl": lines(ROWS)}) as served:
        yield served


def read(path, **settings):
    known = path if isinstance(path, dict) else ()
    return {
        s: rows.to_list() for s, rows in Source(path=path, **settings).read(known=known).items()
    }


def refused(path, kind=UserError, **settings):
    with pytest.raises(kind) as caught:
        read(path, **settings)
    message = str(caught.value)
    assert "\n" not in message
    assert "cache" not in message
    return message


@pytest.mark.parametrize("suffix", FORMATS)
def test_formats(server, tmp_path, suffix):
    content = FORMATS[suffix](ROWS)
    server.files[f"/f/a.{suffix}"] = content
    (tmp_path / f"a.{suffix}").write_bytes(content)
    found = read(f"{server.url}/f/a.{suffix}?download=1")
    assert found == read(str(tmp_path / f"a.{suffix}")) == read(f"file://{tmp_path}/a.{suffix}")
    assert len(found["train"]) == 2000


def test_globs_lists_splits_and_slices(server):
    server.files |= {"/d/b.jsonl": lines(OTHER), "/d/c.txt": b"no\n", "/e/f/a.jsonl": lines(OTHER)}
    url = server.url
    assert read(f"{url}/d/*.jsonl") == {"train": ROWS + OTHER}
    path = {"train": [f"{url}/d/b.jsonl[:2]", f"{url}/d/a.jsonl"], "test": f"{url}/d/[a].jsonl"}
    assert read(path) == {"train": OTHER[:2] + ROWS, "test": ROWS}
    whole = {"sample_by": "document"}
    assert read(f"{url}/d/c.txt", reader=whole)["train"] == [{"text": "no\n", "folder": "d"}]


def test_mistakes_name_the_url(server):
    url = server.url
    server.files["/d/bad.jsonl"] = b'{"n": 1}\n{"n":\n'
    assert refused(f"{url}/d/bad.jsonl").startswith(
        f"Line 2 of {url}/d/bad.jsonl is not valid JSON"
    )
    server.files["/d/cut.jsonl.gz"] = gzip.compress(lines(ROWS))[:-9]
    assert f"{url}/d/cut.jsonl.gz is damaged" in refused(f"{url}/d/cut.jsonl.gz")
    assert refused(f"{url}/d/b.jsonl") == f"There is no file {url}/d/b.jsonl"
    assert refused(f"{url}/d/*.csv") == f"No file matches {url}/d/*.csv."
    assert "did you mean 's3'?" in refused("s4://ours/a.csv")
    assert "pip install 'hydralight[gcs]'" in refused("gs://ours/a.csv")
    server.faults = [403] * 9
    assert f"{url}/d/a.jsonl may not be read" in refused(f"{url}/d/a.jsonl")
    assert len(server.faults) == 8  # it is not tried again
    assert "http://127.0.0.1:9/a.csv cannot be read" in refused("http://127.0.0.1:9/a.csv")


@pytest.mark.parametrize("fault", ["cut", "short", "slow", 503, 429])
def test_what_does_not_come_is_asked_for_again(server, fault):
    server.faults = ["slow", fault, fault, "slow", fault]
    assert read(f"{server.url}/d/a.jsonl")["train"] == ROWS
    _, *parts = server.parts()
    assert sorted(set(parts)) == sorted(PARTS)
    assert len(parts) == len(PARTS) + (0 if fault == "slow" else 3)


def test_a_fetch_goes_on_where_it_was_given_up(server):
    server.faults = ["slow"] * 4 + [503] * 5
    assert "cannot be read: 503" in refused(f"{server.url}/d/a.jsonl")
    before = len(server.asked)
    assert read(f"{server.url}/d/a.jsonl")["train"] == ROWS
    whether, *parts = [part for *_, part in server.asked[before:] if part]
    assert whether == "bytes=1-1"  # whether it gives parts
    assert parts == PARTS[3:]
    before = len(server.asked)
    assert read(f"{server.url}/d/a.jsonl")["train"] == ROWS
    assert {method for method, *_ in server.asked[before:]} == {"HEAD"}  # nothing is fetched twice


def test_a_fetch_goes_on_where_a_process_was_killed(server, tmp_path):
    url = f"{server.url}/d/a.jsonl"
    code = (
        f"from hydralight.stores import fetched; fetched.RANGE = 10_000; fetched.files_at({url!r})"
    )
    env = {**os.environ, "HF_DATASETS_CACHE": str(tmp_path / "cache")}
    child = subprocess.Popen([sys.executable, "-c", code], env=env)
    server.faults = ["slow"] * 4 + [
        child.kill
    ]  # whether it gives parts, three of them, and the end
    assert child.wait(timeout=120) == -signal.SIGKILL
    before = len(server.parts())
    assert read(url)["train"] == ROWS
    assert server.parts()[before:] == ["bytes=1-1", *PARTS[3:]]


def test_a_server_without_parts_of_files(server, monkeypatch):
    server.ranges = False
    server.faults = ["cut", 503]
    assert read(f"{server.url}/d/a.jsonl")["train"] == ROWS
    with opened(listed(f"{server.url}/d/a.jsonl")[0]) as stream:
        assert stream.read() == lines(ROWS)


def test_a_file_that_changes_between_two_reads(server):
    """All rows are of one version; the one that was there when the other had been read in part."""
    path, number = f"{server.url}/d/a.jsonl", iter(range(100))

    def changed():
        server.files["/d/a.jsonl"] = lines(OTHER)

    server.faults = ["slow", "slow", changed]
    assert read(path)["train"] == OTHER

    def changes():
        server.files["/d/a.jsonl"] = lines([*ROWS[:-1], {"text": "text", "n": next(number)}])

    changes()
    server.faults = ["slow", "slow", changes] * 99
    assert "has changed while it was read" in refused(path, Changed)


def test_a_stream_of_a_file_that_changes(server):
    (file,) = listed(f"{server.url}/d/a.jsonl")
    stream = opened(file, ahead=1000)
    assert stream.read(100) == lines(ROWS)[:100]
    stream.seek(-100, io.SEEK_END)
    assert stream.read() == lines(ROWS)[-100:]
    assert unchanged(file)
    server.files["/d/a.jsonl"] = lines(OTHER)
    assert not unchanged(file)
    stream.seek(5000)
    with pytest.raises(Changed, match="has changed"):
        stream.read()


def test_processes_and_threads_fetch_a_file_once(server):
    (file,) = listed(f"{server.url}/d/a.jsonl")
    start = threading.Barrier(4)

    def fetch(_):
        start.wait()
        return fetched.fetched(file).read_bytes()

    with ThreadPoolExecutor(4) as pool:
        assert set(pool.map(fetch, range(4))) == {lines(ROWS)}
    assert sorted(part for part in server.parts() if part != "bytes=1-1") == sorted(PARTS)


def test_a_copy_that_is_forgotten_is_fetched_again(server):
    (file,) = listed(f"{server.url}/d/a.jsonl")
    assert fetched.fetched(file).read_bytes() == lines(ROWS)
    fetched.forget(file)
    assert list(fetched.cache_folder().iterdir()) == []
    fetched.forget(file)
    assert fetched.fetched(file).read_bytes() == lines(ROWS)


def test_a_copy_that_is_damaged_is_fetched_again(server):
    (copy,) = files_at(f"{server.url}/d/a.jsonl")
    content = bytearray(lines(ROWS))
    content[1000] ^= 1
    with open(copy, "wb") as file:
        file.write(content)
    assert read(f"{server.url}/d/a.jsonl")["train"] == ROWS


def test_a_full_disk(server, tmp_path):
    """A limit on files stands for it; what has been fetched stays."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (25_000, limits[1]))
        with pytest.raises(
            UserError, match=r"there is no room left for .*/fetched \(File too large\)"
        ):
            read(f"{server.url}/d/a.jsonl")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    before = len(server.parts())
    assert read(f"{server.url}/d/a.jsonl")["train"] == ROWS
    assert "bytes=0-9999" not in server.parts()[before:]


def test_columns_of_parquet_are_read_without_the_others(server):
    noise = random.Random(1)
    rows = [{"n": i, "noise": noise.randbytes(200)} for i in range(5000)]
    server.files["/d/a.parquet"] = parquet(rows, row_group_size=1000)
    (file,) = listed(f"{server.url}/d/a.parquet")
    with fetched.parquet(file) as found:
        table = found.read_row_groups([1, 3], columns=["n"])
    assert table["n"].to_pylist() == [*range(1000, 2000), *range(3000, 4000)]
    spans = [part.removeprefix("bytes=").split("-") for part in server.parts()]
    assert sum(int(last) - int(first) + 1 for first, last in spans) < file.size / 4


# ---------------------------------------------------------------- shards of images


def shard(numbers):
    """A tar in WebDataset's layout: an image and its class a row, as `00012.png`, `00012.cls`."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for i in numbers:
            image = io.BytesIO()
            Image.new("RGB", (16, 16), (10 * i % 255, 0, 0)).save(image, "PNG")
            parts = {"png": image.getvalue(), "cls": b"%d" % (i % 3)}
            for suffix, content in {**parts, "json": b'{"kind": "k%d"}' % (i % 3)}.items():
                entry = tarfile.TarInfo(f"{i:05}.{suffix}")
                entry.size = len(content)
                tar.addfile(entry, io.BytesIO(content))
    return out.getvalue()


def test_shards_of_images_train(server, tmp_path, recipe, quick):
    server.files |= {"/s/0.tar": shard(range(12)), "/s/1.tar": shard(range(12, 24))}
    (tmp_path / "0.tar").write_bytes(server.files["/s/0.tar"])
    here = Source(path=f"{tmp_path}/0.tar").read()["train"]
    there = Source(path=f"{server.url}/s/*.tar").read()["train"]
    assert (len(here), len(there)) == (12, 24)
    for rows in (here, there):
        assert [row["cls"] for row in rows] == [i % 3 for i in range(len(rows))]
        assert rows[7]["png"].getpixel((0, 0)) == (70, 0, 0)
    out = io.BytesIO()
    Image.new("RGB", (16, 16)).save(out, "PNG")
    server.files["/s/one.png"] = out.getvalue()
    words = recipe("vit_cxr14")
    own = [word for word in words if not word.startswith(("data.path", "data.columns"))]
    for label in ("cls", "json.kind"):
        run = hydralight.train(
            [
                *own,
                f"data.path='{server.url}/s/*.tar'",
                f"data.columns={{image: png, label: {label}}}",
                "data.problem_type=single_label_classification",
                "data.labels=null",
                "optimized_metric=val/accuracy",
                "trainer.max_epochs=1",
            ]
        )
        assert run.metrics["last"]["val/loss"] > 0
        predicted = hydralight.predict([f"run={run.path}", f"input={server.url}/s/one.png"])
        assert len(predicted) == 1
        assert len(run.model.config.id2label) == 3


def test_shards_that_are_cut_short(tmp_path):
    whole = shard(range(12))
    end = 3 * 12 * 1024  # a header and a block each
    assert len(whole.rstrip(b"\0")) < end < len(whole)
    for cut in (700, 5000, end):
        (tmp_path / "0.tar").write_bytes(whole[:cut])
        with pytest.raises(UserError, match=r"0\.tar is damaged.*without a tar's end mark"):
            read(f"{tmp_path}/0.tar")


# ---------------------------------------------------------------- secrets


def test_signatures_tell_no_files_apart_and_are_not_told(server):
    url = f"{server.url}/d/a.jsonl?X-Amz-Signature="
    assert files_at(f"{url}oneZx9Q7") == files_at(f"{url}otherZx9Q7")
    assert len(server.parts()) == 1 + len(PARTS)
    server.files["/d/b.jsonl"] = lines(OTHER)
    server.faults = [503] * 9
    message = refused(url.replace("a.jsonl", "b.jsonl") + "oneZx9Q7")
    assert "503" in message
    assert "oneZx9Q7" not in message


def test_a_password_in_a_url_is_refused():
    for url in ("https://me:hunter2@ours/a.csv", "s3://AKIA:hunter2@ours/a.csv"):
        message = refused(url)
        assert "hunter2" not in message
        assert "leave that out, and put it in" in message


def test_a_signed_url_trains_and_is_written_nowhere(server, bart_cnn, articles, tmp_path):
    signature = "Zx9signatureQ7"
    for split in ("train", "validation"):
        server.files[f"/{split}.jsonl"] = (articles / f"{split}.jsonl").read_bytes()
    query = f"X-Amz-Expires=60&X-Amz-Signature={signature}"
    paths = ",".join(f"{s}:'{server.url}/{s}.jsonl?{query}'" for s in ("train", "validation"))
    others = [word for word in bart_cnn if not word.startswith("data.path")]
    run = hydralight.train([*others, f"data.path={{{paths}}}", "trainer.max_epochs=1"])
    assert any(signature in path for _, path, _ in server.asked)
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert len(files) > 20
    assert [path for path in files if signature.encode() in path.read_bytes()] == []
    assert REDACTED in (run.path / "config.yaml").read_text()
    with pytest.raises(UserError) as caught:
        hydralight.train([f"resume={run.path}", "trainer.max_epochs=2"])
    assert "data.path" in str(caught.value)


# ---------------------------------------------------------------- S3


@pytest.fixture(scope="module")
def moto():
    """The host and port of moto's S3."""
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    yield server.get_host_and_port()
    server.stop()


@pytest.fixture
def bucket(moto, monkeypatch):
    """A server before moto's, and a function that puts an object into the bucket `ours`."""
    import boto3

    with serving(behind=moto) as front:
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "me")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
        monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        monkeypatch.setenv("AWS_ENDPOINT_URL", front.url)
        client = boto3.client("s3")
        client.create_bucket(Bucket="ours")

        def put(key, content):
            client.put_object(Bucket="ours", Key=key, Body=content)

        front.put = put
        import s3fs

        s3fs.S3FileSystem.clear_instance_cache()
        yield front


def test_s3_with_faults(bucket):
    bucket.put("d/a.jsonl", lines(ROWS))
    bucket.put("d/b.jsonl.gz", gzip.compress(lines(OTHER)))
    bucket.faults = ["slow", "cut", 503, "short"]
    assert read({"train": "s3://ours/d/*.jsonl*", "test": "s3://ours/d/a.jsonl[5:]"}) == {
        "train": ROWS + OTHER,
        "test": ROWS[5:],
    }
    assert bucket.faults == []
    assert "There is no file s3://ours/d/c.jsonl" in refused("s3://ours/d/c.jsonl")
    assert "s3://ours/d is a folder" in refused("s3://ours/d")
    for path in ("s3://nowhere/d/a.jsonl", "s3://nowhere/d/*.jsonl"):
        assert f"There is no bucket or container of {path}" in refused(path)
    bucket.put("d/c.jsonl", lines(ROWS))
    bucket.faults = [403]
    message = refused("s3://ours/d/c.jsonl")
    assert "s3://ours/d/c.jsonl may not be read" in message
    assert "AWS_ACCESS_KEY_ID" in message


def test_s3_gives_one_version(bucket):
    bucket.put("a.jsonl", lines(ROWS))
    bucket.faults = ["slow", "slow", lambda: bucket.put("a.jsonl", lines(OTHER))]
    assert read("s3://ours/a.jsonl")["train"] == OTHER
    (file,) = listed("s3://ours/a.jsonl")
    stream = opened(file, ahead=100)
    stream.read(10)
    bucket.put("a.jsonl", lines(ROWS))
    with pytest.raises(Changed):  # at once, as the store is asked for that version
        stream.read(200)


def test_a_run_on_s3_is_that_on_files(bucket, bart_cnn, articles, tmp_path):
    for split in ("train", "validation", "test"):
        bucket.put(f"{split}.jsonl", (articles / f"{split}.jsonl").read_bytes())
    own = ["trainer.max_epochs=1", "callbacks.samples=null"]
    urls = ",".join(f"{s}:'s3://ours/{s}.jsonl'" for s in ("train", "validation", "test"))
    here, there = (
        hydralight.train([*bart_cnn, *own, *more]) for more in ([], [f"data.path={{{urls}}}"])
    )
    assert here.metrics["last"] == there.metrics["last"]
    typed = [f"run={there.path}", "data.path=s3://ours/test.jsonl", "split=test"]
    assert hydralight.evaluate(typed)["test/loss"] > 0
    predicted = [
        hydralight.predict([f"run={there.path}", f"input={source}"])
        for source in (f"{articles}/test.jsonl", "s3://ours/test.jsonl")
    ]
    assert predicted[0] == predicted[1]


# ---------------------------------------------------------------- the hub


def test_files_of_the_hub(server, monkeypatch):
    """The server answers as the hub does, as far as its client asks."""
    from huggingface_hub import HfFileSystem, constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "ENDPOINT", server.url)
    template = f"{server.url}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    HfFileSystem.clear_instance_cache()
    api, oid = "/api/datasets/user/repo", "b" * 40
    folder = {"type": "directory", "oid": "c" * 40, "path": "data"}
    file = {"type": "file", "oid": oid, "size": SIZE, "path": "data/a.jsonl"}
    server.files |= {
        api: json.dumps({"id": "user/repo", "sha": "a" * 40, "siblings": []}).encode(),
        f"{api}/tree/main": json.dumps([folder]).encode(),
        f"{api}/tree/main/data": json.dumps([file]).encode(),
        "/datasets/user/repo/resolve/main/data/a.jsonl": lines(ROWS),
    }
    server.faults = ["slow", "short", "cut"]
    url = "hf://datasets/user/repo/data"
    assert read({"train": f"{url}/*.jsonl", "test": f"{url}/a.jsonl[:3]"})["train"] == ROWS
    assert server.faults == []
    assert [one.etag for one in listed(f"{url}/a.jsonl")] == [oid]
    assert refused(f"{url}/b.jsonl") == f"There is no file {url}/b.jsonl"
    HfFileSystem.clear_instance_cache()
