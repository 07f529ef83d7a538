"""Models judged by tasks that others have written: EleutherAI's lm-evaluation-harness."""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig
from tabulate import tabulate
from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM

from hydralight.building import build_task, built, plain
from hydralight.errors import UserError, did_you_mean, told
from hydralight.models import positions_of
from hydralight.runs.as_json import as_json
from hydralight.runs.files import write_text
from hydralight.runs.overrides import typed_keys
from hydralight.runs.reading import read_json

FILE = "harness.json"
BACKENDS = {AutoModelForCausalLM: "causal", AutoModelForSeq2SeqLM: "seq2seq"}
OPTIONS = {  # arguments of lm_eval's `simple_evaluate`, and of its model
    "limit": (int, float),
    "num_fewshot": (int,),
    "batch_size": (int, str),
    "apply_chat_template": (bool, str),
    "fewshot_as_multiturn": (bool,),
    "system_instruction": (str,),
    "gen_kwargs": (str, dict),
    "bootstrap_iters": (int,),
    "max_length": (int,),
}
OF_MODEL = ("batch_size", "max_length")


def asked_for(cfg: DictConfig) -> list[str]:
    """Return the tasks of `harness`, which counts where it is typed.

    Raises:
        UserError: it is no list of names, or its other keys stand alone.
    """
    typed = {key.partition(".")[0] for key in typed_keys(None)}
    tasks = plain(cfg.get("harness")) if "harness" in typed else None
    if not tasks:
        for key in ("harness_tasks", "harness_options"):
            if key in typed and cfg.get(key):
                raise UserError(f"{key} is of harness=[a task, …], which is missing.")
        return []
    tasks = [tasks] if isinstance(tasks, str) else tasks
    if not (isinstance(tasks, list) and all(isinstance(one, str) for one in tasks)):
        raise UserError(f"harness={tasks} should be a list of tasks, such as [hellaswag,arc_easy].")
    return tasks


def package() -> Any:
    """Return lm_eval.

    Raises:
        UserError: it is not installed.
    """
    try:
        import lm_eval
        import lm_eval.models.huggingface
        import lm_eval.tasks
        import lm_eval.utils
    except ImportError as error:
        raise UserError(
            "harness needs a package that is not installed: pip install 'hydralight[evaluation]'"
        ) from error
    logging.getLogger("lm_eval").setLevel(logging.ERROR)
    return lm_eval


def judge(cfg: DictConfig, run_dir: Path, tasks: Sequence[str]) -> dict[str, Any]:
    """Evaluate a model on tasks of the harness; print their table, and write it to `harness.json`.

    What that holds of other tasks stays.

    Args:
        cfg: Its `model` and `tokenizer` are those of what is evaluated.
        run_dir: Where the file is written.
        tasks: Names, or globs over names.

    Returns:
        The values by task, and `versions`.

    Raises:
        UserError: the model or a task is none that the harness takes.
    """
    lm_eval = package()
    options = options_of(plain(cfg.get("harness_options")) or {})
    task = build_task(cfg)
    if task.auto_class not in BACKENDS:
        raise UserError(
            f"harness={list(tasks)} judges language models: a {type(task).__name__} is none."
        )
    manager, names = found(lm_eval, tasks, cfg.get("harness_tasks"))
    tokenizer = built(cfg.tokenizer)(lambda: [], "", run_dir)
    model = task.make_model(task.auto_class, tokenizer).eval()
    wanted = cfg.trainer.get("accelerator", "auto")
    if wanted in ("auto", "gpu", "cuda") and torch.cuda.is_available():
        model = model.to("cuda")
    wrapped = lm_eval.models.huggingface.HFLM(
        pretrained=model,
        tokenizer=tokenizer,
        backend=BACKENDS[task.auto_class],
        max_length=options.pop("max_length", None) or positions_of(model),
        batch_size=options.pop("batch_size", 1),
    )
    with told("harness"):
        results = lm_eval.simple_evaluate(
            wrapped, tasks=names, task_manager=manager, log_samples=False, **options
        )
    values = values_of(results)
    print(table_of(values))
    path = run_dir / FILE
    before = read_json(path, dict, "delete it") if path.is_file() else {}
    write_text(path, as_json({**before, **values}, indent=2) + "\n")
    return values


def options_of(options: Mapping[str, Any]) -> dict[str, Any]:
    """Check `harness_options`.

    Raises:
        UserError: there is no such option, or it has another type.
    """
    for name, value in options.items():
        if name not in OPTIONS:
            raise UserError(
                f"harness_options.{name}: there is no option '{name}'{did_you_mean(name, OPTIONS)}"
            )
        kinds = OPTIONS[name]
        if value is not None and not (
            isinstance(value, kinds) and (bool in kinds or not isinstance(value, bool))
        ):
            wanted = " or ".join(kind.__name__ for kind in kinds)
            raise UserError(f"harness_options.{name}={value} should be {wanted}.")
    return {name: value for name, value in options.items() if value is not None}


def found(lm_eval: Any, tasks: Sequence[str], folder: str | None) -> tuple[Any, list[str]]:
    """Return lm_eval's manager of tasks, and the names of those that are asked for.

    Args:
        lm_eval: The package.
        tasks: Names, or globs.
        folder: Further tasks, as its YAML files; they may name functions in files beside them.

    Raises:
        UserError: the folder is not there, or no task has such a name.
    """
    if folder is not None and not Path(folder).expanduser().is_dir():
        raise UserError(f"harness_tasks={folder} is no folder: name one with tasks in YAML files.")
    where = None if folder is None else str(Path(folder).expanduser().resolve())
    with told(f"harness_tasks={folder}"):
        if where is not None:  # there are thousands of others, which take seconds to find
            own = lm_eval.tasks.TaskManager(include_path=where, include_defaults=False)
            if set(tasks) <= set(own.all_subtasks):
                return own, list(dict.fromkeys(tasks))
        manager = lm_eval.tasks.TaskManager(include_path=where)
    names: list[str] = []
    for task in tasks:
        matched = manager.match_tasks([task])
        if not matched:
            near = did_you_mean(task, manager.all_tasks)
            raise UserError(
                f"harness: lm_eval has no task '{task}'{near or '; `lm-eval ls tasks` lists them.'}"
            )
        names += [name for name in matched if name not in names]
    return manager, names


def table_of(values: Mapping[str, Any]) -> str:
    """Return the metrics of tasks as a table, each beside its standard error."""
    rows = [
        [task, name, value, found.get(f"{name}_stderr", found.get(f"{name},stderr"))]
        for task, found in values.items()
        if task != "versions"
        for name, value in found.items()
        if isinstance(value, float) and "stderr" not in name
    ]
    return tabulate(rows, ["task", "metric", "value", "standard error"], floatfmt=".4f")


def values_of(results: Mapping[str, Any]) -> dict[str, Any]:
    """Return what is kept of lm_eval's results: values, versions, shots and rows of each task."""
    kept: dict[str, Any] = {}
    for task, metrics in results["results"].items():
        named = {name.removesuffix(",none"): value for name, value in metrics.items()}
        kept[task] = {name: value for name, value in named.items() if name != "alias"}
        kept[task] |= {
            "version": results["versions"].get(task),
            "num_fewshot": results["n-shot"].get(task),
            "rows": results["n-samples"].get(task, {}).get("effective"),
        }
    import lm_eval

    return {**kept, "versions": {"lm_eval": getattr(lm_eval, "__version__", None)}}
