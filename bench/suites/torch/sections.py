"""What bench.torch measures, section by section, and the figures from it.

Times are medians of rounds in which the candidates take turns, so that all of them see the same
machine.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from statistics import median
from typing import Any

import numpy as np

import ternops
from bench.core.goals import Goal

#: The down projection of BitNet b1.58 2B-4T seen from its inputs: (1, 2560) times (6912, 2560)^T.
_ROWS, _COLUMNS = 6912, 2560
#: An up projection of the 700M model (inputs, outputs), and tokens of a step.
_HIDDEN, _FFN, _TOKENS = 1536, 4096, 512
#: Of the layout of BitNet b1.58 2B-4T, but for the number of layers and the vocabulary.
_LAYOUT = {
    "hidden_size": 2560, "intermediate_size": 6912, "num_attention_heads": 20,
    "num_key_value_heads": 5, "vocab_size": 4096, "max_position_embeddings": 512,
}  # fmt: skip
_PROMPT = 8
#: Seconds after which the threads of another library, which spin for a while, have gone to sleep.
_REST = 0.03


@dataclass
class TorchOptions:
    """How much to measure: seconds of a figure, tokens generated, layers of the model.

    raw: what was seen, in seconds, or tokens a second.
    """

    threads: int
    seconds: float
    tokens: int
    layers: int
    raw: dict[str, float] = field(default_factory=dict)


def _times(runs: dict[str, Callable[[], Any]], seconds: float) -> dict[str, float]:
    """The median time of each, in turns of about 10 ms."""
    calls = {}
    for name, run in runs.items():
        run()
        start = time.perf_counter()
        run()
        calls[name] = max(1, int(0.01 / (time.perf_counter() - start)))
    found: dict[str, list[float]] = {name: [] for name in runs}
    end = time.perf_counter() + seconds * len(runs)
    while time.perf_counter() < end or len(found[name]) < 3:
        for name, run in runs.items():
            time.sleep(_REST)
            run()
            start = time.perf_counter()
            for _ in range(calls[name]):
                run()
            found[name].append((time.perf_counter() - start) / calls[name])
    return {name: median(each) for name, each in found.items()}


def forward(options: TorchOptions) -> Iterator[Goal]:
    """A product of one token beside torch's, and what the layer adds to `ternops.matmul`."""
    import torch

    from ternops.torch import TernaryLinear

    random = np.random.default_rng(0)
    weights = random.standard_normal((_ROWS, _COLUMNS), np.float32)
    W = ternops.quantize(weights)
    layer, array = TernaryLinear(W), random.standard_normal((1, _COLUMNS), np.float32)
    x, wide = torch.from_numpy(array), torch.from_numpy(weights)
    half, half_weights = x.bfloat16(), wide.bfloat16()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of a package that these are to move to
        found = torch.quantize_per_tensor(wide, 0.05, 0, torch.qint8)
        packed = torch.ops.quantized.linear_prepack(found, None)
    with torch.no_grad():
        times = _times(
            {
                "ternary_linear": lambda: layer(x),
                "ternary_linear_bfloat16": lambda: layer(half),
                "torch_bfloat16": lambda: torch.nn.functional.linear(half, half_weights),
                "torch_int8": lambda: torch.ops.quantized.linear_dynamic(x, packed),
            },
            options.seconds,
        )
    options.raw |= times
    ours = times["ternary_linear"]
    remark = f"{1e6 * ours:.0f} us"
    for name, asked in (("torch_bfloat16", 6.0), ("torch_int8", 3.0)):
        other = f"{remark}, theirs {1e6 * times[name]:.0f}"
        what = f"faster than {name.replace('_', ' ')}"
        yield Goal("forward", what, asked, times[name] / ours, "x", other)
    with torch.no_grad():
        pair = {"layer": lambda: layer(x), "matmul_beside": lambda: ternops.matmul(array, W.T)}
        beside = _times(pair, options.seconds)
    options.raw |= beside
    added = beside["layer"] - beside["matmul_beside"]
    yield Goal("forward", "more than ternops.matmul", 8e-6, added, " us", remark)


def training(options: TorchOptions) -> Iterator[Goal]:
    """A step, forward and backward, of BitLinear beside nn.Linear's, both in bfloat16."""
    import torch

    from ternops.torch import BitLinear

    runs: dict[str, Callable[[], Any]] = {}
    for name, made in (("linear", torch.nn.Linear), ("bitlinear", BitLinear)):
        layer = made(_HIDDEN, _FFN, bias=False).bfloat16()
        x = torch.randn(_TOKENS, _HIDDEN).bfloat16().requires_grad_()
        grad = torch.randn(_TOKENS, _FFN).bfloat16()

        def step(layer: Any = layer, x: Any = x, grad: Any = grad) -> None:
            x.grad = layer.weight.grad = None
            layer(x).backward(grad)

        runs[name] = step
    times = _times(runs, options.seconds)
    options.raw |= {f"step_{name}": each for name, each in times.items()}
    ratio = times["bitlinear"] / times["linear"]
    remark = f"{1e3 * times['bitlinear']:.1f} ms, nn.Linear {1e3 * times['linear']:.1f}"
    yield Goal("training", "BitLinear's step, of nn.Linear's", 1.6, ratio, " times", remark)


def generate(options: TorchOptions) -> Iterator[Goal]:
    """transformers' generate() on a random BitNet, before and after `accelerate`."""
    import torch
    import transformers

    from ternops.torch import accelerate

    config = transformers.BitNetConfig(
        **_LAYOUT, num_hidden_layers=options.layers, tie_word_embeddings=True, bos_token_id=0,
        eos_token_id=None, pad_token_id=None,
    )  # fmt: skip
    settings = transformers.BitNetQuantConfig(
        linear_class="autobitlinear", quantization_mode="offline"
    )
    torch.manual_seed(0)
    with torch.no_grad():
        model = transformers.BitNetForCausalLM(config).bfloat16().eval()
        bitnet = transformers.integrations.bitnet
        bitnet.replace_with_bitnet_linear(model, ["lm_head"], settings)
        for layer in model.modules():
            if isinstance(layer, bitnet.AutoBitLinear):
                shape = layer.weight.shape
                trits = torch.randint(-1, 2, shape).bfloat16()
                layer.weight = torch.nn.Parameter(trits, requires_grad=False)
                layer.weight_scale = torch.full((1,), shape[1] ** -0.5).bfloat16()
    prompt = torch.arange(1, _PROMPT + 1)[None]
    texts = {}
    for name in ("transformers", "accelerated"):
        if name == "accelerated":
            accelerate(model)
        model.generate(prompt, do_sample=False, max_new_tokens=4)
        start = time.perf_counter()
        texts[name] = model.generate(prompt, do_sample=False, max_new_tokens=options.tokens)
        seconds = time.perf_counter() - start
        options.raw[f"tokens_per_second_{name}"] = options.tokens / seconds
    rates = [options.raw[f"tokens_per_second_{name}"] for name in texts]
    same = int((texts["transformers"] == texts["accelerated"]).cumprod(1).sum()) - _PROMPT
    remark = f"{rates[1]:.1f} tokens/s, before {rates[0]:.2f}; the first {same} tokens agree"
    yield Goal("generate", "faster than transformers", 15.0, rates[1] / rates[0], "x", remark)


SECTIONS = {"forward": forward, "training": training, "generate": generate}
