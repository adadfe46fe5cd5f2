"""What may be done to a model whose layers are one pass: it counts, or layers run one by one."""

from __future__ import annotations

import copy
import gc
import pickle
import weakref

import pytest

torch = pytest.importorskip("torch", reason="torch is not installed (make test-peers)")
pytest.importorskip("transformers", reason="transformers is not installed (make test-peers)")
from torch import nn  # noqa: E402
from transformers.cache_utils import DynamicCache  # noqa: E402

from ternops.torch import BitLinear, accelerate, decoder_forward  # noqa: E402
from ternops.torch.decoder_cache import DecoderCache  # noqa: E402
from tests.peers.bitnet_folders import SIZES, load_theirs  # noqa: E402
from tests.torch_layers.pairs import (  # noqa: E402
    CACHE,
    COPIES,
    assert_near,
    copied,
    ids,
    logits,
)  # fmt: skip

pytestmark = pytest.mark.peers


@pytest.mark.parametrize("how", ["in place", "data", "memory", "parameter", "state"])
@pytest.mark.parametrize(
    "name", ["model.norm", "model.layers.1.mlp.ffn_sub_norm", "model.embed_tokens"]
)
def test_changed_floats_are_seen(both, passes, name, how):
    before = logits(both[1], ids())
    for model in both:
        module = model.get_submodule(name)
        if how == "in place":
            with torch.no_grad():
                module.weight.mul_(1.5)
        elif how == "data":
            module.weight.data[:7] += 1
        elif how == "memory":
            module.weight.detach().numpy()[:7] += 1
        elif how == "parameter":
            module.weight = nn.Parameter(module.weight.detach() * 1.5)
        else:
            module.load_state_dict({"weight": module.weight * 1.5})
    after = logits(both[1], ids())
    assert not torch.allclose(after, before, atol=1e-3)
    assert_near(after, logits(both[0], ids()))
    assert len(passes) == 2


@pytest.mark.parametrize(
    ("place", "name", "value"),
    [
        ("self_attn", "is_causal", False),
        ("self_attn", "scaling", 0.1),
        ("input_layernorm", "variance_epsilon", 0.5),
        ("mlp.ffn_sub_norm", "variance_epsilon", 0.5),
    ],
)
def test_changed_attributes_are_seen(both, passes, place, name, value):
    before = logits(both[1], ids())
    modules = [each.model.layers[1].get_submodule(place) for each in both]
    old = getattr(modules[1], name)
    for each in modules:
        setattr(each, name, value)
    after = logits(both[1], ids())
    assert not torch.allclose(after, before, atol=1e-3)
    assert_near(after, logits(both[0], ids()))
    assert passes == [8]
    setattr(modules[1], name, old)
    assert torch.equal(logits(both[1], ids()), before)
    assert passes == [8, 8]


def test_changed_layers_are_seen(both, passes):
    """Packed weights that are loaded; a layer that is replaced, hooked, or left out."""
    theirs, ours = both
    other = ours.model.layers[1].self_attn.q_proj
    expected = logits(ours, ids())
    state = ours.state_dict()
    names = [f"model.layers.{at}.self_attn.q_proj.weight" for at in (0, 1)]
    ours.load_state_dict({**state, names[0]: state[names[1]], names[1]: state[names[0]]})
    changed = logits(ours, ids())
    assert not torch.allclose(changed, expected, atol=1e-3)
    ours.load_state_dict(state)
    assert torch.equal(logits(ours, ids()), expected)
    assert passes == [8] * 3
    seen = []
    hook = ours.model.layers[0].mlp.register_forward_hook(lambda *found: seen.append(found))
    assert_near(logits(ours, ids()), expected)
    assert len(seen) == 1
    hook.remove()
    logits(ours, ids())
    assert (len(seen), len(passes)) == (1, 4)
    ours.config.num_hidden_layers = theirs.config.num_hidden_layers = 1
    assert_near(logits(ours, ids()), logits(theirs, ids()))
    ours.config.num_hidden_layers = SIZES["num_hidden_layers"]
    other.forward = lambda x: torch.zeros(*x.shape[:-1], other.out_features)
    assert not torch.allclose(logits(ours, ids()), expected, atol=1e-3)
    del other.forward
    ours.model.layers[1].self_attn.q_proj = nn.Linear(other.in_features, other.out_features)
    assert not torch.allclose(logits(ours, ids()), expected, atol=1e-3)
    assert len(passes) == 4
    ours.model.layers[1].self_attn.q_proj = other
    assert torch.equal(logits(ours, ids()), expected)
    assert len(passes) == 5


def test_gradients_and_training_are_theirs(both, passes):
    for model in both:
        model(ids(), labels=ids()).loss.backward()
    first, second = (each.model.layers[0].input_layernorm.weight.grad for each in both)
    assert (first - second).abs().max() < 0.1 * first.abs().max()
    ours = both[1]
    with torch.no_grad():
        ours.train()
        ours(ids())
        ours.eval()
        with torch.autocast("cpu"):
            ours(ids())
    assert not passes
    with torch.inference_mode():
        ours(ids())
    logits(ours, ids())
    for each in ours.parameters():
        each.requires_grad_(False)
    assert not ours(ids()).logits.requires_grad
    assert passes == [8] * 3
    table = ours.model.embed_tokens(ids()).requires_grad_()
    ours(inputs_embeds=table).logits.sum().backward()
    assert table.grad is not None
    assert len(passes) == 3


@pytest.mark.parametrize("how", [*COPIES, "folder"])
def test_copies(tmp_path, transformers, pair, passes, how):
    ours = pair[1]
    expected = logits(ours, ids())
    if how in COPIES:
        other = copied(ours, how)
    else:
        ours.save_pretrained(tmp_path)
        other = accelerate(load_theirs(tmp_path, torch, transformers))
    assert_near(logits(other, ids()), expected)
    assert passes == [8, 8]
    assert type(other.model).__name__ == "BitNetModel"
    assert isinstance(other.model, transformers.BitNetModel)
    assert set(other.state_dict()) == set(ours.state_dict())
    with torch.no_grad():
        other.model.norm.weight.mul_(2)
    assert torch.equal(logits(ours, ids()), expected)
    assert not torch.allclose(logits(other, ids()), expected, atol=1e-3)


def test_a_model_that_is_made_of_the_same_class(pair, passes):
    ours = pair[1].model
    other = type(ours)(ours.config).eval()
    with torch.no_grad():
        expected = other(ids()).last_hidden_state
        assert torch.equal(copy.deepcopy(other)(ids()).last_hidden_state, expected)
    assert not passes


def test_accelerated_again(both, passes):
    """After a layer has been replaced by one that is trained."""
    ours = both[1]
    kind, mlp = type(ours.model), ours.model.layers[1].mlp
    expected = logits(ours, ids())
    mlp.down_proj = BitLinear(
        mlp.down_proj.in_features, mlp.down_proj.out_features, bias=False
    ).eval()
    changed = logits(ours, ids())
    assert passes == [8]
    assert not torch.allclose(changed, expected, atol=1e-3)
    assert_near(logits(accelerate(ours), ids()), changed)
    assert passes == [8, 8]
    assert type(ours.model) is kind
    assert_near(logits(pickle.loads(pickle.dumps(ours)), ids()), changed)


def test_a_model_is_gone_when_it_is_let_go_of(pair):
    """At once: gigabytes would wait for the collector otherwise."""
    ours = copy.deepcopy(pair[1])
    gc.collect()
    gc.disable()
    try:
        cache = DynamicCache()
        logits(ours, ids(), **{CACHE: cache})
        gone = weakref.ref(ours.model)
        del ours
        assert gone() is None
    finally:
        gc.enable()
    assert cache.layers[0].keys.shape == (1, SIZES["num_key_value_heads"], 8, 12)


def test_threads_and_dtypes_may_change(monkeypatch, both, passes):
    ours, count, made = both[1], torch.get_num_threads(), []
    make = decoder_forward.LoadedModel

    def noted(weights, threads, **settings):
        made.append(threads)
        return make(weights, threads, **settings)

    monkeypatch.setattr(decoder_forward, "LoadedModel", noted)
    expected = logits(ours, ids())
    cache = DynamicCache()
    logits(ours, ids(), **{CACHE: cache})
    try:
        torch.set_num_threads(1)
        assert torch.equal(logits(ours, ids()), expected)
        assert made[-1] == 1
    finally:
        torch.set_num_threads(count)
    nn.Module.bfloat16(ours)
    ours.model.rotary_emb = type(ours.model.rotary_emb)(ours.config)
    found = logits(ours, ids(), **{CACHE: cache})
    assert found.dtype is torch.bfloat16
    assert (type(cache), cache.pages.kind) == (DecoderCache, "fp16")
    assert len(passes) == 4
