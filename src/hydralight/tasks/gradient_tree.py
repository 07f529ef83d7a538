"""One order in which the gradients of a step are added up, on any number of devices.

Sums of floating-point numbers depend on their order, and a data parallel trainer adds what each
device has accumulated. Here the micro-batches of a step are the leaves of one binary tree, halves
of halves as long as their number is even, whoever computes them; devices hold subtrees of one size.
"""

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, distributed, nn
from torch.futures import Future

# which is its name since torch 2.13
all_gather = getattr(distributed, "all_gather_single", distributed.all_gather_into_tensor)


class GradientTree:
    """Adds up gradients in pairs, and pairs of pairs, in one process or in several.

    A step of `2^k * odd` micro-batches has `2^k` leaves, which are sums of `odd` of them, one by
    one. Backward adds to a parameter's gradient; where a leaf is whole, it is put away, and two
    sums of as many leaves become one. So up to k - 1 copies of the gradients are held.

    Between processes the tree goes on in the place of DDP's all-reduce, bucket by bucket, while
    backward still runs (`hook`). As in a ring all-reduce, each process sends and receives twice
    (W - 1) / W of a bucket's bytes: each adds up a W-th of it for all of them. Of two buckets, two
    further copies are held meanwhile.

    Args:
        parameters: What the optimizer trains.
        world_size: Processes, a power of two that divides the micro-batches of a step.
    """

    def __init__(self, parameters: Iterable[nn.Parameter], world_size: int = 1) -> None:
        self.parameters = list(parameters)
        self.world_size = world_size
        self._leaf = 1
        self._sums: list[dict[nn.Parameter, Tensor]] = []  # of ever fewer micro-batches
        self._sent: deque[Sent] = deque()
        self._reduced: deque[Sent] = deque()

    def begin(self, index: int, number: int) -> None:
        """Begin a micro-batch: put away what has been added up, where that is a leaf.

        Args:
            index: Of this micro-batch among those of this process in the step.
            number: How many these are.
        """
        if index == 0:
            self._sums.clear()
            step = number * self.world_size
            odd = step // (step & -step)
            self._leaf = odd if odd > 1 else min(2, number)  # a pair needs no second copy
        elif index % self._leaf == 0:
            self._sums.append({p: p.grad for p in self.parameters if p.grad is not None})
            for parameter in self.parameters:
                parameter.grad = None
            leaves = index // self._leaf
            while leaves % 2 == 0:
                later = self._sums.pop()
                add_to(self._sums[-1], later)
                leaves //= 2

    def finish(self) -> None:
        """Add what has been put away to the gradients; DDP's have it by now (`hook`)."""
        if self.world_size == 1 and self._sums:
            gradients = {p: p.grad for p in self.parameters if p.grad is not None}
            for earlier in reversed(self._sums):
                add_to(gradients, earlier)
            for parameter, gradient in gradients.items():
                parameter.grad = gradient
        self._sums.clear()

    def hook(self, _: Any, bucket: distributed.GradBucket) -> Future[Tensor]:
        """Add up a bucket of gradients over all processes: a communication hook of DDP.

        All processes begin the same operations in the same order. A bucket is added up when the
        next one is sent, and is there when the one after that is.
        """
        parameters: Any = bucket.parameters()
        gradients = dict(zip(parameters, bucket.gradients(), strict=True))
        for earlier in reversed(self._sums):
            add_to(gradients, {p: earlier[p] for p in parameters if p in earlier})
        future: Future[Tensor] = Future(devices=cuda_of(bucket.buffer()))
        self._sent.append(Sent.of(bucket.buffer(), self.world_size, future))
        behind = 0 if bucket.is_last() else 1
        while len(self._sent) > behind:
            self._reduced.append(self._sent.popleft().add_up())
            while len(self._reduced) > behind:
                self._reduced.popleft().arrive()
        return future


def add_to(sums: dict[nn.Parameter, Tensor], others: dict[nn.Parameter, Tensor]) -> None:
    """Add gradients to others in place; a parameter may have one in some micro-batches only."""
    both = [parameter for parameter in others if parameter in sums]
    if both:
        torch._foreach_add_([sums[p] for p in both], [others[p] for p in both])
    for parameter, gradient in others.items():
        sums.setdefault(parameter, gradient)


def cuda_of(tensor: Tensor) -> list[int | str | torch.device]:
    """Return the devices whose work a future waits for."""
    return [tensor.device] if tensor.device.type == "cuda" else []


@dataclass
class Sent:
    """A bucket on its way: each process gets a part of it from all, adds it up, and sends the sum.

    Args:
        buffer: The gradients (n,), which become their sums.
        parts: What is sent, and what arrives in the end (processes, n / processes), with padding.
        received: This process's part from each process, of the same shape.
        work: What is under way.
        future: Told when the sums are there.
    """

    buffer: Tensor
    parts: Tensor
    received: Tensor
    work: distributed.Work
    future: Future[Tensor]

    @classmethod
    def of(cls, buffer: Tensor, world_size: int, future: Future[Tensor]) -> "Sent":
        """Send each process its part of a bucket."""
        size = -(-buffer.numel() // world_size)
        parts = buffer.new_zeros(world_size, size)
        parts.view(-1)[: buffer.numel()] = buffer
        received = torch.empty_like(parts)
        work = distributed.all_to_all_single(received, parts, async_op=True)
        return cls(buffer, parts, received, work, future)

    def add_up(self) -> "Sent":
        """Add the parts of neighbours, then of pairs of them, and send the sum to all."""
        self.work.wait()
        sums = self.received
        while len(sums) > 1:
            sums = sums[0::2] + sums[1::2]
        self.received = sums
        self.work = all_gather(self.parts, sums, async_op=True)
        return self

    def arrive(self) -> None:
        """Put the sums into the bucket."""
        self.work.wait()
        self.buffer.copy_(self.parts.view(-1)[: self.buffer.numel()])
        self.future.set_result(self.buffer)
