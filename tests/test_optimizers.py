"""Each optimizer that a config names: it trains as its package does, and resumes to the bit."""

import io
from functools import partial

import pytest
import pytorch_optimizer
import torch
from conftest import CONFIG_DIR
from hydra.utils import execution_whitelist
from omegaconf import OmegaConf
from torch import nn

from hydralight.config.whitelist import WHITELIST
from hydralight.dealing import build_optimizer
from hydralight.errors import UserError
from hydralight.optim.averaged import EvaluationWeights
from hydralight.optim.build import build, check_shards, rehearse

STEPS = 30
# what a config has for its optimizer to learn this in so few steps, and what is left of the loss
LEARNS = {
    "adamw": ({"lr": 0.02}, 0.1),
    "adam": ({"lr": 0.02}, 0.1),
    "sgd": ({"lr": 0.3}, 0.1),
    "rmsprop": ({"lr": 0.01}, 0.1),
    "adagrad": ({"lr": 0.1}, 0.1),
    "adafactor": ({"lr": 0.3}, 0.1),
    "adafactor_hf": ({"lr": 0.02}, 0.1),
    "lion": ({"lr": 0.01}, 0.1),
    "muon": ({"lr": 0.02}, 0.1),
    "schedule_free_adamw": ({"lr": 0.05}, 0.1),
    "schedule_free_sgd": ({"lr": 3.0}, 0.1),
    "schedule_free_radam": ({"lr": 0.3}, 0.1),
    "adamw_8bit": ({"lr": 0.02, "min_8bit_size": 256}, 0.1),
    "paged_adamw": ({"lr": 0.02, "min_8bit_size": 256}, 0.1),
    "paged_adamw_32bit": ({"lr": 0.02}, 0.1),
    "lion_8bit": ({"lr": 0.01, "min_8bit_size": 256}, 0.1),
    "ademamix_8bit": ({"lr": 0.02, "min_8bit_size": 256}, 0.1),
    "galore": ({"lr": 0.02, "matrices": {"rank": 4, "update_proj_gap": 10, "scale": 1.0}}, 0.1),
    "apollo": ({"lr": 0.02, "matrices": {"rank": 4, "update_proj_gap": 10}}, 0.1),
    "ademamix": ({"lr": 0.02}, 0.1),
    "soap": ({"lr": 0.02, "precondition_frequency": 5}, 0.1),
    "prodigy": ({}, 0.1),
}


class Layer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm, self.up, self.down = nn.LayerNorm(16), nn.Linear(16, 32), nn.Linear(32, 16)

    def forward(self, x):
        return x + self.down(torch.relu(self.up(self.norm(x))))


class Model(nn.Module):
    """Of 5,000 parameters; it is to learn which word follows which."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.words = nn.Embedding(64, 16)
        self.layers = nn.ModuleList([Layer(), Layer()])
        self.head = nn.Linear(16, 64)

    def loss(self):
        x = self.words.weight
        for layer in self.layers:
            x = layer(x)
        return nn.functional.cross_entropy(self.head(x), (torch.arange(64) * 7 + 3) % 64)


def recipe(name):
    node = OmegaConf.load(CONFIG_DIR / "optimizer" / f"{name}.yaml")
    return built({"optimizer": OmegaConf.merge(node, LEARNS[name][0])})


def built(content):
    with execution_whitelist(WHITELIST):
        return build_optimizer(OmegaConf.create(content))


def step(model, optimizer, number):
    torch.manual_seed(number)  # as a task does, for what an optimizer draws
    loss = model.loss()
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()
    return float(loss)


def by_hand(name, model):
    """The optimizer as its package's own example has it: groups typed, and nothing of ours."""
    made = recipe(name)
    values, matrices = dict(made.make.keywords), dict(made.grouping.matrices or {})
    layers, order = model.layers, {id(p): place for place, p in enumerate(model.parameters())}
    inner = [m.weight for layer in layers for m in (layer.up, layer.down)]
    others = [model.words.weight, model.head.weight]
    spared = [*(m.bias for layer in layers for m in (layer.norm, layer.up, layer.down))]
    spared += [*(layer.norm.weight for layer in layers), model.head.bias]
    for some in (spared, both := [*others, *inner]):
        some.sort(key=lambda p: order[id(p)])  # Prodigy adds up over all of them
    if name == "muon":
        lr, decay = values["lr"], values["weight_decay"]
        adamw = torch.optim.AdamW(
            [{"params": others}, {"params": spared, "weight_decay": 0.0}], lr, weight_decay=decay
        )
        muon = torch.optim.Muon(inner, lr, decay, adjust_lr_fn="match_rms_adamw")
        return [adamw, muon]
    groups = [{"params": both}, {"params": spared, "weight_decay": 0.0}]
    if matrices:
        groups = [{"params": others}, {"params": inner, **matrices}, groups[1]]
    return [made.make.func(groups, **values)]


@pytest.mark.parametrize("name", LEARNS)
@pytest.mark.filterwarnings("ignore:Paged optimizers are not supported on CPU")
def test_an_optimizer_trains_as_its_package_does_and_resumes_to_the_bit(name):
    model = Model()
    optimizer = build(recipe(name), model, scaler=False)
    losses = []
    for number in range(STEPS):
        if number == STEPS // 2:
            file = io.BytesIO()
            torch.save([model.state_dict(), optimizer.state_dict()], file)
        losses.append(step(model, optimizer, number))

    bare = Model()
    own = by_hand(name, bare)
    for number in range(STEPS):
        torch.manual_seed(number)
        bare.loss().backward()
        for one in own:
            one.step()
        bare.zero_grad()
    apart = [
        float((a - b).abs().max())
        for a, b in zip(model.parameters(), bare.parameters(), strict=True)
    ]
    assert max(apart) < 1e-6

    file.seek(0)
    weights, states = torch.load(file, weights_only=True)
    resumed = Model()
    resumed.load_state_dict(weights)
    again = build(recipe(name), resumed, scaler=False)
    again.load_state_dict(states)
    assert [step(resumed, again, n) for n in range(STEPS // 2, STEPS)] == losses[STEPS // 2 :]
    assert all(map(torch.equal, model.parameters(), resumed.parameters()))

    EvaluationWeights([optimizer]).put()
    assert float(model.loss()) < LEARNS[name][1] * losses[0]


def test_evaluation_weights_leave_no_trace():
    """The optimizer's own way back would leave rounding; others have nothing else to evaluate."""
    model = Model()
    optimizer = build(recipe("schedule_free_sgd"), model, scaler=False)
    for number in range(3):
        step(model, optimizer, number)
    before = [p.detach().clone() for p in model.parameters()]
    weights = EvaluationWeights([optimizer])
    weights.put()
    weights.put()  # is there by now
    averaged = [p.detach().clone() for p in model.parameters()]
    assert not any(map(torch.equal, before, averaged))
    weights.take_back()
    assert all(map(torch.equal, before, model.parameters()))
    assert all(group["train_mode"] for group in optimizer.param_groups)
    EvaluationWeights([torch.optim.SGD(model.parameters())]).put()
    assert all(map(torch.equal, before, model.parameters()))


def test_adafactor_makes_its_own_rate():
    """The first step of a relative one is of 1 % of the root mean square, times 1e-2 at most."""
    node = OmegaConf.load(CONFIG_DIR / "optimizer/adafactor_hf.yaml")
    own = {"lr": None, "relative_step": True, "scale_parameter": True}
    made = {"optimizer": OmegaConf.merge(node, own)}
    model = Model()
    before = model.words.weight.detach().clone()
    step(model, build(built(made), model, scaler=False), 0)
    moved = (model.words.weight - before).square().mean().sqrt()
    assert float(moved) == pytest.approx(1e-2 * float(before.square().mean().sqrt()), rel=1e-3)
    made["optimizer"].layer_decay = 0.9
    with pytest.raises(UserError, match=r"layer_decay needs optimizer\.lr, which is null"):
        build(built(made), Model(), scaler=False)


def test_an_optimizer_that_evaluates_the_loss_again_is_refused():
    with pytest.raises(UserError, match=r"LBFGS evaluates the loss [0-9]+ times in a step, whose"):
        rehearse(torch.optim.LBFGS, None)
    rehearse(torch.optim.SGD, None)


def test_an_optimizer_that_steps_within_backward_is_refused():
    with pytest.raises(UserError, match="LOMO takes its steps within backward, before the gradi"):
        rehearse(partial(pytorch_optimizer.LOMO, lr=1e-3), None)


@pytest.mark.parametrize("name", ["galore", "muon", "adamw_8bit", "adafactor"])
def test_what_needs_whole_matrices_is_refused_with_shards(name):
    with pytest.raises(UserError, match="needs whole matrices, which trainer=fsdp shards"):
        check_shards(recipe(name))
    check_shards(recipe("lion"))


def test_every_optimizer_is_here():
    assert {path.stem for path in (CONFIG_DIR / "optimizer").glob("*.yaml")} == LEARNS.keys()
