"""The same losses, gradients, weights and metrics however a step of 8 rows is shared out."""

import os
import socket
from functools import partial

import pytest
import torch
from forked import served

import hydralight
from hydralight.runs.sharded import assembled
from hydralight.tasks.gradient import Gradient

OFF = "hidden_dropout_prob: 0, attention_probs_dropout_prob: 0"
MODELS = {
    "bart_cnn": "{dropout: 0}",
    "bert_mrpc": f"{{{OFF}}}",
    "bert_mrpc_lora": f"{{{OFF}}}",
    "bert_ner_conll2003": f"{{{OFF}}}",
    "distilgpt2_sonnets": "{resid_pdrop: 0, embd_pdrop: 0, attn_pdrop: 0}",
    "llama_lora_alpaca": "{attention_dropout: 0}",
    "qwen_sft_chat": "{attention_dropout: 0}",
    "vit_cxr14": f"{{{OFF}}}",  # several labels
    "qwen_dpo": "{attention_dropout: 0}",
    "reward_model": "{attention_dropout: 0}",
}
ALONE = {"1 x 8": (8, 1), "1 x 2 x 4": (2, 4)}
SPLIT = ["trainer=fsdp_cpu", "trainer.strategy.tensor_parallel_size=2"]
SHARED = 2, 4  # with dropout: two of the four micro-batches on each of two processes


def overrides_of(recipe, experiment, folder, split, dropout=False):
    """13 rows: an epoch is a step of 8 and a short one of 5. 7 rows are evaluated."""
    batch_size, batches_per_step = split
    overrides = [
        *recipe(experiment),
        *([] if dropout else [f"model.config={MODELS[experiment]}"]),
        f"data.batch_size={batch_size}",
        f"data.batches_per_step={batches_per_step}",
        "trainer.max_epochs=2",
        "trainer.gradient_clip_val=null",
        # Adam makes steps of the rounding of gradients that are truly 0 (a key's bias)
        "optimizer._target_=torch.optim.SGD",
        "optimizer.lr=0.1",
        "callbacks.samples=null",
    ]
    if experiment == "bert_mrpc_lora" and not dropout:
        overrides += ["model.adapter.lora_dropout=0"]
    if experiment in ("qwen_dpo", "reward_model", "qwen_sft_chat", "llama_lora_alpaca"):
        # without new tokens, for which shards have no room
        overrides += ["trainer.accumulate_grad_batches=1", "data.chat_template=zephyr"]
    if experiment == "distilgpt2_sonnets":
        overrides += ["generation.do_sample=false", "trainer.val_check_interval=1.0"]
    return overrides


def outcome(run):
    path = run.path / "checkpoints/last.ckpt"
    whole = assembled(path) if path.is_dir() else torch.load(path, weights_only=True)
    return {"history": run.history, "weights": whole["state_dict"]}


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
    names, weights = one["weights"].keys(), other["weights"]
    assert names == weights.keys()
    pairs = [(one["weights"][name], weights[name]) for name in names]
    return {**found, "weights": max(float((w - v).abs().max()) for w, v in pairs)}


def shown(found):
    return ", ".join(f"{kind} {value:.1e}" for kind, value in found.items())


class Stopped(Exception):
    """What a test ends a run with."""


def join(rank, world, port):
    """Let this process be one of several, before Lightning is imported, which reads the rank."""
    environment = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": world, "LOCAL_WORLD_SIZE": world}
    environment |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "GROUP_RANK": 0}
    environment |= {"TORCHELASTIC_RUN_ID": "test"}
    os.environ.update({name: str(value) for name, value in environment.items()})


def train_a_share(rank, world, port, jobs, folder, outcome=outcome, before=None):
    """One of several processes, as a launcher starts them; all runs in one process save imports."""
    join(rank, world, port)
    if before is not None:
        before()
    for name, overrides in jobs.items():
        devices = [f"trainer.devices={world}"]
        if not any(override.startswith("resume=") for override in overrides):
            trainer = (
                [] if any(o.startswith("trainer=") for o in overrides) else ["trainer=ddp_cpu"]
            )
            devices += [*trainer, f"hydra.run.dir='{folder / name}'"]
        try:
            run = hydralight.train([*overrides, *devices])
        except Stopped:
            continue
        if rank == 0:
            torch.save(outcome(run), folder / f"{name}.pt")


@pytest.fixture
def single(recipe, tmp_path):
    def train(experiment, split, dropout=False):
        folder = tmp_path / "logs" / f"{split[0]}"
        overrides = overrides_of(recipe, experiment, tmp_path, split, dropout)
        return outcome(hydralight.train([*overrides, f"paths.log_dir={folder}"]))

    return train


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def together(jobs, folder, world=2, **arguments):
    """Train in several processes, each of which may do something `before` that."""
    started = partial(train_a_share, **arguments)
    served().call(started, (world, free_port(), jobs, folder), world)
    written = {name: folder / f"{name}.pt" for name in jobs}
    return {n: torch.load(path, weights_only=False) for n, path in written.items() if path.exists()}


def jobs_of(experiments, recipe, single, folder):
    """The overrides of each recipe for several processes, and what one process comes to."""
    jobs, alone = {}, {}
    for experiment in experiments:
        overrides = overrides_of(recipe, experiment, folder, SHARED, dropout=True)
        alone[experiment] = single(experiment, SHARED, dropout=True)
        files = (folder / "data").rename(folder / f"{experiment}_data")
        jobs[experiment] = [o.replace(f"{folder}/data/", f"{files}/") for o in overrides]
    return jobs, alone


def check(jobs, alone, folder):
    """Whether two processes do what one does, by DDP and in shards."""
    sharded = {f"{name}, sharded": [*typed, "trainer=fsdp_cpu"] for name, typed in jobs.items()}
    for name, shared in together({**jobs, **sharded}, folder).items():
        found = difference(alone[name.split(",")[0]], shared)
        print(f"{name}: {shown(found)}")
        assert max(found.values()) < 1e-5, (name, found)


def test_two_processes_and_one(recipe, single, checkpoints, tmp_path):
    """With dropout: a micro-batch is the same one, whoever computes it."""
    some = ("bert_mrpc", "bert_mrpc_lora", "distilgpt2_sonnets", "qwen_sft_chat")
    jobs, alone = jobs_of(some, recipe, single, tmp_path)
    # each matrix shared by both, by the plan that Llama brings
    llama = [*jobs["distilgpt2_sonnets"], f"checkpoint={checkpoints('llama')}"]
    alone["llama"] = outcome(hydralight.train([*llama, f"paths.log_dir={tmp_path / 'llama'}"]))
    check({**jobs, "llama, split": [*llama, *SPLIT]}, alone, tmp_path)


@pytest.mark.thorough
def test_two_processes_and_one_of_further_tasks(recipe, single, checkpoints, tmp_path):
    jobs, alone = jobs_of(MODELS, recipe, single, tmp_path)
    check(jobs, alone, tmp_path)

    # the negative control: each process seeds by its rank alone, as it usually is
    (shared,) = together({"by rank": jobs["bert_mrpc"]}, tmp_path, before=seed_by_rank).values()
    found = difference(alone["bert_mrpc"], shared)
    print(f"by rank: {shown(found)}")
    assert found["weights"] > 1e-3, found


def seed_by_rank():
    """Let dropout come from one stream a process."""
    from hydralight.tasks import task  # imports Lightning, which reads the rank

    task.seed_training = lambda *_: None


@pytest.mark.parametrize("experiment", MODELS)
def test_micro_batches(experiment, single, monkeypatch):
    whole, parts = (single(experiment, split) for split in ALONE.values())
    assert len(whole["history"].dropna(subset=["train/loss"])) == 4
    found = difference(whole, parts)
    print(f"{experiment}, 1 x 2 x 4: {shown(found)}")
    assert max(found.values()) < 1e-5, found

    # the negative control: means of micro-batches, as they usually are
    original = Gradient.add

    def mean(gradient, loss_sum, weight, rows, number):
        original(gradient, loss_sum, weight, rows, number)
        return loss_sum / weight

    monkeypatch.setattr(Gradient, "add", mean)
    monkeypatch.setattr(Gradient, "factor", lambda *_: torch.ones(()))
    found = difference(*(single(experiment, split) for split in ALONE.values()))
    print(f"{experiment}, negative control: {shown(found)}")
    assert found["norm"] > 2e-3, found
