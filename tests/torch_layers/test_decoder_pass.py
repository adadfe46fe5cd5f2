"""Accelerated models of transformers that run all layers in one pass, and which calls do not."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch", reason="torch is not installed (make test-peers)")
pytest.importorskip("transformers", reason="transformers is not installed (make test-peers)")
from ternops.torch import accelerate, decoder_forward, replace_linear  # noqa: E402
from tests.peers.bitnet_folders import KINDS, SIZES  # noqa: E402
from tests.torch_layers.pairs import STEPS, assert_near, generated, ids, loaded, logits  # noqa: E402

pytestmark = pytest.mark.peers


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


@pytest.mark.parametrize("layout", ["longrope", "windows", "half rotations", "no JSON"])
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
    elif layout == "no JSON":
        model.config.names = {"a set"}
    tokens = ids(count=60)
    expected = logits(model, tokens)
    assert_near(logits(accelerate(model), tokens), expected)
    assert not passes


@pytest.mark.parametrize(
    "settings",
    [
        {"num_beams": 2},
        {"num_beams": 3, "length_penalty": 2.0},
        {"num_return_sequences": 2, "do_sample": True},
        {"cache_implementation": "static"},
        {"cache_implementation": "offloaded"},
    ],
)
def test_other_ways_to_generate_are_theirs(pair, passes, settings):
    if settings.get("cache_implementation") == "offloaded" and not torch.accelerator.is_available():
        pytest.skip("transformers keeps a cache elsewhere beside an accelerator alone")
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


def test_a_model_without_a_head(pair, both, passes):
    inner, theirs = both[1].model, pair[0].model
    with torch.no_grad():
        expected = theirs(ids()).last_hidden_state
        assert_near(inner(ids()).last_hidden_state, expected)
        assert_near(inner(input_ids=ids()).last_hidden_state, expected)
    assert passes == [8, 8]
