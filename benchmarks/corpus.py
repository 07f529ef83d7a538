"""A corpus of made-up text: prepared, trained on, and resumed from its middle.

python -m benchmarks.corpus --gigabytes 2 20 --tokenizer words

What it measures of each size: the memory of all processes, MB/s, bytes on disk, the share of the
time that the tokenizer alone takes, and the seconds from a command to its first optimizer step. The
text is made in a folder that is removed at the end. Where encoding would take too long, `--copies
10` has each shard ten times before the steps are timed.
"""

import argparse
import json
import os
import shutil
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from tempfile import mkdtemp
from typing import Any

from tabulate import tabulate

from benchmarks import command, hardware, results, synthetic
from benchmarks.measure import apart
from benchmarks.tree import Seen, size_of, watched
from hydralight.runs.files import write_text
from hydralight.runs.sealed import sealed_json, unsealed_json

BLOCK = 256  # tokens
MODEL = "{model_type: gpt2, n_positions: 256, n_embd: 128, n_layer: 2, n_head: 2}"
ALONE = 40_000_000  # bytes of text that the tokenizer alone is timed on, by each process


def main(argv: Sequence[str]) -> None:
    """Measure each size, print the table, and keep it."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.corpus", description=__doc__)
    parser.add_argument("--gigabytes", type=float, nargs="+", default=[0.2])
    parser.add_argument("--tokenizer", choices=["words", "bpe"], default="words")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--copies", type=int, default=1, help="of each shard, for the first steps")
    parser.add_argument("--rounds", type=int, default=3, help="of what takes seconds")
    parser.add_argument("--folder", type=Path, help="in which a new one is made")
    parser.add_argument("--text", type=Path, help="folder of text that is made once, and kept")
    parser.add_argument("--results", type=Path, default=results.FOLDER)
    options = parser.parse_args(argv)
    folder = Path(mkdtemp(prefix="corpus-", dir=options.folder))
    os.environ["HF_HOME"] = str(folder / "home")
    try:
        for size in options.gigabytes:
            found = measured(size, folder / f"{size:g}", options)
            shutil.rmtree(folder / f"{size:g}")
            print(f"kept in {keep(found, options.results)}", file=sys.stderr, flush=True)
    finally:
        shutil.rmtree(folder)


def measured(gigabytes: float, folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Return the figures of one size, by name."""
    start = time.perf_counter()
    text = (options.text or folder.parent) / f"{gigabytes:g}/text"
    files, size = synthetic.corpus(text, int(gigabytes * 1e9), options.workers)
    say(f"{size / 1e9:.2f} GB in {len(files)} files: {time.perf_counter() - start:.0f} s")
    checkpoint = folder / "checkpoint"
    apart(tokenizer, options.tokenizer, checkpoint)
    overrides = [*recipe(text, folder, checkpoint), f"hydra.run.dir={folder / 'runs'}/${{now:%f}}"]

    prepared = folder / "shards"
    seen = watched(["prepare.py", *overrides, f"data.workers={options.workers}"], prepared)
    say(f"prepared in {seen.seconds:.0f} s, {seen.cpu:.0f} s of CPU time, {seen.memory:.0f} MB")
    found = {
        "text, GB": size / 1e9,
        "files": len(files),
        "tokenizer": options.tokenizer,
        **of_preparing(seen, size, prepared),
        **of_tokenizer(seen, size, files, checkpoint, options.workers),
        **of_starts(overrides, folder, options.rounds),
    }
    if options.copies > 1:
        shards = multiplied(prepared, options.copies)
        for name, value in of_starts(overrides, folder, options.rounds).items():
            found[f"with {shards:,} shards: {name}"] = value
    found["environment"] = hardware.described()
    found["command"] = (
        f"python -m benchmarks.corpus --gigabytes {gigabytes:g} --tokenizer {options.tokenizer}"
        f" --copies {options.copies} --rounds {options.rounds}"
    )
    found["load"] = max(os.getloadavg())
    return found


def recipe(text: Path, folder: Path, checkpoint: Path) -> list[str]:
    """Return the overrides of a small model of the corpus."""
    return [
        "experiment=gpt2_scratch",
        f"data.path={text}/*",
        "data.columns=null",
        f"data.prepared={folder}/shards",
        "data.validation_hash=0.001",
        f"data.block_size={BLOCK}",
        "data.batch_size=8",
        "data.num_workers=2",
        "tokenizer=pretrained",
        "~tokenizer.vocab_size",
        "~tokenizer.add_special_tokens",
        f"tokenizer.checkpoint={checkpoint}",
        f"model.config={MODEL}",
        "trainer.accelerator=cpu",
        "trainer.accumulate_grad_batches=1",
        "callbacks.samples=null",
    ]


def of_preparing(seen: Seen, size: int, prepared: Path) -> dict[str, float]:
    """Return what the preparing took."""
    index = json.loads((prepared / "index.json").read_text())
    return {
        "MB/s": size / 1e6 / seen.seconds,
        "MB/s of a core": size / 1e6 / seen.cpu,
        "most memory of all processes, GB": seen.memory / 1e3,
        "the same, shared pages for each, GB": seen.resident / 1e3,
        "most memory in the first half, GB": seen.most_between(0, 0.5) / 1e3,
        "most memory in the second half, GB": seen.most_between(0.5, 1) / 1e3,
        "processes": seen.processes,
        "on disk, bytes a byte of text": size_of(prepared) / size,
        "the most on the way": seen.disk / size,
        "shards": len(index["train"]),
        "tokens, billions": sum(shard["tokens"] for shard in index["train"]) / 1e9,
        "index, KB": (prepared / "index.json").stat().st_size / 1e3,
    }


def of_tokenizer(
    seen: Seen, size: int, files: Sequence[Path], checkpoint: Path, workers: int
) -> dict[str, float]:
    """Return how the preparing compares with `tokenizers` alone, by the time of its processes."""
    rates = apart(alone, files[0], checkpoint, workers)
    return {
        "tokenizers alone, MB/s of a core": median(rates) / 1e6,
        "share of its rate, %": 100 * (size / seen.cpu) / median(rates),
    }


def of_starts(overrides: Sequence[str], folder: Path, rounds: int) -> dict[str, float]:
    """Return the seconds to the first step: with shards there, and of a resume in the middle."""
    run = folder / "run"
    shutil.rmtree(run, ignore_errors=True)
    stopped = [*overrides, f"hydra.run.dir={run}", "trainer.max_steps=2"]
    command.run(["train.py", *stopped, "callbacks.best_model=null", "+trainer.limit_val_batches=0"])
    apart(go_to_the_middle, run)
    streaming = [o for o in overrides if not o.startswith("data.prepared=")]
    longer = [f"resume={run}", "trainer.max_steps=-1", "trainer.max_epochs=1"]
    starts: dict[str, Any] = {
        "imports": lambda: command.run_and_cpu(["-c", command.IMPORTS]),
        "first step": lambda: command.first_step_and_cpu(
            [*overrides, "trainer.max_steps=100"], folder
        ),
        "first step of a resume in the middle": lambda: command.first_step_and_cpu(longer, folder),
        "first step of a stream": lambda: command.first_step_and_cpu(
            [*streaming, "data.streaming=true", "trainer.max_steps=100"], folder
        ),
    }
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in starts}
    for number in range(rounds):
        for name, start in starts.items():
            forget(folder / "shards")  # the disk is read, as on a machine that has just begun
            times[name].append(start())
        say(f"round {number + 1}: { {name: one[-1] for name, one in times.items()} }")
    found: dict[str, float] = {}
    for name, pairs in times.items():
        found[f"{name}, s"] = median(seconds for seconds, _ in pairs)
        found[f"{name}, s of CPU time"] = median(cpu for _, cpu in pairs)
    return found


def multiplied(prepared: Path, copies: int) -> int:
    """Have each shard of a corpus several times, under other names; return how many there are."""
    content = unsealed_json((prepared / "index.json").read_text())
    for shard in list(content["train"]):
        for number in range(1, copies):
            name = shard["file"].replace("train/", f"train/{number:02}")
            shutil.copyfile(prepared / shard["file"], prepared / name)
            content["train"].append({**shard, "file": name})
    write_text(prepared / "index.json", sealed_json(content))
    return len(content["train"])


# ---------------------------------------------------------------- in processes of their own


def tokenizer(kind: str, folder: Path) -> None:
    """Write a tokenizer as a checkpoint: of the 50,000 most frequent words, or a BPE of 32,000."""
    from transformers import GPT2Config

    texts = [json.loads(line)["text"] for line in synthetic.lines(10**6, 30_000_000)]
    (of_words(texts) if kind == "words" else of_pairs(texts)).save_pretrained(folder)
    GPT2Config().save_pretrained(folder)


def of_pairs(texts: Sequence[str]) -> Any:
    """Return a byte-level BPE of 32,000 tokens."""
    from hydralight.tokenizers import Trained

    return Trained(vocab_size=32_000, add_special_tokens=False).train(texts)


def of_words(texts: Sequence[str]) -> Any:
    """Return a tokenizer of whole words."""
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    backend = Tokenizer(models.WordLevel(unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    special = ["<unk>", "<pad>", "</s>"]
    backend.train_from_iterator(
        texts, trainers.WordLevelTrainer(vocab_size=50_000, special_tokens=special)
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, unk_token="<unk>", pad_token="<pad>", eos_token="</s>"
    )


def alone(file: Path, checkpoint: Path, processes: int) -> list[float]:
    """Return bytes of JSON lines in a second of CPU time that `tokenizers` alone encodes.

    As many processes do so at once as prepare, as they share caches and memory.
    """
    from multiprocessing import get_context

    with get_context("spawn").Pool(processes) as pool:
        arguments = [(file, checkpoint, number * ALONE) for number in range(processes)]
        return [rate for _ in range(3) for rate in pool.starmap(rate_of, arguments)]


def rate_of(file: Path, checkpoint: Path, start: int) -> float:
    """Return the rate of one process on a part of a file."""
    from tokenizers import Tokenizer

    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    backend = Tokenizer.from_file(str(checkpoint / "tokenizer.json"))
    with file.open("rb") as opened:
        opened.seek(min(start, max(0, file.stat().st_size - ALONE)))
        opened.readline()
        lines = opened.readlines(ALONE)
    texts = [json.loads(line)["text"] for line in lines]
    begun = time.process_time()
    for first in range(0, len(texts), 1000):
        backend.encode_batch_fast(texts[first : first + 1000], add_special_tokens=False)
    return sum(map(len, lines)) / (time.process_time() - begun)


def go_to_the_middle(run: Path) -> None:
    """Have the last checkpoint of a run say that half of the epoch's batches have been taken."""
    from dataclasses import replace

    import torch

    from hydralight.runs.checkpoints import PARTIAL, intact_checkpoint, put_in_place
    from hydralight.runs.checksums import checksum

    folder = run / "checkpoints"
    path, record = intact_checkpoint(folder)
    content = torch.load(path, weights_only=True)
    half = record.batches_per_epoch // 2
    content["DataModule"]["consumed"] = half
    for name, progress in content["loops"]["fit_loop"]["epoch_loop.batch_progress"].items():
        if name in ("total", "current"):
            progress.update(dict.fromkeys(progress, half))
    torch.save(content, folder / PARTIAL)
    made = replace(record, consumed=half, checksum=checksum(folder / PARTIAL))
    put_in_place(folder, made, 1)


# ---------------------------------------------------------------- results


def forget(folder: Path) -> None:
    """Ask the system to keep nothing of files in memory."""
    for path in folder.rglob("*"):
        if path.is_file():
            with path.open("rb") as file:
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def keep(found: dict[str, Any], folder: Path) -> Path:
    """Put figures beside those of other sizes and tokenizers of this device."""
    device = hardware.device_name()
    path = folder / f"corpus-{hardware.slug(device)}.json"
    known = json.loads(path.read_text())["corpora"] if path.is_file() else {}
    known[f"{found['text, GB']:.1f} GB, {found['tokenizer']}"] = found
    write_text(path, json.dumps({"device": device, "corpora": known}, indent=2) + "\n")
    page = path.with_suffix(".md")
    write_text(page, f"# Corpora: {device}\n\n{table(known)}\n\n{commands(known)}\n")
    print(table(known))
    return page


def table(known: dict[str, dict[str, Any]]) -> str:
    """Return a column for each corpus."""
    names = dict.fromkeys(n for one in known.values() for n in one)
    left_out = ("environment", "command", "tokenizer", "text, GB")
    rows = [
        [name, *(shown(one.get(name)) for one in known.values())]
        for name in names
        if name not in left_out
    ]
    return tabulate(rows, ["", *known], tablefmt="github", disable_numparse=True)


def shown(value: float | None) -> str:
    """Return a figure as it stands in the table."""
    return (
        "—"
        if value is None
        else results.figure(value)
        if isinstance(value, float)
        else f"{value:,}"
    )


def commands(known: dict[str, dict[str, Any]]) -> str:
    """Return what made the figures."""
    return "\n".join(f"- {name}: `{one['command']}`" for name, one in known.items())


def say(what: str) -> None:
    """Tell how far it is."""
    print(what, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
