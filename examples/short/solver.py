"""A solver of SciPy with a ternary operator: find a signal from random sums of its parts.

    python examples/short/solver.py        # pip install scipy

Each measurement adds a third of 1500 unknowns up, with signs: a sparse random projection
(Achlioptas, 2003). The matrix takes 1.6 bits an entry, where float64 has 64.
"""

import numpy as np
from scipy.sparse.linalg import lsqr

import ternops

random = np.random.default_rng(0)
unknowns, measurements = 1500, 3000
trits = random.choice([-1, 0, 0, 0, 0, 1], (measurements, unknowns)).astype(np.int8)
W = ternops.pack(trits, encoding="base3")
signal = np.cumsum(random.standard_normal(unknowns))

A = W.as_linear_operator()  # to float64's last digits, where W @ x rounds x to eight bits
measured = A @ signal
found, _, steps, *_ = lsqr(A, measured, atol=1e-12, btol=1e-12)
error = np.linalg.norm(found - signal) / np.linalg.norm(signal)
print(f"{8 * trits.size / W.nbytes:.0f} times smaller than float64")
print(f"error below 1e-9 within 100 steps: {bool(error < 1e-9 and steps < 100)}")

noisy = measured + 0.01 * np.std(measured) * random.standard_normal(measurements)
found = lsqr(A, noisy, atol=1e-12, btol=1e-12)[0]
error = np.linalg.norm(found - signal) / np.linalg.norm(signal)
print(f"with 1% of noise: error {error:.1%}")
