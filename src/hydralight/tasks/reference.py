"""What a reference model gives to the rows of the data, computed once and found again.

A loss that compares the trained model with what it was before reads a few numbers a row. They are
computed before training, with the model that has just been built, in evaluation mode, and come with
the rows of a batch from then on: no second model stays in memory. A resumed run builds its model
before the checkpoint is read, so that it has the same ones, also where the cache is gone.
"""

import inspect
import json
import logging
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import torch
import xxhash
from lightning.pytorch.utilities.seed import isolate_rng
from torch import Tensor
from torch.distributed.tensor import DTensor
from tqdm import tqdm

from hydralight.adapters import attached_to, checksum_of
from hydralight.cached import cache_folder, intact, locked, seal, told_if_full
from hydralight.devices import gathered, replica_of
from hydralight.errors import UserError
from hydralight.models import Pretrained
from hydralight.progress import interactive, waiting
from hydralight.shards import is_sharded
from hydralight.tasks import log_probs
from hydralight.tasks.data import Batch, TaskData

log = logging.getLogger(__name__)

PART = 256  # batches that are one file of the cache, and that an interruption may cost
INTERVAL = 30  # seconds between lines where there is no bar
Values = Callable[[Any, Batch], Tensor]  # of a model and a batch: (rows, columns)


def add_reference(task: Any, model: Any, columns: tuple[str, ...], values: Values) -> None:
    """Give the encoded rows of all splits the columns that a reference model has for them.

    Args:
        task: With its trainer and data module.
        model: The reference: on whatever device, in whatever mode; these are as before afterwards.
        columns: Names of the columns, which `Shape.pad` puts into batches.
        values: Computes them.
    """
    data, trainer = task.datamodule, task.trainer
    model = trainer.precision_plugin.convert_module(model)
    training, device = model.training, next(model.parameters()).device
    moved = not is_sharded(model)
    model.eval().to(trainer.strategy.root_device if moved else device)
    with torch.no_grad(), isolate_rng(), alone(model) as weights:
        identity = f"{weights} {config_of(model)}"
        for split in data.encoded_splits():
            if columns[0] not in data.encoded(split).column_names:
                key = key_of(data, split, identity, columns, str(trainer.precision))
                found = _values_of(task, model, split, key, values, len(columns))
                data.add_columns(split, dict(zip(columns, found.T.tolist(), strict=True)))
    model.train(training).to(device)


@contextmanager
def alone(model: Any) -> Iterator[str]:
    """Switch an adapter off that changes nothing yet, and yield what tells the model from others.

    So all runs with a new adapter share what is computed with its base.
    """
    own, state = attached_to(model), model.state_dict()
    if own is None or not _changes_nothing(model, own.peft):
        yield identity_of(state)
        return
    frozen = {name: state[name] for name in own.base}
    for inner in (".base_layer", ".original_module"):  # how peft calls what it wraps
        frozen = {name.replace(inner, ""): one for name, one in frozen.items()}
    with own.peft.disable_adapter():
        yield identity_of(frozen)


def config_of(model: Any) -> str:
    """Return what a model's config says of how its weights are used; not where they are from."""
    said = json.loads(model.config.to_json_string(use_diff=False))
    for name in ("_name_or_path", "transformers_version"):
        said.pop(name, None)
    return json.dumps(said, sort_keys=True)


def identity_of(state: Mapping[str, Tensor]) -> str:
    """Return the checksum of weights, which are made whole one by one where they are in shards."""
    digest = xxhash.xxh3_128()
    for name in sorted(state):
        tensor = state[name]
        whole = tensor.full_tensor() if isinstance(tensor, DTensor) else tensor
        digest.update(checksum_of({name: whole}).encode())
    return digest.hexdigest()


def _changes_nothing(model: Any, peft: Any) -> bool:
    """Whether a model gives the same logits with its adapter and without."""
    device = next(model.parameters()).device
    ids = torch.arange(16, device=device)[None] % model.get_input_embeddings().num_embeddings
    on = model(input_ids=ids).logits
    with peft.disable_adapter():
        off = model(input_ids=ids).logits
    tolerance = torch.finfo(on.dtype).eps ** 0.75 * off.std()
    return bool((on - off).abs().max() <= tolerance)


def key_of(
    data: TaskData, split: str, identity: str, columns: tuple[str, ...], precision: str
) -> str:
    """Return the cache's key: of the model, the encoded rows, and how they are computed.

    The rows count by their values, whatever files they came from; and by the batches that they are
    computed in, on which the rounding depends.
    """
    content = xxhash.xxh3_128()
    rows = data.encoded(split).with_format("arrow")
    for batch in rows.iter(1000):
        for name in sorted(batch.column_names):
            values = batch[name].combine_chunks()
            while hasattr(values, "flatten") and hasattr(values, "value_lengths"):
                content.update(np.ascontiguousarray(values.value_lengths()).tobytes())
                values = values.flatten()
            content.update(f"{name} {values.type}".encode())
            numbers = values.to_numpy(zero_copy_only=False)
            told = numbers.dtype == object  # texts
            content.update(json.dumps(numbers.tolist()).encode() if told else numbers.tobytes())
    sources = [inspect.getsource(sys.modules[__name__]), inspect.getsource(log_probs)]
    said = [identity, columns, precision, data.evaluated_together(split), sources]
    content.update(json.dumps(said).encode())
    return content.hexdigest()


def _values_of(
    task: Any, model: Any, split: str, key: str, values: Values, number: int
) -> np.ndarray:
    """Return the values of a split's rows (rows, columns), from the cache of the first process.

    All processes compute a share of the batches, and all have all values.
    """
    data, trainer = task.datamodule, task.trainer
    rows, batches = data.encoded(split), data.evaluated_together(split)
    found = np.zeros((len(rows), number), dtype=np.float32)
    (rank, size), several = replica_of(trainer), trainer.world_size > 1
    in_step = is_sharded(model)  # then all have to compute as often
    folder = cache_folder("reference") / key
    first = trainer.is_global_zero
    with (
        told_if_full(folder),
        locked(folder) if first else nullcontext(),
        _shown(f"reference of {split}", len(rows), first) as step,
    ):
        folder.mkdir(parents=True, exist_ok=True)
        for start in range(0, len(batches), PART):
            part = batches[start : start + PART]
            path = folder / f"{start:09}.npy"
            kept = np.load(path) if first and intact(path) else None
            if several:
                kept = gathered(kept)[0]
            if kept is None:
                own = {}
                for begin in range(0, len(part), size):
                    place = min(begin + rank, len(part) - 1)
                    if begin + rank == place or in_step:
                        own[place] = _of_batch(task, model, rows, part[place], values)
                    step(sum(map(len, part[begin : begin + size])))
                for other in gathered(own) if several else ():
                    own |= other
                kept = np.concatenate([own[place] for place in range(len(part))])
                if first:
                    _keep(kept, path)
            else:
                step(sum(map(len, part)))
            found[np.concatenate(part)] = kept
    return found


def _of_batch(
    task: Any, model: Any, rows: datasets.Dataset, indices: list[int], values: Values
) -> np.ndarray:
    data = task.datamodule
    some = [
        {**row, "index": index, "epoch": 0}
        for row, index in zip(rows.__getitems__(indices), indices, strict=True)
    ]
    batch = task.transfer_batch_to_device(data.collate(some), task.trainer.strategy.root_device, 0)
    with task.trainer.precision_plugin.forward_context():
        return values(model, batch).float().cpu().numpy()


def _keep(values: np.ndarray, path: Path) -> None:
    partial = path.with_name(f"{path.name}.partial")
    with partial.open("wb") as file:
        np.save(file, values)
    seal(partial, path)


@contextmanager
def _shown(what: str, total: int, first: bool) -> Iterator[Callable[[int], None]]:
    """Show a bar on a terminal after two seconds, and a line now and then where there is none."""
    terminal, said, done = interactive(), time.monotonic(), 0
    with tqdm(
        total=total, desc=what, unit=" rows", delay=2, leave=False, disable=not (terminal and first)
    ) as bar:

        def step(number: int) -> None:
            nonlocal said, done
            done += number
            bar.update(number)
            if first and not terminal and time.monotonic() - said > INTERVAL:
                said = time.monotonic()
                log.info("%s: %d of %d rows", what, min(done, total), total)

        yield step


def build_reference(task: Any) -> Any:
    """Build another model to refer to, by its name or recipe, without a trace in the streams.

    One that is drawn at random is the one that a run with this seed would begin with.
    """
    own = task.reference
    recipe = Pretrained(checkpoint=own) if isinstance(own, str) else own
    with waiting("loading the reference"), isolate_rng():
        torch.manual_seed(torch.initial_seed())  # the run's, from its beginning
        try:
            return recipe(task.auto_class, task.datamodule.load_processor())
        except UserError as error:
            raise UserError(f"the reference: {error}") from error


def refers_to_itself(task: Any) -> bool:
    """Whether the model at hand is the reference, untrained: in a preflight, and an evaluation.

    So is it in the one step of a `fast_dev_run`.
    """
    trainer = task.trainer
    return task.reference is None and (trainer.fast_dev_run or trainer.state.fn != "fit")
