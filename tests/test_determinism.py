"""The same command gives the same bits, in one process and in another; another seed does not."""

import torch
from safetensors.torch import load_file

import hydralight
from hydralight.runs.run import Run
from hydralight.tasks.task import Task


def test_same_seed_same_bits(recipe, tmp_path, monkeypatch, commands):
    rows, heads = [], []

    def record(task, batch, batch_idx):
        if task.global_step == 0:
            heads.append(task.model.classifier.weight.detach().clone())
        rows.append(batch["row"].tolist())

    overrides = [*recipe("bert_mrpc"), "trainer.max_epochs=2"]  # with dropout
    seeded, orders = {}, {}
    with monkeypatch.context() as patch:
        patch.setattr(Task, "on_train_batch_start", record, raising=False)
        for name, seed in (("first", 0), ("second", 0), ("other", 1)):
            rows.clear()
            folder = f"paths.log_dir={tmp_path / name}"
            seeded[name] = hydralight.train([*overrides, f"seed={seed}", folder])
            orders[name] = [*rows]
    folder = f"paths.log_dir={tmp_path / 'process'}"
    outcome = commands.run(["train", *overrides, "seed=0", folder], tmp_path)
    assert outcome.code == 0, outcome.err
    (path,) = (tmp_path / "process/train/runs").iterdir()
    seeded["process"] = Run(path)

    weights = {n: load_file(run.path / "model/model.safetensors") for n, run in seeded.items()}
    for name in ("second", "process"):
        assert seeded[name].history.equals(seeded["first"].history)
        assert all(torch.equal(w, weights[name][key]) for key, w in weights["first"].items())
    assert orders["first"] == orders["second"] != orders["other"]
    assert torch.equal(heads[0], heads[1])
    assert not torch.equal(heads[0], heads[2])
