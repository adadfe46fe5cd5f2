"""What processes that hold a model together tell one another in the middle of a pass.

Layout: every process has each vector in full length and computes some of its elements; a GATHER
record says which of them each process has. Trick: sums stay whole, since only rows of matrices are
shared out, so that every bit is that of one process; MPI is called by its address, with no Python
in between. Bound: the latency of the network, four times a layer.
"""

from ternops.decoder.records import GATHER_BYTES, GATHERED, GatherRecord, ModelRecord
from ternops.simd import address_of, call_foreign, inlined, kernel, record_at
from ternops.team import barrier

QUERIES, HIDDEN, FFN, PEAKS, LOGITS = range(len(GATHERED))


@kernel
def _gather(record, kind, buffer, team, thread, threads):
    p = record_at(ModelRecord, record)
    if thread == 0:
        g = record_at(GatherRecord, p.gather_table + kind * GATHER_BYTES)
        call_foreign(
            p.gather, p.in_place, 0, p.no_type, buffer, g.counts, g.displacements, g.type,
            p.communicator,
        )  # fmt: skip
    barrier(team, threads)


@inlined
def gather(p, kind, buffer, team, thread, threads):
    """Have all of a vector of every token, of which each process has computed its own elements,
    once all threads have come to a barrier; of one process alone it is all there."""
    if p.gather != 0:
        _gather(address_of(p), kind, buffer, team, thread, threads)
