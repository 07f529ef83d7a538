"""A hundred kills of runs on corpora, with changing processes and loader workers: the same rows.

Each run goes on from where it stood, until all kills are done. Then the rows that it has trained
on are compared, one by one, with those of a run that was not interrupted; so are its files.
"""

import json
import random
import signal
from collections import Counter, defaultdict
from operator import itemgetter
from pathlib import Path

import pytest
from compared import differences
from exact import check_order, check_passes
from serving import serving
from soaked import Attempts
from standins import article, write_jsonl
from test_corpus import index_of, named_alone

pytestmark = pytest.mark.soak
WORLDS = (1, 1, 2, 2, 4)
WORKERS = (0, 1, 2)
PREPARING = ("unit", "shards", "unit", "some time")
FETCHING = ("fetch", "fetch", "fetch, some time later")
READING = ("chunk", "chunk", "chunk, some time later")
TRAINING = ("batch", "batch", "batch, some time later", "some time", "log")
WRITING = ("checkpoint", "checkpoint's record", "checkpoint's name", "old checkpoints")
STAGES = {
    "preparing": PREPARING,
    "fetching": FETCHING,
    "reading a stream": READING,
    "training": TRAINING,
    "writing a checkpoint": WRITING,
}


@pytest.fixture(scope="module")
def attempts(tmp_path_factory):
    server = Attempts(tmp_path_factory.mktemp("said") / "said")
    yield server
    server.close()


@pytest.fixture
def typed(recipe, tmp_path):
    """GPT-2 on blocks of 16 tokens, in units of 500 bytes; a tenth of the texts to validate on."""
    for number in range(4):
        texts = [article(i)["article"] + f" {i}." for i in range(40 * number, 40 * number + 40)]
        write_jsonl(tmp_path / f"corpus/{number}.jsonl", [{"content": text} for text in texts])
    return [
        *recipe("gpt2_scratch"),
        f"data.path={tmp_path}/corpus/*.jsonl",
        "data.validation_hash=0.1",
        "data.window_shards=3",
        "data.batch_size=2",
        "data.batches_per_step=4",
        "trainer=ddp_cpu",
        "trainer.accumulate_grad_batches=1",
        "trainer.same_bits=true",
        "trainer.deterministic=true",
        "trainer.max_epochs=-1",
        "trainer.max_steps=90",
        "trainer.val_check_interval=30",
        "callbacks.last_checkpoint.every_n_train_steps=1",
        "callbacks.samples=null",
        "optimizer.lr=1e-3",
        "scheduler.warmup_steps=0",
    ]


def plan_of(seed: int, kills: dict[str, int]) -> list[tuple]:
    """Return kills in their order: the stage, the moment, its number, and what is waited for."""
    rng = random.Random(seed)
    first, plan = [], []
    for stage, number in kills.items():
        some = []
        for place in range(number):
            moment, _, later = STAGES[stage][place % len(STAGES[stage])].partition(", ")
            most = {"batch": 5, "chunk": 7, "unit": 2, "shards": 2}.get(moment, 3)
            wait = rng.uniform(0, 0.05) if later else None
            if moment == "some time":
                moment, wait = None, rng.uniform(0, 2)
            some.append((stage, moment, rng.randint(1, most), wait))
        rng.shuffle(some)
        if stage == "preparing":  # which comes before everything else
            first = [*some, (stage, "index", 1, None)]
        else:
            plan += some
    rng.shuffle(plan)
    return [*first, *plan]


def devices(world_size: int, workers: int) -> list[str]:
    return [f"trainer.devices={world_size}", f"data.num_workers={workers}"]


def trained_rows(folder: Path, name: str, told_by: int = 1) -> tuple[list, int]:
    """Return the rows of the steps that a run has kept, and how many micro-batches came again.

    Rows are told by their numbers (1), or by their tokens (2). Each attempt has written down what
    each rank trained on. Of a step that was done again, all attempts have to have the same rows, as
    far as they came.
    """
    steps: dict[int, dict[tuple[int, int], list[int]]] = defaultdict(dict)
    again = 0
    number = len({path.name.split("-")[1] for path in folder.glob(f"{name}-*-*")})
    for attempt in range(number):
        ranks = sorted(folder.glob(f"{name}-{attempt}-*"))
        for rank, path in enumerate(ranks):
            seen: Counter[int] = Counter()
            for line in path.read_text().splitlines():
                step, rows = itemgetter(0, told_by)(json.loads(line))
                place = rank * (4 // len(ranks)) + seen[step]
                seen[step] += 1
                again += place in steps[step]
                assert steps[step].setdefault(place, rows) == rows, f"step {step} has other rows"
    order = []
    for step in range(len(steps)):
        assert sorted(steps[step]) == [0, 1, 2, 3], f"step {step} has {sorted(steps[step])}"
        order += [row for place in range(4) for row in steps[step][place]]
    return order, again


def soaked(attempts, plan, typed, folder, notes, more=lambda rng: []):
    """Kill a run as planned, and let it end; return how many kills fell in which stage."""
    rng = random.Random(len(plan))
    tally: Counter[str] = Counter()
    again = [one for one in typed if one.startswith("data.prepared=")]  # which may not be there
    for attempt, (stage, moment, number, wait) in enumerate([*plan, ("", None, 0, None)]):
        # what counts batches in a checkpoint does so by process: the last one is as the whole run
        world_size, workers = rng.choice(WORLDS) if stage else 1, rng.choice(WORKERS)
        resumed = (folder / ".hydra/config.yaml").exists()
        noted = str(notes / f"{folder.name}-{attempt}")
        for rank in range(world_size):
            Path(f"{noted}-{rank}").touch()
        code = attempts.train(
            [
                *([f"resume={folder}", *again] if resumed else typed),
                *devices(world_size, workers),
                *more(rng),
            ],
            **{"moment": moment, "number": number, "wait": wait},
            ranks=world_size,
            noted=noted,
        )
        assert code == (-signal.SIGKILL if stage else 0), (
            *(stage, moment, number, wait, code),
            attempts.said.read_text(),
        )
        if stage:
            tally.update([stage, f"{world_size} processes", f"{workers} workers"])
    return tally


def rows_of(folder: Path, block_size: int = 16) -> int:
    """Return how many blocks there are in the shards of a corpus."""
    index = json.loads((folder / "index.json").read_text())
    sizes = [shard["tokens"] for shard in index["train"]]
    return sum(size // block_size + (size % block_size > 1) for size in sizes)


def check(whole: Path, other: Path, notes: Path, number: int, told_by: int = 1) -> None:
    """Assert that two runs have trained on the same rows, and that their files are the same."""
    order, _ = trained_rows(notes, whole.name, told_by)
    found, again = trained_rows(notes, other.name, told_by)
    if told_by == 2:
        names = {text: row for row, text in enumerate(dict.fromkeys(order))}
        order, found = ([names.get(text, -1) for text in rows] for rows in (order, found))
    print(f"{len(order)} rows, of {number} a pass; {again} micro-batches came again after a kill")
    check_passes(order, number)
    check_passes(found, number)
    check_order(order, found)
    assert [one for one in differences(whole, other) if ".yaml" not in one] == []


@pytest.fixture
def whole(attempts, tmp_path):
    """A function that lets a run go through on one process, and returns its directory."""
    (tmp_path / "notes").mkdir()

    def run(typed: list[str]) -> Path:
        begun = [*typed, *devices(1, 0), f"hydra.run.dir={tmp_path}/whole"]
        code = attempts.train(begun, noted=f"{tmp_path}/notes/whole-0", ranks=1)
        assert code == 0, attempts.said.read_text()
        return tmp_path / "whole"

    return run


def test_a_corpus_that_the_run_itself_prepares(attempts, typed, whole, tmp_path):
    shards, again, other, notes = (tmp_path / n for n in ("shards", "again", "other", "notes"))
    uninterrupted = whole([*typed, f"data.prepared={shards}"])
    plan = plan_of(1, {"preparing": 14, "training": 12, "writing a checkpoint": 8})
    own = [*typed, f"data.prepared={again}", f"hydra.run.dir={other}"]
    print(dict(soaked(attempts, plan, own, other, notes)))
    assert index_of(again) == index_of(shards)
    assert named_alone(again)
    check(uninterrupted, other, notes, rows_of(shards))


def test_a_corpus_at_a_url_and_a_small_cache(attempts, typed, whole, tmp_path):
    shards, other, notes = (tmp_path / name for name in ("shards", "other", "notes"))
    uninterrupted = whole([*typed, f"data.prepared={shards}"])
    paths = [path for path in shards.rglob("*") if path.is_file()]
    files = {f"/{path.relative_to(shards)}": path.read_bytes() for path in paths}
    with serving(files) as server:
        plan = plan_of(2, {"fetching": 12, "training": 5, "writing a checkpoint": 4})
        own = [*typed, f"data.prepared={server.url}", "data.cache_size=6KB"]
        print(dict(soaked(attempts, plan, [*own, f"hydra.run.dir={other}"], other, notes)))
    check(uninterrupted, other, notes, rows_of(shards))


def test_a_stream_from_a_server(attempts, typed, whole, tmp_path):
    """A document a row; sometimes a process beside the run encodes it."""
    other, notes = tmp_path / "other", tmp_path / "notes"
    files = {f"/{path.name}": path.read_bytes() for path in (tmp_path / "corpus").iterdir()}
    evaluated = write_jsonl(tmp_path / "validation.jsonl", [{"content": "Nothing was seen."}] * 3)
    with serving(files) as server:
        urls = ",".join(f"'{server.url}{name}'" for name in sorted(files))
        typed = [
            *(one for one in typed if "validation_hash" not in one and "block_size" not in one),
            *("data.streaming=true", f"data.path={{train: [{urls}], validation: {evaluated}}}"),
            *("data.block_size=null", "data.max_length=100", "trainer.max_steps=160"),
        ]
        uninterrupted = whole(typed)
        plan = plan_of(3, {"reading a stream": 16, "training": 17, "writing a checkpoint": 11})
        own = [*typed, f"hydra.run.dir={other}"]
        tally = soaked(
            *(attempts, plan, own, other, notes),
            lambda rng: [f"data.workers={rng.choice([0, 0, 0, 1])}"],
        )
        print(dict(tally))
    check(uninterrupted, other, notes, number=160, told_by=2)
