"""Fine-tune a small float model of transformers to ternary weights, and run it with ternops.

The model is a Llama that this script trains first, on the Python standard library (see
train_tiny.py), or any that --model names and that has a tokenizer.json. Its linear layers are then
replaced by BitLinear and trained on while lambda, how far weights and activations are rounded,
rises from 0 to 1 in the first half of the steps: the recipe of
https://huggingface.co/blog/1_58_llm_extreme_quantization. --group 128 gives each 128 inputs a scale
of their own in place of one to a matrix.

It prints bits per byte on files that were held out (lower is better): of the float model, of its
weights rounded at once, and after fine-tuning, and saves the last. The exit code is 1 unless that
needs at most 1.10 times the bits of the float model.

    pip install torch transformers accelerate 'ternops[torch,llm]'
    python examples/finetune.py --output tuned
    python -m ternops generate --model tuned --prompt "def "
    python -m ternops quantize tuned tuned.gguf --to gguf
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np
import torch
import training
import transformers
from tokenizers import Tokenizer
from torch import Tensor, nn

from ternops.decoder import Model
from ternops.torch import BitLinear, accelerate, replace_linear

VOCABULARY, WORSE = 1024, 1.10
#: Of the files that are held out, one in so many is scored.
SCORED = 3
SIZES = {
    "vocab_size": VOCABULARY, "hidden_size": 256, "intermediate_size": 512, "num_hidden_layers": 2,
    "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": training.CONTEXT,
    "bos_token_id": training.BOS_ID, "eos_token_id": training.EOS_ID, "tie_word_embeddings": True,
}  # fmt: skip


def train(model: nn.Module, text: training.Text, args: argparse.Namespace, lambda_: bool) -> None:
    """Train all of a model; with lambda_, round more and more of what its BitLinear layers have."""
    bit_linear = [each for each in model.modules() if isinstance(each, BitLinear)]

    def begin(done: float) -> None:
        for layer in bit_linear:
            layer.lambda_ = min(2 * done, 1.0) if lambda_ else 1.0

    def logits_of(tokens: Tensor) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            return model(tokens, use_cache=False).logits.float()

    matrices = [
        layer.weight
        for name, layer in model.named_modules()
        if isinstance(layer, nn.Linear) and name != "lm_head"
    ]
    known = set(map(id, matrices))
    others = [weight for weight in model.parameters() if id(weight) not in known]
    documents = [np.append(ids, training.EOS_ID) for ids in text.train]
    training.train(logits_of, matrices, others, documents, args, begin)
    begin(1.0)


def bits(name: str, logits_of: training.Logits, text: training.Text) -> float:
    """Say and return how many bits a byte needs."""
    scored = text.held_out[::SCORED]
    size = sum(len(text.tokenizer.decode(ids.tolist()).encode()) for ids in scored)
    found = training.model_bits(logits_of, scored) / size
    print(f"{name}: {found:.3f} bits per byte", flush=True)
    return found


def theirs(model: nn.Module) -> training.Logits:
    """A model of transformers as a function."""
    return lambda tokens: model(tokens, use_cache=False).logits.float()


def ours(model: Model) -> training.Logits:
    """A model of ternops."""
    return lambda tokens: torch.from_numpy(np.stack([model.logits(r) for r in tokens.tolist()]))


def save(model: nn.Module, folder: Path, tokenizer: Tokenizer) -> None:
    model.save_pretrained(folder)
    training.write_files(folder, training.tokenizer_files(tokenizer))


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--output", type=Path, default=Path("tuned"), help="folder to write")
    parser.add_argument("--model", type=Path, metavar="FOLDER",
                        help="a float model to begin with (default: train one)")  # fmt: skip
    parser.add_argument("--float-steps", type=int, default=450, help="to train it for")
    parser.add_argument("--group", type=int, help="inputs that share a scale (default: all)")
    parser.add_argument("--at-once", action="store_true", help="lambda is 1 from the first step")
    training.add_arguments(parser, steps=450)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    transformers.utils.logging.disable_progress_bar()
    if args.model is None:
        text = training.read_text(VOCABULARY)
        model = transformers.LlamaForCausalLM(transformers.LlamaConfig(**SIZES))
        settings = argparse.Namespace(**{**vars(args), "steps": args.float_steps})
        train(model, text, settings, lambda_=False)
        save(model, args.output / "float", text.tokenizer)
    else:
        tokenizer = Tokenizer.from_file(str(args.model / "tokenizer.json"))
        text = training.read_text(tokenizer.get_vocab_size(), tokenizer)
        load = transformers.AutoModelForCausalLM.from_pretrained
        model = load(args.model, dtype=torch.float32)
    model.eval()
    before = bits("float", theirs(model), text)
    replace_linear(model, BitLinear, group=args.group)
    bits("rounded at once", theirs(model), text)
    train(model, text, args, lambda_=not args.at_once)
    after = bits("fine-tuned", theirs(model), text)
    accelerate(model)
    save(model, args.output, text.tokenizer)

    loaded = Model.from_pretrained(args.output, threads=args.threads)
    bits("the same in ternops", ours(loaded), text)
    prompt = text.tokenizer.encode("def ").ids
    print(text.tokenizer.decode([*prompt, *loaded.generate(prompt, max_new_tokens=60)]))
    print(f"fine-tuned needs {after / before:.3f} times the bits of float (at most {WORSE})")
    return 0 if after <= WORSE * before else 1


if __name__ == "__main__":
    sys.exit(main())
