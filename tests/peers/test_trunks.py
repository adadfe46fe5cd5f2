"""Each trunk against Hugging Face transformers on random folders that it wrote, in float64.

Weights are ternary with one scale a matrix. Where activations stay floats in transformers, ours do
with weights="fp16".
"""

from __future__ import annotations

import json
import math
import re
import warnings

import numpy as np
import pytest
import safetensors.numpy

from ternops.decoder import Model, Session, reference
from tests.helpers import cases
from tests.peers.random_models import LONG, TRUNKS, bitnet, logits_in_double, made

pytestmark = pytest.mark.peers

TOKENS = np.random.default_rng(1).integers(2, 64, 120).tolist()
#: Of the largest logit, about 10: float64 leaves 2e-14, and an angle of float32 would be 1e-6.
NEAR = 1e-12
#: Tokens that are generated, and what keeps the float16 of keys and values from changing them.
STEPS, MIN_MARGIN = 64, 0.03
#: Where a scale is a mean, which is float32 here; the seeds are such that no int8 step tips over.
NEAR_MEAN = 1e-7
#: Where the rates at which heads forget are exponentials in float32, as GGUF files have them.
NEAR_RATE = 1e-6
#: The root of the mean square of what float16 keys and values change, in parts of the logits'
#: deviation: up to 0.0042 was measured.
NEAR_WITH_CACHE = 8e-3


def check_near(model, expected, bound=NEAR, arithmetic=reference.Double):
    """The float64 reference of a model."""
    found = reference.logits(model, TOKENS, arithmetic)
    error = np.abs(found - expected).max() / np.abs(expected).max()
    print(f"float64: {error:.2g} of {np.abs(expected).max():.3g}")
    assert np.abs(expected).max() > 2
    assert error < bound


def check_kernels(folder, **settings):
    """The oracle's bits: a prompt, one token at a time, 1 and 2 threads."""
    expected = None
    for threads in (1, 2):
        model = Model.from_pretrained(folder, threads=threads, **settings)
        expected = reference.logits(model, TOKENS) if expected is None else expected
        assert cases.same_bits(model.logits(TOKENS), expected)
        session = Session(model)
        stepped = np.stack([session.step(token).copy() for token in TOKENS])
        assert cases.same_bits(stepped, expected)
    return expected


@pytest.mark.parametrize("name", TRUNKS)
def test_a_trunk(tmp_path, torch, transformers, in_double, name):
    """Logits of 120 tokens, beyond windows and the original context; those of the kernels, which
    keep keys and values in float16, are near. Ternary weights, whose activations are int8, have the
    oracle's bits."""
    program, options = TRUNKS[name]
    theirs = made(program, 0, torch, transformers, **options)
    theirs.save_pretrained(tmp_path)
    expected = logits_in_double(theirs, TOKENS, torch, in_double)
    model = Model.from_pretrained(tmp_path, threads=2)
    assert model.config.tied == theirs.config.tie_word_embeddings
    bound = NEAR_RATE if any(model.config.delta_layers) else NEAR
    check_near(model, expected, bound, arithmetic=reference.Unquantised)
    found = check_kernels(tmp_path, weights="fp16")
    error = np.sqrt(np.square(found - expected).mean()) / expected.std()
    print(f"with a float16 cache: {error:.2g}")
    assert error < NEAR_WITH_CACHE
    check_kernels(tmp_path)


def generated(model, prompt, torch):
    """Greedy tokens after a prompt, and the least distance of the two likeliest ones."""
    model.generation_config.eos_token_id = None
    with torch.no_grad():
        asked = torch.tensor([prompt])
        tokens = model.generate(asked, do_sample=False, max_new_tokens=STEPS)[0].tolist()
        logits = model(torch.tensor([tokens])).logits[0, len(prompt) - 1 : -1]
    ranked = logits.sort().values
    return tokens, (ranked[:, -1] - ranked[:, -2]).min().item()


# With a context that is longer than the original one, transformers changes the factors in between.
@pytest.mark.parametrize("name", [name for name in TRUNKS if name != "llama longrope"])
def test_same_greedy_tokens(tmp_path, torch, transformers, name):
    """64 after a prompt of 8, of the first model that is sure enough of all of them; through the
    caches of both, beyond windows."""
    program, options = TRUNKS[name]
    # A random model whose head is its embedding repeats a token.
    options = {**options, "tie_word_embeddings": False}
    for seed in range(100):
        theirs = made(program, seed, torch, transformers, **options)
        expected, margin = generated(theirs, TOKENS[:8], torch)
        if margin > MIN_MARGIN and len(set(expected[8:])) > 12:
            break
    print(f"{name}: seed {seed}, least margin {margin:.2g}, {len(set(expected))} tokens")
    assert margin > MIN_MARGIN
    assert len(set(expected[8:])) > 12
    theirs.save_pretrained(tmp_path)
    ours = Model.from_pretrained(tmp_path, weights="fp16", threads=2)
    tokens = list(ours.generate(TOKENS[:8], STEPS, stop_at_eos=False))
    assert TOKENS[:8] + tokens == expected


@pytest.mark.parametrize("name", ["Qwen3", "Gemma3"])
def test_a_folder_of_a_program_without_a_head(tmp_path, torch, transformers, in_double, name):
    """Names without "model.", no head: the embedding is one."""
    theirs = made(name, 3, torch, transformers, head_dim=16, tie_word_embeddings=True)
    theirs.model.save_pretrained(tmp_path)
    raw = json.loads((tmp_path / "config.json").read_text())
    assert raw["architectures"] == [type(theirs.model).__name__]
    assert "norm.weight" in safetensors.numpy.load_file(tmp_path / "model.safetensors")
    expected = logits_in_double(theirs, TOKENS, torch, in_double)
    check_near(Model.from_pretrained(tmp_path, weights="fp16"), expected)


def test_the_text_of_a_model_that_sees(tmp_path, torch, transformers, in_double):
    """A folder with an encoder of images, whose text is computed: as of a folder of text alone."""
    options = TRUNKS["qwen3.5"][1]
    text = made("Qwen3_5", 4, torch, transformers, **options)
    vision = {"depth": 1, "hidden_size": 16, "num_heads": 2, "intermediate_size": 16,
              "out_hidden_size": 48}  # fmt: skip
    config = transformers.Qwen3_5Config(text_config=text.config.to_dict(), vision_config=vision)
    theirs = transformers.Qwen3_5ForConditionalGeneration(config)
    theirs.model.language_model.load_state_dict(text.model.state_dict())
    theirs.lm_head.load_state_dict(text.lm_head.state_dict())
    theirs.save_pretrained(tmp_path)
    names = safetensors.numpy.load_file(tmp_path / "model.safetensors")
    assert any(name.startswith("model.visual.") for name in names)
    expected = logits_in_double(text, TOKENS, torch, in_double)
    check_near(Model.from_pretrained(tmp_path), expected, NEAR_RATE, reference.Unquantised)


@pytest.mark.parametrize(
    ("name", "kind"),
    [("Qwen3", "bitlinear"), ("Qwen3", "offline"), ("Qwen2", "bitlinear"), ("Qwen2", "offline"),
     ("Llama", "online"), ("Gemma3", "bitlinear")],
)  # fmt: skip
def test_norms_within_linear_layers(tmp_path, torch, transformers, in_double, name, kind):
    """use_rms_norm of a BitNet: float64 with int8 activations in both, and the oracle's bits."""
    settings = {"use_rms_norm": True, "rms_norm_eps": 1e-3}
    theirs = bitnet(tmp_path, name, kind, 5, torch, transformers, settings, head_dim=16)
    for module in theirs.modules():
        if type(module).__name__ == "BitLinear":
            module.dtype = torch.float64
    expected = logits_in_double(theirs, TOKENS, torch, in_double)
    model = Model.from_pretrained(tmp_path)
    assert (model.config.inner_norms, model.config.inner_epsilon) == (True, 1e-3)
    check_near(model, expected, NEAR_MEAN if kind == "online" else NEAR)
    check_kernels(tmp_path)


@pytest.mark.parametrize("name", ["Llama", "Qwen2", "Qwen3", "Gemma3"])
def test_as_near_to_float64_as_float32_is(tmp_path, torch, transformers, in_double, name):
    """Of four models that are large enough that int8 steps tip over in both: logits lie no farther
    from float64 than 1.8 times those of transformers in float32, keys and values in float32 too."""
    sizes = {"hidden_size": 256, "intermediate_size": 512, "num_hidden_layers": 6}
    if name != "Qwen2":
        sizes["head_dim"] = 64
    errors = []
    for seed in range(4):
        folder = tmp_path / str(seed)
        theirs = bitnet(folder, name, "offline", seed, torch, transformers, {}, **sizes)
        with torch.no_grad():
            single = theirs(torch.tensor([TOKENS])).logits[0].double().numpy()
        exact = logits_in_double(theirs, TOKENS, torch, in_double)
        ours, halves = (
            Model.from_pretrained(folder, threads=2, cache=cache).logits(TOKENS)
            for cache in ("fp32", "fp16")
        )
        found = (ours, single, halves)
        errors.append([np.square(each - exact).mean() / exact.var() for each in found])
    ours, float32, halves = np.sqrt(np.mean(errors, axis=0))
    print(f"{name}: {ours:.2g} of the deviation, {float32:.2g} in transformers, {halves:.2g} with "
          "a float16 cache")  # fmt: skip
    assert 1e-3 < float32 < 0.2
    assert ours < 1.8 * float32


@pytest.mark.parametrize("name", ["Qwen3", "Gemma3"])
def test_bitnet_embedding_models(tmp_path, torch, transformers, in_double, name):
    """Masters whose folder does not say so, and a norm for each linear layer: what they mean is in
    microsoft/BitNet's documentation, and here."""
    theirs = made(name, 7, torch, transformers, head_dim=16, tie_word_embeddings=True)

    class BitLinear(torch.nn.Linear):
        def forward(self, x):
            x = self.norm(x)
            step = x.abs().amax(-1, keepdim=True) / 127
            mean = self.weight.abs().mean()
            weight = (self.weight / mean).round().clamp(-1, 1)
            return torch.nn.functional.linear((x / step).round() * step, weight) * mean

    for key, module in theirs.model.named_modules():
        if key.endswith("_proj"):
            with torch.no_grad():
                module.weight.normal_(0, 0.3).copy_(module.weight.bfloat16().float())
            module.__class__ = BitLinear
            module.norm = torch.nn.RMSNorm(module.in_features, eps=1e-6)
            torch.nn.init.uniform_(module.norm.weight, 0.5, 1.5)
    theirs.model.save_pretrained(tmp_path)
    expected = logits_in_double(theirs, TOKENS, torch, in_double)
    model = Model.from_pretrained(tmp_path)
    assert len(model.weights.layers[0].norms) == {"Qwen3": 4, "Gemma3": 6}[name] + 7
    check_near(model, expected, NEAR_MEAN)
    check_kernels(tmp_path)


@pytest.mark.parametrize(
    ("options", "original"),
    [({}, 128), ({}, 40), ({"tie_word_embeddings": True, "num_key_value_heads": 4}, None)],
)
def test_minicpm(tmp_path, torch, transformers, in_double, options, original):
    """Its program is remote code: a LLaMA with the scales that its paper has, in hooks."""
    scaling = {**LONG, "short_factor": LONG["short_factor"][:6],
               "long_factor": LONG["long_factor"][:6]}  # fmt: skip
    if original is None:
        scaling = {"rope_type": "default", "rope_theta": 1e4}
    else:
        scaling["original_max_position_embeddings"] = original
    theirs = made("Llama", 9, torch, transformers, rope_parameters=scaling, **options)
    theirs.save_pretrained(tmp_path)
    raw = json.loads((tmp_path / "config.json").read_text())
    theta = raw.pop("rope_parameters")["rope_theta"]
    del raw["head_dim"]
    raw |= {
        "architectures": ["MiniCPMForCausalLM"], "model_type": "minicpm", "rope_theta": theta,
        "scale_emb": 3, "scale_depth": 1.4, "dim_model_base": 16,
        "auto_map": {"AutoModelForCausalLM": "modeling_minicpm.MiniCPMForCausalLM"},
        "rope_scaling": {key: scaling[key] for key in scaling if key != "rope_theta"},
    }  # fmt: skip
    (tmp_path / "config.json").write_text(json.dumps(raw))

    def times(factor):
        def hook(module, inputs, output):
            if isinstance(output, tuple):
                return (output[0] * factor, *output[1:])
            return output * factor

        return hook

    theirs.model.embed_tokens.register_forward_hook(times(3))
    for layer in theirs.model.layers:
        for part in (layer.self_attn, layer.mlp):
            part.register_forward_hook(times(1.4 / math.sqrt(3)))
    theirs.model.norm.register_forward_hook(times(16 / 48))
    expected = logits_in_double(theirs, TOKENS, torch, in_double)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # its own program is no news
        floats = Model.from_pretrained(tmp_path, weights="fp16")
    check_near(floats, expected)
    check_kernels(tmp_path)


def test_the_command_that_converts_a_pickle(tmp_path, torch, transformers):
    """Makes of pytorch_model.bin what opens, and is the same model."""
    theirs = made("Qwen3", 11, torch, transformers, head_dim=16)
    theirs.save_pretrained(tmp_path)
    expected = Model.from_pretrained(tmp_path).logits(TOKENS)
    torch.save(theirs.state_dict(), tmp_path / "pytorch_model.bin")
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(FileNotFoundError) as caught:
        Model.from_pretrained(tmp_path)
    command = re.search(r"python -c \"(.*)\"", str(caught.value))[1]
    exec(command.replace("DIR", str(tmp_path)), {})
    assert (tmp_path / "model.safetensors").is_file()
    assert cases.same_bits(Model.from_pretrained(tmp_path).logits(TOKENS), expected)
