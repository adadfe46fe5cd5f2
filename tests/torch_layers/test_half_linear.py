"""HalfLinear beside torch.nn.Linear, whose parameters it has."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="torch is not installed (make test-peers)")
from torch import nn  # noqa: E402

from ternops.torch import accelerate, half_linear, replace_linear  # noqa: E402
from ternops.torch.half_linear import HalfLinear  # noqa: E402
from ternops.torch.screen import Room, Screen  # noqa: E402

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


@pytest.fixture
def screens(monkeypatch):
    """The tokens that were screened; layers of any size are."""
    found, largest = [], Screen.largest
    monkeypatch.setattr(half_linear, "screens_by_itself", lambda *sizes: True)
    monkeypatch.setattr(Screen, "largest", lambda self, *a: (found.append(a), largest(self, *a))[1])
    return found


def looked_at(weight):
    layer = HalfLinear(weight.shape[1], weight.shape[0], bias=False)
    layer.weight = nn.Parameter(weight.bfloat16(), requires_grad=False)
    layer.prepare_largest()
    return layer


def heads():
    """name -> float32 weights, from easy to unkind."""
    random = torch.Generator().manual_seed(1)
    gauss = torch.randn(333, 96, generator=random)
    near = gauss[:1] + 0.01 * gauss
    infinite = gauss.clone()
    infinite[[7, 200], 5] = torch.tensor([torch.inf, -torch.inf])
    return {
        "gauss": gauss, "near": near, "same": gauss[:1].expand(333, 96), "zeros": 0 * gauss,
        "tiny": 1e-38 * gauss, "huge": 1e37 * gauss, "infinite": infinite,
        "mixed": gauss * 10.0 ** torch.randint(-4, 4, (333, 1), generator=random),
    }  # fmt: skip


HEADS = heads()


@pytest.mark.parametrize("name", HEADS)
def test_the_largest_is_that_of_all(screens, name):
    layer = looked_at(HEADS[name])
    random, ties = torch.Generator().manual_seed(2), 0
    tokens = [*torch.randn(30, 96, generator=random), *HEADS["gauss"][:9], torch.zeros(96)]
    tokens += [torch.full((96,), torch.nan), torch.full((96,), torch.inf), 1e-30 * tokens[0]]
    for x in tokens:
        y = layer(x.bfloat16()).float()
        ties += int((y == y.max()).sum() > 1)
        assert layer.largest(x.bfloat16()[None, None]) == int(y.argmax())
    print(f"{ties} ties of {len(tokens)}")
    assert len(screens) == len(tokens)
    if name in ("near", "same"):
        assert ties > 10


def test_what_rounds_to_the_largest_may_come_before_it(screens):
    """257 is 256 in bfloat16, from which bounds of int8 rows tell it; 258 is another number."""
    weight = torch.zeros(300, 32)
    weight[:, 0] = -1.0
    weight[[3, 64, 200], 0] = 1.0
    weight[200, 1] = 1.0
    x = torch.zeros(32)
    for second, expected in ((1.0, 3), (2.0, 200), (-1.0, 3)):
        x[:2] = torch.tensor([256.0, second])
        exact = weight @ x
        assert int(exact.argmax()) == (200 if second > 0 else 3)
        layer = looked_at(weight)
        assert layer.largest(x.bfloat16()) == expected
        assert int(layer(x.bfloat16()).float().argmax()) == expected
    assert len(screens) == 3


def test_most_rows_are_ruled_out(monkeypatch, screens, calls):
    """Of random ones, as `test_screen` has it; the others are what the layer gives, bit for bit."""
    random, run, found = torch.Generator().manual_seed(3), Room.run, []
    monkeypatch.setattr(Room, "run", lambda self, *a: (run(self, *a), found.append(self.logits))[0])
    layer = looked_at(torch.randn(5000, 96, generator=random))
    for x in torch.randn(20, 96, generator=random):
        assert layer.largest(x.bfloat16()) == int(layer(x.bfloat16()).float().argmax())
        kept = np.isfinite(found[-1])
        y = layer(x.bfloat16())[torch.from_numpy(kept)]
        assert torch.equal(torch.from_numpy(found[-1][kept]).bfloat16(), y)
        assert 0 < kept.sum() < 500
    assert (len(screens), len(calls)) == (20, 40)


@pytest.mark.parametrize("how", ["in place", "data", "memory", "parameter", "rows", "assigned"])
def test_changed_weights(screens, how):
    """What PyTorch does is seen at once, and all else when the layer is looked at again."""
    random = torch.Generator().manual_seed(5)
    layer, other = (looked_at(torch.randn(333, 96, generator=random)) for _ in range(2))
    tokens = torch.randn(20, 96, generator=random).bfloat16()
    before = [layer.largest(x) for x in tokens]
    is_seen = how in ("in place", "parameter", "assigned")
    if how == "in place":
        layer.weight.copy_(other.weight)
    elif how == "data":
        layer.weight.data[:] = other.weight
    elif how == "memory":
        layer.weight.view(torch.int16).numpy()[...] = other.weight.view(torch.int16).numpy()
    elif how == "parameter":
        layer.weight = other.weight
    elif how == "rows":
        layer.weight.data[:] = layer.weight.flip(0)
    else:
        layer.weight.data = other.weight.data
    expected = [int(layer(x).float().argmax()) for x in tokens]
    assert expected != before
    screens.clear()
    if is_seen:
        assert [layer.largest(x) for x in tokens] == expected
        assert not screens
    layer.prepare_largest()
    assert [layer.largest(x) for x in tokens] == expected
    assert len(screens) == len(tokens)


@pytest.mark.parametrize("change", ["none", "float16", "bias", "odd columns", "meta", "cache"])
def test_what_is_not_screened(monkeypatch, screens, change):
    """And is right without: a layer that a cache holds, too."""
    made = []
    monkeypatch.setattr(half_linear, "Screen", lambda *a: (made.append(a), Screen(*a))[1])
    columns = 90 if change == "odd columns" else 96
    dtype = torch.float16 if change == "float16" else torch.bfloat16
    layer = pair(dtype, columns=columns, bias=change == "bias")[1].requires_grad_(False)
    if change == "meta":
        layer = layer.to("meta")
    if change == "cache":
        monkeypatch.setattr(half_linear, "screens_by_itself", lambda *sizes: False)
    layer.prepare_largest()
    if change != "meta":
        x = torch.randn(1, columns).to(dtype)
        assert layer.largest(x) == int(layer(x).float().argmax())
    assert len(made) == len(screens) == (change == "none")


def test_no_memory_for_a_copy(monkeypatch, screens):
    def fails(*arguments):
        raise MemoryError

    monkeypatch.setattr(half_linear, "Screen", fails)
    layer, x = looked_at(HEADS["gauss"]), torch.ones(96).bfloat16()
    assert layer.largest(x) == int(layer(x).float().argmax())
    assert not screens


def test_copies_make_their_own(screens):
    layer, x = looked_at(HEADS["gauss"]), torch.ones(96).bfloat16()
    for other in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        assert other.largest(x) == layer.largest(x)
        other.weight.neg_()
        other.prepare_largest()
        assert other.largest(x) == int(other(x).float().argmax()) != layer.largest(x)
    assert len(screens) == 2 * 3
