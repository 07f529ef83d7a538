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
        if "test" not in data.rows().splits:
            found.append(line("eval", f"run={run}"))
        elif read_metrics(run_dir).get("test") is None:
            found.append(line("eval", f"run={run}", "split=test"))
        if takes_a_text(data):
            found.append(line("predict", f"run={run}", "input=Here comes a text of your own."))
    if checkpoints_in(run_dir / "checkpoints"):
        limits = {key: cfg.trainer.get(key) for key in ("max_epochs", "max_steps")}
        longer = [f"trainer.{k}={2 * v}" for k, v in limits.items() if v is not None and v > 0]
        found.append(line("train", f"resume={run}", *longer))
    return found[:2]


def takes_a_text(data: DataModule) -> bool:
    """Whether an input for prediction can be one text, which a command line can hold."""
    shape, columns = data.shape, data.rows().splits["train"].column_names
    inputs = [role for role in shape.roles if role not in shape.targets and role in columns]
    return len(inputs) == 1 and inputs[0] in shape.text_roles
