"""A run that goes on, or is evaluated, on other devices by `trainer=<name>`."""

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

import hydralight
from hydralight.errors import UserError
from hydralight.runs.elsewhere import on_other_devices

DDP = {"_target_": "lightning.pytorch.strategies.DDPStrategy", "broadcast_buffers": False}
SHARDED = "hydralight.sharding.Sharded"


@pytest.fixture
def run(tmp_path):
    """The directory of a run with a trainer of these keys, as far as its config goes."""

    def begun(**trainer):
        folder = tmp_path / ".hydra"
        folder.mkdir(exist_ok=True)
        OmegaConf.save({"trainer": {"max_epochs": 60, **trainer}}, folder / "config.yaml")
        return tmp_path

    return begun


def trainer_of(run_dir, overrides):
    with initialize_config_dir(str(run_dir / ".hydra")):
        return OmegaConf.to_container(compose("config", overrides).trainer)


@pytest.mark.parametrize("had", [DDP, {"_target_": SHARDED, "cpu_offload": True}, "ddp", None])
@pytest.mark.parametrize("relaunched", [False, True])
def test_the_devices_are_those_of_the_config_and_the_rest_is_the_runs(run, had, relaunched):
    folder = run(accelerator="cpu", devices=4, **({} if had is None else {"strategy": had}))
    before = ["++trainer.strategy={_target_:another,key:1}", "++trainer.max_epochs=70"]
    typed = ["seed=1", "+trainer=ddp_cpu", "trainer.devices=3"]
    left, written = on_other_devices(folder, before, typed)
    assert left == before[1:]
    earlier = before if relaunched else left  # a rank gets what has been written already
    composed = trainer_of(folder, [o for o in [*earlier, *written] if o != "seed=1"])
    devices = {"accelerator": "cpu", "devices": 3, "num_nodes": 1, "strategy": DDP}
    assert composed == {"max_epochs": 70, **devices}


def test_a_config_without_a_strategy_has_none(run):
    folder = run(strategy=DDP, devices=2)
    _, written = on_other_devices(folder, [], ["trainer=cpu"])
    devices = {"accelerator": "cpu", "devices": 1, "num_nodes": 1, "strategy": "auto"}
    assert trainer_of(folder, written) == {"max_epochs": 60, **devices}


def test_other_arguments_are_left(run):
    typed = ["trainer.devices=2", "optimizer.lr=1"]
    assert on_other_devices(run(), ["a=1"], typed) == (["a=1"], typed)


def test_a_name_that_is_none(run):
    with pytest.raises(UserError, match=r"there is no trainer=dpd.*did you mean 'ddp'"):
        on_other_devices(run(), [], ["trainer=dpd"])


def test_a_resumed_run_keeps_what_it_was_begun_with(recipe):
    """Also in a second resume, which types nothing of it."""
    ddp = ["trainer=ddp_cpu", "trainer.devices=1", "trainer.gradient_clip_val=0.01"]
    run = hydralight.train([*recipe("bert_mrpc"), *ddp, "trainer.max_epochs=1"])
    for epochs, typed in (2, ["trainer=cpu"]), (3, []):
        hydralight.train([f"resume={run.path}", *typed, f"trainer.max_epochs={epochs}"])
        resumed = OmegaConf.load(run.path / "config.yaml").trainer
        assert (resumed.gradient_clip_val, resumed.max_epochs) == (0.01, epochs)
        assert (resumed.strategy, resumed.devices) == ("auto", 1)
