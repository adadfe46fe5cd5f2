"""What a model would cost on machines that are not here, and what would bound it.

    python examples/short/predict.py

A machine is a file of figures with their sources; `python -m ternops calibrate --output mine.toml`
writes one of yours, which `load` takes as well. Where a machine's kernels were never measured,
tokens/s are the most that the memory allows.
"""

from ternops.cost import load, predict
from ternops.decoder import Config

# BitNet b1.58 2B4T's layout; open_checkpoint("...").config is that of a model.
layout = Config(
    hidden=2560, ffn=6912, layers=30, heads=20, kv_heads=5, head_dim=128, vocabulary=128256,
    context=4096, architecture="bitnet", activation="relu2",
)  # fmt: skip
for name in ("raspberry-pi-5", "i7-13700h", "graviton-3", "m2-ultra"):
    machine = load(name)
    for encoding in ("fp16", "two_bit"):
        found = predict(layout, machine, encoding, context=512)
        print(
            f"{machine.name:24} {encoding:8} {found.tokens_per_second:7.1f} tokens/s, "
            f"bound by {found.bound}"
        )
