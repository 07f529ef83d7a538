"""Memory and time of a loss over a vocabulary of 150,000: without all logits, and with them.

A GPT-2 of 2 layers and 256 hidden units on rows of tokens, every one a target, as in pretraining:
the peak of resident memory over that before the first step, and the seconds of a step (forward,
loss, backward; the least of several), each in a fresh process, in float32. Target: less than half
the memory, in at most 1.3 times the time. `trainer` is Trainer's own loss of the same model.
"""

import time
from typing import Any

import torch
from transformers import GPT2Config, GPT2LMHeadModel

from benchmarks.measure import Line, alternate, apart, line, peak_memory
from hydralight.tasks.head import Head, head_of
from hydralight.tasks.losses import token_cross_entropy

TINY: dict[str, Any] = {"tokens": 64, "vocabulary": 2_000, "steps": 1}


def run(
    rounds: int = 3, tokens: int = 2_048, vocabulary: int = 150_000, steps: int = 2
) -> list[Line]:
    """Return a line of memory and one of time.

    Args:
        rounds: How many.
        tokens: Of a batch.
        vocabulary: Of the model.
        steps: That are timed; the fastest counts.
    """
    arguments = (tokens, vocabulary, steps)
    sides = {
        "ours": lambda: apart(measured, True, *arguments),
        "trainer": lambda: apart(measured, False, *arguments),
    }
    found = alternate(sides, rounds)
    memory, times, losses = (
        {side: [one[place] for one in values] for side, values in found.items()}
        for place in range(3)
    )
    off = max(abs(a - b) / b for a, b in zip(losses["ours"], losses["trainer"], strict=True))
    what = f"loss of {tokens:,} tokens over a vocabulary of {vocabulary:,}"
    return [
        line(f"{what}: memory", "MiB", memory, ratio_at_most=0.5, note=f"losses part by {off:.0e}"),
        line(f"{what}: a step", "s", times, ratio_at_most=1.3),
    ]


def measured(chunked: bool, tokens: int, vocabulary: int, steps: int) -> tuple[float, float, float]:
    """Return the memory that steps take (MiB), the seconds of the fastest, and the loss."""
    torch.manual_seed(0)
    config = GPT2Config(vocab_size=vocabulary, n_embd=256, n_layer=2, n_head=4, n_positions=512)
    model = GPT2LMHeadModel(config)
    ids = torch.randint(0, vocabulary, (tokens // 64, 64))
    before, fastest, loss = peak_memory(), float("inf"), 0.0
    head = head_of(model)
    assert isinstance(head, Head)
    torch.manual_seed(0)
    for _ in range(steps):
        model.zero_grad()
        start = time.perf_counter()
        if chunked:
            with head.left_out():
                hidden = model(input_ids=ids, use_cache=False).logits
            logits = head.before(hidden)[:, :-1]
            total, number = token_cross_entropy(logits, ids[:, 1:])
            mean = total / number
        else:
            mean = model(input_ids=ids, labels=ids, use_cache=False).loss
        mean.backward()
        fastest = min(fastest, time.perf_counter() - start)
        loss = float(mean.detach())
    return peak_memory() - before, fastest, loss
