"""Layers of whole modules replaced: all that are meant, or none."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch", reason="torch is not installed (make test-peers)")
from torch import nn  # noqa: E402

from ternops.torch import BitLinear, TernaryLinear, replace_linear, to_ternary  # noqa: E402

pytestmark = pytest.mark.peers


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(20, 32)
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.Linear(32, 64), nn.GELU(), nn.Linear(64, 32)) for _ in range(2)
        )
        self.lm_head = nn.Linear(32, 20, bias=False)

    def forward(self, tokens):
        x = self.embed(tokens)
        for block in self.blocks:
            x = x + block(x)
        return self.lm_head(x)


TOKENS = torch.arange(12).reshape(2, 6)


def kinds(model):
    return [type(model.get_submodule(f"blocks.{b}.{i}")) for b in (0, 1) for i in (0, 2)]


def test_train_then_infer():
    """What `to_ternary` gives computes what was trained, and loads what it has saved."""
    model = Model()
    assert replace_linear(model, BitLinear, weights="seq", rms_norm=True) is model
    assert kinds(model) == [BitLinear] * 4
    assert type(model.lm_head) is nn.Linear
    model(TOKENS).square().mean().backward()
    expected = model(TOKENS)
    to_ternary(model, "base3")
    assert kinds(model) == [TernaryLinear] * 4
    assert torch.allclose(model(TOKENS), expected, atol=1e-5)
    other = to_ternary(replace_linear(Model(), BitLinear, rms_norm=True))
    other.load_state_dict(model.state_dict())
    assert torch.allclose(other(TOKENS), expected, atol=1e-5)


def test_linear_layers_become_ternary_at_once():
    """With the settings of `ternops.quantize`."""
    model = replace_linear(Model(), TernaryLinear, group=32, method="mse", levels=3)
    assert kinds(model) == [TernaryLinear] * 4
    assert model.blocks[0][0].matrix.group == 32
    assert model(TOKENS).isfinite().all()


@pytest.mark.parametrize(
    ("keep", "kept"),
    [
        ((), []),
        (("lm_head", "0"), ["lm_head", "blocks.0.0", "blocks.0.2", "blocks.1.0"]),
        (("blocks.1",), ["blocks.1.0", "blocks.1.2"]),
        (("head", "block"), []),
    ],
)
def test_keep_names_parts_of_names(keep, kept):
    model = replace_linear(Model(), BitLinear, keep=keep)
    assert {n for n, m in model.named_modules() if type(m) is nn.Linear} == set(kept)


def test_a_layer_at_two_places_stays_one():
    shared = nn.Linear(8, 8)
    model = replace_linear(nn.Sequential(shared, nn.ReLU(), shared), BitLinear)
    assert model[0] is model[2]
    assert isinstance(model[0], BitLinear)


def test_shared_weights_are_told_and_nothing_is_changed():
    model = Model()
    model.lm_head.weight = model.embed.weight
    with pytest.raises(ValueError, match="lm_head: shares weights with another module") as caught:
        replace_linear(model, BitLinear, keep=())
    assert "\n" not in str(caught.value)
    assert kinds(model) == [nn.Linear] * 4
    replace_linear(model, BitLinear)
    assert kinds(model) == [BitLinear] * 4


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (lambda m: m.blocks[1][2].to("meta"), TypeError, "blocks.1.2: weight: device meta"),
        (
            lambda m: m.blocks[1][2].to(torch.complex64),
            TypeError,
            "blocks.1.2: weight: dtype",
        ),
        (
            lambda m: m.blocks[1][2].weight.data.fill_(torch.nan),
            ValueError,
            r"blocks.1.2: w: w\[0, 0\] is nan",
        ),
    ],
)
def test_a_bad_layer_is_named_and_nothing_is_changed(change, error, message):
    model = Model()
    change(model)
    with pytest.raises(error, match=message):
        replace_linear(model, TernaryLinear)
    assert kinds(model) == [nn.Linear] * 4


def test_bad_arguments_are_one_line():
    with pytest.raises(TypeError, match="keep='lm_head': expected several names"):
        replace_linear(Model(), keep="lm_head")
    with pytest.raises(ValueError, match=r"model: has no nn\.Linear to replace"):
        replace_linear(nn.Sequential(nn.ReLU()))
    with pytest.raises(ValueError, match="model: has no BitLinear to replace"):
        to_ternary(Model())
    with pytest.raises(ValueError, match="model: a Linear itself"):
        replace_linear(nn.Linear(2, 2))
    with pytest.raises(TypeError, match=r"model: list, expected a torch\.nn\.Module"):
        replace_linear([])
