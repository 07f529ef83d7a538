"""Encoding: texts a second, ours over `datasets.map` as the tutorials write it.

Both have read the file and loaded the tokenizer; each side runs in processes of its own, with empty
caches and the libraries' own settings of threads. Target: 1.2 times.
"""

import os
from pathlib import Path
from tempfile import TemporaryDirectory, mkdtemp
from typing import Any

from datasets import load_dataset

from benchmarks import cases, ours
from benchmarks.cases import Case
from benchmarks.measure import Line, alternate, apart, line, seconds

TINY: dict[str, Any] = {"kinds": {"pairs of sentences": 32, "articles": 16}, "real": False}
KINDS = {"pairs of sentences": 30_000, "articles": 3_000}


def run(rounds: int = 5, kinds: dict[str, int] | None = None, real: bool = True) -> list[Line]:
    """Return a line for each kind of texts."""
    lines = []
    for what, number in (kinds or KINDS).items():
        with TemporaryDirectory() as folder:
            if what == "articles":
                case = cases.summarization("bart-1+1x64", number, Path(folder), real)
            else:
                case = cases.classification("bert-2x64", number, Path(folder), real)
            times = alternate(
                {
                    "ours": lambda case=case: fresh(encode_ours, case),  # type: ignore[misc]
                    "trainer": lambda case=case: fresh(encode_by_map, case),  # type: ignore[misc]
                },
                rounds,
            )
        speeds = {
            side: [2 * number / elapsed for elapsed, _ in rows] for side, rows in times.items()
        }
        tokens = {side: rows[0][1] for side, rows in times.items()}
        lines.append(
            line(
                f"encoding, {number:,} {what}",
                "texts/s",
                speeds,
                ratio_at_least=1.2,
                also=tokens["ours"] == tokens["trainer"],
                note=f"{tokens['ours']:,} and {tokens['trainer']:,} tokens",
            )
        )
    return lines


def fresh(function: Any, case: Case) -> Any:
    """Call it in a process with empty caches, and with the libraries' own settings."""
    home = mkdtemp(dir=case.folder)
    return apart(function, case, HF_HOME=home, TOKENIZERS_PARALLELISM=None)


def encode_ours(case: Case) -> tuple[float, int]:
    """Encode by the data module; return the seconds, and how many tokens came of it."""
    _, data, _ = ours.built(case.overrides, case.folder / f"run-{os.getpid()}")
    data.rows()
    data.load_processor()
    elapsed = seconds(lambda: data.encoded("train"))
    return elapsed, sum(map(len, data.encoded("train")["input_ids"]))


def encode_by_map(case: Case) -> tuple[float, int]:
    """Encode by `map`; return the same."""
    tokenizer = case.tokenizer
    rows: Any = load_dataset("json", data_files=str(case.train), split="train")
    length = 1024 if case.seq2seq else 512

    def encode(batch: dict[str, list]) -> Any:
        if not case.seq2seq:
            return tokenizer(
                batch["sentence1"], batch["sentence2"], truncation=True, max_length=length
            )
        inputs = tokenizer(batch["article"], truncation=True, max_length=length)
        labels = tokenizer(text_target=batch["highlights"], truncation=True, max_length=128)
        inputs["labels"] = labels["input_ids"]
        return inputs

    encoded: list[Any] = []
    elapsed = seconds(lambda: encoded.append(rows.map(encode, batched=True)))
    return elapsed, sum(map(len, encoded[0]["input_ids"]))
