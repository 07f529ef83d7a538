"""`hydra/launcher=ray`: each trial is a task of a Ray cluster.

The released launcher (hydra-ray-launcher 1.4.0rc3) takes what a round of trials brings in the order
of their numbers; a worker that dies ends it for all. It wants boto3 and Ray's dashboard too.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.core.singleton import Singleton
from hydra.core.utils import JobReturn, run_job, setup_globals
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig

from hydralight.errors import UserError
from hydralight.sweeps.ray_cluster import RayCluster
from hydralight.sweeps.trial import Lost
from hydralight.sweeps.worker import PATIENCE

# Of Ray's errors, those of a worker or its node; the others are of what was asked.
LOST: tuple[str, ...] = ("WorkerCrashedError", "NodeDiedError", "LocalRayletDiedError")
LOST += ("OutOfMemoryError", "ObjectLostError", "OwnerDiedError", "TaskCancelledError")


class RayLauncher(Launcher):
    """Runs trials as tasks of a Ray cluster, on as many nodes as it has.

    The nodes share a file system: the sweep's directory, the working directory and the environment
    of Python are to be where they are on this machine.

    Args:
        address: See `RayCluster`, as for `num_cpus`, `num_gpus` and `runtime_env`.
        num_cpus: CPUs that a trial takes.
        num_gpus: GPUs that a trial takes, or a fraction of one.
        max_concurrent: How many trials are at work together; None for as many as the nodes have
            room for.
        runtime_env: Ray's own.

    Raises:
        UserError: Ray is not installed, or a trial takes nothing.
    """

    def __init__(
        self,
        address: str | None = None,
        num_cpus: float = 1,
        num_gpus: float | None = None,
        max_concurrent: int | None = None,
        runtime_env: Mapping[str, Any] | None = None,
    ) -> None:
        try:
            import ray  # noqa: F401
        except ImportError as error:
            raise UserError("hydra/launcher=ray needs Ray: pip install 'ray>=2.55'") from error
        if num_cpus < 0 or (num_gpus or 0) < 0 or num_cpus == num_gpus == 0:
            raise UserError(
                f"hydra.launcher.num_cpus={num_cpus} and hydra.launcher.num_gpus={num_gpus} "
                "should be at least 0, and one of them more."
            )
        if max_concurrent is not None and max_concurrent < 1:
            raise UserError(f"hydra.launcher.max_concurrent={max_concurrent} should be at least 1.")
        self.cluster = RayCluster(address, num_cpus, num_gpus, runtime_env)
        self.max_concurrent = max_concurrent
        self.at_work: set[Any] = set()

    def setup(
        self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig
    ) -> None:
        """Take what Hydra gives; all of it goes to the workers."""
        self.hydra_context, self.task_function, self.config = hydra_context, task_function, config

    def room(self) -> int:
        """Return how many trials are to be at work together, on the nodes that there are now.

        Raises:
            UserError: there is no room for one.
        """
        self.cluster.connect()
        return self.max_concurrent or self.cluster.room()

    def launch(
        self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int
    ) -> Sequence[JobReturn]:
        """Run jobs on the cluster, all together.

        Raises:
            Lost: the worker or the node of one has died.
            UserError: no node has room for it, or the head does not answer.
        """
        import ray

        self.room()
        takes = self.cluster.takes
        task = ray.remote(
            num_cpus=takes["CPU"],
            num_gpus=takes["GPU"],
            max_retries=0,  # a number has one trial: the sweep tries again under the next
            max_calls=0,  # a trial's own process holds the GPU, and its worker may stay
            scheduling_strategy="SPREAD",
        )(run)
        of_all = (self.hydra_context, self.task_function, self.config, Singleton.get_state())
        numbered = enumerate(job_overrides, initial_job_idx)
        refs = [task.remote(list(job), number, *of_all) for number, job in numbered]
        self.at_work.update(refs)
        try:
            return [self.result(ref) for ref in refs]
        finally:
            self.at_work.difference_update(refs)

    def result(self, ref: Any) -> JobReturn:
        """Wait for a task, and return what Hydra has of it."""
        import ray

        while not ray.wait([ref], timeout=5)[0]:
            if not ray.is_initialized():  # we are leaving; to ask would connect again
                raise Lost("the cluster was left")
            self.cluster.check_head()
        try:
            return ray.get(ref)
        except ray.exceptions.RayTaskError as error:
            raise error.cause from None
        except ray.exceptions.RayError as error:
            if type(error).__name__ in LOST:
                raise Lost(f"its Ray worker was lost ({type(error).__name__})") from error
            raise

    def stop(self) -> None:
        """Ask the trials at work to end, and wait until they have."""
        import ray

        refs = list(self.at_work)
        if not refs or not self.cluster.answers():
            return
        for ref in refs:
            ray.cancel(ref)
        ray.wait(refs, num_returns=len(refs), timeout=PATIENCE + 5)


def run(
    overrides: Sequence[str],
    number: int,
    hydra_context: HydraContext,
    task_function: TaskFunction,
    config: DictConfig,
    singletons: Any,
) -> JobReturn:
    """Run a job in a worker of the cluster, as Hydra's other launchers do."""
    setup_globals()
    Singleton.set_state(singletons)
    composed = hydra_context.config_loader.load_sweep_config(config, list(overrides))
    composed.hydra.job.id = f"{composed.hydra.job.name}_{number}"
    composed.hydra.job.num = number
    HydraConfig.instance().set_config(composed)
    return run_job(
        hydra_context=hydra_context,
        task_function=task_function,
        config=composed,
        job_dir_key="hydra.sweep.dir",
        job_subdir_key="hydra.sweep.subdir",
    )
