"""Memory of loading a model in shards: the growth of a process's peak, over its shard.

A Llama of 1.1 billion parameters whose files are in bfloat16, read into float32 by 2 processes over
gloo; `trainer` is `from_pretrained` in one process, which holds it whole. The peak is of all that
is resident, mapped files too. Target: below 1.3 times the shard and the largest tensor.
"""

import os
import socket
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from torch.utils.data import DataLoader, TensorDataset
from transformers import AutoModelForCausalLM, LlamaConfig

from benchmarks.measure import Line, alternate, apart, line, peak_memory
from hydralight.models import Pretrained
from hydralight.sharding import Sharded, built

SHAPE = {"hidden_size": 2048, "intermediate_size": 5632, "num_hidden_layers": 22}
SHAPE |= {"num_attention_heads": 32, "num_key_value_heads": 4, "vocab_size": 32_000}
TINY: dict[str, Any] = {"layers": 1, "hidden_size": 256}


def run(rounds: int = 1, layers: int = 22, hidden_size: int = 2048) -> list[Line]:
    """Return one line."""
    values = {**SHAPE, "num_hidden_layers": layers, "hidden_size": hidden_size}
    with tempfile.TemporaryDirectory() as folder:
        number, largest = apart(write_checkpoint, folder, values)
        grown = alternate(
            {
                "ours": lambda: max(in_two(Path(folder))),
                "trainer": lambda: apart(growth_of_whole, folder),
            },
            rounds,
        )
    shard = 4 * number / 2 / 2**20
    bound = 1.3 * shard + 4 * largest / 2**20
    what = f"memory to load {number / 1e9:.1f} billion parameters in 2 shards of {shard:,.0f} MiB"
    return [line(what, "MiB", grown, at_most=round(bound))]


def write_checkpoint(folder: str, values: dict[str, int]) -> tuple[int, int]:
    """Write random weights; return the numbers of all parameters and of the largest tensor's."""
    model = AutoModelForCausalLM.from_config(LlamaConfig(**values), dtype=torch.bfloat16)  # type: ignore[arg-type]
    model.save_pretrained(folder)
    sizes = [p.numel() for p in model.parameters()]
    return sum(sizes), max(sizes)


def growth_of_whole(folder: str) -> float:
    """Load all of it in this process, and return by how many MiB the peak has grown."""
    before = resident()
    model = Pretrained(checkpoint=folder)(AutoModelForCausalLM)
    assert model.dtype == torch.float32
    return peak_memory() - before


def resident() -> float:
    """Return the memory of this process in MiB, and let the peak begin from there."""
    Path("/proc/self/clear_refs").write_text("5")
    return peak_memory()


def in_two(folder: Path) -> list[float]:
    """Load shards in two processes, and return by how many MiB the peak of each has grown."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    torch.multiprocessing.spawn(growth_of_shard, (port, folder), nprocs=2)
    return [float((folder / f"peak-{rank}").read_text()) for rank in range(2)]


def growth_of_shard(rank: int, port: int, folder: Path) -> None:
    """Be one of the two."""
    variables: dict[str, Any] = {
        "RANK": rank,
        "LOCAL_RANK": rank,
        "WORLD_SIZE": 2,
        "LOCAL_WORLD_SIZE": 2,
    }
    variables |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "GROUP_RANK": 0}
    os.environ.update({k: str(v) for k, v in variables.items()}, TORCHELASTIC_RUN_ID="load")
    measured = Measured(folder)
    trainer = Trainer(
        accelerator="cpu",
        devices=2,
        strategy=Sharded(),
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=str(folder),
    )
    trainer.validate(measured, DataLoader(TensorDataset(torch.zeros(2))), verbose=False)
    (folder / f"peak-{rank}").write_text(str(measured.grown))


class Measured(LightningModule):
    """A model that is loaded, and nothing else."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.folder = folder
        self.model: Any = None

    def configure_model(self) -> None:
        """Load it."""
        before = resident()
        recipe = Pretrained(checkpoint=str(self.folder))
        self.model = built(self.trainer.strategy, partial(recipe, AutoModelForCausalLM))
        self.grown = peak_memory() - before

    def validation_step(self, batch: Any) -> None:
        """Do nothing."""
