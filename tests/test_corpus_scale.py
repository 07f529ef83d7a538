"""What a large corpus asks of a disk, and what is begun early, counted and not timed."""

import random

from standins import article, tokenizer, write_jsonl

from hydralight.data.corpus import pool
from hydralight.data.corpus.corpus import Corpus
from hydralight.data.corpus.pieces import Unit
from hydralight.data.corpus.pool import Left
from hydralight.data.module import DataModule
from hydralight.data.shapes.causal_lm import CausalLM
from hydralight.data.source import Source
from hydralight.data.stream import streamed

MACHINES, EACH, UNITS = 12, 8, 800


class Counted:
    """Claims of one machine, in memory, and how many were refused."""

    def __init__(self, claimed):
        self.claimed, self.refused = claimed, 0

    def take(self, name):
        refused = name in self.claimed
        self.refused += refused
        self.claimed.add(name)
        return not refused

    def release(self, name):
        self.claimed.discard(name)


def prepared_by_many(now):
    """Have many machines do all units, each several at a time; return the claims of each."""
    units = [Unit(str(number), ()) for number in range(UNITS)]
    claimed, done, times = set(), set(), dict.fromkeys((unit.name for unit in units), 0)
    machines = [Left(units, Counted(claimed), lambda u: u.name in done) for _ in range(MACHINES)]
    running = [[] for _ in machines]
    rng = random.Random(0)
    while any(left.units for left in machines) or any(running):
        number = rng.randrange(MACHINES)
        now[0] += 0.1  # seconds, in which one of all processes has done a unit
        left = machines[number]
        while len(running[number]) < EACH and (unit := left.take()) is not None:
            running[number].append(unit)
        if running[number]:
            unit = running[number].pop(0)
            times[unit.name] += 1
            done.add(unit.name)
            left.claims.release(unit.name)
    assert set(times.values()) == {1}
    return [left.claims.refused for left in machines]


def test_many_machines_do_not_ask_for_the_same_units(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(pool.time, "monotonic", lambda: now[0])
    spread = sum(prepared_by_many(now))
    monkeypatch.setattr(random.Random, "shuffle", lambda self, units: None)
    one_after_the_other = sum(prepared_by_many(now))
    assert spread < one_after_the_other / 4, (spread, one_after_the_other)


def test_units_of_others_are_not_asked_for_again_at_once(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(pool.time, "monotonic", lambda: now[0])
    claims = Counted({"0", "1", "2"})
    left = Left([Unit(name, ()) for name in "012"], claims, lambda unit: False)
    assert left.take() is None
    refused = claims.refused
    for now[0] in (0.01, 0.1, 0.2):
        assert left.take() is None
    assert claims.refused == refused
    claims.release("1")
    now[0] = 3 * pool.PAUSE + 0.01
    assert left.take().name == "1"


def test_the_processes_of_a_stream_import_while_its_first_window_is_made(tmp_path, monkeypatch):
    begun, make = [], streamed.make
    monkeypatch.setattr(streamed, "get_ready", lambda: begun.append("processes"))
    monkeypatch.setattr(streamed, "make", lambda *how: begun.append("a window") or make(*how))
    path = write_jsonl(tmp_path / "a.jsonl", [{"text": article(i)["article"]} for i in range(20)])
    for workers in (1, 0):
        DataModule(
            shape=CausalLM(max_length=200),
            source=Source(path={"train": str(path)}),
            tokenizer=lambda *_, **__: tokenizer(),
            corpus=Corpus(streaming=True, workers=workers),
        ).encoded("train")
    assert begun == ["processes", "a window", "a window"]
