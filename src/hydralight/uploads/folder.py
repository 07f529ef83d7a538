"""What of a run goes to the hub, as a folder that nothing changes: a snapshot by hard links."""

import json
import logging
import os
import shutil
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from hydralight.errors import UserError
from hydralight.runs.checksums import ADAPTER, EXPORTED, checksum, checksums_of
from hydralight.runs.checksums import NAME as CHECKSUMS
from hydralight.runs.files import partial_of, remove, steadily, told, write_text
from hydralight.runs.reading import read_json, read_yaml
from hydralight.runs.run import read_metrics
from hydralight.runs.sealed import sealed_json
from hydralight.runs.secrets import redact
from hydralight.uploads.card import card_of, on_the_hub

log = logging.getLogger(__name__)

CARD = "README.md"
# Files whose words are a vocabulary's, in which anything may look like a secret.
OF_TOKENIZERS = {"tokenizer.json", "vocab.json", "added_tokens.json", "special_tokens_map.json"}
OF_TOKENIZERS |= {"tokenizer_config.json", CHECKSUMS}
LARGE = 1_000_000  # bytes of a JSON file that is no config


def snapshot(run_dir: Path, model: Path, repo: str) -> Path:
    """Return a new folder beside `model` with all that goes to the hub of a run, as it is now.

    That is the model's folder, its card with the run's results in the header, and in `results/` the
    metrics, the curves and the config, without secrets and without this machine's paths. The
    model's files are hard links where the disk has them, so that it takes no room.

    Args:
        run_dir: The run.
        model: The folder of the model, which may be replaced meanwhile.
        repo: What the model is called on the hub.

    Raises:
        UserError: it holds what looks like a secret, or there is no room.
    """
    folder = partial_of(run_dir / "push")
    advice = "a resume of the run writes it again"
    config = read_yaml(run_dir / "config.yaml", DictConfig, advice)
    try:
        with told(folder):
            steadily(model, lambda there: _copy(there, folder))
        _refuse_secrets(folder, model)
        card = folder / CARD
        text = card.read_text(encoding="utf-8") if card.is_file() else ""
        remove(card)  # a link to the run's own
        write_text(card, card_of(text, run_dir, config, repo))
        _add_results(run_dir, folder / "results", config)
        _add_checksums(folder)
    except BaseException:
        remove(folder)
        raise
    return folder


def _copy(model: Path, folder: Path) -> None:
    """Link a folder's files, except hidden ones, which no export has written."""
    remove(folder)
    hidden = shutil.ignore_patterns(".*")
    shutil.copytree(model, folder, copy_function=_link, ignore=hidden)


def _link(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


def _refuse_secrets(folder: Path, model: Path) -> None:
    """Refuse a model whose configs hold what looks like a secret."""
    for path in sorted(folder.rglob("*.json")):
        name = path.relative_to(folder)
        if path.name in OF_TOKENIZERS or path.stat().st_size > LARGE:
            continue
        content = read_json(path, dict, "export the model again")
        if _holds_a_secret(content):
            raise UserError(
                f"{model / name} holds what looks like a secret, and is not sent: take it out."
            )


def _holds_a_secret(node: Any, key: str = "") -> bool:
    """Whether a text within looks like a secret; a number is none, as that of a label."""
    if isinstance(node, dict):
        return any(_holds_a_secret(value, str(name)) for name, value in node.items())
    if isinstance(node, list):
        return any(_holds_a_secret(value, key) for value in node)
    return isinstance(node, str) and redact(node, key) != node


def _add_results(run_dir: Path, folder: Path, config: DictConfig) -> None:
    metrics = read_metrics(run_dir)
    if metrics:
        write_text(folder / "metrics.json", sealed_json(metrics))
    plain = redact(OmegaConf.to_container(config, resolve=False))
    here = {str(run_dir): "<run>", str(Path.home()): "~"}
    text = OmegaConf.to_yaml(OmegaConf.create(_without_places(plain, here)))
    write_text(folder / "config.yaml", text)
    curves = run_dir / "curves.png"
    if curves.is_file():
        shutil.copyfile(curves, folder / curves.name)


def _add_checksums(folder: Path) -> None:
    """Let the list of the model's files have those that were added, so that it knows all."""
    path = folder / CHECKSUMS
    if path.is_file():
        known = read_json(path, dict, "export the model again")
        added = [folder / CARD, *sorted((folder / "results").iterdir())]
        known |= {one.relative_to(folder).as_posix(): checksum(one) for one in added}
        remove(path)
    else:
        known = checksums_of(folder)
    write_text(path, json.dumps(known, indent=2) + "\n")


def _without_places(node: Any, here: dict[str, str]) -> Any:
    """Return plain values without the paths of this machine."""
    if isinstance(node, dict):
        return {key: _without_places(value, here) for key, value in node.items() if key != "paths"}
    if isinstance(node, list):
        return [_without_places(value, here) for value in node]
    if isinstance(node, str):
        for place, name in here.items():
            node = node.replace(place, name)
    return node


def said_of(folder: Path) -> str:
    """Return what a commit of a snapshot says, such as "The model of step 40"."""
    record = folder / EXPORTED
    content = read_json(record, dict, "export the model again") if record.is_file() else {}
    return f"The model of step {content['step']}" if "step" in content else "The model"


def warn_of_base(model: Path) -> None:
    """Tell where nobody else can load an adapter, as its base model lies in a folder here."""
    path = model / ADAPTER
    content = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    base = content.get("base_model_name_or_path")
    if path.is_file() and not on_the_hub(base):
        log.warning(
            "the adapter's base model is %s, which nobody else has: publish that too, and train "
            "with its name as checkpoint",
            base,
        )
