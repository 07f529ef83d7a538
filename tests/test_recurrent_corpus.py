"""Documents of a corpus, read segment by segment: each from its beginning, with its memory."""

import pytest
import torch
from standins import article, write_jsonl
from test_corpus_training import Crash

import hydralight
from hydralight.data.corpus import inputs
from hydralight.tasks.recurrent_lm import RecurrentLMTask


def document(index):
    """A text of some articles, longer than two segments."""
    return " ".join(article(index + k)["article"] for k in range(1 + index % 3)) + f" {index}."


TEXTS = [document(index) for index in range(24)]


@pytest.fixture(params=["prepared", "streamed"])
def overrides(recipe, tmp_path, monkeypatch, request):
    """Six steps, two passes, of documents in shards, or as they are read."""
    monkeypatch.setattr(inputs, "UNIT_BYTES", 1000)
    monkeypatch.setattr(inputs, "PART_BYTES", 1000)
    for number in range(2):
        rows = [{"text": text} for text in TEXTS[12 * number : 12 * number + 12]]
        write_jsonl(tmp_path / f"corpus/{number}.jsonl", rows)
    evaluated = write_jsonl(tmp_path / "validation.jsonl", [{"text": TEXTS[0]}])
    return [
        *recipe("transformer_xl_reviews"),
        f"data.path={{train: '{tmp_path}/corpus/*.jsonl', validation: {evaluated}}}",
        f"data.prepared={tmp_path}/shards"
        if request.param == "prepared"
        else "data.streaming=true",
        "data.window_shards=2",
        "data.batch_size=4",
        "data.batches_per_step=2",
        "trainer.max_epochs=-1",
        "trainer.max_steps=6",
        "trainer.val_check_interval=6",
        "callbacks.last_checkpoint.every_n_train_steps=1",
        "callbacks.samples=null",
        "optimizer.lr=1e-2",
        "scheduler.warmup_steps=0",
    ]


@pytest.mark.thorough
def test_documents_are_read_whole_with_their_memory_and_resumed(overrides, tmp_path, monkeypatch):
    """Killed within a step, and resumed with loader workers: the same documents and weights."""
    seen, crashing = [], []
    training_step = RecurrentLMTask.training_step

    def noted(task, batch, *args):
        if crashing == [1] and task.global_step == 4:
            raise Crash
        rows = [ids[mask.bool()].tolist() for ids, mask in zip(*pair_of(batch), strict=True)]
        seen.append((batch["row"].tolist(), rows, apart(task, batch)))
        return training_step(task, batch, *args)

    def pair_of(batch):
        return batch["input_ids"], batch["attention_mask"]

    @torch.no_grad()
    def apart(task, batch):
        """How far what is read without memory is from what is read with it."""
        task.model.eval()  # dropout off
        own, task.memory_length = task.read(batch).logits, 0
        without = task.read(batch).logits
        task.memory_length = 8
        task.model.train()
        far = (own - without).abs().amax(dim=(0, 2))
        return float(far[:8].max()), float(far[8:].max())

    monkeypatch.setattr(RecurrentLMTask, "training_step", noted)
    whole = hydralight.train(overrides)
    first = [*seen]
    tokenizer = whole.tokenizer
    texts = [
        tokenizer.decode(ids, skip_special_tokens=True).strip()
        for _, rows, _ in first
        for ids in rows
    ]
    for number in range(2):
        assert sorted(texts[24 * number : 24 * number + 24]) == sorted(TEXTS)
    assert texts[:24] != texts[24:]
    assert all(begin == 0 and later > 1e-4 for _, _, (begin, later) in first)
    crashing.append(1)
    with pytest.raises(Crash):
        hydralight.train([*overrides, f"paths.log_dir={tmp_path / 'crashed'}"])
    crashing.append(2)
    seen.clear()
    (crashed,) = (tmp_path / "crashed/train/runs").iterdir()
    resumed = hydralight.train([f"resume={crashed}", "data.num_workers=2"])
    assert [rows for rows, *_ in seen] == [rows for rows, *_ in first][8:]
    states = [
        torch.load(run.path / "checkpoints/last.ckpt", weights_only=True)["state_dict"]
        for run in (whole, resumed)
    ]
    for name, value in states[0].items():
        assert torch.equal(value, states[1][name]), name
