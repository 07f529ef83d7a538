"""Bytes of state, and CPU time of a step, of each optimizer that a config names.

    python -m benchmarks.optimizer_states

prints a table in Markdown: of GPT-2 (124 million parameters unless said), by one step on random
gradients, which is measured, and by the fastest of three more.
"""

import argparse
import time
import warnings
from pathlib import Path
from typing import Any

import torch
from omegaconf import OmegaConf
from transformers import AutoConfig, AutoModelForCausalLM

from hydralight.dealing import build_optimizer
from hydralight.optim.build import build

CONFIGS = Path(__file__).parent.parent / "configs" / "optimizer"


def bytes_of(state: Any) -> int:
    """Return the bytes of all tensors in a state, also of objects in it; each of them once."""
    seen: dict[int, int] = {}

    def look(value: Any) -> None:
        if isinstance(value, torch.Tensor):
            seen[value.data_ptr()] = value.numel() * value.element_size()
        elif isinstance(value, dict):
            for one in value.values():
                look(one)
        elif isinstance(value, list | tuple):
            for one in value:
                look(one)
        elif hasattr(value, "__dict__"):
            look(vars(value))

    look(state)
    return sum(seen.values())


def measured(name: str, layers: int, width: int) -> tuple[float, float]:
    """Return the bytes of state a parameter, and the seconds of CPU time of a step.

    Args:
        name: Of a config in the group `optimizer`.
        layers: Of the GPT-2.
        width: Of its hidden states.
    """
    config = AutoConfig.for_model("gpt2", n_layer=layers, n_embd=width, n_head=max(1, width // 64))
    model = AutoModelForCausalLM.from_config(config)
    node = OmegaConf.load(CONFIGS / f"{name}.yaml")
    optimizer = build(build_optimizer(OmegaConf.create({"optimizer": node})), model, scaler=False)
    torch.manual_seed(0)
    seconds = []
    for _ in range(4):
        for parameter in model.parameters():
            parameter.grad = torch.randn_like(parameter) * 1e-3
        begin = time.process_time()
        optimizer.step()
        seconds.append(time.process_time() - begin)
    size = bytes_of([dict(state) for state in optimizer.state.values()])
    return size / sum(p.numel() for p in model.parameters()), min(seconds[1:])


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("names", nargs="*", help="of configs; all unless said")
    parser.add_argument("--layers", type=int, default=12)
    parser.add_argument("--width", type=int, default=768)
    given = parser.parse_args()
    warnings.simplefilter("ignore")
    print("| optimizer | state, bytes a parameter | CPU time of a step, of AdamW's |")
    print("|---|---|---|")
    names = given.names or sorted(path.stem for path in CONFIGS.glob("*.yaml"))
    _, adamw = measured("adamw", given.layers, given.width)
    for name in names:
        size, seconds = measured(name, given.layers, given.width)
        print(f"| `{name}` | {size:.2f} | {seconds / adamw:.1f} |", flush=True)


if __name__ == "__main__":
    main()
