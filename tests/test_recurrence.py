"""Segments of a document, and the memory of those before."""

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from hydralight.tasks.recurrent_lm import RecurrentLMTask


@pytest.fixture
def reader():
    """A function that gives a recurrent task on a random model, of the same weights each time."""

    def task(segment_length, memory_length, layers=2):
        torch.manual_seed(0)
        sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": layers}
        sizes |= {"num_attention_heads": 2, "num_key_value_heads": 2, "vocab_size": 20}
        lengths = {"segment_length": segment_length, "memory_length": memory_length}
        task = RecurrentLMTask(**lengths, model=None, optimizer=None)
        task.model = LlamaForCausalLM(LlamaConfig(**sizes, initializer_range=0.15))
        return task

    return task


IDS = torch.arange(24).reshape(2, 12) % 20


@pytest.mark.parametrize("memory_length", [0, 2, 4])
def test_no_gradient_flows_into_the_memory(reader, memory_length):
    task, seen = reader(4, memory_length), []
    task.model.get_input_embeddings().register_forward_hook(lambda *args: seen.append(args[-1]))
    logits = task({"input_ids": IDS}).logits
    for segment in range(3):
        loss = logits[:, 4 * segment : 4 * segment + 4].logsumexp(-1).sum()
        found = torch.autograd.grad(loss, seen, retain_graph=True, allow_unused=True)
        reached = [grad is not None and bool(grad.any()) for grad in found]
        assert reached == [number == segment for number in range(3)]

    changed = IDS.clone()
    changed[:, 3] += 1  # the first segment's last token
    other = task({"input_ids": changed}).logits
    assert torch.equal(logits[:, :3], other[:, :3])
    assert torch.equal(logits[:, 4:8], other[:, 4:8]) == (memory_length == 0)


def test_memory_is_of_limited_length(reader):
    """With one layer nothing further back than the memory counts; at its edge it does."""
    task = reader(4, 2, layers=1)
    before = task({"input_ids": IDS}).logits
    for place, counts in ((1, False), (2, True)):
        changed = IDS.clone()
        changed[:, place] += 1
        after = task({"input_ids": changed}).logits
        assert torch.equal(before[:, 4:8], after[:, 4:8]) != counts
        assert torch.equal(before[:, 8:], after[:, 8:])


@pytest.mark.parametrize(
    ("segment_length", "memory_length"), [(12, 0), (20, 4), (4, 12), (5, 12), (2, 10)]
)
def test_enough_memory_reads_the_whole_document(reader, segment_length, memory_length):
    task = reader(segment_length, memory_length)
    whole = task.model(input_ids=IDS).logits
    read = task({"input_ids": IDS}).logits
    torch.testing.assert_close(read, whole, atol=1e-5, rtol=0)
