"""What bench.torch measures, section by section, and the figures from it.

Times are medians of rounds in which the candidates take turns, so that all of them see the same
machine; what one takes more than another is the median of differences between neighbours.
"""

from __future__ import annotations

import itertools
import tempfile
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
#: A matrix whose product takes little more than the call.
_TINY = 64, 256
#: The layout of BitNet b1.58 2B-4T, but for the number of layers.
_LAYOUT = {
    "hidden_size": 2560, "intermediate_size": 6912, "num_attention_heads": 20,
    "num_key_value_heads": 5, "vocab_size": 128256, "max_position_embeddings": 512,
}  # fmt: skip
#: Tokens of the prompt, and those that transformers' own layers generate.
_PROMPT, _THEIRS = 8, 4
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


def _added(one: Callable[[], Any], other: Callable[[], Any], seconds: float) -> float:
    """What a call of `one` takes more than one of `other`: the median of differences of two that
    follow each other, in either order."""
    found: list[float] = []
    first, second, sign = one, other, 1
    one(), other()
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or len(found) < 100:
        times = []
        for run in (first, second):
            start = time.perf_counter()
            run()
            times.append(time.perf_counter() - start)
        found.append(sign * (times[0] - times[1]))
        first, second, sign = second, first, -sign
    return median(found)


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
    tiny = ternops.quantize(random.standard_normal(_TINY, np.float32))
    for name, matrix in (("large", W), ("tiny", tiny)):
        added = _added_by_layer(matrix, options.seconds)
        options.raw[f"added_{name}"] = added
        remark = f"matrix {matrix.shape}"
        yield Goal("forward", f"more than ternops.matmul, {name}", 8e-6, added, " us", remark)


def _added_by_layer(matrix: ternops.TernaryMatrix, seconds: float) -> float:
    """What a TernaryLinear takes more than `ternops.matmul`."""
    import torch

    from ternops.torch import TernaryLinear

    array = np.random.default_rng(1).standard_normal((1, matrix.shape[1]), np.float32)
    layer, x, turned = TernaryLinear(matrix), torch.from_numpy(array), matrix.T
    with torch.no_grad():
        return _added(lambda: layer(x), lambda: ternops.matmul(array, turned), seconds)


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
    """transformers' generate() on a random BitNet, before and after `accelerate`, and our own
    decoder on what that saves."""
    from ternops.decoder import Model

    prompt = list(range(1, _PROMPT + 1))
    with tempfile.TemporaryDirectory() as folder:
        rates, texts = _of_transformers(options, prompt, folder)
        ours = Model.from_pretrained(folder, threads=options.threads)

    def run(count: int, note: Callable[[], Any]) -> list[int]:
        tokens = []
        for token in ours.generate(prompt, count, stop_at_eos=False):
            note()
            tokens.append(token)
        return tokens

    own, text = _rate(run, options.tokens)
    same = [_agreeing(texts[1], other) for other in (texts[0], text)]
    before, after = rates
    options.raw |= {
        "tokens_per_second_transformers": before, "tokens_per_second_accelerated": after,
        "tokens_per_second_own_decoder": own,
    }  # fmt: skip
    remark = f"{after:.1f} tokens/s, before {before:.2f}; the first {same[0]} tokens agree"
    yield Goal("generate", "faster than transformers", 15.0, after / before, "x", remark)
    remark = f"that has {own:.1f} tokens/s; the first {same[1]} tokens agree"
    yield Goal("generate", "of ternops.decoder's rate", 0.5, after / own, "x", remark)


def _of_transformers(
    options: TorchOptions, prompt: list[int], folder: str
) -> tuple[list[float], list[list[int]]]:
    """Tokens a second and tokens of the model as it is and accelerated, which is then saved."""
    import torch

    from ternops.torch import accelerate

    model = _random_bitnet(options.layers)
    asked = torch.tensor([prompt])

    def run(count: int, note: Callable[[], Any]) -> list[int]:
        streamer = _Streamer(note)
        found = model.generate(asked, do_sample=False, max_new_tokens=count, streamer=streamer)
        tokens: list[int] = found[0, len(prompt) :].tolist()
        return tokens

    before, first = _rate(run, _THEIRS)
    accelerate(model)
    after, second = _rate(run, options.tokens)
    model.save_pretrained(folder)
    return [before, after], [first, second]


def _rate(
    run: Callable[[int, Callable[[], Any]], list[int]], tokens: int
) -> tuple[float, list[int]]:
    """Tokens a second, of the median time from one to the next, and the tokens.

    run: makes so many tokens and calls what it is given behind each. The prompt, which takes
    seconds, is left out without a difference of two times.
    """
    run(2, lambda: None)
    times: list[float] = []
    found = run(1 + tokens, lambda: times.append(time.perf_counter()))
    return 1 / median(later - earlier for earlier, later in itertools.pairwise(times)), found


class _Streamer:
    """What transformers' generate() gives the prompt and then each token to."""

    def __init__(self, note: Callable[[], Any]) -> None:
        self._note, self._is_prompt = note, True

    def put(self, tokens: Any) -> None:
        if not self._is_prompt:
            self._note()
        self._is_prompt = False

    def end(self) -> None:
        """There are no more."""


def _agreeing(one: list[int], other: list[int]) -> int:
    """How many tokens are the same, from the first on."""
    pairs = zip(one, other, strict=False)
    return sum(1 for _ in itertools.takewhile(lambda pair: pair[0] == pair[1], pairs))


def _random_bitnet(layers: int) -> Any:
    """A BitNetForCausalLM in bfloat16 with random trits, its memory written once."""
    import torch
    import transformers

    bitnet = transformers.integrations.bitnet
    config = transformers.BitNetConfig(
        **_LAYOUT, num_hidden_layers=layers, tie_word_embeddings=True, bos_token_id=0,
        eos_token_id=None, pad_token_id=None,
    )  # fmt: skip
    settings = transformers.BitNetQuantConfig(
        linear_class="autobitlinear", quantization_mode="offline"
    )
    torch.manual_seed(0)
    with torch.device("meta"):
        model = transformers.BitNetForCausalLM(config).bfloat16().eval()
        bitnet.replace_with_bitnet_linear(model, ["lm_head"], settings)
    model.model.rotary_emb = type(model.model.rotary_emb)(config)
    for module in model.modules():
        if isinstance(module, bitnet.AutoBitLinear):
            shape = module.weight.shape
            values = torch.randint(-1, 2, shape, dtype=torch.int8)
            module.weight_scale = torch.full((1,), shape[1] ** -0.5).bfloat16()
            module.weight = torch.nn.Parameter(values.bfloat16(), requires_grad=False)
            continue
        for name, weight in list(module.named_parameters(recurse=False)):
            values = torch.ones(weight.shape) if weight.ndim == 1 else torch.randn(weight.shape)
            setattr(module, name, torch.nn.Parameter(values.bfloat16(), requires_grad=False))
    model.tie_weights()
    return model


SECTIONS = {"forward": forward, "training": training, "generate": generate}
