"""The model card as the hub takes it: with the data, the base model and the results of a run."""

import math
import re
from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult, ModelCard
from omegaconf import DictConfig, OmegaConf

from hydralight.runs.run import choices_of, read_metrics
from hydralight.runs.secrets import redact_message

HUB_ID = re.compile(r"[\w-][\w.-]*(/[\w-][\w.-]*)?")
SPLITS = {"best": "validation", "test": "test"}  # by what metrics.json calls them
# What the hub calls some of our tasks; it has the others' own names, with hyphens.
PIPELINES = {"masked_lm": "fill-mask", "reward": "text-classification"}
PIPELINES |= dict.fromkeys(
    ("causal_lm", "recurrent_lm", "preference", "kto", "grpo"), "text-generation"
)


def card_of(text: str, run_dir: Path, config: DictConfig, repo: str) -> str:
    """Return the text of a model's card, with what the hub reads in its header.

    Args:
        text: The card as it was exported.
        run_dir: The run, whose `metrics.json` has the results.
        config: The run's config, resolved.
        repo: What the model is called on the hub.
    """
    base = ModelCard(text, ignore_metadata_errors=True).data.get("base_model")
    here = base is not None and not on_the_hub(base)
    if here:  # by its name alone: where it lies is nobody's business
        text = text.replace(str(base), Path(str(base)).name)
    card = ModelCard(text, ignore_metadata_errors=True)
    data: Any = card.data
    if here:  # the hub refuses a card that names somebody's folder
        data.base_model = None
    task = choices_of(run_dir).get("task")
    kind = PIPELINES.get(str(task), str(task).replace("_", "-")) if task else "other"
    path = OmegaConf.select(config, "data.path")
    name = path if on_the_hub(path) else None
    if name is not None:
        data.datasets = [name]
    results = [
        EvalResult(
            task_type=kind,
            dataset_type=name or "other",
            dataset_name=name or "the data of the run",
            dataset_config=OmegaConf.select(config, "data.name") if name else None,
            dataset_split=split,
            metric_type=metric,
            metric_name=metric,
            metric_value=value,
        )
        for split, metric, value in _results(read_metrics(run_dir))
    ]
    if results:
        data.model_name, data.eval_results = repo.rpartition("/")[2], results
    return redact_message(str(card))


def _results(metrics: dict[str, Any]) -> list[tuple[str, str, float]]:
    """Return the metrics of the model that is exported: split, name and value."""
    return [
        (split, name.partition("/")[2], round(value, 6))
        for part, split in SPLITS.items()
        for name, value in sorted(metrics.get(part, {}).items())
        if "/" in name and isinstance(value, int | float) and math.isfinite(value)
    ]


def on_the_hub(name: object) -> bool:
    """Whether what was typed as a checkpoint or as data is a name on the hub, and no path here."""
    return (
        isinstance(name, str)
        and HUB_ID.fullmatch(name) is not None
        and not Path(name).expanduser().exists()
    )
