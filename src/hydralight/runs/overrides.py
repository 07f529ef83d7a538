"""What was typed, read by Hydra's own parser; and how a run or a sweep is gone on with."""

import re
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, OverrideType, Sweep
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf

from hydralight.config.limits import MAX_EPOCHS, MAX_STEPS
from hydralight.config.project import config_dirs
from hydralight.errors import UserError
from hydralight.runs.files import refuse_links
from hydralight.runs.run import existing_run, experiment_of, latest_run, own_config, typed_in

# Their values are paths or texts as they were typed, which need not be an override's.
FREE_TEXT = re.compile(r"\+{0,2}(resume|run|sweep|input)=(.*)", re.DOTALL)
EVALUATING = (
    "run",
    "split",
    "harness",
    "harness_tasks",
    "harness_options",
    "input",
    "output",
    "format",
    "repo",
    "private",
    "revision",
)  # keys that a training config does not have


def parsed(argument: str) -> Override | None:
    """Return an argument as Hydra reads it; None for a flag, or what Hydra is to refuse."""
    if argument.startswith("-"):
        return None
    try:
        return OverridesParser.create().parse_override(argument)
    except HydraException:
        return None


@cache
def key_of(argument: str) -> str | None:
    """Return the key or group that an argument sets; None for a flag."""
    free = FREE_TEXT.fullmatch(argument)
    override = parsed(argument)
    if free is not None or override is None:
        return None if free is None else free[1]
    return override.key_or_group


def refuse_read_space(arguments: Sequence[str]) -> None:
    """Refuse a typed space whose texts Hydra has read already, as it cannot put that in a config.

    Raises:
        UserError: there is one.
    """
    space = value_of("hparams_search.params", arguments)
    for key, value in space.items() if isinstance(space, dict) else ():
        if isinstance(value, Sweep):
            raise UserError(
                f"hparams_search.params.{key} should be a text: put it in double quotes, or type "
                f"'{key}=…' with what is to be searched instead."
            )


def value_of(key: str, arguments: Sequence[str]) -> Any:
    """Return the last value that was typed for a key; None where none was."""
    likely = (parsed(argument) for argument in arguments if key in argument)
    found = [one for one in likely if one is not None and one.key_or_group == key]
    return found[-1].value() if found else None


def free_text(key: str, arguments: Sequence[str]) -> tuple[int, str] | None:
    """Return the place and value of the argument that sets a key of free text to something."""
    for place, argument in enumerate(arguments):
        match = FREE_TEXT.fullmatch(argument)
        if match is not None and match[1] == key and match[2] not in ("", "null"):
            override = parsed(argument) if match[2][0] in "'\"" else None
            return place, match[2] if override is None else str(override.value())
    return None


def is_sweep(argv: Sequence[str]) -> bool:
    """Whether several runs are asked for; a long flag may be typed in part."""
    flags = [a for a in argv[1:] if a.startswith("-")]
    long = [a for a in flags if len(a) > 2 and "--multirun".startswith(a)]
    return "-m" in flags or bool(long) or value_of("hydra.mode", argv[1:]) == "MULTIRUN"


def quoted(text: object) -> str:
    """Return a text as a value that Hydra takes literally: no interpolation, no list, no sweep."""
    escaped = str(text).replace("${", "\\${")
    # backslashes before a quote, and at the end, would escape it
    escaped = re.sub(r"(\\*)('|$)", lambda m: m[1] * 2 + ("\\'" if m[2] else ""), escaped)
    return f"'{escaped}'"


def quoted_input(argument: str) -> str:
    """Quote the value of `input=`, which is anybody's text, unless it is quoted already."""
    match = FREE_TEXT.fullmatch(argument)
    if match is None or match[1] != "input":
        return argument
    whole = match[2]
    if len(whole) > 1 and whole[0] == whole[-1] and whole[0] in "'\"":
        return argument
    return f"{argument[: match.start(2)]}{quoted(whole)}"


# ---------------------------------------------------------------- where configs are


def with_own_configs(arguments: Sequence[str]) -> list[str]:
    """Add the folders of configs of a project that is built on this one to what was typed."""
    own = [f"file://{folder}" for folder in config_dirs()[1:]]
    for folder in config_dirs()[1:]:
        _refuse_the_templates_names(folder)
    typed = value_of("hydra.searchpath", arguments) or []
    typed = [typed] if isinstance(typed, str) else typed
    missing = [path for path in own if path not in typed]
    if not missing:
        return list(arguments)
    kept = [a for a in arguments if key_of(a) != "hydra.searchpath"]
    paths = ",".join(map(quoted, [*typed, *missing]))
    return [f"hydra.searchpath=[{paths}]", *kept]


def _refuse_the_templates_names(folder: Path) -> None:
    """Refuse a config of one's own that the template's of that name would be taken for."""
    for path in sorted(folder.rglob("*.yaml")):
        name = path.relative_to(folder)
        template = config_dirs()[0] / name
        if name.parts[0] != "local" and template.is_file() and not template.samefile(path):
            raise UserError(
                f"{path} has the name of a config of the template, which would be taken instead: "
                "give it another."
            )


def with_groups_off(arguments: Sequence[str], run_dir: Path | None = None) -> list[str]:
    """Write `logger=null` as Hydra can take it, for every group; what is off stays off.

    That is `~logger` where groups are composed. The config of a run has none any more: there, its
    target or its entries are set to null.

    Args:
        arguments: What was typed.
        run_dir: The run whose config is taken.
    """
    defaults = OmegaConf.load(config_dirs()[0] / "train.yaml").defaults
    named = [one for one in defaults if isinstance(one, DictConfig)]
    off = {key for one in named for key in one if one[key] is None}
    changed = []
    for argument in arguments:
        group = _group_switched_off(argument)
        if group is None:
            changed.append(argument)
        elif run_dir is None:
            changed += [] if group in off else [f"~{group}"]
        else:
            node = OmegaConf.select(own_config(run_dir), group)
            keys = [str(key) for key in node] if isinstance(node, DictConfig) else []
            for key in keys:  # which become part of what is typed
                if not re.fullmatch(r"[A-Za-z_][\w-]*", key):
                    raise UserError(f"{run_dir}: its config has {key!r} in {group}: no such name.")
            keys = ["_target_"] if "_target_" in keys else keys
            changed += [f"{group}.{key}=null" for key in keys]
    return changed


def _group_switched_off(argument: str) -> str | None:
    override = parsed(argument)
    if override is None or override.value() is not None:
        return None
    if override.type not in (OverrideType.CHANGE, OverrideType.DEL):
        return None
    group = override.key_or_group
    return group if any((folder / group).is_dir() for folder in config_dirs()) else None


def log_dir(arguments: Sequence[str]) -> str:
    """Return `paths.log_dir` as typed, or as set in configs/local, or the default."""
    typed = value_of("paths.log_dir", arguments)
    if typed is not None:
        return str(typed)
    files = [folder / "local" / "default.yaml" for folder in config_dirs()]
    local = next((path for path in files if path.is_file()), None)
    own = OmegaConf.create() if local is None else OmegaConf.load(local)
    return str(OmegaConf.select(own, "paths.log_dir", default="logs"))


# ---------------------------------------------------------------- a run that goes on


def named_run(command: str, argv: list[str]) -> Path | None:
    """Return the run that `resume=` or `run=` names, and put its full path into `argv`.

    `latest` is resolved here, once, so that processes which repeat the command line agree.
    """
    key = "resume" if command == "train" else "run"
    named = free_text(key, argv[1:])
    if named is None:
        return None
    place, value = named
    path = latest_run(Path(log_dir(argv[1:]))) if value == "latest" else existing_run(value)
    own_config(path)  # which Hydra is about to read
    refuse_links(path)
    argv[1 + place] = f"{key}={quoted(path)}"
    return path


def arguments_in_run(
    command: str, run_dir: Path, before: Sequence[str], arguments: Sequence[str]
) -> list[str]:
    """Return Hydra's arguments for a command on a run's own config, in the run's directory.

    Args:
        command: `train`, `eval`, `predict` or `publish`.
        run_dir: The run's directory.
        before: What earlier resumes have changed.
        arguments: What was typed.

    Raises:
        UserError: a training would go on elsewhere.
    """
    elsewhere = value_of("hydra.run.dir", arguments)
    if command == "train" and elsewhere is not None and Path(elsewhere).resolve() != run_dir:
        raise UserError(
            f"hydra.run.dir={elsewhere}: a run goes on in its own directory, {run_dir}; leave "
            "it out."
        )
    own = [
        f"hydra.run.dir={quoted(run_dir)}",
        "hydra.output_subdir=null",
        f"hydra.job.name={command}",
        "hydra/job_logging=hydralight",
        f"+hydra.runtime.choices.experiment={quoted(experiment_of(run_dir))}",
    ]
    arguments = with_own_configs(arguments)
    added = [key_of(a) in EVALUATING and not a.startswith("+") for a in arguments]
    typed = [f"++{quoted_input(a)}" if add else a for a, add in zip(arguments, added, strict=True)]
    if command != "train":
        _check_what_a_model_is(run_dir, arguments)
        # a group elsewhere; here, the folder of one
        named = [f"++model.adapter={quoted(a.removeprefix('adapter='))}" for a in typed]
        is_named = [a.startswith("adapter=") for a in typed]
        typed = [n if is_one else a for n, a, is_one in zip(named, typed, is_named, strict=True)]
    typed = with_one_end(typed)
    # a relaunched rank comes with arguments that have been through here already
    return [a for a in [*own, *before] if a not in typed] + typed


def _check_what_a_model_is(run_dir: Path, arguments: Sequence[str]) -> None:
    """Refuse what is typed beside `run=` and would make another model of it.

    Raises:
        UserError: it does.
    """
    checkpoint = value_of("checkpoint", arguments)
    if checkpoint is not None:
        raise UserError(
            f"run={run_dir} and checkpoint={checkpoint} name two models: leave one of them out."
        )
    problem = value_of("data.problem_type", arguments)
    trained = OmegaConf.select(own_config(run_dir), "data.problem_type", default=problem)
    if problem is not None and problem != trained:
        raise UserError(
            f"data.problem_type={problem}: the run was trained with {trained}: leave it out."
        )


def with_one_end(typed: Sequence[str]) -> list[str]:
    """Return what is typed for a run that goes on; a new end takes the place of the one it had.

    `resume=<run> trainer.max_epochs=8` extends a run of `trainer.max_steps=16`, and the other way
    round. Where both are typed, both count.
    """
    ended = [key for key in (MAX_EPOCHS, MAX_STEPS) if value_of(key, typed) not in (None, -1)]
    other = {MAX_EPOCHS: MAX_STEPS, MAX_STEPS: MAX_EPOCHS}
    lifted = [f"++{other[key]}=-1" for key in ended if other[key] not in map(key_of, typed)]
    return [*typed, *lifted]


def typed_keys(run_dir: Path | None) -> set[str]:
    """Return the keys that are typed now; for a run that goes on, also those that began it.

    Raises:
        UserError: the run's own record of them is damaged.
    """
    begun = [] if run_dir is None else typed_in(run_dir)
    now = HydraConfig.get().overrides.task if HydraConfig.initialized() else []
    return {key for typed in [*begun, *now] if (key := key_of(str(typed))) is not None}


# ---------------------------------------------------------------- a sweep that goes on


def named_sweep(argv: Sequence[str]) -> Path | None:
    """Return the sweep that `sweep=` names.

    Raises:
        UserError: there is none.
    """
    named = free_text("sweep", argv[1:])
    if named is None:
        return None
    path = Path(named[1]).expanduser().absolute()
    if not (path / "sweep.json").is_file():
        raise UserError(f"there is no sweep at {named[1]}: it has no sweep.json.")
    return path


def arguments_in_sweep(sweep_dir: Path, kept: Sequence[str], arguments: Sequence[str]) -> list[str]:
    """Return the arguments that go on with a sweep: what began it, and what is typed now."""
    typed = [a for a in arguments if key_of(a) != "sweep" and a not in ("-m", "--multirun")]
    return ["--multirun", *kept, *typed, f"hydra.sweep.dir={quoted(sweep_dir)}"]
