"""Arguments of Trainer that mean something only together, a function for each of the things.

Each gets the values of all arguments, and those that are not as the library has them by default
(`changed`), and says what it has to say.
"""

import inspect
from collections.abc import Mapping
from typing import Any

from hydralight.from_trainer.said import Said

Values = Mapping[str, Any]
# of the optimizers of `optim`: the config, and what is another default there
ADAMW = ("adamw_torch", "adamw_torch_fused")
OPTIMIZERS: dict[str, tuple[str, dict[str, Any]]] = {
    "adafactor": ("adafactor_hf", {}),
    "sgd": ("sgd", {"momentum": 0.0}),
    "adagrad": ("adagrad", {}),
    "rmsprop": ("rmsprop", {}),
    "adamw_bnb_8bit": ("adamw_8bit", {}),
    "adamw_8bit": ("adamw_8bit", {}),
    "ademamix_8bit": ("ademamix_8bit", {}),
    "lion_8bit": ("lion_8bit", {}),
    "lion_32bit": ("lion", {}),
    "ademamix": ("ademamix", {}),
    "paged_adamw_32bit": ("paged_adamw_32bit", {}),
    "paged_adamw_8bit": ("paged_adamw", {}),
    "galore_adamw": ("galore", {}),
    "apollo_adamw": ("apollo", {}),
    "schedule_free_adamw": ("schedule_free_adamw", {}),
    "schedule_free_radam": ("schedule_free_radam", {}),
    "schedule_free_sgd": ("schedule_free_sgd", {}),
}
LOW_RANK = ("galore_adamw", "apollo_adamw")
WITH_BETAS = ("adam", "galore", "apollo", "lion")
ON_EVALUATION = {"reduce_lr_on_plateau": "reduce_on_plateau", "greedy": "greedy"}
LOGGERS = ("wandb", "tensorboard")


def length(a: Values, changed: Values, said: Said) -> None:
    """Say how long a training is, where steps decide if there are any, and the clipping."""
    if a["max_steps"] and a["max_steps"] > 0:
        said.values |= {"trainer.max_steps": a["max_steps"], "trainer.max_epochs": -1}
    else:
        said.values["trainer.max_epochs"] = whole(a["num_train_epochs"])
    norm = a["max_grad_norm"]
    said.values["trainer.gradient_clip_val"] = norm if norm and norm > 0 else None


def optimizer(a: Values, changed: Values, said: Said) -> None:
    """Say which optimizer, and its own arguments."""
    name = a["optim"]
    if name in ADAMW:
        said.choices["optimizer"] = "adamw"
    elif name in OPTIMIZERS:
        said.choices["optimizer"], more = OPTIMIZERS[name]
        said.values |= {f"optimizer.{key}": value for key, value in more.items()}
    else:
        said.unsaid.append(f"optim={name}: there is no such optimizer; see docs/optimizers.md.")
        return
    if "adam_beta1" in changed or "adam_beta2" in changed:
        said.values["optimizer.betas"] = [a["adam_beta1"], a["adam_beta2"]]
    if "adam_epsilon" in changed:
        said.values["optimizer.eps"] = a["adam_epsilon"]
    given = arguments_of(a["optim_args"])
    if given and name in ADAMW:
        said.unsaid.append(f"optim_args={a['optim_args']}: Trainer does not give them to {name}.")
        given = {}
    if name in LOW_RANK:
        targets = a["optim_target_modules"]
        if isinstance(targets, str) and targets == "all-linear":
            targets = None
        low = {key: given.pop(key) for key in ("rank", "update_proj_gap", "scale") if key in given}
        if targets:
            globs = [f"*{one}*" for one in ([targets] if isinstance(targets, str) else targets)]
            said.values["optimizer.groups"] = [{"params": globs, "rank": 128, **low}]
        else:
            said.values |= {f"optimizer.matrices.{key}": value for key, value in low.items()}
    said.values |= {f"optimizer.{key}": value for key, value in given.items()}


def arguments_of(text: str | None) -> dict[str, Any]:
    """Read `optim_args`: `name=value,name=value`, or a mapping as a text."""
    import yaml

    if not text:
        return {}
    if isinstance(text, Mapping):
        return dict(text)
    if text.lstrip().startswith("{"):
        return dict(yaml.safe_load(text))
    pairs = (one.partition("=") for one in text.replace(" ", "").split(","))
    return {key: yaml.safe_load(value) for key, _, value in pairs}


def schedule(a: Values, changed: Values, said: Said) -> None:
    """Say the schedule with its options, and the warm-up."""
    name, options = a["lr_scheduler_type"], dict(mapping(a["lr_scheduler_kwargs"]))
    if name in ON_EVALUATION:
        said.choices["scheduler"] = ON_EVALUATION[name]
        options = {**(on_evaluation(name)), **options}
    elif name == "warmup_stable_decay":
        said.choices["scheduler"] = name
        if "num_decay_steps" in options:
            said.values["scheduler.decay_steps"] = options.pop("num_decay_steps")
        options.pop("num_stable_steps", None)
        options = {"decay_type": "linear", **options}
    elif name in ("constant", "constant_with_warmup"):
        said.choices["scheduler"] = "constant"
    else:
        said.choices["scheduler"] = name if name in ("linear", "cosine") else "linear"
        if said.choices["scheduler"] != name:
            said.values["scheduler.name"] = name
    if name not in ON_EVALUATION and name != "constant":
        steps = a["warmup_steps"] or 0
        ratio = steps if 0 < steps < 1 else None
        said.values |= {
            "scheduler.warmup_steps": 0 if ratio else int(steps),
            "scheduler.warmup_ratio": ratio,
        }
    if options:
        said.values["scheduler.options"] = options


def on_evaluation(name: str) -> dict[str, Any]:
    """Return the library's own values, where ours are others."""
    if name == "greedy":
        from transformers.optimization import GreedyLR

        found = inspect.signature(GreedyLR).parameters
        return {key: found[key].default for key in ("factor", "patience", "min_lr", "max_lr")}
    return {"factor": 0.1, "patience": 10}


def precision(a: Values, changed: Values, said: Said) -> None:
    """Say what is computed in: 32 bits unless said."""
    mixed = "16-mixed" if a["fp16"] else "bf16-mixed" if a["bf16"] else "32-true"
    said.values["precision"] = mixed
    for name, one in (("bf16_full_eval", "bf16-true"), ("fp16_full_eval", "16-true")):
        if a[name]:
            said.unsaid.append(f"{name}: evaluate afterwards with eval.py precision={one}.")


def model(a: Values, changed: Values, said: Said) -> None:
    """Say what is done to the model: checkpointing, compilation."""
    if a["activation_checkpointing"] or a["gradient_checkpointing"]:
        options = a["activation_checkpointing_kwargs"] or a["gradient_checkpointing_kwargs"]
        said.values["model.gradient_checkpointing"] = mapping(options) or True
    named = {"backend": a["torch_compile_backend"], "mode": a["torch_compile_mode"]}
    options = {key: value for key, value in named.items() if value not in (None, "inductor")}
    if a["torch_compile"] or options:
        said.values["task.torch_compile"] = options or True


def evaluation(a: Values, changed: Values, said: Said) -> None:
    """Say when there is an evaluation, and what the best is by."""
    strategy, steps = a["eval_strategy"], a["eval_steps"] or a["logging_steps"]
    if strategy == "no":
        said.values["trainer.limit_val_batches"] = 0
    elif strategy == "epoch":
        said.values["trainer.val_check_interval"] = 1.0
    elif steps >= 1:
        said.values["trainer.val_check_interval"] = int(steps)
    elif a["max_steps"] and a["max_steps"] > 0:
        said.values["trainer.val_check_interval"] = max(1, round(steps * a["max_steps"]))
    elif steps * a["num_train_epochs"] <= 1:
        said.values["trainer.val_check_interval"] = float(steps * a["num_train_epochs"])
    else:
        said.unsaid.append(f"eval_steps={steps}: say it as a number of steps, or below an epoch.")
    metric = a["metric_for_best_model"]
    if metric and strategy != "no":
        said.values["optimized_metric"] = f"val/{metric.removeprefix('eval_')}"
        if a["greater_is_better"] not in (None, not metric.endswith("loss")):
            mode = "max" if a["greater_is_better"] else "min"
            said.values["callbacks.best_model.mode"] = mode
    elif strategy == "no":
        said.values["optimized_metric"] = "val/loss"


def saving(a: Values, changed: Values, said: Said) -> None:
    """Say when checkpoints are written."""
    strategy, steps = a["save_strategy"], a["save_steps"]
    if a["save_only_model"] or strategy == "no":
        said.values["callbacks.last_checkpoint"] = None
        said.values.pop("callbacks.last_checkpoint.save_total_limit", None)
    elif strategy == "steps" and ("save_steps" in changed):
        if steps >= 1:
            said.values["callbacks.last_checkpoint.every_n_train_steps"] = int(steps)
        elif a["max_steps"] and a["max_steps"] > 0:
            part = max(1, round(steps * a["max_steps"]))
            said.values["callbacks.last_checkpoint.every_n_train_steps"] = part
        else:
            said.unsaid.append(f"save_steps={steps}: say it as a number of steps.")


def logging(a: Values, changed: Values, said: Said) -> None:
    """Say what is logged, and where."""
    if a["logging_strategy"] == "steps":
        steps = a["logging_steps"]
        if steps >= 1:
            said.values["trainer.log_every_n_steps"] = int(steps)
        else:
            said.unsaid.append(f"logging_steps={steps}: say it as a number of steps.")
    elif a["logging_strategy"] == "epoch":
        said.unsaid.append("logging_strategy=epoch: steps are logged, not epochs.")
    asked = a["report_to"] or []
    asked = [asked] if isinstance(asked, str) else list(asked)
    asked = [one for one in asked if one != "none"]
    known = [one for one in asked if one in LOGGERS]
    if known:
        said.choices["logger"] = known[0]
    for name in [one for one in asked if one not in known[:1]]:
        said.unsaid.append(f"report_to={name}: add an entry to the group logger.")
    if a["run_name"]:
        if "wandb" in known[:1]:
            said.values["logger.wandb.name"] = a["run_name"]
        elif a["run_name"] != a["output_dir"]:
            said.values["tags"] = [a["run_name"]]
    if "project" in changed and "wandb" in known[:1]:
        said.values["logger.wandb.project"] = a["project"]
    if a["disable_tqdm"]:
        said.values["callbacks.rich_progress"] = None
    if "log_level" in changed:
        said.values["hydra.job_logging.root.level"] = str(a["log_level"]).upper()


def devices(a: Values, changed: Values, said: Said) -> None:
    """Say how several devices work together, and what Lightning is asked for."""
    parallel = mapping(a["parallelism_config"])
    config = mapping(a["fsdp_config"])
    if (a["fsdp"] and a["fsdp"] not in ([], "", "no")) or parallel:
        said.choices["trainer"] = "fsdp"
        for key, ours in (
            ("dp_shard_size", "data_parallel_size"),
            ("tp_size", "tensor_parallel_size"),
        ):
            if key in parallel and parallel[key] is not None:
                said.values[f"trainer.strategy.{ours}"] = parallel[key]
        if config.get("activation_checkpointing"):
            said.values["trainer.strategy.activation_checkpointing"] = True
        if config.get("cpu_offload") or "offload" in str(a["fsdp"]):
            said.values["trainer.strategy.cpu_offload"] = True
    elif any(key.startswith("trainer.strategy.") for key in said.values):
        said.choices["trainer"] = "ddp"
    if a["full_determinism"]:
        said.values["trainer.deterministic"] = True
    if a["debug"]:
        said.values["trainer.detect_anomaly"] = True
    if a["skip_memory_metrics"] is False:
        said.choices["debug"] = "profiler"


def data(a: Values, changed: Values, said: Said) -> None:
    """Say in which order rows come, and which files there are."""
    sampling = a["train_sampling_strategy"]
    said.values["data.group_by_length"] = sampling == "group_by_length" or bool(
        a["sortish_sampler"]
    )
    if sampling not in ("random", "group_by_length"):
        said.unsaid.append(f"train_sampling_strategy={sampling}: training rows are shuffled.")
    named = {"train": "train_file", "validation": "validation_file", "test": "test_file"}
    files = {split: a[name] for split, name in named.items() if a.get(name)}
    if files:
        said.values["data.path"] = files
    if a["do_predict"]:
        said.values["test"] = True


def generation(a: Values, changed: Values, said: Said) -> None:
    """Say how texts are written in evaluations."""
    if a["generation_max_length"] is not None:
        said.values["generation.max_new_tokens"] = a["generation_max_length"] - 1
    given = a["generation_config"]
    if isinstance(given, str):
        said.unsaid.append(f"generation_config={given}: say its values, as generation.num_beams=4.")
    for key, value in (given if isinstance(given, Mapping) else {}).items():
        if value is not None and not key.startswith("_") and key not in OF_THE_FILE:
            said.values[f"generation.{key}"] = value


OF_THE_FILE = ("transformers_version", "output_attentions", "output_hidden_states")


def hub(a: Values, changed: Values, said: Said) -> None:
    """Say where and when the model is sent."""
    if not a["push_to_hub"]:
        return
    said.choices["callbacks"] = "push"
    if a["hub_model_id"]:
        said.values["callbacks.push.repo"] = a["hub_model_id"]
    when = {"end": "end", "every_save": "save"}.get(a["hub_strategy"])
    if "hub_strategy" in changed and when is None:
        said.unsaid.append(f"hub_strategy={a['hub_strategy']}: checkpoints are not sent.")
    elif when is not None:
        said.values["callbacks.push.when"] = when
    for name, key in (("hub_private_repo", "private"), ("hub_revision", "revision")):
        if a[name] is not None:
            said.values[f"callbacks.push.{key}"] = a[name]


def mapping(value: Any) -> dict[str, Any]:
    """Return a mapping that may be given as JSON, or not at all."""
    import json

    if isinstance(value, str) and value.lstrip().startswith("{"):
        value = json.loads(value)
    return dict(value) if isinstance(value, Mapping) else {}


def whole(number: float) -> int | float:
    """Return a number without a fraction as an int."""
    return int(number) if number == int(number) else number


TOGETHER = (
    length,
    optimizer,
    schedule,
    precision,
    model,
    evaluation,
    saving,
    logging,
    devices,
    data,
    generation,
    hub,
)
