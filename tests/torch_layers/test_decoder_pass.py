"""Accelerated models of transformers that run all layers in one pass, and what they leave to it."""

from __future__ import annotations

import copy
import gc
import io
import pickle
import weakref

import pytest

torch = pytest.importorskip("torch", reason="torch is not installed (make test-peers)")
pytest.importorskip("transformers", reason="transformers is not installed (make test-peers)")
from torch import nn  # noqa: E402
from transformers.cache_utils import DynamicCache, StaticCache  # noqa: E402

from ternops.torch import accelerate, decoder_forward, replace_linear  # noqa: E402
from ternops.torch.decoder_cache import DecoderCache  # noqa: E402
from tests.peers.bitnet_folders import KINDS, LARGEST, SIZES, load_theirs, prompt_of, write  # noqa: E402

pytestmark = pytest.mark.peers

#: What this version of transformers calls a cache.
CACHE = decoder_forward.CACHE
STEPS = 24
LAYERS, HEADS = SIZES["num_hidden_layers"], SIZES["num_key_value_heads"]


@pytest.fixture
def passes(monkeypatch):
    """How many tokens each pass of the decoder had."""
    found, run = [], decoder_forward.Decoder.run

    def noted(self, x, pages):
        found.append(len(x))
        return run(self, x, pages)

    monkeypatch.setattr(decoder_forward.Decoder, "run", noted)
    return found


@pytest.fixture(scope="module")
def pair(tmp_path_factory, transformers):
    """A model as it is, and accelerated."""
    return loaded(tmp_path_factory.mktemp("model"), transformers, *KINDS[0])


@pytest.fixture
def both(pair):
    """Copies of the two."""
    return copy.deepcopy(pair)


def loaded(folder, transformers, layout, kind, seed):
    write(folder, layout, kind, seed, torch, transformers)
    found = [load_theirs(folder, torch, transformers) for _ in range(2)]
    for each in found:
        each.generation_config.eos_token_id = None
    return found[0], accelerate(found[1])


def ids(seed=KINDS[0][2], count=None):
    found = torch.tensor([prompt_of(seed)])
    return found if count is None else found.repeat(1, -(-count // found.shape[1]))[:, :count]


def generated(model, tokens, **settings):
    settings = {"do_sample": False, "max_new_tokens": STEPS, **settings}
    return model.generate(tokens, **settings)


@torch.no_grad()
def logits(model, *arguments, **settings):
    return model(*arguments, **settings).logits


def assert_near(one, other):
    assert one.shape == other.shape
    assert (one - other).abs().max() < LARGEST * max(1, other.abs().max() / 10)


@pytest.mark.parametrize(("layout", "kind", "seed"), KINDS)
def test_a_token_is_one_pass(tmp_path, transformers, passes, layout, kind, seed):
    theirs, ours = loaded(tmp_path, transformers, layout, kind, seed)
    expected = generated(theirs, ids(seed))
    assert not passes
    result = generated(ours, ids(seed), return_dict_in_generate=True)
    assert torch.equal(result.sequences, expected)
    assert passes == [ids(seed).shape[1]] + [1] * (STEPS - 1)
    assert_near(logits(ours, expected), logits(theirs, expected))
    assert torch.equal(generated(ours, ids(seed)), expected)


def test_a_long_prompt_is_several_passes(monkeypatch, pair):
    monkeypatch.setattr(decoder_forward, "MAX_TOKENS", 16)
    tokens = ids(count=100)
    assert_near(logits(pair[1], tokens), logits(pair[0], tokens))
    for keep in (1, torch.tensor([0, 50])):
        found = logits(pair[1], tokens, logits_to_keep=keep)
        assert_near(found, logits(pair[0], tokens, logits_to_keep=keep))


@pytest.mark.parametrize(("layout", "seed"), [("yarn", 5), ("llama3", 3), ("biases", 3)])
def test_other_models(transformers, passes, layout, seed):
    rope = {
        "yarn": {"rope_type": "yarn", "factor": 4.0, "rope_theta": 500.0,
                 "original_max_position_embeddings": 32},
        "llama3": {"rope_type": "llama3", "factor": 4.0, "low_freq_factor": 1.0,
                   "high_freq_factor": 4.0, "original_max_position_embeddings": 32,
                   "rope_theta": 500.0},
    }  # fmt: skip
    torch.manual_seed(seed)
    if layout == "biases":
        config = transformers.Qwen2Config(**SIZES)
        model = transformers.Qwen2ForCausalLM(config)
    else:
        config = transformers.LlamaConfig(**SIZES, head_dim=16, rope_parameters=rope[layout])
        model = transformers.LlamaForCausalLM(config)
    with torch.no_grad():
        for name, each in model.named_parameters():
            if "norm" in name or "bias" in name:
                each.uniform_(0.5, 1.5)
    model = replace_linear(model).eval()
    tokens = ids(count=60)
    expected = logits(model, tokens)
    assert_near(logits(accelerate(model), tokens), expected)
    assert passes == [60]


@pytest.mark.parametrize("layout", ["longrope", "windows", "half rotations"])
def test_models_that_the_decoder_does_not_compute(transformers, passes, layout):
    """Layers run one by one then."""
    torch.manual_seed(4)
    settings, kind = {"head_dim": 16}, "Llama"
    if layout == "longrope":
        settings["rope_parameters"] = {
            "rope_type": "longrope", "short_factor": [1.0] * 8, "long_factor": [2.0] * 8,
            "rope_theta": 500.0, "original_max_position_embeddings": 32,
        }  # fmt: skip
    elif layout == "windows":
        kind = "Qwen3"
        settings |= {"use_sliding_window": True, "sliding_window": 8, "max_window_layers": 1}
    config = getattr(transformers, f"{kind}Config")(**SIZES, **settings)
    model = replace_linear(getattr(transformers, f"{kind}ForCausalLM")(config)).eval()
    if layout == "half rotations":  # which bfloat16() rounds as well, and float() leaves so
        model.model.rotary_emb.bfloat16()
    tokens = ids(count=60)
    expected = logits(model, tokens)
    assert_near(logits(accelerate(model), tokens), expected)
    assert not passes


# What is asked for, and what it leaves of passes: those of single sequences that grow.


def test_two_models_and_two_caches_in_turn(pair, both, passes):
    theirs, first, second = pair[0], pair[1], both[1]
    with torch.no_grad():
        second.model.norm.weight.mul_(2)
    sequences = [ids(1), ids(2), ids(3)]
    caches = [None] * 3
    for _ in range(6):
        for at, model in enumerate((first, first, second)):
            tokens = sequences[at] if caches[at] is None else sequences[at][:, -1:]
            with torch.no_grad():
                result = model(tokens, **{CACHE: caches[at]}, use_cache=True)
            caches[at] = getattr(result, CACHE)
            following = result.logits[:, -1:].argmax(-1)
            sequences[at] = torch.cat([sequences[at], following], dim=1)
    for at, found in enumerate(sequences[:2]):
        assert torch.equal(found, generated(theirs, ids(at + 1), max_new_tokens=6))
    assert torch.equal(sequences[2], generated(second, ids(3), max_new_tokens=6))
    assert passes[:18] == [8] * 3 + [1] * 15


def test_a_cache_is_given_back(pair, passes):
    """Of generate(), of a call, and one that a caller has made: it is filled in place."""
    cache = DynamicCache()
    first = generated(pair[1], ids(), **{CACHE: cache}, max_new_tokens=5)
    assert type(cache) is DecoderCache
    assert cache.get_seq_length() == first.shape[1] - 1
    found = generated(pair[1], first, **{CACHE: cache}, max_new_tokens=STEPS - 5)
    assert torch.equal(found, generated(pair[0], ids()))
    assert passes == [8] + [1] * (STEPS - 1)
    assert type(cache) is DecoderCache
    assert len(cache) == LAYERS
    assert str(STEPS + 7) in repr(cache)


def test_tensors_of_a_cache_are_theirs(pair, passes):
    """A DynamicCache again when it is looked at, with the same keys and values; then pages anew."""
    tokens = ids(count=100)
    caches = [DynamicCache(config=each.config) for each in pair]
    for model, cache in zip(pair, caches, strict=True):
        logits(model, tokens, **{CACHE: cache})
    assert [type(each) for each in caches] == [DynamicCache, DecoderCache]
    for theirs, ours in zip(caches[0].layers, caches[1].layers, strict=True):
        assert_near(ours.keys, theirs.keys)
        assert_near(ours.values, theirs.values)
    assert type(caches[1]) is DynamicCache
    more = ids(seed=5)
    expected = logits(pair[0], more, **{CACHE: copy.deepcopy(caches[0])})
    # Pages from tensors: its own, and those of the other model.
    for cache in (caches[1], caches[0]):
        assert_near(logits(pair[1], more, **{CACHE: cache}), expected)
        assert type(cache) is DecoderCache
    assert passes == [100, 8, 8]
    # A model that has never heard of it goes on with it.
    expected = logits(pair[1], more, **{CACHE: caches[1]})
    assert_near(logits(pair[0], more, **{CACHE: caches[0]}), expected)
    assert type(caches[0]) is DynamicCache


def test_a_cache_is_cropped_reset_copied_and_pickled(pair, passes):
    tokens, more = ids(count=80), ids(seed=7)
    cache = DynamicCache()
    logits(pair[1], tokens, **{CACHE: cache})
    expected = logits(pair[0], torch.cat([tokens, more], dim=1))[:, 80:]
    for other in (copy.deepcopy(cache), copy.copy(cache), pickle.loads(pickle.dumps(cache))):
        assert_near(logits(pair[1], more, **{CACHE: other}), expected)
        assert type(other) is DecoderCache
        assert (cache.get_seq_length(), other.get_seq_length()) == (80, 88)
    cache.crop(-50)
    expected = logits(pair[0], torch.cat([tokens[:, :30], more], dim=1))[:, 30:]
    assert_near(logits(pair[1], more, **{CACHE: cache}), expected)
    cache.crop(-1000)
    assert cache.get_seq_length() == 0
    logits(pair[1], more, **{CACHE: cache})
    cache.reset()
    assert_near(logits(pair[1], more, **{CACHE: cache}), logits(pair[0], more))
    assert sum(passes) == 80 + 6 * 8


def test_assisted_generation_crops(pair, both, passes):
    """By another model, and by what is in the prompt."""
    expected = generated(pair[0], ids())
    for settings in ({"assistant_model": both[1]}, {"prompt_lookup_num_tokens": 3}):
        assert torch.equal(generated(pair[1], ids(), **settings), expected)
        assert passes
        passes.clear()


@pytest.mark.parametrize(
    "settings",
    [
        {"num_beams": 2},
        {"num_return_sequences": 2, "do_sample": True},
        {"cache_implementation": "static"},
        {"cache_implementation": "offloaded"},
    ],
)
def test_other_ways_to_generate_are_theirs(pair, passes, settings):
    if settings.get("cache_implementation") == "offloaded" and not torch.accelerator.is_available():
        settings = {"num_beams": 3, "length_penalty": 2.0}
    results = []
    for model in pair:
        torch.manual_seed(1)
        results.append(generated(model, ids(), **settings))
    assert torch.equal(*results)
    assert not passes


def test_batches_and_padding_are_theirs(pair, passes):
    tokens = torch.cat([ids(1), ids(2)])
    mask = torch.ones_like(tokens)
    mask[0, :3] = 0
    for settings in ({}, {"attention_mask": mask}):
        results = [generated(model, tokens, **settings) for model in pair]
        assert torch.equal(*results)
    padded = {"attention_mask": mask[:1]}
    assert torch.equal(*(generated(model, tokens[:1], **padded) for model in pair))
    assert not passes
    seen = {"attention_mask": mask[1:]}
    assert torch.equal(*(generated(model, tokens[:1], **seen) for model in pair))
    assert len(passes) == STEPS


def test_samples_are_those_of_the_same_seed(pair, passes):
    results = []
    for model in pair:
        torch.manual_seed(7)
        settings = {"do_sample": True, "temperature": 1.5, "top_k": 20, "top_p": 0.9}
        results.append(generated(model, ids(), **settings))
    assert torch.equal(*results)
    assert len(passes) == STEPS


def test_without_a_cache(pair, passes):
    assert torch.equal(*(generated(model, ids(), use_cache=False) for model in pair))
    assert passes == list(range(8, 8 + STEPS))
    with torch.no_grad():
        assert getattr(pair[1](ids(), use_cache=False), CACHE) is None


def test_a_static_cache_is_theirs(pair, passes):
    found = []
    for model in pair:
        cache = StaticCache(config=model.config, max_cache_len=40)
        found.append(logits(model, ids(), **{CACHE: cache}))
    assert_near(*found)
    assert not passes


def test_what_is_longer_than_the_context_is_theirs(pair, passes):
    context = SIZES["max_position_embeddings"]
    random = torch.Generator().manual_seed(9)
    tokens = torch.randint(2, SIZES["vocab_size"], (1, context + 9), generator=random)
    assert_near(logits(pair[1], tokens), logits(pair[0], tokens))
    assert not passes
    tokens = tokens[:, : context - 4]
    assert torch.equal(*(generated(model, tokens, max_new_tokens=9) for model in pair))
    assert len(passes) == 5


def test_other_calls(both, passes):
    """Those with positions, embeddings or outputs of layers."""
    theirs, ours = both
    tokens = ids(count=20)
    table = theirs.model.embed_tokens(tokens).detach()
    known = (
        {"inputs_embeds": table},
        {"input_ids": tokens, "position_ids": torch.arange(20)[None]},
        {"input_ids": tokens, "labels": tokens},
    )
    for each in known:
        assert_near(logits(ours, **each), logits(theirs, **each))
    assert passes == [20] * len(known)
    mask = torch.zeros(1, 1, 20, 20)
    mask[..., 5] = torch.finfo().min
    for each in (
        {"input_ids": tokens, "position_ids": torch.arange(3, 23)[None]},
        {"input_ids": tokens, "position_ids": torch.arange(20)[None] // 2},
        {"input_ids": tokens, "attention_mask": mask},
    ):
        assert_near(logits(ours, **each), logits(theirs, **each))
    with torch.no_grad():
        states = [m(tokens, output_hidden_states=True).hidden_states for m in both]
        for one, other in zip(*states, strict=True):
            assert_near(one, other)
        assert isinstance(ours.model(tokens, return_dict=False), tuple)
    assert len(passes) == len(known)
    logits(ours, tokens)  # although hooks for those are still there
    assert len(passes) == len(known) + 1
    with pytest.raises(ValueError, match="exactly one"):
        ours(tokens, inputs_embeds=table)
    with pytest.raises(IndexError):
        logits(ours, torch.tensor([[SIZES["vocab_size"]]]))


# What may be done to a model.


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
    ours.config.num_hidden_layers = LAYERS
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


@pytest.mark.parametrize("how", ["deepcopy", "pickle", "torch.save", "folder"])
def test_copies(tmp_path, transformers, pair, passes, how):
    ours = pair[1]
    expected = logits(ours, ids())
    if how == "deepcopy":
        other = copy.deepcopy(ours)
    elif how == "pickle":
        other = pickle.loads(pickle.dumps(ours))
    elif how == "torch.save":
        file = io.BytesIO()
        torch.save(ours, file)
        file.seek(0)
        other = torch.load(file, weights_only=False)
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
    assert cache.layers[0].keys.shape == (1, HEADS, 8, 12)


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


def test_a_bare_model_and_a_compiled_one(pair, both, passes):
    inner, theirs = both[1].model, pair[0].model
    with torch.no_grad():
        expected = theirs(ids()).last_hidden_state
        assert_near(inner(ids()).last_hidden_state, expected)
        assert_near(inner(input_ids=ids()).last_hidden_state, expected)
    assert passes == [8, 8]
