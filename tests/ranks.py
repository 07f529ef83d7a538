"""`train.py`, whose ranks each write down what they have trained.

python tests/ranks.py <arguments of train.py>: Lightning starts the other ranks by this file too, as
a sweep starts its trials, so that what is changed here is changed in all of them.
"""

import json
from pathlib import Path

import torch
from hydra.core.hydra_config import HydraConfig

from hydralight.cli import main
from hydralight.tasks.task import Task


def on_train_end(task: Task) -> None:
    trained = {
        "lr": task.trainer.optimizers[0].param_groups[0]["initial_lr"],
        "weights": sum(float(p.detach().to(torch.float64).sum()) for p in task.parameters()),
        "world": task.trainer.world_size,
    }
    folder = Path(HydraConfig.get().runtime.output_dir)
    (folder / f"rank-{task.global_rank}.json").write_text(json.dumps(trained))


Task.on_train_end = on_train_end

if __name__ == "__main__":
    main("train")
