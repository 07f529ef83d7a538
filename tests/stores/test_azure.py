"""Data in Azure's blob store, which is an Azurite on this machine: make test-stores."""

import gzip
import io
import json
import os
import shutil
import socket
import subprocess
import time

import datasets
import pytest
from conftest import ROOT
from serving import serving

from hydralight.data.source import Source
from hydralight.errors import UserError
from hydralight.stores import fetched, retries
from hydralight.stores.fetched import Changed, opened
from hydralight.stores.listing import listed

pytestmark = pytest.mark.stores
ACCOUNT = "devstoreaccount1"  # the one that each Azurite has, whose key its manual gives
KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
ROWS = [{"text": f"text {i}", "n": i} for i in range(2000)]
OTHER = [{"text": f"TEXT {i}", "n": i} for i in range(2000)]


def lines(rows):
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def connection(port, key=KEY):
    end = f"http://127.0.0.1:{port}/{ACCOUNT}"
    return (
        f"DefaultEndpointsProtocol=http;AccountName={ACCOUNT};AccountKey={key};BlobEndpoint={end};"
    )


@pytest.fixture(scope="module")
def azurite():
    """The port of an Azurite that keeps everything in memory."""
    program = shutil.which(
        "azurite-blob", path=f"{ROOT}/.node/node_modules/.bin:{os.environ['PATH']}"
    )
    assert program, "Azurite is needed: npm install --prefix .node azurite@3.37.0"
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    options = ["--skipApiVersionCheck", "--inMemoryPersistence", "--disableTelemetry", "--silent"]
    server = subprocess.Popen([program, *options, "--blobPort", str(port)])
    try:
        until = time.monotonic() + 60
        while True:
            assert server.poll() is None and time.monotonic() < until  # noqa: PT018
            try:
                socket.create_connection(("127.0.0.1", port)).close()
                break
            except ConnectionRefusedError:
                time.sleep(0.1)
        yield port
    finally:
        server.terminate()
        server.wait()


@pytest.fixture
def container(azurite, monkeypatch, tmp_path):
    """A server before Azurite, with a function that puts a blob into the container `ours`."""
    from adlfs import AzureBlobFileSystem
    from azure.storage.blob import BlobServiceClient

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.setattr(fetched, "RANGE", 10_000)
    monkeypatch.setattr(retries, "WAITS", (0.01,) * 4)
    with BlobServiceClient.from_connection_string(connection(azurite)) as client:
        if "ours" not in {one.name for one in client.list_containers()}:
            client.create_container("ours")
        with serving(behind=("127.0.0.1", azurite)) as front:
            front.put = lambda key, content: client.get_blob_client("ours", key).upload_blob(
                content, overwrite=True
            )
            monkeypatch.setenv("AZURE_STORAGE_CONNECTION_STRING", connection(front.server_port))
            AzureBlobFileSystem.clear_instance_cache()
            yield front


def read(path):
    known = path if isinstance(path, dict) else ()
    found = Source(path=path).read(known=known)
    return {split: rows.to_list() for split, rows in found.items()}


def test_blobs_are_read_like_files_also_where_a_connection_is_cut(container):
    container.put("d/a.jsonl", lines(ROWS))
    container.put("d/b.jsonl.gz", gzip.compress(lines(OTHER)))
    container.faults = ["slow", "cut", "short"]
    assert read({"train": "az://ours/d/*.jsonl*", "test": "abfs://ours/d/a.jsonl[5:]"}) == {
        "train": ROWS + OTHER,
        "test": ROWS[5:],
    }
    assert container.faults == []
    whole = "abfs://ours@devstoreaccount1.dfs.core.windows.net/d/a.jsonl"
    assert read(whole) == {"train": ROWS}


def test_a_blob_that_changes(container):
    container.put("a.jsonl", lines(ROWS))
    container.faults = ["slow", "slow", lambda: container.put("a.jsonl", lines(OTHER))]
    assert read("az://ours/a.jsonl")["train"] == OTHER
    (file,) = listed("az://ours/a.jsonl")
    stream = opened(file, ahead=100)
    stream.read(10)
    container.put("a.jsonl", lines(ROWS))
    stream.seek(-10, io.SEEK_END)
    with pytest.raises(Changed):
        stream.read()


def test_mistakes(container, azurite, monkeypatch):
    container.put("d/a.jsonl", lines(ROWS))
    from adlfs import AzureBlobFileSystem

    for path, message in {
        "az://ours/d/c.jsonl": "There is no file az://ours/d/c.jsonl",
        "az://ours/d/*.csv": "No file matches",
        "az://ours/d": "is a folder",
        "az://nowhere/a.jsonl": "no bucket or container of az://nowhere/a.jsonl",
        "az://nowhere/*.jsonl": "no bucket or container of az://nowhere/",
    }.items():
        with pytest.raises(UserError) as caught:
            read(path)
        assert message in str(caught.value)
    wrong = "Abcd" + KEY[4:]
    for string in (connection(azurite, wrong), None):
        if string is None:
            monkeypatch.delenv("AZURE_STORAGE_CONNECTION_STRING")
        else:
            monkeypatch.setenv("AZURE_STORAGE_CONNECTION_STRING", string)
        AzureBlobFileSystem.clear_instance_cache()
        for path in ("az://ours/d/a.jsonl", "az://ours/d/*.jsonl"):
            with pytest.raises(UserError) as caught:
                read(path)
            message = str(caught.value)
            assert "may not be read" in message or "without credentials" in message
            assert "AZURE_STORAGE_CONNECTION_STRING" in message
            assert wrong not in message
