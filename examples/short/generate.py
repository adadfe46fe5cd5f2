"""Text of a model in a file: likeliest, sampled, and of several sequences at once.

    python examples/short/generate.py [MODEL]

MODEL: a Hugging Face folder, a GGUF file or what `python -m ternops quantize` wrote; without one it
is the small model inside, which has read the sources of Python's standard library.
"""

import sys

from ternops.decoder import Batch, Model, open_checkpoint

path = sys.argv[1] if len(sys.argv) > 1 else None
tokenizer = open_checkpoint(path).tokenizer()
model = Model.from_pretrained(path)

prompt = tokenizer.encode("import ").ids
tokens = list(model.generate(prompt, max_new_tokens=10))
print("likeliest:", repr(tokenizer.decode(tokens)))

# The same seed gives the same text, on every machine.
for seed in (3, 4):
    tokens = model.generate(prompt, max_new_tokens=10, temperature=0.7, top_k=20, seed=seed)
    print(f"seed {seed}:", repr(tokenizer.decode(list(tokens))))

# Together: each weight is read once for all of them, and each text is what it would be alone.
batch = Batch(model, size=3)
texts = {batch.add(tokenizer.encode(each).ids, max_new_tokens=6): (each, []) for each in
         ("class ", "def __init__(self, ", "import os\nimport ")}  # fmt: skip
while len(batch):
    for request, token, *_ in batch.step():
        if token is not None:
            texts[request][1].append(token)
for start, found in texts.values():
    print(repr(start), "->", repr(tokenizer.decode(found)))
