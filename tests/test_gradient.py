"""The gradient of a step, without a trainer, beside one that is computed by hand."""

import math

import pytest
import torch
from torch import nn
from torch.nn.functional import mse_loss
from torch.utils._python_dispatch import TorchDispatchMode

from hydralight.errors import UserError
from hydralight.tasks.gradient import Gradient, Verdict
from hydralight.tasks.losses import token_cross_entropy

TARGETS = (3, 0, 1, 4)  # of the micro-batches


def model():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 1))


def batches(targets=TARGETS, seed=1):
    stream = torch.Generator().manual_seed(seed)
    return [
        (torch.randn(n, 3, generator=stream), torch.randn(n, 1, generator=stream)) for n in targets
    ]


def loss_of(net, batch):
    """The summed loss of a micro-batch and its number of targets."""
    inputs, right = batch
    return mse_loss(net(inputs), right, reduction="sum"), torch.tensor(len(right))


def total(losses):
    """The sums of losses and targets of several micro-batches."""
    return torch.tensor(
        [sum(float(value.detach()) for value in c) for c in zip(*losses, strict=True)]
    )


def accumulated(net, gradient, parts, divisor=1.0, first_row=0):
    """Backward over micro-batches, of which a trainer would take the mean."""
    for number, part in enumerate(parts):
        rows = torch.tensor([first_row + 10 * number, first_row + 10 * number + 1])
        (gradient.add(*loss_of(net, part), rows) / divisor).backward()


def gradients(net):
    return [p.grad.clone() for p in net.parameters()]


def by_hand(targets=TARGETS):
    """The mean loss over all the targets at once, and its gradient."""
    net, parts = model(), batches(targets)
    inputs, right = (torch.cat(column) for column in zip(*parts, strict=True))
    loss = mse_loss(net(inputs), right)
    loss.backward()
    return float(loss.detach()), gradients(net)


def norm_of(grads):
    return math.sqrt(sum(float((grad**2).sum()) for grad in grads))


@pytest.mark.parametrize("capacity", [1, 7.5, 4096])
@pytest.mark.parametrize("deferred", [False, True])
def test_mean_over_all_targets(capacity, deferred):
    net, gradient = model(), Gradient(capacity, deferred=deferred)
    loss, expected = by_hand()
    for step in (1, 2):  # nothing of a step is left over for the next
        net.zero_grad()
        accumulated(net, gradient, batches(), divisor=len(TARGETS))
        values = gradient.finish(net.parameters(), step=step, divisor=len(TARGETS))
        torch.testing.assert_close(gradients(net), expected)
        assert values.keys() == {"train/loss", "train/grad_norm"}
        assert float(values["train/loss"]) == pytest.approx(loss, rel=1e-6)
        assert float(values["train/grad_norm"]) == pytest.approx(norm_of(expected), rel=1e-5)


def test_a_short_window_is_divided_as_the_trainer_does():
    """It takes the mean over a whole window's micro-batches, also of the last, shorter one."""
    net, gradient = model(), Gradient(16)
    accumulated(net, gradient, batches((3, 1)), divisor=8)
    gradient.finish(net.parameters(), step=1, divisor=8)
    torch.testing.assert_close(gradients(net), by_hand((3, 1))[1])


def test_a_step_without_targets_is_no_step():
    net, gradient = model(), Gradient(16)
    accumulated(net, gradient, batches((0, 0)))
    values = gradient.finish(net.parameters(), step=1)
    assert all((grad == 0).all() for grad in gradients(net))
    assert math.isnan(values["train/loss"]) is True  # there is none, and it stops nothing
    assert values["train/grad_norm"] == 0


@pytest.mark.parametrize("part", [0.3, 5.0])
def test_clipping_by_norm(part):
    """To a part of the norm; or to more than it, which changes nothing."""
    net, gradient = model(), Gradient(16)
    _, expected = by_hand()
    limit = part * norm_of(expected)
    accumulated(net, gradient, batches())
    values = gradient.finish(net.parameters(), step=1, clip_norm=limit)
    torch.testing.assert_close(gradients(net), [min(1, part) * grad for grad in expected])
    assert float(values["train/grad_norm"]) == pytest.approx(norm_of(expected), rel=1e-5)
    others = [nn.Parameter(torch.zeros_like(grad)) for grad in expected]
    for parameter, grad in zip(others, expected, strict=True):
        parameter.grad = grad
    nn.utils.clip_grad_norm_(others, limit)
    torch.testing.assert_close(gradients(net), [p.grad for p in others])


def test_clipping_by_value():
    net, gradient = model(), Gradient(16)
    _, expected = by_hand()
    limit = float(torch.cat([grad.flatten().abs() for grad in expected]).median())
    accumulated(net, gradient, batches())
    gradient.finish(net.parameters(), step=1, clip_value=limit)
    torch.testing.assert_close(gradients(net), [grad.clamp(-limit, limit) for grad in expected])


def test_two_ranks():
    """Each has two of the micro-batches; gradients are averaged, and sums are added up."""
    parts, ranks = batches(), []
    for share in (parts[:2], parts[2:]):
        net, gradient = model(), Gradient(16)
        accumulated(net, gradient, share, divisor=2)
        ranks.append((net, gradient, [loss_of(net, part) for part in share]))
    pairs = zip(*(gradients(net) for net, *_ in ranks), strict=True)
    averaged = [(one + other) / 2 for one, other in pairs]
    everything = total(ranks[0][2] + ranks[1][2])
    loss, expected = by_hand()
    for net, gradient, losses in ranks:

        def reduce(window, own=total(losses)):  # noqa: B008
            torch.testing.assert_close(window.sum(dim=0), own, check_dtype=False)
            return everything

        for parameter, grad in zip(net.parameters(), averaged, strict=True):
            parameter.grad = grad.clone()
        values = gradient.finish(net.parameters(), step=1, divisor=4, reduce=reduce)
        torch.testing.assert_close(gradients(net), expected)
        assert float(values["train/loss"]) == pytest.approx(loss, rel=1e-6)


def test_parameters_that_are_not_trained_are_left_alone():
    net, gradient = model(), Gradient(16)
    accumulated(net, gradient, batches())
    net[0].weight.grad = None
    net[0].bias.grad = torch.ones(4)
    trained = [net[0].weight, *net[2].parameters()]
    values = gradient.finish(trained, step=1)
    expected = by_hand()[1][2:]
    torch.testing.assert_close([p.grad for p in net[2].parameters()], expected)
    assert (net[0].bias.grad == 1).all()
    assert net[0].weight.grad is None
    assert float(values["train/grad_norm"]) == pytest.approx(norm_of(expected), rel=1e-5)


# ---------------------------------------------------------------- what is not finite


def broken(net, gradient, value=float("nan"), where="loss", first_row=0):
    """A step whose second micro-batch is no number, or one entry of whose gradient is none."""
    parts = batches((2, 2, 2))
    if where == "loss":
        parts[1][1][0] = value
    accumulated(net, gradient, parts, first_row=first_row)
    if where == "gradient":
        net[2].bias.grad[0] = value


ROWS = {"loss": "in the loss of rows 10, 11 of", "gradient": "in the loss of no row of its own of"}


@pytest.mark.parametrize("where", ROWS)
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_stop(where, value, tmp_path):
    last = tmp_path / "last.ckpt"
    for there in (False, True):
        if there:
            last.touch()
        net, gradient = model(), Gradient(16, checkpoint=last)
        broken(net, gradient, value, where)
        with pytest.raises(UserError, match=r"not finite at step 3 \(") as caught:
            gradient.finish(net.parameters(), step=3)
        assert ROWS[where] in str(caught.value)
        assert (f"; the last checkpoint is {last}." in str(caught.value)) == there


@pytest.mark.parametrize("where", ROWS)
def test_skip(where, caplog):
    net, gradient = model(), Gradient(16, non_finite="skip", deferred=True, skipped=2)
    broken(net, gradient, where=where)
    values = gradient.finish(net.parameters(), step=3)
    assert [p.grad for p in net.parameters()] == [None] * 4
    assert gradient.skipped == values["train/skipped"] == 3
    assert "step 3 is left out" in caplog.text
    assert ("rows 10, 11" if where == "loss" else "no row of its own") in caplog.text
    accumulated(net, gradient, batches())  # the next step is as ever
    values = gradient.finish(net.parameters(), step=4)
    torch.testing.assert_close(gradients(net), by_hand()[1])
    assert values["train/skipped"] == 3


def test_a_scaler_judges_gradients_itself():
    net, gradient = model(), Gradient(16, scaler=True)
    broken(net, gradient, float("inf"), "gradient")
    values = gradient.finish(net.parameters(), step=1)
    assert math.isinf(values["train/grad_norm"])
    assert net[2].bias.grad.isinf().all()  # for it to find
    broken(net, gradient)
    with pytest.raises(UserError, match="at step 2"):
        gradient.finish(net.parameters(), step=2)
    gradient = Gradient(16, scaler=True, non_finite="skip")
    broken(net, gradient)
    assert gradient.finish(net.parameters(), step=2)["train/skipped"] == 1
    assert all(p.grad is not None for p in net.parameters())


def test_deferred_stop_comes_with_the_next_step():
    net, gradient = model(), Gradient(16, deferred=True)
    accumulated(net, gradient, batches())
    gradient.finish(net.parameters(), step=1)
    broken(net, gradient, first_row=100)
    gradient.finish(net.parameters(), step=2)
    accumulated(net, gradient, batches())
    with pytest.raises(UserError, match=r"at step 2 \(in the loss of rows 110, 111 of"):
        gradient.finish(net.parameters(), step=3)


def test_deferred_stop_comes_at_once_where_it_is_asked_for():
    net, gradient = model(), Gradient(16, deferred=True)
    assert gradient.check()
    broken(net, gradient)
    gradient.finish(net.parameters(), step=1)
    with pytest.raises(UserError, match="at step 1"):
        gradient.check()
    assert gradient.check()  # it has been told


class NoValues(TorchDispatchMode):
    """Raises where a tensor's value is asked for, for which a GPU has to finish its work."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        asks = func in (torch.ops.aten._local_scalar_dense.default, torch.ops.aten.nonzero.default)
        if func is torch.ops.aten.index.Tensor:  # how many rows are true decides on the size
            asks = any(index is not None and index.dtype == torch.bool for index in args[1])
        if asks:
            raise AssertionError(f"{func} waits for the device")
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("clip", [{}, {"clip_norm": 1.0}, {"clip_value": 0.1}], ids=str)
def test_a_deferred_step_asks_for_no_value(clip):
    net, gradient = model(), Gradient(16, deferred=True)
    with NoValues():
        for step in (1, 2, 3):
            accumulated(net, gradient, batches())
            gradient.finish(net.parameters(), step=step, divisor=2, **clip)
        gradient.check()


@pytest.mark.parametrize(
    ("options", "looked_at"),
    [
        ({}, [[1], [2], [3]]),
        ({"deferred": True}, [[], [1], [2]]),
        ({"deferred": True, "non_finite": "skip"}, [[1], [2], [3]]),
    ],
    ids=str,
)
def test_when_a_step_is_looked_at(options, looked_at, monkeypatch):
    seen = []
    original = Verdict.is_finite
    monkeypatch.setattr(
        Verdict, "is_finite", lambda verdict: seen.append(verdict.step) or original(verdict)
    )
    net, gradient = model(), Gradient(16, **options)
    for step, expected in enumerate(looked_at, start=1):
        accumulated(net, gradient, batches())
        gradient.finish(net.parameters(), step=step)
        assert seen == expected
        seen.clear()


@pytest.mark.parametrize("weights", [None, torch.tensor([0.3, 2.0, 0.7])])
def test_a_loss_asks_for_no_value(weights):
    torch.manual_seed(0)
    logits, labels = torch.randn(2, 4, 3), torch.tensor([[0, 1, -100, 2], [2, -100, 1, 1]])
    with NoValues():
        loss_sum, weight = token_cross_entropy(logits, labels, 0.0, weights)
    there = labels[labels != -100]
    expected = torch.ones(3)[there] if weights is None else weights[there]
    torch.testing.assert_close(weight.float(), expected.sum())
    scores = -logits.log_softmax(-1)[labels != -100].gather(1, there[:, None])[:, 0]
    torch.testing.assert_close(loss_sum, (expected * scores).sum())
