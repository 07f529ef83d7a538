"""Which process this is, of those that were started together: what the environment says of it.

Lightning reads the same variables, in the same order: torchrun's, SLURM's, and MASTER_ADDR,
MASTER_PORT, NODE_RANK, WORLD_SIZE and LOCAL_RANK. It imports nothing heavy.
"""

import os
import socket
import sys
from dataclasses import dataclass

from hydralight.errors import UserError, count

ALONE = "HYDRALIGHT_ALONE"  # the process that was started alone: Lightning sets variables in it


@dataclass(frozen=True)
class Place:
    """A process among those that were started together.

    Args:
        starter: What has started it: `torchrun`, `srun`, or `the environment` alone.
        first: Whether it is rank 0, which decides for all.
        name: What the others call it.
        local: Its number on its node.
        world: How many there are; None where nothing in the environment says it.
        nodes: On how many nodes they are; None where nothing in the environment says it.
        leads: Whether Lightning starts the other processes of its node.
        hosted: Whether torchrun's agent keeps a store for them, at the main address and port.
    """

    starter: str
    first: bool
    name: str
    local: int
    world: int | None = None
    nodes: int | None = None
    leads: bool = False
    hosted: bool = False


def by_torchrun() -> bool:
    """Whether torchrun has started this process."""
    return "TORCHELASTIC_RUN_ID" in os.environ


def by_slurm() -> bool:
    """Whether Lightning takes this process for one of SLURM's, as all in a job are."""
    interactive = os.environ.get("SLURM_JOB_NAME") in ("bash", "interactive")
    return "SLURM_NTASKS" in os.environ and not interactive


def by_srun() -> bool:
    """Whether `srun` has started this process: a batch script's own is in no step."""
    return by_slurm() and "SLURM_STEP_ID" in os.environ


def is_first() -> bool:
    """Whether this is rank 0, also before there are ranks; a process alone is."""
    if by_torchrun():
        return number("RANK") == 0
    if by_srun():
        return number("SLURM_PROCID") == 0
    return (_node(), number("LOCAL_RANK")) == (0, 0)


def number(variable: str, default: int = 0) -> int:
    """Return an environment variable as a number.

    Raises:
        UserError: it is none.
    """
    text = os.environ.get(variable, str(default))
    if not text.isdigit():
        raise UserError(f"the environment's {variable}={text} should be a number.")
    return int(text)


def place() -> Place | None:
    """Return which process this is of those that were started together; None where it is alone.

    What Lightning has started by itself is alone too: it belongs to the process that did.

    Raises:
        UserError: the environment says only a part of what all have to know.
    """
    host = socket.gethostname()
    if by_torchrun():
        rank, world = number("RANK"), number("WORLD_SIZE", 1)
        nodes = number("GROUP_WORLD_SIZE", 1)
        hosted = os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"
        local, name = number("LOCAL_RANK"), f"process {rank} on {host}"
        here = Place("torchrun", rank == 0, name, local, world, nodes, hosted=hosted)
        return here if world > 1 else None
    if by_srun():
        rank, world = number("SLURM_PROCID"), number("SLURM_NTASKS")
        nodes = number("SLURM_STEP_NUM_NODES", number("SLURM_NNODES", 1))
        local, name = (
            number("SLURM_LOCALID"),
            f"process {rank} on {os.environ.get('SLURMD_NODENAME', host)}",
        )
        return Place("srun", rank == 0, name, local, world, nodes) if world > 1 else None
    started = {"NODE_RANK", "GROUP_RANK", "LOCAL_RANK"} & os.environ.keys()
    if "MASTER_ADDR" not in os.environ or not started or _of_lightning():
        return None
    if "MASTER_PORT" not in os.environ:
        raise UserError("MASTER_ADDR is set and MASTER_PORT is not: set both, on each node.")
    if "WORLD_SIZE" in os.environ and number("WORLD_SIZE") == 1:
        return None
    node, local, leads = _node(), number("LOCAL_RANK"), "LOCAL_RANK" not in os.environ
    name = f"node {node} ({host})" if leads else f"process {local} of node {node} ({host})"
    counted = number("WORLD_SIZE") if "WORLD_SIZE" in os.environ else None
    return Place("the environment", (node, local) == (0, 0), name, local, counted, leads=leads)


def stand_alone() -> None:
    """Note that this process was started alone: what Lightning says from now on is no cluster's."""
    os.environ[ALONE] = str(os.getpid())


def check_devices(devices: int, nodes: int) -> None:
    """Check that a trainer counts as many processes as were started.

    Args:
        devices: The trainer's devices on a node.
        nodes: Its nodes.

    Raises:
        UserError: it counts others.
    """
    here, counted = place(), f"trainer.devices={devices} and trainer.num_nodes={nodes}"
    if here is None:
        if nodes > 1 and not _is_a_child():
            raise UserError(
                f"trainer.num_nodes={nodes}, and this process was started alone: start it on each "
                "node by torchrun or srun (docs/devices.md), or type trainer.num_nodes=1."
            )
        if devices > 1 and by_slurm() and not by_torchrun():
            raise UserError(
                f"trainer.devices={devices} in a job of SLURM, which starts the processes: put "
                f"srun --ntasks-per-node={devices} before the command."
            )
        return
    if here.world is not None and here.world != devices * nodes:
        right = ""
        if here.nodes is not None and here.world % here.nodes == 0:
            each = here.world // here.nodes
            right = f": type trainer.devices={each} trainer.num_nodes={here.nodes}"
        raise UserError(
            f"{here.starter} counts {here.world} processes, and {counted} are "
            f"{devices * nodes}{right}."
        )
    if here.nodes is not None and here.nodes != nodes:
        raise UserError(
            f"{here.starter} counts {count(here.nodes, 'node')}, and {counted}: "
            f"type trainer.devices={devices * nodes // here.nodes} trainer.num_nodes={here.nodes}."
        )


def _node() -> int:
    return number("NODE_RANK", number("GROUP_RANK"))


def _of_lightning() -> bool:
    """Whether Lightning has set the variables: it has started this process, or others from it."""
    return _is_a_child() or os.environ.get(ALONE) == str(os.getpid())


def _is_a_child() -> bool:
    """Whether Lightning has started this process, by the command line of the one that it is in."""
    return any(argument.startswith("hydra.job.name=train_ddp_process_") for argument in sys.argv)
