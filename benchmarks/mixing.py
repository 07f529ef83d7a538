"""How much it costs that the rows of a prepared corpus are shuffled within windows alone.

python -m benchmarks.mixing [seeds]: a small GPT-2 reads files of four kinds, a kind a shard, in
windows of 1, 8 and all shards, and shuffled in full: the same rows, steps and first weights. The
texts are those of this Python and its packages: sources, descriptions, C++ headers, JavaScript.
"""

import math
import random
import statistics
import sys
import sysconfig
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch.optim.lr_scheduler import LambdaLR
from transformers import GPT2Config, GPT2LMHeadModel

from benchmarks.hardware import device_name
from hydralight.data.corpus.windows import Windows
from hydralight.data.order import Order

KINDS = {
    "Python": ("stdlib", "*.py"),
    "descriptions": ("purelib", "*.dist-info/METADATA"),
    "C++": ("purelib", "torch/include/**/*.h"),
    "JavaScript": ("purelib", "**/*.js"),
}
SHARDS, BLOCKS, BLOCK = 8, 256, 64  # of a kind, of a shard, tokens of a block
HELD_OUT = 128  # blocks of a kind
VOCABULARY, BATCH = 1024, 16
ARMS = {"1": 1, "8": 8, "32 (all)": 4 * SHARDS, "*a full shuffle*": None}


def texts(folder: Path, pattern: str) -> Iterator[str]:
    """Yield the texts of a kind, file by file, in an order that is the same each time."""
    files = sorted(path for path in folder.glob(pattern) if path.is_file())
    random.Random(0).shuffle(files)
    for path in files:
        yield path.read_text(encoding="utf-8", errors="replace")[:20_000]


def tokenized() -> dict[str, np.ndarray]:
    """Return blocks of each kind (blocks, tokens), by a tokenizer that has seen all of them."""
    wanted = (SHARDS * BLOCKS + HELD_OUT) * BLOCK
    found = {}
    for kind, (place, pattern) in KINDS.items():
        characters, taken = 0, []
        for text in texts(Path(sysconfig.get_path(place)), pattern):
            taken.append(text)
            characters += len(text)
            if characters > 5 * wanted:
                break
        found[kind] = taken
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY, initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator((t[:2000] for many in found.values() for t in many), trainer)
    blocks = {}
    for kind, many in found.items():
        ids = [i for one in tokenizer.encode_batch(many) for i in one.ids][:wanted]
        if len(ids) < wanted:
            raise SystemExit(f"there are {len(ids)} tokens of {kind} here, and not {wanted}")
        blocks[kind] = np.array(ids).reshape(-1, BLOCK)
    return blocks


def order_of(window: int | None, seed: int) -> Iterator[np.ndarray]:
    """Return the rows of each step of one pass; None shuffles all of them in full."""
    if window is None:
        rows = len(KINDS) * SHARDS * BLOCKS
        return iter(Order(num_rows=rows, batch_size=BATCH, seed=seed).batches(0))
    sizes = (BLOCKS,) * (len(KINDS) * SHARDS)
    plan = Windows(sizes=sizes, batch_size=BATCH, seed=seed, window_shards=window)
    return iter(plan.batches(0))


def trained(
    rows: torch.Tensor, held_out: Sequence[torch.Tensor], window: int | None, seed: int
) -> list[float]:
    """Train, and return the loss on what is held out of each kind, in nats a token."""
    torch.manual_seed(seed)
    sizes: dict[str, Any] = {"n_layer": 2, "n_embd": 64, "n_head": 2, "n_positions": BLOCK}
    sizes |= {"vocab_size": VOCABULARY, "bos_token_id": None, "eos_token_id": None}
    off: dict[str, Any] = {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0}
    model = GPT2LMHeadModel(GPT2Config(**sizes, **off))
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3, weight_decay=0.1)
    steps = len(rows) // BATCH

    def rate(step: int) -> float:
        return min(1.0, (step + 1) / 25) * 0.5 * (1 + math.cos(math.pi * step / steps))

    schedule = LambdaLR(optimizer, rate)
    for batch in order_of(window, seed):
        ids = rows[batch]
        model(input_ids=ids, labels=ids).loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        schedule.step()
    with torch.no_grad():
        return [float(model(input_ids=ids, labels=ids).loss) for ids in held_out]


def shown(values: Sequence[float], sign: str = "") -> str:
    """Return a mean, and the standard deviation from seed to seed."""
    return f"{statistics.mean(values):{sign}.3f} ± {statistics.stdev(values):.3f}"


def main(seeds: int) -> None:
    """Print a table."""
    torch.set_num_threads(1)
    blocks = tokenized()
    rows = torch.from_numpy(np.concatenate([b[:-HELD_OUT] for b in blocks.values()]))
    held_out = [torch.from_numpy(b[-HELD_OUT:]) for b in blocks.values()]
    losses: dict[str, list[list[float]]] = {}
    for arm, window in reversed(ARMS.items()):
        losses[arm] = [trained(rows, held_out, window, seed) for seed in range(seeds)]
        print(arm, losses[arm], file=sys.stderr, flush=True)
    print(f"{device_name()}; {len(rows) // BATCH} steps, {seeds} seeds\n")
    print("| `data.window_shards` | loss | more than a full shuffle | of the worst kind |")
    print("|---|---|---|---|")
    *_, full = ARMS
    for arm in ARMS:
        found = losses[arm]
        apart = np.array(found) - np.array(losses[full])  # (seeds, kinds), from the same weights
        worst = int(apart.mean(axis=0).argmax())
        mean = shown([statistics.mean(one) for one in found])
        more = shown(apart.mean(axis=1).tolist(), "+") if arm != full else ""
        most = f"{shown(apart[:, worst].tolist(), '+')}, {[*blocks][worst]}" if more else ""
        print(f"| {arm} | {mean} | {more} | {most} |")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 5)
