"""The clock and the counters of a training, the same for both sides."""

import time
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.hardware import on_gpu, peak_flops
from benchmarks.measure import PassOn


class Recorder:
    """Times the optimizer steps behind the warm-up, and counts what is in their batches.

    Time is taken from the end of the last step of warm-up to the end of the last step, so that
    whatever comes between steps is in it, and what comes before and after is not. The tokens of a
    seq2seq model are those of its sources and of its targets.

    Args:
        warmup: Steps that are neither timed nor counted.
        pad_token_id: What is no token, in `input_ids`.
        seq2seq: Whether labels are tokens of their own.
        turn: Where sides take turns: passes on to the others, after the warm-up and then after
            each block of steps. Only its own time is counted.
        block: Steps of a turn.
    """

    def __init__(
        self,
        warmup: int,
        pad_token_id: int,
        seq2seq: bool = False,
        turn: PassOn | None = None,
        block: int = 1,
    ) -> None:
        self.turn = turn
        self.block = block
        self.warmup = warmup
        self.pad_token_id = pad_token_id
        self.seq2seq = seq2seq
        self.last = -1  # optimizer steps in all
        self.steps = 0
        self.seconds = 0.0
        self.peak_gpu_memory = 0.0  # MiB
        self._sizes = (0, 0)
        self._start = 0.0
        self._examples = 0
        self._padded = 0
        self._sources: list[Tensor] = []
        self._targets: list[Tensor] = []

    def begin(self, model: nn.Module, steps: int) -> None:
        """Take the model, and how many optimizer steps there will be."""
        assert steps > self.warmup, f"{steps} steps, and {self.warmup} of them warm-up"
        self._sizes, self.last = sizes(model), steps  # not the model, which would stay in memory
        if self.warmup == 0:
            self._go()

    def step(self, batch: Mapping[str, Any]) -> None:
        """Note the end of a step (one batch a step)."""
        self.steps += 1
        if self.steps > self.warmup:
            ids = batch["input_ids"]
            self._examples += len(batch.get("row", ids))
            self._padded += ids.numel()
            self._sources.append((ids != self.pad_token_id).sum())
            if self.seq2seq:
                self._padded += batch["labels"].numel()
                self._targets.append((batch["labels"] != -100).sum())
        if self.steps == self.warmup:
            self._go()
        elif self.steps == self.last:
            self._stop()
        elif self.turn and self.steps > self.warmup and not self._behind() % self.block:
            self._stop()
            self._go()

    def _behind(self) -> int:
        return self.steps - self.warmup

    def _go(self) -> None:
        if self.turn:
            self.turn()
        if on_gpu():
            torch.cuda.synchronize()
            if self._behind() == 0:
                torch.cuda.reset_peak_memory_stats()
        self._start = time.perf_counter()

    def _stop(self) -> None:
        if on_gpu():
            torch.cuda.synchronize()
            self.peak_gpu_memory = torch.cuda.max_memory_allocated() / 2**20
        self.seconds += time.perf_counter() - self._start

    @property
    def counts(self) -> dict[str, int]:
        """Steps, examples, tokens, and tokens with padding, behind the warm-up."""
        tokens = sum(int(n) for n in [*self._sources, *self._targets])
        return {
            "steps": self.steps - self.warmup,
            "examples": self._examples,
            "tokens": tokens,
            "padded": self._padded,
        }

    def per_second(self, what: str) -> float:
        """Return steps, examples, tokens or padded tokens a second."""
        return self.counts[what] / self.seconds

    def utilisation(self) -> float | None:
        """Return the part of the GPU's FLOP/s that the model's own arithmetic on real tokens makes.

        Forward and backward take 6 operations a token and parameter; attention scores and padding
        are not counted. None where the GPU's FLOP/s are not known.
        """
        peak = peak_flops(torch.cuda.get_device_name()) if on_gpu() else None
        if peak is None:
            return None
        sources, targets = (sum(int(n) for n in part) for part in (self._sources, self._targets))
        encoder, rest = self._sizes
        flops = 6 * (encoder * sources + rest * (targets if self.seq2seq else sources))
        return flops / self.seconds / peak


def sizes(model: Any) -> tuple[int, int]:
    """Return how many weights of a model each source token meets, and how many each other one.

    Those of a model without an encoder are all of the second kind. An embedding is a look-up,
    unless it is the output's too.
    """
    embedded = {id(m.weight) for m in model.modules() if isinstance(m, nn.Embedding)}
    layers = {n: p.numel() for n, p in model.named_parameters() if id(p) not in embedded}
    head = model.get_output_embeddings()
    tied = head is not None and id(head.weight) in embedded
    seq2seq = model.config.is_encoder_decoder
    encoder = sum(size for name, size in layers.items() if seq2seq and ".encoder." in name)
    return encoder, sum(layers.values()) - encoder + (head.weight.numel() if tied else 0)
