"""HalfLinear beside torch.nn.Linear, whose parameters it has."""

from __future__ import annotations

import copy
import pickle

import pytest

torch = pytest.importorskip("torch", reason="torch is not installed (make test-peers)")
from torch import nn  # noqa: E402

from ternops.torch import accelerate, half_linear, replace_linear  # noqa: E402
from ternops.torch.half_linear import HalfLinear  # noqa: E402

pytestmark = pytest.mark.peers

#: Parts of the largest result: one rounding to the dtype, and float32 sums in another order.
ERROR = {torch.bfloat16: 2.0**-8, torch.float16: 2.0**-11}


@pytest.fixture
def calls(monkeypatch):
    """The products that our kernels have computed."""
    found, run = [], half_linear.multiply_at
    monkeypatch.setattr(half_linear, "multiply_at", lambda *a: (found.append(a), run(*a)))
    return found


def pair(dtype, rows=100, columns=96, bias=True):
    torch.manual_seed(rows)
    linear = nn.Linear(columns, rows, bias).to(dtype)
    return linear, HalfLinear.from_linear(linear)


@pytest.mark.parametrize("dtype", ERROR)
@pytest.mark.parametrize("shape", [(96,), (1, 96), (2, 2, 96), (1, 4, 96)])
def test_few_tokens_are_float32_sums_rounded_once(calls, dtype, shape):
    linear, layer = pair(dtype, bias=False)
    x = torch.randn(shape).to(dtype)
    with torch.no_grad():
        y, exact = layer(x), x.double() @ linear.weight.double().T
    assert len(calls) == 1
    assert y.dtype == dtype
    assert y.shape == exact.shape
    assert (y - exact).abs().max() <= ERROR[dtype] * exact.abs().max()


@pytest.mark.parametrize("bias", [False, True])
def test_it_is_the_linear_layer(calls, bias):
    linear, layer = pair(torch.bfloat16, bias=bias)
    x = torch.randn(3, 96).bfloat16()
    with torch.no_grad():
        assert torch.allclose(layer(x), linear(x), rtol=2e-2, atol=2e-2)
        assert len(calls) == 1
        linear.weight.mul_(2)
        found, layer.weight = layer(x), nn.Parameter(linear.weight / 2)
        assert torch.allclose(found, linear(x), rtol=2e-2, atol=2e-2)
        assert not torch.equal(found, layer(x))
    assert layer.bias is linear.bias
    assert set(layer.state_dict()) == set(linear.state_dict())


@pytest.mark.parametrize(
    "change",
    ["gradient", "many", "none", "float32", "odd columns", "strided weights", "shape", "compiled"],
)
def test_all_else_is_pytorchs(calls, change):
    columns = 90 if change == "odd columns" else 96
    linear, layer = pair(torch.bfloat16, columns=columns)
    x = torch.randn(1, columns).bfloat16()
    if change == "strided weights":
        turned = torch.randn(columns, 100).bfloat16().T
        layer.weight = linear.weight = nn.Parameter(turned, requires_grad=False)
    if change == "many":
        x = torch.randn(5, columns).bfloat16()
    if change == "none":
        x = x[:0]
    if change == "float32":
        linear, layer, x = linear.float(), layer.float(), x.float()
    if change == "shape":
        with pytest.raises(RuntimeError):
            layer(x[:, 1:])
    elif change == "gradient":
        layer(x).sum().backward()
        assert layer.weight.grad is not None
    else:
        run, theirs = layer, linear
        if change == "compiled":  # which takes a product and a sum apart: bfloat16 rounds twice
            run, theirs = (
                torch.compile(each, fullgraph=True, backend="aot_eager") for each in (layer, linear)
            )
        with torch.no_grad():
            assert torch.equal(run(x), theirs(x))
    assert not calls


def test_copies():
    linear, layer = pair(torch.bfloat16)
    x = torch.randn(1, 96).bfloat16()
    with torch.no_grad():
        y = layer(x)
        for other in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
            assert torch.equal(other(x), y)
            other.weight.mul_(2)
            assert not torch.equal(other(x), y)
        assert torch.equal(layer(x), y)
    assert torch.equal(linear.weight, layer.weight)


def test_accelerate_gives_it_to_the_head(tmp_path, transformers, calls):
    """Which stays tied, and is written once."""
    torch.manual_seed(1)
    config = transformers.LlamaConfig(
        vocab_size=64, hidden_size=64, intermediate_size=96, num_hidden_layers=1,
        num_attention_heads=2, num_key_value_heads=2, tie_word_embeddings=True,
    )  # fmt: skip
    model = replace_linear(transformers.LlamaForCausalLM(config)).bfloat16().eval()
    head, tokens = model.lm_head, torch.tensor([[5]])
    accelerate(model)
    assert type(model.lm_head) is HalfLinear
    assert model.lm_head.weight is head.weight is model.model.embed_tokens.weight
    with torch.no_grad():
        states = model.model(tokens).last_hidden_state
        calls.clear()
        y = model(tokens).logits
        assert len(calls) == 1
        exact = states.double() @ head.weight.double().T
        assert (y - exact).abs().max() <= ERROR[torch.bfloat16] * exact.abs().max()
    model.save_pretrained(tmp_path)
    again = transformers.AutoModelForCausalLM.from_pretrained(tmp_path)
    assert again.lm_head.weight is again.model.embed_tokens.weight
    assert torch.equal(again.lm_head.weight, head.weight)
