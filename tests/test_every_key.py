"""Every key of every group does something: another value of it changes what a run leaves.

A key stands with a recipe, another value, and what must be set for it to matter; a tiny run without
and one with it are compared by their files, except those that repeat the config. There are many:
`make thorough` walks all of them, and `make test` a few.
"""

import hashlib
import re
import shutil
from pathlib import Path

import pytest
import standins
import yaml
from conftest import CONFIG_DIR, ROOT
from hydra import compose, initialize_config_dir
from hydra.utils import execution_whitelist

from hydralight.building import build_all
from hydralight.config.whitelist import WHITELIST
from hydralight.tokenizers import Trained

GROUPS = "task data model adapter tokenizer generation optimizer scheduler trainer callbacks logger"
QUICK = ["trainer.accelerator=cpu", "trainer.max_epochs=1", "callbacks.rich_progress=null"]
TRAIN_ONLY = "data.path={train:{data}/train.jsonl,validation:null,test:null}"
STOPPING = "callbacks=early_stopping trainer.max_epochs=3 optimized_metric=val/loss"
AT_ONCE = "callbacks.early_stopping.patience=0"
FEW = "task.label_smoothing data.labels model.freeze optimizer.lr scheduler.warmup_ratio"
FEW += " trainer.gradient_clip_val trainer.val_check_interval callbacks.best_model.card.base_model"
LOW_RANK = "optimizer=galore optimizer.lr=1e-2 optimizer.matrices.rank=8"
STABLE = "scheduler=warmup_stable_decay"
RANKS = "adapter=adalora optimizer.lr=1e-2 data.batch_size=2"
KEYS = {
    # key: (recipe, another value, what it stands beside)
    "task.label_smoothing": ("bert_mrpc", "0.5"),
    "task.class_weights": ("bert_mrpc", "balanced"),
    "task.metrics": (
        "bert_mrpc",
        "{m:{_target_:torchmetrics.classification.MulticlassRecall,num_classes:2}}",
    ),
    "task.version_2_with_negative": ("bert_squad", "true"),
    "task.max_answer_length": ("bert_squad", "1"),
    "task.prompt_length": ("distilgpt2_sonnets", "1"),
    "task.scale": ("minilm_nli", "1.0"),
    "task.num_generations": ("grpo_sort", "3"),
    "task.reward_weights": ("grpo_sort", "[0,1]"),
    "task.temperature": ("grpo_sort", "0.5"),
    "task.top_k": ("grpo_sort", "2"),
    "task.top_p": ("grpo_sort", "0.5"),
    "task.loss_type": ("grpo_sort", "grpo"),
    "task.epsilon": ("grpo_sort", "1e-6"),
    "task.epsilon_high": ("grpo_sort", "1e-6"),
    "task.importance_sampling_level": ("grpo_sort", "sequence"),
    "task.beta": ("grpo_sort", "0.5"),
    "task.use_bias_correction_kl": ("grpo_sort", "false"),
    "task.scale_rewards": ("grpo_sort", "group"),
    "task.num_iterations": ("grpo_sort", "3"),
    "task.mask_truncated_completions": ("grpo_sort", "true"),
    "task.segment_length": ("transformer_xl_reviews", "4"),
    "task.memory_length": ("transformer_xl_reviews", "0"),
    "data.clean": ("distilgpt2_sonnets", "[]"),
    "data.block_size": ("distilgpt2_sonnets", "16", "data.packing=false"),
    "data.max_length": ("bert_mrpc", "16"),
    "data.too_long": ("bert_mrpc", "drop", "data.max_length=44"),
    "data.mlm_probability": ("roberta_mlm_wikitext", "0.5"),
    "data.whole_word_mask": ("roberta_mlm_wikitext", "true"),
    "data.augmentation": (
        *("vit_cxr14", "{_target_:hydralight.data.augmentation.RandomResizedCropAndFlip}"),
        "data.num_workers=0",
    ),
    "data.problem_type": ("bert_mrpc", "regression", "optimized_metric=val/loss"),
    "data.labels": ("bert_mrpc", "[1,0]"),
    "data.doc_stride": ("bert_squad", "2", "data.max_length=24"),
    "data.columns": ("bert_mrpc", "{text:sentence2,text_pair:sentence1}"),
    "data.validation_fraction": ("bert_mrpc", "0.4", TRAIN_ONLY),
    "data.test_fraction": ("bert_mrpc", "0.3", TRAIN_ONLY),
    "data.split_seed": ("bert_mrpc", "7", TRAIN_ONLY),
    "data.stratify_by": ("bert_mrpc", "label", TRAIN_ONLY),
    "data.split_by": ("bert_mrpc", "position", TRAIN_ONLY),
    "data.group_by": ("bert_mrpc", "sentence2", TRAIN_ONLY),
    "data.group_leaks": ("bert_mrpc", "drop", "data.group_by=sentence2 data.path.test=null"),
    "data.duplicates": (
        *("bert_mrpc", "drop"),
        "data.columns={text:sentence2,text_pair:null} data.path.test=null",
    ),
    "data.columns_by_split": ("bert_mrpc", "{validation:{text:sentence2,text_pair:sentence1}}"),
    "data.fold": ("bert_mrpc", "0"),
    "data.num_folds": ("bert_mrpc", "3", "data.fold=0"),
    "data.extra_eval": ("bert_mrpc", "{more:{data}/test.jsonl}"),
    "data.mix": ("bert_mrpc", "{more:{path:{data}/test.jsonl,weight:0.5}}"),
    "data.mix_temperature": (
        *("bert_mrpc", "9.0"),
        "data.mix={more:{path:{data}/test.jsonl}} data.mix_temperature=1.0",
    ),
    "data.stopping_strategy": (
        *("bert_mrpc", "all_exhausted"),
        "data.mix={more:{path:{data}/test.jsonl,weight:0.5}}",
    ),
    "data.batch_size": ("bert_mrpc", "4"),
    "data.eval_batch_size": ("minilm_nli", "2"),  # its negatives are those of a batch
    "data.max_tokens": ("bert_mrpc", "128"),
    "data.group_by_length": ("bert_mrpc", "false", "data.batch_size=4"),
    "data.seed": ("bert_mrpc", "7"),
    "data.label_all_tokens": (
        *("bert_ner_conll2003", "true"),
        "tokenizer.checkpoint={tokenizer}",
    ),
    "data.num_digits": ("grpo_sort", "3"),
    "data.num_train": ("quickstart", "24", "data.num_train=16 data.num_eval=4"),
    "data.num_eval": ("quickstart", "6", "data.num_train=16 data.num_eval=4"),
    "data.max_source_length": ("bart_cnn", "16"),
    "data.max_target_length": ("bart_cnn", "4"),
    "data.source_prefix": ("bart_cnn", "'sum: '"),
    "data.append": ("distilgpt2_sonnets", "x"),
    "data.chat_template": ("qwen_sft_chat", "zephyr"),
    "data.train_on": ("qwen_sft_chat", "last_turn"),
    "data.packing": ("distilgpt2_sonnets", "false"),
    "task.desirable_weight": ("kto", "2.0"),
    "task.undesirable_weight": ("kto", "2.0"),
    "task.simpo_gamma": ("qwen_dpo", "0.1", "task.loss_type=simpo"),
    "task.cpo_alpha": ("qwen_dpo", "0.5", "task.loss_type=cpo"),
    "task.nll_of": ("qwen_dpo", "text", "task.loss_type=orpo"),
    "task.center_rewards_coefficient": ("reward_model", "0.5"),
    "model.checkpoint": ("bert_mrpc", "{distilbert}"),
    "model.config": ("bert_mrpc", "{hidden_dropout_prob:0.5}"),
    "model.freeze": ("bert_mrpc", "['bert.*']"),
    "model.adapter": ("bert_mrpc", "{_target_:peft.LoraConfig,r:2}"),
    "model.quantization": ("bert_mrpc", "nf4", "adapter=lora"),
    "model.double_quantization": ("bert_mrpc", "false", "adapter=qlora"),
    "adapter.r": ("bert_mrpc", "2", "adapter=lora"),
    "adapter.lora_alpha": ("bert_mrpc", "64", "adapter=lora optimizer.lr=1e-2"),
    "adapter.lora_dropout": ("bert_mrpc", "0.5", "adapter=lora optimizer.lr=1e-2"),
    "adapter.target_modules": ("bert_mrpc", "all-linear", "adapter=lora"),
    "adapter.modules_to_save": ("bert_mrpc", "[key]", "adapter=lora"),
    "adapter.use_dora": ("bert_mrpc", "false", "adapter=dora"),
    "adapter.use_rslora": ("bert_mrpc", "false", "adapter=rslora"),
    "adapter.init_r": ("bert_mrpc", "10", "adapter=adalora"),
    "adapter.target_r": ("bert_mrpc", "2", "adapter=adalora optimizer.lr=1e-2"),
    "adapter.tinit": ("bert_mrpc", "6", RANKS),
    "adapter.tfinal": ("bert_mrpc", "5", RANKS),
    "adapter.deltaT": ("bert_mrpc", "4", f"{RANKS} model.adapter.target_r=2"),
    "adapter.orth_reg_weight": ("bert_mrpc", "0.1", "adapter=adalora"),
    "adapter.feedforward_modules": (
        *("bert_mrpc", "[intermediate.dense]"),
        "adapter=ia3 model.adapter.target_modules=[key,intermediate.dense]",
    ),
    "tokenizer.checkpoint": ("bert_mrpc", "{tokenizer}"),
    "tokenizer.model": ("gpt2_scratch", "wordpiece"),
    "tokenizer.vocab_size": ("gpt2_scratch", "300"),
    "tokenizer.append": ("gpt2_scratch", "storm"),
    "tokenizer.files": ("gpt2_scratch", "{data}/train.jsonl"),
    "tokenizer.options": ("vit_cxr14", "{image_mean:[0.1,0.1,0.1]}"),
    "generation.max_new_tokens": ("bart_cnn", "2"),
    "generation.num_beams": ("bart_cnn", "3"),
    "generation.length_penalty": ("bart_cnn", "-5.0", "generation.num_beams=3"),
    "generation.no_repeat_ngram_size": ("bart_cnn", "1"),
    "generation.do_sample": ("bart_cnn", "true"),
    "generation.temperature": ("bart_cnn", "5.0", "generation.do_sample=true"),
    "generation.top_k": ("bart_cnn", "1", "generation.do_sample=true"),
    "generation.top_p": ("bart_cnn", "0.01", "generation.do_sample=true"),
    "generation.stop_strings": ("distilgpt2_sonnets", "e"),
    "optimizer.lr": ("bert_mrpc", "1e-2"),
    "optimizer.weight_decay": ("bert_mrpc", "0.9"),
    "optimizer.momentum": ("bert_mrpc", "0.5", "optimizer=sgd optimizer.lr=1e-2"),
    "optimizer.nesterov": ("bert_mrpc", "true", "optimizer=sgd optimizer.lr=1e-2"),
    "optimizer.scale_parameter": ("bert_mrpc", "true", "optimizer=adafactor_hf"),
    "optimizer.matrices.muon": ("bert_mrpc", "false", "optimizer=muon optimizer.lr=1e-2"),
    "optimizer.warmup_steps": ("bert_mrpc", "2", "optimizer=schedule_free_adamw scheduler=null"),
    "optimizer.matrices.rank": ("bert_mrpc", "4", LOW_RANK),
    "optimizer.matrices.update_proj_gap": ("bert_mrpc", "1", LOW_RANK),
    "optimizer.matrices.scale": ("bert_mrpc", "2.0", LOW_RANK),
    "optimizer.matrices.projection_type": ("bert_mrpc", "reverse_std", LOW_RANK),
    "optimizer.scale_type": (
        *("bert_mrpc", "tensor"),
        "optimizer=apollo optimizer.matrices.rank=8 optimizer.lr=1e-2",
    ),
    "optimizer.weight_decouple": (
        *("bert_mrpc", "false"),
        "optimizer=ademamix optimizer.weight_decay=0.5 optimizer.lr=1e-2",
    ),
    "optimizer.alpha": ("bert_mrpc", "1.0", "optimizer=ademamix optimizer.lr=1e-2"),
    "optimizer.t_alpha_beta3": ("bert_mrpc", "4", "optimizer=ademamix optimizer.lr=1e-2"),
    "optimizer.precondition_frequency": ("bert_mrpc", "1", "optimizer=soap optimizer.lr=1e-2"),
    "optimizer.d_coef": ("bert_mrpc", "10.0", "optimizer=prodigy optimizer.lr=1.0"),
    "scheduler.name": ("bert_mrpc", "constant"),
    "scheduler.warmup_tokens": ("bert_mrpc", "900"),
    "scheduler.decay_steps": ("bert_mrpc", "2", STABLE),
    "scheduler.decay_ratio": ("bert_mrpc", "1.0", STABLE),
    "scheduler.decay_tokens": ("bert_mrpc", "100000", STABLE),
    "scheduler.options.decay_type": ("bert_mrpc", "linear", f"{STABLE} scheduler.decay_steps=2"),
    "scheduler.options.min_lr_ratio": ("bert_mrpc", "0.9", f"{STABLE} scheduler.decay_steps=2"),
    "scheduler.options.num_cycles": ("bert_mrpc", "1", "scheduler=cosine_with_restarts"),
    "scheduler.options.power": ("bert_mrpc", "1.0", "scheduler=polynomial"),
    "scheduler.options.lr_end": ("bert_mrpc", "1e-5", "scheduler=polynomial"),
    "scheduler.options.timescale": ("bert_mrpc", "1", "scheduler=inverse_sqrt"),
    "scheduler.options.min_lr_rate": ("bert_mrpc", "0.9", "scheduler=cosine_with_min_lr"),
    "scheduler.options.warmup_lr_rate": (
        *("bert_mrpc", "0.9"),
        "scheduler=cosine_warmup_with_min_lr scheduler.warmup_steps=2",
    ),
    "scheduler.warmup_steps": ("bert_mrpc", "2"),
    "scheduler.warmup_ratio": ("bert_mrpc", "1.0"),
    "trainer.precision": ("bert_mrpc", "bf16-mixed"),
    "trainer.max_epochs": ("bert_mrpc", "2"),
    "trainer.max_steps": ("bert_mrpc", "1"),
    "trainer.accumulate_grad_batches": ("bert_mrpc", "2"),
    "trainer.gradient_clip_val": ("bert_mrpc", "0.001"),
    "trainer.val_check_interval": ("bert_mrpc", "0.5"),
    "trainer.log_every_n_steps": ("bert_mrpc", "1"),
    "callbacks.last_checkpoint.dirpath": ("bert_mrpc", "{data}/checkpoints"),
    "callbacks.record.dirpath": ("bert_mrpc", "{data}/record"),
    "callbacks.samples.dirpath": ("bert_mrpc", "{data}/samples"),
    "callbacks.best_model.dirpath": ("bert_mrpc", "{data}/model"),
    "callbacks.best_model.run_dir": ("bert_mrpc", "{data}/best"),
    "callbacks.best_model.save_last": ("bert_mrpc", "true"),
    "callbacks.best_model.merge": ("bert_mrpc_lora", "true"),
    "callbacks.early_stopping.monitor": ("bert_mrpc", "val/accuracy", f"{STOPPING} {AT_ONCE}"),
    "callbacks.early_stopping.mode": ("bert_mrpc", "max", f"{STOPPING} {AT_ONCE}"),
    "callbacks.early_stopping.patience": ("bert_mrpc", "2", f"{STOPPING} optimizer.lr=0 {AT_ONCE}"),
    "logger.csv.save_dir": ("bert_mrpc", "{data}/csv"),
    "logger.tensorboard.save_dir": ("bert_mrpc", "{data}/board", "logger=tensorboard"),
    "logger.tensorboard.name": ("bert_mrpc", "board", "logger=tensorboard"),
    "logger.tensorboard.version": ("bert_mrpc", "first", "logger=tensorboard"),
    "callbacks.last_checkpoint.save_total_limit": (
        *("bert_mrpc", "2"),
        "callbacks.last_checkpoint.every_n_train_steps=1",
    ),
    "callbacks.last_checkpoint.every_n_train_steps": (
        *("bert_mrpc", "1"),
        "callbacks.last_checkpoint.save_total_limit=5",
    ),
    "callbacks.samples.num_samples": ("bert_mrpc", "1"),
    "callbacks.best_model.card.experiment": ("bert_mrpc", "another"),
    "callbacks.best_model.card.base_model": ("bert_mrpc", "another"),
    "callbacks.ema.use_buffers": ("bert_mrpc", "true", "callbacks=ema callbacks.ema.decay=0.9"),
    "callbacks.ema.decay": ("bert_mrpc", "0.1", "callbacks=ema optimizer.lr=1e-2"),
}
ELSEWHERE = {  # where a change is seen that a tiny run on stand-ins does not show
    "test_sources": "data.name data.revision data.splits data.path data.source data.reader "
    "data.columns.text data.columns.summary data.image_dir",
    "test_bad_input": "data.metadata",
    "test_push": "callbacks.push.repo callbacks.push.run_dir callbacks.push.when "
    "callbacks.push.private callbacks.push.revision callbacks.push.wait",
    "test_chat": "data.chat_template_kwargs",
    "test_grpo": "task.rewards task.generator data.chat data.num_iterations",
    "test_chat_training": "callbacks.samples.prompts",
    "test_interruptions": "task.non_finite",
    "test_preference": "data.plain_texts",
    "test_preference_training": "task.reference",
    "test_adalora, which has the run's own": "adapter.total_step",
    "the test below": "model.gradient_checkpointing",
    "test_chunked_loss": "task.chunked_loss",
    "test_kernels": "model.kernels",
    "test_features": "task.torch_compile data.pad_to_multiple_of",
    "test_propose": "data.label_delimiter",
    "test_metrics": "task.problem_type",
    "test_shapes": "data.white",
    "test_module, which compares them and finds no difference": "data.num_workers",
    "test_question_answering": "task.null_score_diff_threshold",
    "test_translation": "data.source_lang data.target_lang",
    "test_learning": "tokenizer.model_type",
    "devices, as `mistakes.txt` and test_ddp": "trainer.accelerator trainer.devices",
    "test_ddp": "trainer.strategy.broadcast_buffers",
    "test_invariance": "data.batches_per_step",
    "test_corpus": "data.prepared data.workers data.deduplicate data.min_chars data.max_chars "
    "data.only data.keep data.validation_hash data.cache_size",
    "test_streaming": "data.streaming tokenizer.sample_texts",
    "test_windows": "data.window_shards",
    "test_same_bits": "trainer.same_bits",
    "test_sharded": "trainer.strategy.data_parallel_size trainer.strategy.tensor_parallel_size "
    "trainer.strategy.activation_checkpointing trainer.strategy.cpu_offload",
    "test_optimizers": "optimizer.relative_step",
    "test_optimizer_runs": "scheduler.monitor scheduler.mode scheduler.options.factor "
    "scheduler.options.patience scheduler.options.min_lr scheduler.options.max_lr",
    "test_screen": "callbacks.rich_progress.every_percent callbacks.rich_progress.every_seconds",
    "test_steps": "callbacks.best_model.monitor callbacks.best_model.mode "
    "callbacks.early_stopping.check_on_train_epoch_end",
    "the last test below": (
        "logger.wandb.project logger.wandb.name logger.wandb.id logger.wandb.resume "
        "logger.wandb.save_dir logger.wandb.offline logger.wandb.tags "
        "logger.wandb.settings.x_disable_meta"
    ),
}


def leaves(node, path):
    if not isinstance(node, dict) or not node:
        return {path}
    inner = [leaves(value, f"{path}.{key}") for key, value in node.items() if key != "defaults"]
    return set().union(*inner)


def test_every_key_is_here():
    keys = set()
    for group in GROUPS.split():
        for path in (ROOT / "configs" / group).glob("*.yaml"):
            text = path.read_text()
            place = "model" if text.startswith("# @package model\n") else group
            own = leaves(yaml.safe_load(text) or {}, place)
            keys |= {re.sub(r"^model\.adapter\.", "adapter.", key) for key in own}
    keys = {key for key in keys if not key.endswith(("_target_", "_partial_")) and "." in key}
    known = KEYS.keys() | {key for named in ELSEWHERE.values() for key in named.split()}
    assert keys == known


@pytest.fixture(scope="module")
def left(commands, checkpoints, tmp_path_factory):
    """A function from a recipe and overrides to what a run leaves: its files' contents."""
    seen = {}
    folder = tmp_path_factory.mktemp("data")
    places = {"distilbert": checkpoints("distilbert"), "tokenizer": folder / "tokenizer"}
    shutil.copytree(checkpoints("bert"), places["tokenizer"])
    texts = [text for i in range(60) for text in standins.article(i).values()]
    Trained(vocab_size=300).train(texts).save_pretrained(places["tokenizer"])

    def run(recipe, *settings):
        if (recipe, settings) not in seen:
            own = standins.overrides_for(recipe, folder / recipe, checkpoints)
            said = settings
            for name, place in {"data": folder / recipe, **places}.items():
                said = [one.replace(f"{{{name}}}", str(place)) for one in said]
            here = tmp_path_factory.mktemp("run")
            done = commands.run(["train", f"experiment={recipe}", *own, *QUICK, *said], here)
            assert done.code == 0, done.err
            (made,) = here.glob("logs/train/runs/*")
            seen[recipe, settings] = {
                re.sub(r"tfevents.*", "tfevents", str(path.relative_to(made))): content(path)
                for path in made.rglob("*")
                if path.is_file() and not repeats(path.relative_to(made))
            }
        return seen[recipe, settings]

    return run


def repeats(path: Path) -> bool:
    """Whether a file repeats the config, or differs from run to run."""
    return path.parts[0] in (".hydra", "config.yaml", "environment.json", "train.log")


def content(path: Path) -> str:
    if path.parent.name == "checkpoints" or "tfevents" in path.name:
        return ""  # its name says enough
    return hashlib.sha256(path.read_bytes()).hexdigest()


WALKED = [
    key if key in FEW.split() else pytest.param(key, marks=pytest.mark.thorough) for key in KEYS
]


@pytest.mark.parametrize("key", WALKED)
def test_another_value_changes_something(key, left):
    recipe, value, *beside = KEYS[key]
    context = tuple(beside[0].split() if beside else ())
    key = key.replace("adapter.", "model.adapter.", 1) if key.startswith("adapter.") else key
    assert left(recipe, *context, f"++{key}={value}") != left(recipe, *context)


def test_the_same_twice_is_the_same(left):
    assert left("bert_mrpc") == left("bert_mrpc", "seed=42")


def test_reentrant_checkpointing_is_honoured(checkpoints):
    """What differs is a warning's and a gradient's way, not a run's files."""
    from transformers import AutoModelForMaskedLM

    from hydralight.models import Pretrained

    for asked, options in [(True, False), ({"use_reentrant": True}, True)]:
        recipe = Pretrained(checkpoint=str(checkpoints("bert")), gradient_checkpointing=asked)
        model = recipe(AutoModelForMaskedLM)
        functions = [
            module._gradient_checkpointing_func
            for module in model.modules()
            if hasattr(module, "_gradient_checkpointing_func")
        ]
        assert functions
        assert all(f.keywords["use_reentrant"] is options for f in functions)


def test_wandb_gets_what_the_config_says(tmp_path):
    """Nothing is sent to be seen from here: its logger is built, and looked at."""
    named = {"project": "p", "name": "n", "id": "i", "resume": "never", "tags": ["t"]}
    typed = [f"logger.wandb.{key}={value}" for key, value in named.items() if key != "tags"]
    typed += [f"logger.wandb.save_dir={tmp_path}", "logger.wandb.offline=true", "tags=[t]"]
    typed += ["logger.wandb.settings.x_disable_meta=false"]
    with initialize_config_dir(str(CONFIG_DIR)), execution_whitelist(WHITELIST):
        (logger,) = build_all({"wandb": compose("train", ["logger=wandb", *typed]).logger.wandb})
    given = logger._wandb_init
    assert {key: given[key] for key in named} == named
    assert (given["dir"], given["settings"].x_disable_meta) == (str(tmp_path), False)
    assert logger._offline
