"""The same losses, gradients, weights and metrics however a batch of 8 is split."""

import os
import socket

import pytest
import torch

import hydralight
from hydralight.tasks.gradient import Gradient

OFF = "hidden_dropout_prob: 0, attention_probs_dropout_prob: 0"
MODELS = {
    "bart_cnn": "{dropout: 0}",
    "bert_mrpc": f"{{{OFF}}}",
    "bert_ner_conll2003": f"{{{OFF}}}",
    "distilgpt2_sonnets": "{resid_pdrop: 0, embd_pdrop: 0, attn_pdrop: 0}",
    "vit_cxr14": f"{{{OFF}}}",  # several labels
}
ALONE = {"1 x 8": (8, 1), "1 x 2 x 4": (2, 4)}
TOGETHER = {"2 x 4": (4, 1), "2 x 1 x 4": (1, 4)}


def overrides_of(recipe, experiment, folder, split):
    """12 rows: an epoch is a window of 8 and a short one of 4. 7 rows are evaluated."""
    batch_size, accumulate = split
    overrides = [
        *recipe(experiment),
        f"model.config={MODELS[experiment]}",
        f"data.batch_size={batch_size}",
        f"trainer.accumulate_grad_batches={accumulate}",
        "trainer.max_epochs=2",
        "trainer.gradient_clip_val=null",
        # Adam makes steps of the rounding of gradients that are truly 0 (a key's bias)
        "optimizer._target_=torch.optim.SGD",
        "optimizer.lr=0.1",
        "callbacks.samples=null",
    ]
    if experiment == "distilgpt2_sonnets":
        overrides.append("generation.do_sample=false")
    if experiment == "vit_cxr14":
        (folder / "data/train/12.png").unlink(missing_ok=True)
        metadata = folder / "data/train/metadata.jsonl"
        metadata.write_text("".join(metadata.read_text().splitlines(keepends=True)[:12]))
    else:
        overrides.append(f"data.path.train='{folder / 'data/train.jsonl'}[:12]'")
    if experiment == "distilgpt2_sonnets":
        overrides += ["trainer.val_check_interval=1.0"]
    return overrides


def outcome(run):
    state = torch.load(run.path / "checkpoints/last.ckpt", weights_only=True)["state_dict"]
    return {"history": run.history, "weights": state}


def difference(one, other):
    """The largest difference of losses, of gradient norms, of metrics and of weights.

    That of values above 1, such as perplexities, is relative.
    """
    a, b = one["history"], other["history"][one["history"].columns]
    columns = {
        "loss": ["train/loss", "val/loss"],
        "norm": ["train/grad_norm"],
        "metrics": [c for c in a if c.startswith("val/")],
    }
    apart = (a - b).abs() / a.abs().clip(lower=1)
    found = {kind: float(apart[names].max(axis=None)) for kind, names in columns.items()}
    pairs = zip(one["weights"].values(), other["weights"].values(), strict=True)
    return {**found, "weights": max(float((w - v).abs().max()) for w, v in pairs)}


def shown(found):
    return ", ".join(f"{kind} {value:.1e}" for kind, value in found.items())


def train_a_share(rank, port, jobs, folder):
    """One of two processes, as a launcher starts them; all runs in one process save imports."""
    environment = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": 2, "LOCAL_WORLD_SIZE": 2}
    environment |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "GROUP_RANK": 0}
    environment |= {"TORCHELASTIC_RUN_ID": "test"}
    os.environ.update({name: str(value) for name, value in environment.items()})
    for name, overrides in jobs.items():
        run_dir = f"hydra.run.dir='{folder / name}'"
        run = hydralight.train([*overrides, "trainer=ddp_cpu", run_dir])
        if rank == 0:
            torch.save(outcome(run), folder / f"{name}.pt")


@pytest.fixture
def single(recipe, tmp_path):
    def train(experiment, split):
        folder = tmp_path / "logs" / f"{split[0]}"
        overrides = overrides_of(recipe, experiment, tmp_path, split)
        return outcome(hydralight.train([*overrides, f"paths.log_dir={folder}"]))

    return train


def test_two_processes_and_one(recipe, single, checkpoints, tmp_path):
    jobs, alone = {}, {}
    for experiment in MODELS:
        for name, split in TOGETHER.items():
            overrides = overrides_of(recipe, experiment, tmp_path, split)
            files = tmp_path / experiment
            if not files.exists():
                (tmp_path / "data").rename(files)
            jobs[f"{experiment}, {name}"] = [
                o.replace(f"{tmp_path}/data/", f"{files}/") for o in overrides
            ]
        alone[experiment] = single(experiment, ALONE["1 x 8"])
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    torch.multiprocessing.spawn(train_a_share, (port, jobs, tmp_path), nprocs=2)
    for name in jobs:
        together = torch.load(tmp_path / f"{name}.pt", weights_only=False)
        found = difference(alone[name.split(",")[0]], together)
        print(f"{name}: {shown(found)}")
        assert max(found.values()) < 1e-5, (name, found)


@pytest.mark.parametrize("experiment", MODELS)
def test_micro_batches(experiment, single, monkeypatch):
    whole, parts = (single(experiment, split) for split in ALONE.values())
    assert len(whole["history"].dropna(subset=["train/loss"])) == 4
    found = difference(whole, parts)
    print(f"{experiment}, 1 x 2 x 4: {shown(found)}")
    assert max(found.values()) < 1e-5, found

    # the negative control: means of micro-batches, as they usually are
    original = Gradient.add

    def mean(gradient, loss_sum, weight, rows):
        original(gradient, loss_sum, weight, rows)
        return loss_sum / weight

    monkeypatch.setattr(Gradient, "add", mean)
    monkeypatch.setattr(Gradient, "factor", lambda *_: torch.ones(()))
    found = difference(*(single(experiment, split) for split in ALONE.values()))
    print(f"{experiment}, negative control: {shown(found)}")
    assert found["norm"] > 0.05, found
