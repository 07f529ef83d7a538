"""Which code a config may name (Hydra's execution whitelist)."""

from hydralight.config.project import projects

# `.*` stands for the classes of a package: a function, which may write or delete what its arguments
# name as soon as it is called, is listed by its own name.
# A project of one's own adds to it in its pyproject.toml (`config/project.py`): a YAML file, which
# may come with somebody's checkpoint, cannot extend it.
WHITELIST = (
    "bitsandbytes.optim.*",
    "hydralight.callbacks.*",
    "hydralight.data.*",
    "hydralight.data.digits.digits",
    "hydralight.data.quickstart.belongings_pairs",
    "hydralight.data.quickstart.belongings_splits",
    "hydralight.data.quickstart.newswire_splits",
    "hydralight.data.sorting.digits_to_sort",
    "hydralight.loggers.*",
    "hydralight.metrics.*",
    "hydralight.models.Pretrained",
    "hydralight.models.Scratch",
    "hydralight.optim.groups.Grouping",
    "hydralight.optim.muon.Muon",
    "hydralight.optim.on_evaluation",
    "hydralight.optim.schedule",
    "hydralight.processors.*",
    "hydralight.sharding.Sharded",
    "hydralight.tasks.*",
    "hydralight.tasks.losses.focal_loss",
    "hydralight.tasks.losses.label_cross_entropy",
    "hydralight.tasks.losses.token_cross_entropy",
    "hydralight.tasks.rewards.all_in_place",
    "hydralight.tasks.rewards.digits_in_place",
    "hydralight.tokenizers.Pretrained",
    "hydralight.tokenizers.Trained",
    "lightning.pytorch.callbacks.*",
    "lightning.pytorch.loggers.*",
    "lightning.pytorch.profilers.*",
    "lightning.pytorch.strategies.*",
    "lightning.pytorch.Trainer",
    "optuna.pruners.*",
    "optuna.samplers.*",
    "peft.AdaLoraConfig",
    "peft.IA3Config",
    "peft.LoraConfig",
    "peft.VeraConfig",
    "pytorch_optimizer.*",
    "torch.optim.*",
    "torchmetrics.*",
    "torchvision.transforms.*",
    "transformers.optimization.Adafactor",
    "wandb.Settings",
)
# What the configs of logging name, and nothing else: no group may open a file with it.
LOGGING = ("hydralight.progress.Messages", "hydralight.runs.logs.RunLog")


def whitelist() -> tuple[str, ...]:
    """Return what configs may name: the template's list, and those of projects built on it."""
    return (*WHITELIST, *(name for project in projects() for name in project.whitelist))


def whitelist_of_hydra() -> tuple[str, ...]:
    """Return what Hydra may import: what configs may name, and its logging."""
    return (*whitelist(), *LOGGING)


def allowed(target: str, names: tuple[str, ...] | None = None) -> bool:
    """Whether the whitelist, or these names of it, let a config name this dotted path."""
    return any(
        target.startswith(entry[:-1]) if entry.endswith(".*") else target == entry
        for entry in (whitelist() if names is None else names)
    )


def may_be_called(found: object, origin: str) -> bool:
    """Whether what a config names is a class, a listed function, or code of the user's own."""
    own = tuple(name for name in whitelist() if name not in WHITELIST)
    return isinstance(found, type) or origin in WHITELIST or allowed(origin, own)
