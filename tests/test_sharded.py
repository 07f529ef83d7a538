"""Sharded over two processes (FSDP2, over gloo), a training does what it does elsewhere.

What each task does so in each run of the tests stands in `test_invariance.py`.
"""

import shutil

import pytest
import torch
from compared import differences, unequal
from forked import served
from safetensors.torch import load_file
from standins import row_for, write_jsonl
from test_invariance import (
    SPLIT,
    difference,
    free_port,
    join,
    outcome,
    overrides_of,
    shown,
    together,
)
from torch.distributed.tensor import DTensor

import hydralight
from hydralight.errors import UserError
from hydralight.runs import sharded
from hydralight.runs.checkpoints import intact_checkpoint
from hydralight.runs.files import remove
from hydralight.runs.run import Run

OTHERS = ["bert_squad", "bert_stsb", "bert_swag", "distilbert_emotion", "t5_xsum"]
OTHERS += ["marian_wmt16_en_ro", "roberta_mlm_wikitext", "gpt2_scratch", "minilm_nli"]
UNUSED = "trainer.strategy.find_unused_parameters=true"  # as MiniLM's pooler


@pytest.mark.thorough
def test_the_other_recipes(recipe, tmp_path):
    jobs = {}
    for experiment in OTHERS:
        overrides = overrides_of(recipe, experiment, tmp_path, (2, 4), dropout=True)
        files = (tmp_path / "data").rename(tmp_path / f"{experiment}_data")
        overrides = [o.replace(f"{tmp_path}/data/", f"{files}/") for o in overrides]
        overrides.append("trainer.accumulate_grad_batches=1")
        jobs[experiment] = [*overrides, "trainer=ddp_cpu", UNUSED]
        jobs[f"{experiment}, sharded"] = [*overrides, "trainer=fsdp_cpu"]
        if experiment == "bert_swag":  # of one set, there is a batch for one device alone
            lone = write_jsonl(tmp_path / "lone.jsonl", [row_for(experiment, 50)])
            for one in (experiment, f"{experiment}, sharded"):
                jobs[one].append(f"data.extra_eval={{lone: {lone}}}")
    # each device ends its texts at another token
    sampled = [*jobs["t5_xsum"], "generation.do_sample=true", "generation.max_new_tokens=40"]
    jobs["sampled"] = sampled
    jobs["sampled, sharded"] = [o for o in sampled if o != UNUSED and "ddp" not in o]
    jobs["sampled, sharded"].append("trainer=fsdp_cpu")
    found = together(jobs, tmp_path)
    for experiment in [*OTHERS, "sampled"]:
        apart = difference(found[experiment], found[f"{experiment}, sharded"])
        print(f"{experiment}: {shown(apart)}")
        if experiment == "bert_stsb":  # its correlations are of scores that are nearly equal
            assert apart.pop("metrics") < 1e-2
        assert max(apart.values()) < 1e-5, (experiment, apart)


def cut(whole, other, step):
    """Copy a run as it was when it was killed after a step."""
    shutil.copytree(whole, other)
    for path in (other / "checkpoints").iterdir():
        if path.stem == "last" or int(path.stem.removeprefix("step-")) > step:
            remove(path)
    (other / "metrics.json").unlink()


def train_in_two(rank, port, folder, typed):
    """One of two processes, in which trainings come one after the other."""
    join(rank, 2, port)
    hydralight.train([*typed, "trainer=fsdp_cpu", f"hydra.run.dir={folder / 'whole'}"])
    if rank == 0:
        for name in ("same", "one", "plain"):
            cut(folder / "whole", folder / name, 4)
    torch.distributed.barrier()
    hydralight.train([f"resume={folder / 'same'}"])
    strategy = ["trainer.strategy={_target_: hydralight.sharding.Sharded}", "trainer.devices=2"]
    hydralight.train([f"resume={folder / 'from plain'}", *strategy])
    with pytest.raises(UserError, match="BertForSequenceClassification brings no plan for it"):
        hydralight.train([*typed, *SPLIT, f"hydra.run.dir={folder / 'split'}"])


def test_it_goes_on(recipe, tmp_path):
    """To the same bits; on one process, and as another kind of training, to 1e-5."""
    typed = [*recipe("bert_mrpc"), "data.batch_size=2", "data.batches_per_step=2"]
    typed += ["trainer.val_check_interval=2", "trainer.max_epochs=1.75"]
    typed += ["callbacks.last_checkpoint.save_total_limit=null"]
    typed += ["callbacks.last_checkpoint.every_n_train_steps=1"]
    hydralight.train([*typed, "trainer.accelerator=cpu", f"hydra.run.dir={tmp_path / 'alone'}"])
    cut(tmp_path / "alone", tmp_path / "from plain", 4)
    served().call(train_in_two, (free_port(), tmp_path, typed), 2)
    whole = tmp_path / "whole"
    found = differences(whole, tmp_path / "same")
    # the copied configs name the directory that they were copied from
    assert [place for place in found if ".yaml" not in place] == []
    one = [f"resume={tmp_path / 'one'}", "trainer.devices=1"]
    with pytest.raises(UserError, match=r"its optimizer.lr is 5e-05, and now it is 0.1"):
        hydralight.train([*one, "optimizer.lr=0.1"])
    hydralight.train(one)
    hydralight.train([f"resume={tmp_path / 'plain'}", "trainer.devices=1", "trainer.strategy=auto"])
    expected = outcome(Run(whole))
    for name in ("alone", "one", "plain", "from plain"):
        apart = difference(expected, outcome(Run(tmp_path / name)))
        print(f"{name}: {shown(apart)}")
        assert max(apart.values()) < 1e-5, (name, apart)

    # one bit of one of its files
    last = whole / "checkpoints/last.ckpt"
    files = sorted(path.name for path in last.iterdir())
    assert files == [
        "rest.pt",
        *(f"shard-0000{n}-model-00001-of-00001.safetensors" for n in (1, 2)),
    ]
    assert intact_checkpoint(last.parent)[1].step == 7
    content = bytearray((last / files[1]).read_bytes())
    content[-1] ^= 1
    (last / files[1]).write_bytes(content)  # that of step 7 is the same file
    assert intact_checkpoint(last.parent)[1].step == 6


def adapters_in_two(rank, port, folder, jobs):
    """One of two processes, in which trainings of adapters come one after the other."""
    join(rank, 2, port)
    for name, typed in jobs.items():
        own = folder / name
        run = hydralight.train([*typed, "trainer=fsdp_cpu", f"hydra.run.dir={own / 'whole'}"])
        if rank == 0:
            for other in ("same", "one", "plain"):
                cut(run.path, own / other, 4)
        torch.distributed.barrier()
        hydralight.train([f"resume={own / 'same'}"])
        strategy = "trainer.strategy={_target_: hydralight.sharding.Sharded}"
        run = hydralight.train([f"resume={own / 'from plain'}", strategy, "trainer.devices=2"])
        found = hydralight.evaluate([f"run={run.path}", strategy, "trainer.devices=2"])
        expected = {n: one for n, one in run.metrics["best"].items() if n != "step"}
        assert found == pytest.approx(expected, rel=1e-6)


@pytest.mark.thorough
def test_an_adapter_is_sharded_with_its_base(recipe, tmp_path):
    """It is what one process trains, goes on, and is exported; no checkpoint has its base."""
    jobs = {}
    for name in ("bert_mrpc_lora", "llama_lora_alpaca"):
        template = ["data.chat_template=zephyr"] if "llama" in name else []  # no new tokens
        jobs[name] = [*recipe(name), *template, "data.batch_size=2", "data.batches_per_step=2"]
        jobs[name] += ["trainer.accumulate_grad_batches=1", "trainer.val_check_interval=2"]
        jobs[name] += ["trainer.max_epochs=1.75", "optimizer.lr=0.01", "callbacks.samples=null"]
        jobs[name] += ["callbacks.last_checkpoint.save_total_limit=null"]
        jobs[name] += ["callbacks.last_checkpoint.every_n_train_steps=1"]
        (tmp_path / "data").rename(tmp_path / f"{name}_data")
        jobs[name] = [
            o.replace(f"{tmp_path}/data/", f"{tmp_path}/{name}_data/") for o in jobs[name]
        ]
        alone = tmp_path / name / "alone"
        hydralight.train([*jobs[name], "trainer.accelerator=cpu", f"hydra.run.dir={alone}"])
        cut(alone, tmp_path / name / "from plain", 4)
    served().call(adapters_in_two, (free_port(), tmp_path, jobs), 2)
    for name in jobs:
        own = tmp_path / name
        whole = Run(own / "whole")
        found = differences(whole.path, own / "same")
        assert [place for place in found if ".yaml" not in place] == []
        devices = ["trainer.devices=1"]
        hydralight.train([f"resume={own / 'one'}", *devices])
        hydralight.train([f"resume={own / 'plain'}", *devices, "trainer.strategy=auto"])
        expected = outcome(whole)
        assert all("lora_" in n or "modules_to_save" in n for n in expected["weights"])
        for other in ("alone", "one", "plain", "from plain"):
            apart = difference(expected, outcome(Run(own / other)))
            print(f"{name}, {other}: {shown(apart)}")
            assert max(apart.values()) < 1e-6, (name, other, apart)

        alone = Run(own / "alone")
        folders = whole.model_dir, alone.model_dir
        ours, theirs = (load_file(one / "adapter_model.safetensors") for one in folders)
        assert ours.keys() == theirs.keys()
        assert max(float((ours[n] - theirs[n]).abs().max()) for n in ours) < 1e-6
        for file in ("adapter_config.json", "base.json", "config/config.json"):
            assert (folders[0] / file).read_text() == (folders[1] / file).read_text()
        best = {n: one for n, one in whole.metrics["best"].items() if n != "step"}
        plain = ["trainer.strategy=auto", "trainer.devices=1"]
        assert hydralight.evaluate([f"run={whole.path}", *plain]) == pytest.approx(best, rel=1e-6)


def test_a_model_is_written_a_tensor_at_a_time(tiny_bart, tmp_path, monkeypatch):
    """In files of a bounded size, as `save_pretrained` does; embeddings are tied."""
    from transformers import BartForConditionalGeneration  # not before Lightning knows the rank

    from hydralight import model_files

    model = BartForConditionalGeneration.from_pretrained(tiny_bart)
    written, expected = tmp_path / "written", tmp_path / "expected"
    for size in ("50KB", "5GB"):
        monkeypatch.setattr(model_files, "FILE_SIZE", size)
        model_files.save_by_tensors(model, written)
        model.save_pretrained(expected, max_shard_size=size)
        names = [sorted(path.name for path in one.iterdir()) for one in (written, expected)]
        assert names[0] == names[1]
        assert len(names[0]) > 4 or size == "5GB"
        tensors, others = (
            dict(pair for path in folder.glob("*.safetensors") for pair in load_file(path).items())
            for folder in (written, expected)
        )
        assert tensors.keys() == others.keys()
        assert all(torch.equal(tensors[name], others[name]) for name in tensors)
        for name in ("config.json", "generation_config.json"):
            assert (written / name).read_text() == (expected / name).read_text()
        again = BartForConditionalGeneration.from_pretrained(written)
        assert again.get_output_embeddings().weight is again.get_input_embeddings().weight
        shutil.rmtree(written)
        shutil.rmtree(expected)


@pytest.mark.parametrize(
    ("typed", "sentence"),
    [
        (["precision=16-mixed"], "precision=16-mixed does not go with sharded training: take one"),
        (["callbacks=ema"], "callbacks=ema keeps a second model as a whole"),
        (["trainer.strategy.cpu_offload=true"], "the devices are CPUs"),
        (
            ["trainer.strategy.tensor_parallel_size=3"],
            "trainer.strategy.tensor_parallel_size=3: the product should be the number of devices",
        ),
        (["trainer.strategy.data_parallel_size=4"], "data_parallel_size=4: the product should"),
        (["trainer.same_bits=true"], "trainer.same_bits=true goes with trainer=ddp"),
        (["adapter=lora", "callbacks.best_model.merge=true"], "merge=true needs the whole model"),
        (["adapter=adalora", "trainer.devices=1"], "adapter=adalora does not go with sharded"),
        (
            ["adapter=lora", "model.dtype=bfloat16", "trainer.devices=1"],
            "what is trained is in torch.bfloat16 and torch.float32, .*: set model.adapter_dtype",
        ),
    ],
)
def test_what_does_not_go_together(typed, sentence, recipe):
    with pytest.raises(UserError, match=sentence):
        hydralight.train([*recipe("bert_mrpc"), "trainer=fsdp_cpu", *typed])


def test_tensor_parallelism_takes_no_adapter(checkpoints):
    from peft import LoraConfig
    from transformers import AutoModel

    from hydralight.models import Pretrained
    from hydralight.sharded_adapters import check_adapter  # not before Lightning knows the rank

    model = Pretrained(checkpoint=str(checkpoints("bert")), adapter=LoraConfig())(AutoModel)
    with pytest.raises(UserError, match="tensor_parallel_size=2 does not go with"):
        check_adapter(model, 2)


def test_recurrence_is_not_sharded(recipe):
    typed = [*recipe("transformer_xl_reviews"), "trainer=fsdp_cpu", "trainer.devices=1"]
    with pytest.raises(UserError, match="trainer=fsdp does not go with segment-level recurrence"):
        hydralight.train(typed)


@pytest.mark.thorough
def test_matrices_are_shared_and_sharded(recipe, checkpoints, tmp_path):
    """By four processes; also with a head that the checkpoint lacks."""
    alone, jobs = {}, {}
    for experiment in ("distilgpt2_sonnets", "bert_mrpc"):
        overrides = overrides_of(recipe, experiment, tmp_path, (2, 4), dropout=True)
        files = (tmp_path / "data").rename(tmp_path / f"{experiment}_data")
        overrides = [o.replace(f"{tmp_path}/data/", f"{files}/") for o in overrides]
        overrides += [f"checkpoint={checkpoints('llama')}"]
        alone[experiment] = outcome(hydralight.train(overrides))
        jobs[experiment] = [*overrides, *SPLIT, "trainer.devices=4"]
    for experiment, found in together(jobs, tmp_path, world=4).items():
        apart = difference(alone[experiment], found)
        print(f"{experiment}: {shown(apart)}")
        assert max(apart.values()) < 1e-5, (experiment, apart)


def test_what_a_step_is_computed_with(recipe, monkeypatch):
    """Blocks are gathered in 16 bits, and their shards are in 32; activations are made again."""
    from hydralight.tasks.task import Task

    seen = []

    def look(task):
        block = task.model.bert.encoder.layer[0]
        weight = block.attention.self.query.weight
        assert isinstance(weight, DTensor)
        block.register_forward_pre_hook(
            lambda *_: seen.append((block.attention.self.query.weight.dtype, weight.dtype))
        )
        seen.append([type(one).__name__ for one in (task.model, block, task.model.classifier)])
        seen.append(task.model.is_activation_checkpointing)

    monkeypatch.setattr(Task, "on_train_start", look, raising=False)
    options = "trainer.strategy.activation_checkpointing=true"
    typed = ["trainer=fsdp_cpu", "trainer.devices=1", "precision=bf16-mixed", options]
    hydralight.train([*recipe("bert_mrpc"), *typed, "debug=fdr"])
    assert seen[0] == ["FSDPBertForSequenceClassification", "FSDPBertLayer", "Linear"]
    assert seen[1] is True
    assert set(seen[2:]) == {(torch.bfloat16, torch.float32)}


class Tied(torch.nn.Module):
    """Weights of several types, two of which are one."""

    def __init__(self, seed):
        super().__init__()
        torch.manual_seed(seed)
        self.one = torch.nn.Linear(8, 8)
        self.norm = torch.nn.BatchNorm1d(8)  # counts its batches in a whole number
        self.small = torch.nn.Parameter(torch.randn(3, dtype=torch.bfloat16))
        self.other = torch.nn.Linear(8, 8, bias=False)
        self.other.weight = self.one.weight
        self.checked = []

    def step(self, optimizer):
        """Train on what is drawn."""
        loss = self.other(self.norm(self.one(torch.randn(4, 8)))).square().sum() + self.small.sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    def check_checkpoint(self, checkpoint):
        self.checked.append(checkpoint["state_dict"].keys())


def test_what_a_folder_holds(tmp_path, monkeypatch):
    """Several files a process; all of it comes back, as a whole and into its places."""
    monkeypatch.setattr(sharded, "FILE_SIZE", 300)
    first, second = Tied(1), Tied(2)
    pairs = (first, 0.5), (second, 1.0)
    optimizers = [torch.optim.AdamW(one.parameters(), lr=lr) for one, lr in pairs]
    for _ in range(2):
        first.step(optimizers[0])
    checkpoint = {"epoch": 3, "state_dict": first.state_dict(keep_vars=True)}
    sharded.write_shards(tmp_path, checkpoint, first, optimizers[0])
    assert len(list(tmp_path.glob("*.safetensors"))) > 2
    whole = sharded.assembled(tmp_path)
    assert whole["epoch"] == 3
    for name, tensor in first.state_dict().items():
        assert torch.equal(whole["state_dict"][name], tensor)
    assert list(unequal(whole["optimizer_states"][0], optimizers[0].state_dict())) == []

    assert sharded.read_shards(tmp_path, second, optimizers[1]) == {"epoch": 3}
    assert second.checked == [first.state_dict().keys()]
    for one, optimizer in zip((first, second), optimizers, strict=True):
        torch.manual_seed(0)
        one.step(optimizer)
    assert list(unequal(dict(first.state_dict()), dict(second.state_dict()))) == []
