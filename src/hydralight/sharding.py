"""Training sharded over devices: FSDP2, by the model's own blocks, and tensor parallelism."""

from collections.abc import Callable
from contextlib import nullcontext
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins.collectives.torch_collective import default_pg_timeout
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import WeightAveraging
from lightning.pytorch.strategies import ModelParallelStrategy
from torch import nn
from torch.distributed.fsdp import CPUOffloadPolicy, MixedPrecisionPolicy, fully_shard
from transformers import PreTrainedModel
from transformers.distributed.tensor_parallel import apply_tensor_parallelism

from hydralight.adapter_files import save as save_adapter
from hydralight.adapters import attached_to
from hydralight.config.ranges import Positive
from hydralight.errors import UserError, told
from hydralight.model_files import loaded_by_shards, save_by_tensors
from hydralight.runs.sharded import opened, read_shards, write_shards
from hydralight.sharded_adapters import check_adapter, check_unquantized, has_adapter
from hydralight.shards import class_name, is_sharded

DTYPES = {"bf16-mixed": torch.bfloat16, "bf16-true": torch.bfloat16, "16-true": torch.float16}


class Sharded(ModelParallelStrategy):
    """Shards weights, gradients and optimizer states over devices (FSDP2, Zhao et al., 2023).

    The blocks that the model names in `_no_split_modules` are gathered one at a time, in forward
    and again in backward, and then what is left of the model. All devices take part in each
    forward pass, also in an evaluation. Checkpoints are folders (`runs/sharded.py`).

    Args:
        data_parallel_size: Devices that have micro-batches of their own, and shards; all that
            tensor parallelism leaves, unless said.
        tensor_parallel_size: Devices that share each matrix of the model, by the plan that the
            model brings (`tp_plan`).
        activation_checkpointing: Compute the activations of a block again in the backward pass.
        cpu_offload: Keep shards, gradients and optimizer states in the host's memory, and take the
            optimizer's steps there.
        process_group_backend: Of torch.distributed; the devices' own unless said.
        timeout: Seconds after which a device that waits for another gives up.
    """

    def __init__(
        self,
        data_parallel_size: Positive | None = None,
        tensor_parallel_size: Positive = 1,
        activation_checkpointing: bool = False,
        cpu_offload: bool = False,
        process_group_backend: str | None = None,
        timeout: Positive | None = None,
    ) -> None:
        super().__init__(
            tensor_parallel_size=tensor_parallel_size,
            process_group_backend=process_group_backend,
            timeout=default_pg_timeout if timeout is None else timedelta(seconds=timeout),
        )
        self.data_parallel_size = data_parallel_size
        self.tensor_parallel_size = tensor_parallel_size
        self.activation_checkpointing = activation_checkpointing
        self.cpu_offload = cpu_offload
        self.resumed: Path | None = None  # the checkpoint that a training goes on from

    # ------------------------------------------------------------ devices

    def settle(self, devices: int) -> None:
        """Share the devices between data and tensor parallelism.

        Raises:
            UserError: the two sizes do not multiply to their number.
        """
        tensor = self.tensor_parallel_size
        size = self.data_parallel_size or devices // tensor
        if size * tensor != devices:
            said = "" if self.data_parallel_size is None else f", data_parallel_size={size}"
            raise UserError(
                f"trainer.strategy.tensor_parallel_size={tensor}{said}: the product should be the "
                f"number of devices, {devices}."
            )
        self._data_parallel_size = size

    def setup_environment(self) -> None:
        """Join the others; shards in the host's memory are exchanged over gloo."""
        self.settle(self.num_nodes * self.num_processes)
        if self.cpu_offload and self._process_group_backend is None:
            self._process_group_backend = "cpu:gloo,cuda:nccl"
        super().setup_environment()

    def setup(self, trainer: Trainer) -> None:
        """Set up the optimizer, whose schedule asks a resumed run for its steps and its data.

        Lightning restores the place in the data only afterwards, where checkpoints are in shards.
        """
        if self.resumed is not None and trainer.state.fn == "fit":
            data = trainer.datamodule  # type: ignore[attr-defined]
            data.load_state_dict(opened(self.resumed)[type(data).__qualname__])
        super().setup(trainer)

    def model_to_device(self) -> None:
        """Move what is not sharded; what is offloaded stays where it is."""
        task: Any = self.lightning_module
        if not self.cpu_offload:
            task.to(self.root_device)
            return
        model, task.model = task.model, None
        task.to(self.root_device)
        task.model = model
        for module in model.modules():
            for name, buffer in module.named_buffers(recurse=False):
                module._buffers[name] = buffer.to(self.root_device)

    # ------------------------------------------------------------ the model

    def build(self, recipe: Callable[[], PreTrainedModel]) -> PreTrainedModel:
        """Build a model of which each device gets its shards alone.

        Weights of a checkpoint are read shard by shard. A model without one is drawn as a whole on
        each device's host, so that it is the same one on any number of devices; and the base of an
        adapter is there as a whole until its layers are in it, as it is then sharded with them.

        Args:
            recipe: Builds the model, by `from_pretrained` or otherwise.

        Raises:
            UserError: it has an adapter that does not go with shards.
        """
        by_shards = loaded_by_shards(self.shard, self.root_device)
        with nullcontext() if has_adapter(recipe) else by_shards:
            model = recipe()
        check_adapter(model, self.tensor_parallel_size)
        if not is_sharded(model):
            self.shard(model)
        if self.activation_checkpointing:
            model.activation_checkpointing_enable({"use_reentrant": False})
        if self.cpu_offload:
            nn.Module.to(model, "cpu")
        return model

    def shard(self, model: PreTrainedModel) -> None:
        """Shard a model in place, on whatever device it is, the meta device too."""
        mesh = self.device_mesh["data_parallel"]
        dtype = DTYPES.get(str(self.precision_plugin.precision))
        if self.tensor_parallel_size > 1:
            split_matrices(model, self.device_mesh["tensor_parallel"])
        options: dict[str, Any] = {
            "mesh": mesh,
            "mp_policy": MixedPrecisionPolicy(param_dtype=dtype, reduce_dtype=torch.float32),
            # the root's too, or an evaluation would leave it gathered
            "reshard_after_forward": True,
        }
        if self.cpu_offload:
            options["offload_policy"] = CPUOffloadPolicy()
        model.tie_weights()  # which `from_pretrained` does only after the weights are there
        for block in blocks_of(model):
            fully_shard(block, **options)
        fully_shard(model, **options)
        # by it, `generate` ends on all devices at once
        model.__dict__["_is_fsdp_managed_module"] = True

    # ------------------------------------------------------------ checkpoints

    def lightning_module_state_dict(self) -> dict[str, Any]:
        """Return the shards, and what is on all devices."""
        assert self.lightning_module is not None
        return self.lightning_module.state_dict(keep_vars=True)

    def optimizer_state(self, optimizer: Any) -> dict[str, Any]:
        """Return nothing: `save_checkpoint` writes the states by the names of parameters."""
        return {}

    def save_checkpoint(
        self, checkpoint: dict[str, Any], filepath: Any, storage_options: Any = None
    ) -> None:
        """Write a folder; each device its shards."""
        path = Path(self.broadcast(filepath))
        task: Any = self.lightning_module
        write_shards(path, checkpoint, task, self.optimizers[0])

    def load_checkpoint(self, checkpoint_path: Any, weights_only: bool | None = None) -> Any:
        """Read weights and optimizer states into their places, and return the rest.

        It may have been written by another number of devices, or by one that sharded nothing.
        """
        path = Path(self.broadcast(checkpoint_path))
        task: Any = self.lightning_module
        return read_shards(path, task, self.optimizers[0])


def blocks_of(model: PreTrainedModel) -> list[nn.Module]:
    """Return the modules that are gathered one at a time, inner ones first.

    Those that the model names, or, where it names none, the members of its lists of modules. One
    that shares a weight with the outside is left to the rest of the model.
    """
    named = model._no_split_modules or ()
    listed = [m for one in model.modules() if isinstance(one, nn.ModuleList) for m in one]
    chosen = [m for m in model.modules() if type(m).__name__ in named] or listed
    users: dict[int, int] = {}
    for module in model.modules():
        for parameter in module.parameters(recurse=False):
            users[id(parameter)] = users.get(id(parameter), 0) + 1

    def is_alone(block: nn.Module) -> bool:
        inside = [id(p) for m in block.modules() for p in m.parameters(recurse=False)]
        return bool(inside) and all(inside.count(one) == users[one] for one in set(inside))

    return [block for block in reversed(chosen) if is_alone(block)]


def split_matrices(model: PreTrainedModel, mesh: Any) -> None:
    """Share each matrix between devices, by the plan that the model brings.

    Raises:
        UserError: it brings none, or one that does not go with so many devices.
    """
    if not model.tp_plan:
        raise UserError(
            f"trainer.strategy.tensor_parallel_size={mesh.size()}: {class_name(model)} brings no "
            "plan for it: leave it out, and all devices share the weights by data_parallel_size."
        )
    with told(f"trainer.strategy.tensor_parallel_size={mesh.size()}"):
        apply_tensor_parallelism(model, mesh, model._expand_parallel_plan(model.tp_plan))


def built(strategy: Any, recipe: Callable[[], Any]) -> Any:
    """Build a model by a recipe, in shards where the strategy is to have them.

    Raises:
        UserError: it would be quantized, and in shards.
    """
    made: Any = getattr(recipe, "func", recipe)
    if isinstance(strategy, Sharded):
        check_unquantized(getattr(made, "quantization", None))
    return strategy.build(recipe) if isinstance(strategy, Sharded) else recipe()


def save_weights(model: PreTrainedModel, folder: Path, first: bool) -> None:
    """Write a model as `save_pretrained` does, or its adapter alone.

    Of one in shards, all processes are to call this.

    Args:
        model: The model.
        folder: Where; only the first process writes.
        first: Whether this is that one.
    """
    if attached_to(model) and (first or is_sharded(model)):
        save_adapter(model, folder if first else None)
    elif is_sharded(model):
        save_by_tensors(model, folder if first else None)
    elif first:
        model.save_pretrained(folder)


def goes_on_from(trainer: Trainer, checkpoint: Path | None) -> None:
    """Tell a sharded training which checkpoint it goes on from, before it is set up."""
    if isinstance(trainer.strategy, Sharded):
        trainer.strategy.resumed = checkpoint


# ---------------------------------------------------------------- what does not go together


def check_precision(target: Any, precision: str) -> None:
    """Check that the strategy that a config names can compute so.

    Raises:
        UserError: it cannot.
    """
    known = ("32-true", "bf16-mixed", "bf16-true", "16-true")
    if str(target) == f"{__name__}.{Sharded.__name__}" and precision not in known:
        raise UserError(
            f"precision={precision} does not go with sharded training: take one of "
            f"{', '.join(known)}."
        )


def check(trainer: Trainer) -> None:
    """Check that a sharded training goes with devices and callbacks.

    Raises:
        UserError: it does not.
    """
    strategy = trainer.strategy
    if not isinstance(strategy, Sharded):
        return
    strategy.settle(trainer.num_devices * trainer.num_nodes)
    if strategy.cpu_offload and strategy.root_device.type == "cpu":
        raise UserError(
            "trainer.strategy.cpu_offload=true: the devices are CPUs, and shards are in the host's "
            "memory already: leave it out."
        )
    if any(isinstance(one, WeightAveraging) for one in trainer.callbacks):  # type: ignore[attr-defined]
        raise UserError(
            "callbacks=ema keeps a second model as a whole, and this one is sharded: take another "
            "trainer, or other callbacks."
        )
    if any(getattr(one, "merge", False) for one in trainer.callbacks):  # type: ignore[attr-defined]
        raise UserError(
            "callbacks.best_model.merge=true needs the whole model, and this one is sharded: leave "
            "it out, and merge the exported adapter, by merge_and_unload of peft."
        )
