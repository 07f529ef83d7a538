"""The end of a run in five lines: what came out, where it lies, and what comes next."""

from pathlib import Path

from omegaconf import DictConfig

from hydralight.data.module import DataModule
from hydralight.progress import listed, short, width
from hydralight.runs.checkpoints import checkpoints_in
from hydralight.runs.run import read_metrics
from hydralight.shell import line, near


def summary(cfg: DictConfig, data: DataModule, run_dir: Path) -> list[str]:
    """Return the lines that are said of a run that has been trained.

    Args:
        cfg: Its config.
        data: Its data, which has been read.
        run_dir: Its directory, whose `metrics.json` says what came out.
    """
    model = run_dir / "model"
    return [
        outcome(cfg, run_dir),
        f"run directory: {near(run_dir)}",
        f"model: {near(model) if model.is_dir() else 'none was kept'}",
        *next_commands(cfg, data, run_dir),
    ]


def outcome(cfg: DictConfig, run_dir: Path) -> str:
    """Return the best value of the metric that counts, and the test metrics where there are any."""
    metrics = read_metrics(run_dir)
    best, test = metrics.get("best"), metrics.get("test")
    name = cfg.optimized_metric
    said = "no metric: there was no evaluation, and the model is the last one"
    if best is not None and name in best:
        said = f"best {name}: {short(best[name])}, at step {best['step']:,}"
    if test is None:
        return said
    tested = listed(test, f"test/{name.removeprefix('val/')}", width() - len(said) - 2)
    return f"{said}; {tested}"


def next_commands(cfg: DictConfig, data: DataModule, run_dir: Path) -> list[str]:
    """Return two commands that go on from here; each can be pasted as it is."""
    run, found = near(run_dir), []
    if (run_dir / "model").is_dir():
        if has_test(data) and read_metrics(run_dir).get("test") is None:
            found.append(line("eval", f"run={run}", "split=test"))
        example = example_input(data)
        if example is not None:
            found.append(line("predict", f"run={run}", f"input={example}"))
    if checkpoints_in(run_dir / "checkpoints"):
        limits = {key: cfg.trainer.get(key) for key in ("max_epochs", "max_steps")}
        longer = [f"trainer.{k}={2 * v}" for k, v in limits.items() if v is not None and v > 0]
        found.append(line("train", f"resume={run}", *longer))
    found.append(line("eval", f"run={run}"))
    return found[:2]


def has_test(data: DataModule) -> bool:
    """Whether there is a test split that can be evaluated, and not only predicted."""
    targets = set(data.shape.targets) - set(data.shape.optional_roles)
    test = data.rows().splits.get("test")
    return test is not None and targets <= set(test.column_names)


def example_input(data: DataModule) -> str | None:
    """Return what could be predicted: a text, or a file of the data; None where it takes more."""
    shape, rows = data.shape, data.rows().splits.get("train")
    if rows is None:  # of a prepared corpus whose files are gone
        return None
    inputs = [r for r in shape.roles if r not in shape.targets and r in rows.column_names]
    if len(inputs) != 1:
        return None
    if inputs[0] in shape.text_roles:
        return "Here comes a text of your own."
    example = rows[0][inputs[0]]
    path = Path(str(example.get("path") if isinstance(example, dict) else example))
    return near(path.resolve()) if path.is_file() else None
