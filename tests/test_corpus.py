"""A corpus that is prepared in shards: nothing lost, nothing twice, whatever happens meanwhile."""

import gzip
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from itertools import chain

import pandas as pd
import pytest
from forked import served
from hydra.utils import execution_whitelist
from omegaconf import OmegaConf
from standins import article, tokenizer, write_jsonl

from hydralight.data.batches import Batching
from hydralight.data.corpus import claims, duplicates, inputs, reading, sample, shards
from hydralight.data.corpus.claims import Claims
from hydralight.data.corpus.corpus import Corpus
from hydralight.data.encoding import Encoding
from hydralight.data.module import DataModule
from hydralight.data.order import Place
from hydralight.data.shapes.causal_lm import CausalLM
from hydralight.data.shapes.masked_lm import MaskedLM
from hydralight.data.shapes.text_classification import TextClassification
from hydralight.data.source import Source
from hydralight.dealing import build_data
from hydralight.errors import UserError

NUMBER = 60  # rows of the corpus: 20 a file


def recipe(texts, cache_key, cache_dir):
    return tokenizer()


def rows(start, stop):
    return [{"text": article(i)["article"] + f" Number {i}.", "id": i} for i in range(start, stop)]


def texts():
    return [row["text"] for row in rows(0, NUMBER)]


@pytest.fixture(autouse=True)
def small(monkeypatch):
    """Units of 1 KB, shards of 600 bytes and batches of 7 rows, so that there are some of each."""
    monkeypatch.setattr(inputs, "UNIT_BYTES", 1000)
    monkeypatch.setattr(shards, "SHARD_BYTES", 600)
    monkeypatch.setattr(reading, "ROWS", 7)


@pytest.fixture
def files(tmp_path):
    """Three files of JSON lines."""
    folder = tmp_path / "files"
    for number in range(3):
        write_jsonl(folder / f"{number}.jsonl", rows(20 * number, 20 * number + 20))
    return folder


def module(path, folder, shape=None, **parts):
    corpus = Corpus(prepared=str(folder), **{"workers": 0, **parts.pop("corpus", {})})
    source = Source(path={"train": str(path)}, columns=parts.pop("columns", None))
    shape = shape or CausalLM(block_size=16)
    batching = Batching(**{"batch_size": 4, "window_shards": 3, **parts})
    return DataModule(
        shape=shape, source=source, tokenizer=recipe, corpus=corpus, batching=batching
    )


def tokens_of(data):
    """All tokens of the corpus, in its order."""
    train = data.encoded("train")
    return list(chain.from_iterable(train[i]["input_ids"] for i in range(len(train))))


def expected():
    """What the tokenizer alone makes of the texts, each with its end."""
    end = tokenizer().eos_token_id
    ids = tokenizer()(texts(), verbose=False)["input_ids"]
    return list(chain.from_iterable(one if one[-1] == end else [*one, end] for one in ids))


def named_alone(folder):
    """Whether there are the shards that the index names, and no others, whole or not."""
    content = json.loads((folder / "index.json").read_text())
    named = {shard["file"] for split in ("train", "validation") for shard in content[split]}
    named |= {content["sample"]["file"], *content["previous"]}
    there = [
        path for split in ("train", "validation", "sample") for path in folder.glob(f"{split}/*")
    ]
    return {str(path.relative_to(folder)) for path in there} == named


def index_of(folder):
    """What an index says, except when files were last changed."""
    content = json.loads((folder / "index.json").read_text())
    return {key: content[key] for key in ("train", "validation", "counts")}


# ---------------------------------------------------------------- what is in it


def test_blocks_are_of_all_tokens_and_their_size_is_chosen_when_they_are_read(files, tmp_path):
    data = module(files / "*.jsonl", tmp_path / "shards")
    assert tokens_of(data) == expected()
    train = data.encoded("train")
    assert len(train.shards) > 6
    assert {row["length"] for row in (train[i] for i in range(len(train)))} <= {*range(2, 17)}
    made = (tmp_path / "shards/index.json").stat().st_mtime_ns
    larger = module(files / "*.jsonl", tmp_path / "shards", CausalLM(block_size=24))
    assert len(tokens_of(larger)) == len(expected())
    assert (tmp_path / "shards/index.json").stat().st_mtime_ns == made


@pytest.mark.parametrize("name", ["a.jsonl.gz", "a.csv", "a.parquet", "a.arrow", "a.txt"])
def test_each_format_is_read_to_the_same(files, tmp_path, name):
    frame, path = pd.DataFrame(rows(0, NUMBER)), tmp_path / name
    if name.endswith(".gz"):
        path.write_bytes(gzip.compress(b"".join(f.read_bytes() for f in sorted(files.iterdir()))))
    elif name.endswith(".csv"):
        frame.to_csv(path, index=False)
    elif name.endswith(".parquet"):
        frame.to_parquet(path, row_group_size=9)
    elif name.endswith(".arrow"):
        frame.to_feather(path, compression="uncompressed")
    else:
        path.write_text("".join(f"{text}\n\n" for text in texts()))
    assert tokens_of(module(path, tmp_path / "shards")) == expected()


def test_rows_are_those_of_data_that_is_not_prepared(tmp_path):
    """Classification, whose rows are no blocks: the same columns and values."""
    labelled = [{**row, "label": row["id"] % 3} for row in rows(0, NUMBER)]
    path = write_jsonl(tmp_path / "a.jsonl", labelled)
    shape = TextClassification(labels=["a", "b", "c"], max_length=30)
    data = module(path, tmp_path / "shards", shape)
    source = Source(path={"train": str(path)})
    plain = DataModule(shape=shape, source=source, tokenizer=recipe)
    plain.splits = type(plain.splits)(validation_fraction=0)
    train, whole = data.encoded("train"), plain.encoded("train").remove_columns("row")
    assert [train[i] for i in range(len(train))] == list(whole)
    assert data.longest() == plain.longest() == 30
    batch = next(iter(data.train_dataloader()))
    assert batch["labels"].tolist() == [row % 3 for row in batch["row"].tolist()]


def test_masks_are_of_the_row_and_the_epoch(files, tmp_path):
    def epochs(number, **settings):
        shape = MaskedLM(block_size=16)
        data = module(files / "*.jsonl", tmp_path / "shards", shape, **settings)
        data.encoded("train")
        loader = data.train_dataloader()
        batches = [
            [(b["row"].tolist(), b["labels"].tolist()) for b in loader] for _ in range(number)
        ]
        return [dict(chain.from_iterable(zip(*b, strict=True) for b in batch)) for batch in batches]

    first, second = epochs(2)
    assert first.keys() == second.keys()
    assert first != second
    assert epochs(1, num_workers=1) == [first]


@pytest.mark.parametrize("workers", [0, 2])
def test_any_number_of_loader_workers_brings_the_same_batches(files, tmp_path, workers):
    data = module(files / "*.jsonl", tmp_path / "shards", num_workers=workers)
    data.encoded("train")
    found = [batch["input_ids"].tolist() for batch in data.train_dataloader()]
    alone = module(files / "*.jsonl", tmp_path / "shards")
    alone.encoded("train")
    assert found == [batch["input_ids"].tolist() for batch in alone.train_dataloader()]
    rows = chain.from_iterable(found)
    assert sum(map(len, rows)) >= len(expected())


# ---------------------------------------------------------------- left out, or apart


def test_duplicates_are_left_out_wherever_they_are(files, tmp_path, monkeypatch):
    monkeypatch.setattr(duplicates, "MOST", 10)  # sorted in eight parts
    more = [{"text": text} for text in texts()]
    write_jsonl(files / "3.jsonl", [*more[5:25], {"text": "Once."}, {"text": "Once."}, *more[:3]])
    data = module(files / "*.jsonl", tmp_path / "shards", corpus={"deduplicate": True})
    end = tokenizer()("Once.")["input_ids"]
    assert tokens_of(data) == expected() + end
    assert index_of(tmp_path / "shards")["counts"]["duplicates"] == 24
    # the negative control
    whole = module(files / "*.jsonl", tmp_path / "all")
    assert len(tokens_of(whole)) > len(expected()) + len(end)


def test_rows_are_left_out_and_counted(files, tmp_path):
    own = {"min_chars": 80, "max_chars": 130, "only": {"id": list(range(50))}, "keep": keeps_even}
    data = module(files / "*.jsonl", tmp_path / "shards", CausalLM(max_length=100), corpus=own)
    even = [t for i, t in enumerate(texts()) if i < 50 and i % 2 == 0]
    kept = [t for t in even if 80 <= len(t) <= 130]
    train = data.encoded("train")
    found = [tokenizer().decode(train[i]["input_ids"], True) for i in range(len(train))]
    assert [text.strip() for text in found] == kept
    counts = index_of(tmp_path / "shards")["counts"]
    short, long = sum(len(t) < 80 for t in even), sum(len(t) > 130 for t in even)
    assert min(short, long) > 0
    assert counts["another id"] == 10
    assert counts["refused by data.keep"] == 25
    assert (counts["too short"], counts["too long"]) == (short, long)
    assert (counts["train"], counts["read"]) == (len(kept), 60)


def keeps_even(row):
    return row["id"] % 2 == 0


def keeps_below(row, limit):
    return row["id"] < limit


def test_a_function_that_a_config_names_goes_to_the_processes_that_prepare(files, tmp_path):
    """And another one, or another argument of it, is refused by name."""

    def built(limit):
        keep = {"_target_": f"{__name__}.keeps_below", "_partial_": True, "limit": limit}
        trained = {"_target_": "hydralight.tokenizers.Trained", "vocab_size": 400}
        own = {"_target_": "hydralight.data.shapes.causal_lm.CausalLM", "keep": keep}
        own |= {"path": {"train": f"{files}/*.jsonl"}, "workers": 2}
        own |= {"prepared": str(tmp_path / "shards")}
        with execution_whitelist(("hydralight.*", f"{__name__}.*")):
            return build_data(OmegaConf.create({"tokenizer": trained, "data": own}))

    assert len(built(37).encoded("train")) == 37
    assert len(built(37).encoded("train")) == 37
    with pytest.raises(UserError, match=r"data\.keep"):
        built(38).encoded("train")


def test_a_corpus_is_not_put_among_its_files(files):
    before = sorted(files.iterdir())
    with pytest.raises(UserError, match=r"has the files of data\.path in it: name a folder"):
        module(files / "*.jsonl", files, CausalLM(max_length=100)).encoded("train")
    assert sorted(files.iterdir()) == before


@pytest.mark.parametrize("size", ["lots", "1.2.3GB", "."])
def test_the_size_of_the_cache_is_one_wherever_the_corpus_is(tmp_path, size):
    with pytest.raises(UserError, match=r"data\.cache_size=.* should be a size, such as 50GB"):
        Corpus(prepared=str(tmp_path), cache_size=size)


def test_a_text_is_validated_on_whatever_else_there_is(files, tmp_path):
    def parts(path, folder):
        own = {"validation_hash": 0.3}
        data = module(path, tmp_path / folder, CausalLM(max_length=100), corpus=own)
        found = []
        for split in ("train", "validation"):
            encoded = data.encoded(split)
            ids = [encoded[i]["input_ids"] for i in range(len(encoded))]
            found.append({tokenizer().decode(one, True).strip() for one in ids})
        assert next(iter(data.val_dataloader()[0]))["num_bytes"] is not None
        return found

    train, validation = parts(files / "*.jsonl", "all")
    assert train | validation == set(texts())
    assert not train & validation
    assert 8 <= len(validation) <= 30
    other_train, other = parts(files / "1.jsonl", "one")
    assert other_train < train
    assert other < validation


@pytest.mark.parametrize("too_long", ["truncate", "drop", "refuse"])
def test_what_is_too_long_is_dealt_with_as_elsewhere(files, tmp_path, too_long):
    lengths = [len(ids) + 1 for ids in tokenizer()(texts(), verbose=False)["input_ids"]]
    most = sorted(lengths)[NUMBER // 2]
    own = {"validation_hash": 0.3}
    data = module(files / "*.jsonl", tmp_path / "shards", CausalLM(max_length=most), corpus=own)
    data.encoding = Encoding(too_long=too_long)
    if too_long == "refuse":
        with pytest.raises(UserError, match=r"0\.jsonl, row \d+ is longer than the limit"):
            data.encoded("train")
        return
    number = len(data.encoded("train")) + len(data.encoded("validation"))
    counts = index_of(tmp_path / "shards")["counts"]
    longer = counts["truncated" if too_long == "truncate" else "too many tokens"]
    assert number == (NUMBER if too_long == "truncate" else NUMBER - longer)
    assert 10 < longer < 50
    assert data.longest() <= most


def test_a_split_without_a_source_is_told(files, tmp_path):
    data = module(files / "*.jsonl", tmp_path / "shards")
    with pytest.raises(UserError, match=r"nothing to validate on: .* data\.validation_hash=0\.01"):
        data.encoded("validation")
    data.validation_split = "train"
    with pytest.raises(UserError, match=r"name files to evaluate"):
        data.encoded("train")


def test_labels_have_to_be_known(files, tmp_path):
    data = module(files / "*.jsonl", tmp_path / "shards", TextClassification())
    with pytest.raises(UserError, match=r"name all labels in data\.labels"):
        data.encoded("train")


# ---------------------------------------------------------------- what goes wrong


def test_a_bad_row_is_named_by_file_and_number(files, tmp_path, monkeypatch):
    """It is in the second piece of its file, and not in the sample that is looked at before."""
    bad = [{**row, "label": row["id"] % 3 if row["id"] != 17 else 9} for row in rows(0, 20)]
    path = write_jsonl(files / "bad.jsonl", bad)
    shape = TextClassification(labels=["a", "b", "c"])
    monkeypatch.setattr(sample, "ROWS", 6)
    with pytest.raises(UserError, match=rf"^{re.escape(str(path))}, row 18: .*9"):
        module(path, tmp_path / "shards", shape).encoded("train")
    bad[17] |= {"label": 1, "text": " "}
    write_jsonl(path, bad)
    with pytest.raises(UserError, match=rf"^{re.escape(str(path))}, row 18: the text .* is empty"):
        module(path, tmp_path / "shards", shape).encoded("train")
    with open(path, "a") as file:
        file.write('{"text": oh no}\n')
    with pytest.raises(UserError, match=r"Line 21 of .*bad\.jsonl is not valid JSON"):
        module(path, tmp_path / "shards").encoded("train")
    path.write_bytes(b'{"text": "cafe", "id": 0}\n' * 9 + b'{"text": "caf\xe9", "id": 0}\n')
    with pytest.raises(UserError, match=r"Line 10 of .*bad\.jsonl is not UTF-8 text"):
        module(path, tmp_path / "others").encoded("train")
    assert not list(tmp_path.rglob("*.partial"))


def test_a_flipped_bit_is_told_with_its_shard(files, tmp_path):
    data = module(files / "*.jsonl", tmp_path / "shards")
    shard = tmp_path / "shards" / data.encoded("train").shards[3].file
    content = bytearray(shard.read_bytes())
    content[40] ^= 4
    shard.write_bytes(content)
    again = module(files / "*.jsonl", tmp_path / "shards")
    again.encoded("train")
    with pytest.raises(UserError, match=rf"{shard.name} is damaged"):
        list(again.train_dataloader())
    shard.unlink()
    again.prepare_corpus()
    assert tokens_of(again) == expected()


def test_changed_files_are_told_by_a_training_and_done_by_prepare(files, tmp_path):
    folder = tmp_path / "shards"
    running = module(files / "*.jsonl", folder)
    running.encoded("train")
    before = {path.name: path.stat().st_mtime_ns for path in (folder / "train").iterdir()}
    write_jsonl(files / "1.jsonl", rows(20, 41))
    data = module(files / "*.jsonl", folder)
    with pytest.raises(UserError, match=r"1\.jsonl changed since .*: run prepare\.py"):
        data.encoded("train")
    data.prepare_corpus()
    assert len(tokens_of(data)) > len(expected())
    after = {path.name: path.stat().st_mtime_ns for path in (folder / "train").iterdir()}
    same = before.items() & after.items()
    assert len(before) / 2 < len(same) == len(before)  # the units of the other files are left alone
    assert len(after) > len(same)
    assert tokens_of(running) == expected()  # a training that has begun goes on
    data.prepare_corpus()  # with nothing that is new
    assert tokens_of(module(files / "*.jsonl", folder)) == tokens_of(data)
    assert named_alone(folder)
    named = {s.file for s in data.encoded("train").shards}
    stale = {f"train/{name}" for name in before} - named
    assert len(stale) > 2
    units = {path.stem for path in (folder / "units").iterdir()}
    assert not units & {name[6:].rpartition("-")[0] for name in stale}
    write_jsonl(files / "2.jsonl", rows(40, 61))
    module(files / "*.jsonl", folder).prepare_corpus()  # the next but one
    assert named_alone(folder)
    assert not any((folder / name).exists() for name in stale)


def test_what_another_process_is_at_is_left_to_it(files, tmp_path):
    """By its claim; what a kill has left goes."""
    folder = tmp_path / "shards"
    (folder / "train").mkdir(parents=True)
    for name in ("left", "other"):
        (folder / f"train/{name}-000.tokens.0123abcd.partial").touch()
    other = Claims(folder / "claims/encode")
    assert other.take("other")
    data = module(files / "*.jsonl", folder)
    data.encoded("train")
    assert [path.name[:5] for path in (folder / "train").glob("*.partial")] == ["other"]
    other.release_all()
    data.prepare_corpus()
    assert named_alone(folder)


def test_files_that_are_gone_are_no_longer_needed(files, tmp_path):
    folder = tmp_path / "shards"
    module(files / "*.jsonl", folder).encoded("train")
    data = module(files / "*.jsonl", folder)
    for path in files.iterdir():
        path.unlink()
    assert tokens_of(data) == expected()


@pytest.mark.parametrize(
    ("shape", "own", "named"),
    [
        (CausalLM(block_size=16, clean=["lower"]), {}, r"data\.clean"),
        (CausalLM(max_length=16), {}, "the kind of its rows"),
        (MaskedLM(block_size=16), {}, "the kind of its rows"),
        (CausalLM(block_size=16), {"min_chars": 3}, r"data\.min_chars \(None, and now 3\)"),
    ],
)
def test_a_folder_with_another_corpus_is_refused(files, tmp_path, shape, own, named):
    module(files / "*.jsonl", tmp_path / "shards").encoded("train")
    data = module(files / "*.jsonl", tmp_path / "shards", shape, corpus=own)
    with pytest.raises(UserError, match=f"was prepared with another value of {named}"):
        data.encoded("train")


def test_what_was_begun_is_gone_on_with_by_the_same_settings_alone(files, tmp_path):
    """A kill has left some units, and no index."""
    module(files / "*.jsonl", tmp_path / "shards").encoded("train")
    (tmp_path / "shards/index.json").unlink()
    other = module(files / "*.jsonl", tmp_path / "shards", corpus={"max_chars": 100})
    with pytest.raises(UserError, match=r"another value of data\.max_chars \(None, and now 100\)"):
        other.encoded("train")
    assert tokens_of(module(files / "*.jsonl", tmp_path / "shards")) == expected()


# ---------------------------------------------------------------- killed, and several at once

KILLED = """
import os, signal, sys
sys.path.insert(0, {tests!r})
from pathlib import Path
from hydralight.data.corpus import inputs, shards, reading, work
inputs.UNIT_BYTES, shards.SHARD_BYTES, reading.ROWS = 1000, 600, 7
import test_corpus
calls, moment, number = [0], sys.argv[3], int(sys.argv[4])
def counted(owner, name):
    original = getattr(owner, name)
    def call(*args, **kwargs):
        calls[0] += 1
        if calls[0] == number:
            os.kill(os.getpid(), signal.SIGKILL)
        return original(*args, **kwargs)
    setattr(owner, name, call)
if moment:
    moments = {{"batch": (work.Work, "encoded"), "name": (Path, "replace")}}
    counted(*(moments | {{"record": (work, "keep_record")}})[moment])
test_corpus.module(sys.argv[1], sys.argv[2], corpus={{"deduplicate": True}}).encoded("train")
"""


def execute(rank, code, *arguments):
    """Do what `python -c` does, in a process that has imported all."""
    sys.argv = ["-c", *arguments]
    exec(code, {})


def killed(path, folder, moment="", number=0):
    code = KILLED.format(tests=os.path.dirname(__file__))
    (done,) = served().calls(execute, (code, str(path), str(folder), moment, str(number)), 1)
    return done


def test_killed_again_and_again_it_comes_to_the_same(files, tmp_path):
    """Between batches, between the names of a unit's shards, before its record."""
    module(files / "*.jsonl", tmp_path / "whole", corpus={"deduplicate": True}).encoded("train")
    folder, units = tmp_path / "other", set()
    for moment, number in [("batch", 4), ("name", 12), ("record", 3)]:
        done = killed(files / "*.jsonl", folder, moment, number)
        assert done.code == -signal.SIGKILL, done.err
        assert not (folder / "index.json").exists()
        there = {(p.name, p.stat().st_mtime_ns) for p in (folder / "units").glob("*")}
        assert units <= there  # what was done is not done again
        units = there
    data = module(files / "*.jsonl", folder, corpus={"deduplicate": True, "workers": 2})
    assert tokens_of(data) == expected()
    assert index_of(folder) == index_of(tmp_path / "whole")
    assert named_alone(folder)
    assert units <= {(p.name, p.stat().st_mtime_ns) for p in (folder / "units").glob("*")}


def test_a_claim_is_one_processes_until_it_dies(tmp_path, monkeypatch):
    first, second = Claims(tmp_path), Claims(tmp_path)
    assert first.take("a")
    assert not second.take("a")
    first.release("a")
    assert second.take("a")
    (tmp_path / "a").write_text(json.dumps({"host": "another", "process": 1}))
    assert not first.take("a")
    long_ago = time.time() - claims.EXPIRES - 1
    os.utime(tmp_path / "a", (long_ago, long_ago))
    assert first.take("a")
    gone = subprocess.Popen(["true"])
    gone.wait()
    here = {"host": claims.socket.gethostname(), "process": gone.pid}
    (tmp_path / "b").write_text(json.dumps(here))
    assert second.take("b")
    assert not first.take("b")
    second.release_all()
    assert first.take("b")


WAITING = """
import time
do, here = work.do, Path(sys.argv[2]).parent
def noted(unit, *rest):
    print(unit.name)
    (here / f"{os.getpid()}.begun").touch()
    while len(list(here.glob("*.begun"))) < 2:  # the other one has a unit too
        time.sleep(0.05)
    return do(unit, *rest)
work.do = noted
"""


def test_two_that_prepare_one_folder_share_the_units(files, tmp_path):
    """Each unit is done once, by one of them."""
    *first, last = KILLED.format(tests=os.path.dirname(__file__)).splitlines()
    code = "\n".join([*first, WAITING, last])
    arguments = (code, str(files / "*.jsonl"), str(tmp_path / "shards"), "", "0")
    both = served().calls(execute, arguments, 2)
    assert [process.code for process in both] == [0, 0], both
    done = [process.out.split() for process in both]
    assert set(Counter(chain(*done)).values()) == {1}
    assert min(map(len, done)) > 0
    data = module(files / "*.jsonl", tmp_path / "shards", corpus={"deduplicate": True})
    assert tokens_of(data) == expected()


def test_a_resume_on_other_ranks_goes_on_with_the_same_rows(files, tmp_path):
    """What 1 process would have taken is what 2 and 4 take, from any step on."""
    data = module(files / "*.jsonl", tmp_path / "shards", batch_size=2)
    sizes = data.encoded("train").sizes

    def steps(world_size, position=0):
        own = 4 // world_size
        ranks = [
            data.batching.in_windows(sizes, Place(rank, world_size, own))
            for rank in range(world_size)
        ]
        for batches in ranks:
            batches.position = position * own
        found = [[[i for _, i in batch] for batch in batches] for batches in ranks]
        number = len(found[0]) // own
        return [[b for r in found for b in r[s * own : (s + 1) * own]] for s in range(number)]

    alone = steps(1)
    for world_size in (2, 4):
        assert steps(world_size) == alone[: len(steps(world_size))]
        assert steps(world_size, 3) == steps(1, 3)[: len(steps(world_size, 3))]
    assert len({row for step in alone for batch in step for row in batch}) > 0.9 * sum(sizes)
