"""Groups of parameters, over the architectures of all stand-ins."""

from functools import cache, partial

import pytest
import standins
import torch
import transformers
from transformers import AutoConfig

from hydralight.errors import UserError
from hydralight.optim.build import Grouped, build
from hydralight.optim.groups import Grouping, check_values, parameter_groups
from hydralight.optim.kinds import kinds_of

DEEPER = {  # three layers, whatever their number is called
    "bert": "num_hidden_layers",
    "distilbert": "n_layers",
    "roberta": "num_hidden_layers",
    "gpt2": "n_layer",
    "bart": "encoder_layers decoder_layers",
    "marian": "encoder_layers decoder_layers",
    "t5": "num_layers num_decoder_layers",
    "llama": "num_hidden_layers",
    "vit": "num_hidden_layers",
}
# beginnings of the names of the layers, and names that are at the bottom; all else is the head
WHERE = {
    "bert": (["bert.encoder.layer."], ["bert.embeddings."]),
    "distilbert": (["distilbert.transformer.layer."], ["distilbert.embeddings."]),
    "roberta": (["roberta.encoder.layer."], ["roberta.embeddings."]),
    "gpt2": (["transformer.h."], ["transformer.wte.", "transformer.wpe."]),
    "bart": (
        ["model.encoder.layers.", "model.decoder.layers."],
        [
            *("model.shared.", "model.encoder.embed_positions.", "model.decoder.embed_positions."),
            *("model.encoder.layernorm_embedding.", "model.decoder.layernorm_embedding."),
        ],
    ),
    "marian": (
        ["model.encoder.layers.", "model.decoder.layers."],
        ["model.shared.", "model.encoder.embed", "model.decoder.embed"],
    ),
    "t5": (["encoder.block.", "decoder.block."], ["shared."]),
    "llama": (["model.layers."], ["model.embed_tokens."]),
    "vit": (["vit.encoder.layer.", "vit.layers."], ["vit.embeddings."]),
}
NO_EMBEDDING = ("LayerNorm", "layernorm", "projection")


@cache
def model_of(model_type):
    name, values = standins.CONFIGS[model_type]
    values = {**values, **dict.fromkeys(DEEPER[model_type].split(), 3)}
    if model_type != "vit":
        values |= {"vocab_size": 50, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
        values |= {"decoder_start_token_id": 1}
    config = type(AutoConfig.for_model(model_type))(**values)
    return getattr(transformers, name)(config)


@pytest.mark.parametrize("model_type", standins.CONFIGS)
def test_layers_are_told_from_embeddings_and_head(model_type):
    model = model_of(model_type)
    layers, bottom = WHERE[model_type]
    seen = set()
    for name, kind in kinds_of(model).items():
        inside = next((one for one in layers if name.startswith(one)), None)
        if inside is not None:
            number = int(name.removeprefix(inside).partition(".")[0])
            assert kind.above == 3 - number, name
        else:
            assert kind.above == (4 if name.startswith(tuple(bottom)) else 0), name
        seen.add(kind.above)
        parameter = model.get_parameter(name)
        matrix = inside is not None and parameter.ndim == 2 and "bias" not in name
        assert kind.matrix == matrix, name
        assert not (parameter.ndim < 2 and not kind.spared), name
        looked_up = not inside and name.startswith(tuple(bottom)) and not kind.spared
        assert kind.embedding == (looked_up and not any(n in name for n in NO_EMBEDDING)), name
    assert seen >= {1, 2, 3, 4}


@pytest.mark.parametrize("model_type", standins.CONFIGS)
def test_rates_fall_towards_the_embeddings(model_type):
    """Each parameter is in one group, whose rate and decay are those of its layer and kind."""
    model = model_of(model_type)
    adamw = partial(torch.optim.AdamW, lr=1e-3, weight_decay=0.1)
    recipe = Grouped(adamw, Grouping(layer_decay=0.5, decay_embeddings=False))
    groups = build(recipe, model, scaler=False).param_groups
    of = {id(p): group for group in groups for p in group["params"]}
    assert sum(len(group["params"]) for group in groups) == len(of)
    trained = {name for name, p in model.named_parameters() if p.requires_grad}
    for name, kind in ((n, k) for n, k in kinds_of(model).items() if n in trained):
        group = of[id(model.get_parameter(name))]
        assert group["lr"] == 1e-3 * 0.5**kind.above, name
        assert group["weight_decay"] == (0 if kind.spared or kind.embedding else 0.1), name
    at_the_bottom = {of[id(p)]["lr"] for p in model.get_input_embeddings().parameters()}
    assert at_the_bottom == {min(group["lr"] for group in groups)}


def test_a_parameter_takes_the_values_of_all_globs_that_match_it():
    groups = [
        {"params": ["*.layer.0.*", "*.layer.1.*"], "lr": 1e-4, "betas": (0.5, 0.9)},
        {"params": "*query*", "lr": 1e-2, "weight_decay": 0.3},
    ]
    model = model_of("bert")
    adamw = partial(torch.optim.AdamW, lr=1e-3, weight_decay=0.1)
    built = build(Grouped(adamw, Grouping(groups=groups)), model, scaler=False)
    of = {id(p): group for group in built.param_groups for p in group["params"]}

    def values(name):
        group = of[id(model.get_parameter(f"bert.encoder.layer.{name}"))]
        return group["lr"], group["weight_decay"], group["betas"]

    assert values("0.attention.self.query.weight") == (1e-2, 0.3, (0.5, 0.9))
    assert values("0.attention.self.query.bias") == (1e-2, 0, (0.5, 0.9))
    assert values("1.attention.self.key.weight") == (1e-4, 0.1, (0.5, 0.9))
    assert values("2.attention.self.query.weight") == (1e-2, 0.3, (0.9, 0.999))
    assert values("2.attention.self.key.weight") == (1e-3, 0.1, (0.9, 0.999))
    assert built.param_groups[0]["lr"] == 1e-3  # which is the rate that is logged


def test_matrices_of_the_layers_have_values_of_their_own():
    model = model_of("gpt2")
    grouping = Grouping(matrices={"lr": 1.0}, groups=[{"params": "*.h.2.mlp*", "lr": 2.0}])
    groups = parameter_groups(model, grouping)
    names = {id(p): name for name, p in model.named_parameters()}
    own = {names[id(p)] for group in groups if group.get("lr") == 1.0 for p in group["params"]}
    parts = ("attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj")
    assert own == {
        f"transformer.h.{n}.{part}.weight"
        for n in range(3)
        for part in parts
        if n < 2 or part.startswith("attn")
    }


@pytest.mark.parametrize(
    ("grouping", "sentence"),
    [
        ({"groups": [{"params": "*quary*", "lr": 1}]}, r"no parameter .* mean '\*query\*'"),
        ({"groups": [{"params": "bert.encodr.*", "lr": 1}]}, r"did you mean 'bert\.encoder\.\*'"),
        (
            {"groups": [{"params": ["*.bias", "bert.embeddings.*"], "lr": 1}]},
            "only parameters th",
        ),
    ],
)
def test_globs_that_match_nothing_are_told(grouping, sentence):
    model = model_of("bert")
    model.bert.embeddings.requires_grad_(False)
    try:
        with pytest.raises(UserError, match=sentence):
            parameter_groups(model, Grouping(**grouping))
    finally:
        model.requires_grad_(True)


@pytest.mark.parametrize(
    ("grouping", "sentence"),
    [
        (
            {"groups": [{"params": "*", "lrr": 1}]},
            r"groups\[0\]: AdamW has no value 'lrr'; did you",
        ),
        ({"groups": [{"lr": 1}]}, r"groups\[0\] should be \{params: a glob"),
        ({"groups": [{"params": "*"}]}, r"groups\[0\] should be \{params: a glob"),
        ({"matrices": {"muon": True}}, "matrices: AdamW has no value 'muon'"),
    ],
)
def test_values_that_an_optimizer_does_not_take_are_told(grouping, sentence):
    with pytest.raises(UserError, match=sentence):
        check_values(Grouping(**grouping), partial(torch.optim.AdamW, lr=1))


def test_a_norm_of_two_dimensions_is_known_by_its_class():
    model = torch.nn.Sequential(torch.nn.LayerNorm((4, 4)), torch.nn.Linear(4, 4))
    spared = [name for name, kind in kinds_of(model).items() if kind.spared]
    assert spared == ["0.weight", "0.bias", "1.bias"]


def test_a_model_without_layers_has_none_to_go_by():
    model = torch.nn.Sequential(torch.nn.Linear(2, 2))
    for key, value in (("layer_decay", 0.9), ("matrices", {"lr": 1})):
        with pytest.raises(UserError, match=f"optimizer.{key}: the model has no list of layers"):
            parameter_groups(model, Grouping(**{key: value}))
