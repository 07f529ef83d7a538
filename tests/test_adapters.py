"""Adapters: what trains, what is saved, and what is read again."""

import json
import shutil
import sys
from fnmatch import fnmatch

import numpy as np
import peft
import pytest
import torch
from compared import differences
from peft import AutoPeftModelForSequenceClassification, LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    get_linear_schedule_with_warmup,
    pipeline,
)

import hydralight
from hydralight import adapters, sharding
from hydralight.errors import UserError
from hydralight.models import Pretrained
from hydralight.tasks.task import Task

OFF = "model.config={hidden_dropout_prob: 0, attention_probs_dropout_prob: 0}"
NO_DROPOUT = [OFF, "model.adapter.lora_dropout=0"]
SHORT = ["trainer.max_epochs=1", "data.batch_size=4", "callbacks.samples=null"]
PAIR = {"text": "a storm", "text_pair": "the river"}


def load(checkpoint, adapter, auto_class=AutoModelForSequenceClassification, **options):
    torch.manual_seed(0)
    return Pretrained(checkpoint=str(checkpoint), adapter=adapter, **options)(auto_class)


def with_layers(model):
    return {name.split(".lora_A")[0] for name, _ in model.named_modules() if ".lora_A." in name}


# ---------------------------------------------------------------- what trains


@pytest.mark.parametrize(
    ("experiment", "adapter"),
    [
        ("bert_mrpc", "lora"),
        ("bert_mrpc", "vera"),
        ("distilgpt2_sonnets", "dora"),
        ("bart_cnn", "ia3"),
        ("vit_cxr14", "rslora"),
    ],
)
def test_only_the_adapter_and_the_head_are_trained_and_saved(experiment, adapter, recipe):
    more = ["trainer.val_check_interval=1"] if experiment == "distilgpt2_sonnets" else []
    more += ["model.adapter.target_modules=all-linear"] if experiment == "vit_cxr14" else []
    chosen = [f"adapter={adapter}", "optimizer.lr=0.01", *SHORT, *more]
    run = hydralight.train([*recipe(experiment), *chosen])
    checkpoint = torch.load(run.path / "checkpoints/last.ckpt", weights_only=True)
    state = checkpoint["state_dict"]
    kinds = ("*lora_*", "*ia3_*", "*vera_*", "*modules_to_save*")
    assert all(any(fnmatch(name, kind) for kind in kinds) for name in state)
    folder = {path.name for path in run.model_dir.iterdir()}
    assert {"adapter_model.safetensors", "adapter_config.json", "README.md"} < folder
    assert not {"model.safetensors", "config.json"} & folder
    # with the base's, it would be more
    weights = load_file(run.model_dir / "adapter_model.safetensors")
    saved = sum(one.numel() for one in weights.values())
    assert saved < sum(p.numel() for p in run.model.parameters())
    best = {name: value for name, value in run.metrics["best"].items() if name != "step"}
    assert hydralight.evaluate([f"run={run.path}"]) == pytest.approx(best, abs=1e-6, nan_ok=True)


def test_steps_are_those_of_peft_and_plain_torch(recipe, monkeypatch, checkpoints):
    """20 steps by hand: peft's own model, torch's AdamW, and the batches of the run."""
    batches, seen = [], {}
    names = ("input_ids", "attention_mask", "token_type_ids", "labels")

    def record(task, batch, batch_idx):
        batches.append({n: batch[n].clone() for n in names if n in batch})

    def begin(task):
        seen["state"] = {n: one.clone() for n, one in task.model.state_dict().items()}

    def end(task):
        seen["after"] = {n: one.clone() for n, one in task.model.state_dict().items()}

    for hook, function in (
        ("on_train_batch_start", record),
        ("on_train_start", begin),
        ("on_train_end", end),
    ):
        monkeypatch.setattr(Task, hook, function, raising=False)
    steps = ["trainer.max_epochs=-1", "trainer.max_steps=20", "data.batch_size=4"]
    steps += ["optimizer.lr=1e-2", "optimizer.weight_decay=0", "trainer.gradient_clip_val=null"]
    steps += ["scheduler.warmup_ratio=0.1", "callbacks.samples=null"]
    run = hydralight.train([*recipe("bert_mrpc_lora"), *NO_DROPOUT, *steps])

    base = AutoModelForSequenceClassification.from_pretrained(
        checkpoints("bert"), hidden_dropout_prob=0, attention_probs_dropout_prob=0
    )
    whole = ["bert.pooler.dense"]
    config = LoraConfig(task_type="SEQ_CLS", r=8, lora_alpha=16, modules_to_save=whole)
    model = get_peft_model(base, config).train()
    model.get_base_model().load_state_dict(seen["state"])
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-2, weight_decay=0)
    schedule = get_linear_schedule_with_warmup(optimizer, 2, 20)
    losses = []
    for batch in batches:
        loss = model(**batch).loss
        loss.backward()
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    history = run.history.dropna(subset=["train/loss"])
    apart = np.abs(history["train/loss"].to_numpy() - losses).max()
    after = model.get_base_model().state_dict()
    moved = {n for n, one in after.items() if not torch.equal(one, seen["state"][n])}
    weights = max(float((after[n] - seen["after"][n]).abs().max()) for n in after)
    print(f"loss {apart:.1e}, weights {weights:.1e}, from {losses[0]:.3f} to {losses[-1]:.3f}")
    assert len(losses) == 20
    assert max(losses) - min(losses) > 0.05
    assert apart < 1e-5
    assert weights < 1e-5
    assert {n.rpartition(".")[2] for n in moved} == {"weight", "bias"}
    assert all("lora_" in n or "modules_to_save" in n for n in moved)


def test_modules_are_named_by_ends_of_names_by_globs_or_all(checkpoints):
    bert = checkpoints("bert")
    layer = "bert.encoder.layer.0"
    expected = {
        "query": {f"{layer}.attention.self.query"},
        "self.*e*": {f"{layer}.attention.self.{name}" for name in ("query", "key", "value")},
        "*.attention.*": {
            *(f"{layer}.attention.self.{name}" for name in ("query", "key", "value")),
            f"{layer}.attention.output.dense",
        },
        # those of the pooler and of the head are trained as a whole
        "all-linear": {
            *(f"{layer}.attention.self.{name}" for name in ("query", "key", "value")),
            *(f"{layer}.{n}.dense" for n in ("attention.output", "intermediate", "output")),
        },
    }
    expected["dense"] = {name for name in expected["all-linear"] if name.endswith("dense")}
    for pattern, modules in expected.items():
        for asked in (pattern, [pattern]):
            assert with_layers(load(bert, LoraConfig(target_modules=asked))) == modules


@pytest.mark.parametrize(
    ("adapter", "sentence"),
    [
        (LoraConfig(target_modules=["qeury"]), r"'qeury' .* \(.*key, .*\); did you mean 'query'"),
        (
            LoraConfig(target_modules=["layer.7.*"]),
            r"'layer.7.\*' is no linear layer",
        ),
        (LoraConfig(modules_to_save=["poler"]), "no module 'poler'; did you mean 'bert.pooler'"),
        (LoraConfig(r=8, target_modules=["classifier"]), "'classifier' is no linear layer"),
        ({"r": 8}, "should be one of adapter=lora and its kin, or a folder"),
        ("nowhere", "model.adapter=nowhere is no adapter: name a folder"),
    ],
)
def test_what_is_not_there_is_told(adapter, sentence, checkpoints):
    with pytest.raises(UserError, match=sentence):
        load(checkpoints("bert"), adapter)


def test_an_architecture_that_peft_does_not_know_needs_names(checkpoints, monkeypatch):
    monkeypatch.delitem(peft.tuners.lora.LoraModel.target_module_mapping, "bert")
    with pytest.raises(UserError, match=r"knows none for bert: name all-linear, or some of query"):
        load(checkpoints("bert"), LoraConfig())


def test_without_peft_a_sentence_says_what_to_install(recipe, monkeypatch):
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(UserError, match=r"needs a package that is not installed: pip install .*"):
        hydralight.train([*recipe("bert_mrpc"), "adapter=lora", "check=true"])


def test_what_does_not_go_together(recipe):
    with pytest.raises(UserError, match="Scratch has no argument 'adapter'"):
        hydralight.train([*recipe("gpt2_scratch"), "adapter=lora"])
    with pytest.raises(UserError, match=r"merge=true: the model has no adapter"):
        hydralight.train([*recipe("bert_mrpc"), *SHORT, "callbacks.best_model.merge=true"])


def test_parts_of_an_adapter_are_frozen(checkpoints):
    model = load(checkpoints("bert"), LoraConfig(), freeze=["*lora_A*", "*pooler*"])
    trained = {name for name, p in model.named_parameters() if p.requires_grad}
    assert trained
    assert all("lora_B" in name or name.startswith("classifier.modules_to") for name in trained)
    # what is frozen is no base's: a checkpoint has it
    assert not any("lora_A" in name for name in adapters.attached_to(model).base)


def test_gradients_reach_the_adapter_through_checkpointed_blocks(checkpoints):
    for how in (True, {"use_reentrant": True}):
        model = load(checkpoints("bert"), LoraConfig(), gradient_checkpointing=how)
        model(torch.arange(5)[None]).logits.sum().backward()
        assert all(p.grad is not None for p in model.parameters() if p.requires_grad)


# ---------------------------------------------------------------- going on


@pytest.mark.parametrize("further", [[], ["callbacks=ema", "callbacks.ema.decay=0.9"]])
def test_a_run_goes_on_from_a_checkpoint_without_the_base(further, recipe, tmp_path):
    whole, other = tmp_path / "whole", tmp_path / "other"
    typed = [*recipe("bert_mrpc_lora"), "data.batch_size=4", "trainer.val_check_interval=2"]
    typed += ["trainer.max_epochs=1.75", "callbacks.last_checkpoint.save_total_limit=null"]
    typed += [*further, "optimizer.lr=1e-2", "callbacks.rich_progress=null"]
    hydralight.train([*typed, f"hydra.run.dir={whole}"])
    shutil.copytree(whole, other)
    for path in (other / "checkpoints").iterdir():
        if path.stem == "last" or int(path.stem.removeprefix("step-")) > 4:
            path.unlink()
    (other / "metrics.json").unlink()
    hydralight.train([f"resume={other}"])
    assert [place for place in differences(whole, other) if ".yaml" not in place] == []
    # the weights that were evaluated, averaged or not, are those that were exported
    best = hydralight.Run(other).metrics["best"]
    found = hydralight.evaluate([f"run={other}"])
    assert found["val/loss"] == pytest.approx(best["val/loss"], rel=1e-6)
    state = torch.load(other / "checkpoints/last.ckpt", weights_only=True)
    for key in adapters.STATES & state.keys():
        assert not any("base_layer" in name or "original" in name for name in state[key])


def test_another_base_is_refused(recipe, checkpoints, tmp_path):
    base = shutil.copytree(checkpoints("bert"), tmp_path / "base")
    typed = [*recipe("bert_mrpc_lora"), *SHORT, f"checkpoint={base}"]
    run = hydralight.train(typed)
    state = load_file(base / "model.safetensors")
    state["bert.encoder.layer.0.attention.self.key.weight"][0, 0] += 0.001
    save_file(state, base / "model.safetensors", metadata={"format": "pt"})
    was = r"was trained on other weights than those of .*/base \(or another model.dtype\)"
    with pytest.raises(UserError, match=f"the checkpoint's adapter {was}"):
        hydralight.train([f"resume={run.path}", "trainer.max_epochs=2"])
    with pytest.raises(UserError, match=f"the adapter .*/model {was}"):
        hydralight.evaluate([f"run={run.path}"])


def test_only_the_bases_weights_may_be_missing(checkpoints):
    model = load(checkpoints("bert"), LoraConfig())
    state = {f"model.{name}": one for name, one in model.state_dict().items()}
    checkpoint = {"state_dict": dict(state)}
    adapters.leave_base_out(checkpoint, model)
    left = checkpoint["state_dict"]
    assert 0 < len(left) < len(state) / 2
    gone = next(name for name in left if "lora_B" in name)
    del left[gone]
    adapters.put_base_back(checkpoint, model)
    assert state.keys() - checkpoint["state_dict"].keys() == {gone}


# ---------------------------------------------------------------- what others read


@pytest.fixture
def trained(recipe, tmp_path):
    def train(name, *further):
        folder = tmp_path / name
        typed = [*recipe("bert_mrpc_lora"), *SHORT, "optimizer.lr=0.02", *further]
        return hydralight.train([*typed, f"hydra.run.dir={folder}"])

    return train


def test_other_libraries_read_the_adapter_and_the_merged_model(trained):
    run = trained("run")
    merged = trained("merged", "callbacks.best_model.merge=true")
    config = json.loads((run.model_dir / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"].endswith("tiny-bert")
    assert config["task_type"] == "SEQ_CLS"
    inputs = run.tokenizer(**PAIR, return_tensors="pt")
    readers = [
        run.model,
        merged.model,
        AutoModelForSequenceClassification.from_pretrained(run.model_dir),
        AutoPeftModelForSequenceClassification.from_pretrained(run.model_dir).eval(),
        AutoModelForSequenceClassification.from_pretrained(merged.model_dir),
        pipeline("text-classification", model=str(run.model_dir)).model,
        pipeline("text-classification", model=str(merged.model_dir)).model,
    ]
    with torch.no_grad():
        logits = [model(**inputs).logits for model in readers]
        with readers[3].disable_adapter():
            base = readers[3](**inputs).logits
    assert float((logits[0] - base).abs().max()) > 1e-3
    for one in logits[1:]:
        assert float((one - logits[0]).abs().max()) < 1e-6
    assert not any("lora" in name for name, _ in merged.model.named_parameters())
    # the names of the labels are in a config beside it, as peft has no place for them
    own = AutoConfig.from_pretrained(run.model_dir / "config")
    model = AutoModelForSequenceClassification.from_pretrained(run.model_dir, config=own)
    said = pipeline("text-classification", model=model, tokenizer=str(run.model_dir))(PAIR)
    assert said["label"] in ("0", "1")


def test_a_merge_that_says_another_thing_is_refused(trained, monkeypatch):
    original = peft.tuners.lora.LoraModel.merge_and_unload

    def broken(self, **options):
        model = original(self, **options)
        model.bert.encoder.layer[0].attention.self.value.weight.data *= 2
        return model

    monkeypatch.setattr(peft.tuners.lora.LoraModel, "merge_and_unload", broken)
    with pytest.raises(UserError, match=r"merged model's logits differ by \d.* torch.float32 expl"):
        trained("run", "callbacks.best_model.merge=true")


def test_a_merge_is_not_made_without_a_batch_to_verify_it_by(trained):
    merge = ["callbacks.best_model.merge=true", "trainer.limit_val_batches=0"]
    with pytest.raises(UserError, match="there was no validation: leave it out"):
        trained("run", *merge)


def test_one_adapter_takes_the_place_of_another(trained, recipe, tmp_path):
    one, two = trained("one"), trained("two", "seed=7", "optimizer.lr=0.05")
    asked = [f"input={json.dumps(PAIR)}", "format=json"]
    scores = [
        hydralight.predict([f"run={run}", *asked, *swap])[0]["score"]
        for run, swap in [
            (one.path, []),
            (one.path, [f"adapter={two.path}"]),
            (one.path, [f"adapter={two.model_dir}"]),
            (two.path, []),
        ]
    ]
    assert scores[0] != scores[1]
    assert scores[1] == scores[2] == scores[3]
    with pytest.raises(UserError, match=r"adapter=nowhere is no adapter"):
        hydralight.predict([f"run={one.path}", *asked, "adapter=nowhere"])
    plain = hydralight.train([*recipe("bert_mrpc"), *SHORT])
    with pytest.raises(UserError, match="has no adapter in whose place"):
        hydralight.evaluate([f"run={plain.path}", f"adapter={one.path}"])
    other = trained("other", f"checkpoint={plain.model_dir}")
    with pytest.raises(UserError, match="their weights differ, and nothing is swapped"):
        hydralight.predict([f"run={one.path}", *asked, f"adapter={other.path}"])


def test_training_goes_on_with_an_adapter_that_is_there(trained, recipe, checkpoints):
    run = trained("run")
    later = [*recipe("bert_mrpc"), *SHORT, f"model.adapter={run.path}", "optimizer.lr=0"]
    again = hydralight.train(later)
    one, two = (load_file(r.model_dir / "adapter_model.safetensors") for r in (run, again))
    assert all(torch.equal(one[name], two[name]) for name in one.keys() | two.keys())
    with pytest.raises(UserError, match=r"is an adapter, and so is model.adapter: leave out"):
        load(run.model_dir, LoraConfig())
    assert adapters.attached_to(load(run.model_dir, None)).peft.active_adapter == "default"


def test_an_adapter_without_one_of_its_weights_is_refused(trained):
    folder = trained("run").model_dir
    path = folder / "adapter_model.safetensors"
    state = load_file(path)
    gone = next(name for name in state if "lora_A" in name)
    save_file({n: one for n, one in state.items() if n != gone}, path)
    (folder / "checksums.json").unlink()
    with pytest.raises(UserError, match=rf"has no weight {gone}, and the model has"):
        load(folder, None)


def test_a_generating_model_with_an_adapter(checkpoints, tmp_path):
    """Its generation config goes with the adapter."""
    model = load(checkpoints("gpt2"), LoraConfig(), AutoModelForCausalLM)
    model.generation_config.max_new_tokens = 7
    folder = tmp_path / "adapter"
    folder.mkdir()
    sharding.save_weights(model, folder, first=True)
    again = Pretrained(checkpoint=str(folder))(AutoModelForCausalLM)
    assert again.generation_config.max_new_tokens == 7
