"""What the compiled forward pass reads: records of addresses and counts, in memory."""

import numpy as np

from ternops.decoder.architectures import BIASED, LINEAR, NORMS, VECTORS
from ternops.simd import record_type

_COUNTS = "hidden ffn layers heads kv_heads head_dim rotated vocabulary activation"
_DELTA = (
    "delta_heads delta_key_heads delta_key_dim delta_value_dim delta_mixed delta_values"
    " delta_tiled kept written delta_inputs delta_rule"
)
_WEIGHTS = "layer_table embedding embedding_stride embedding_is_bf16 embedding_row norm state_norm"
_SHARED = "x y q k v attention gate up normed logits logits_stride"
_OWN = "own own_bytes own_head own_floats own_queries own_scores score_stride row_step type_table"
_JOBS = "append attend"
_HEAD = (
    "head_step screened bounds peaks peak_count exact exact_stride exact_is_bf16 exact_top computed"
)
_SPARSE = (
    "most_rows most_columns least_saved listed_multiply columns_multiply columns_close"
    " own_listed own_codes own_sums own_columns own_counts"
)
#: As float32, but for the epsilons. inner_epsilon: of the norms within linear layers; score_scale:
#: what scores are multiplied by; the others: see `Config`.
_FLOATS = ("epsilon", "inner_epsilon", "score_scale", "embedding_scale", "residual_scale")
_TUNED = "tuned tuned_bytes tuned_prepare tuned_block tuned_out tuned_slots run_table runs"
_ADAPTER = "adapter adapter_own adapter_bytes"
_LOW = "low codes low_steps active"
_HERE = (
    "hidden_first hidden_last ffn_first ffn_last queries_first queries_last kv_first kv_last"
    " head_first head_last embeds gather gather_table in_place no_type communicator"
)
_CALL = "tokens tile_tokens outputs states layer_step token_table output_table profile"
_INTEGERS = " ".join(
    (_COUNTS, _DELTA, _WEIGHTS, _SHARED, _OWN, _JOBS, _HEAD, _SPARSE, _TUNED, _ADAPTER, _LOW, _HERE,
     _CALL)
).split()  # fmt: skip
#: A model and the memory of one forward pass. Counts, and the index of the activation; those of
#: delta nets, how much of its state each head of a token keeps and writes, and the addresses of
#: their jobs; addresses of weights (of a packed embedding that of its OPERANDS record and that of
#: its `grouped_row`, which is 0 for another); of buffers that threads share, a row a token; of each
#: thread's scratch (own_bytes each, with offsets: an OPERANDS record, another one for the head,
#: floats, queries, scores); how threads share rows; the TYPE records; addresses of the jobs that
#: append to the cache and that attend to it; what a screened head needs; what
#: `ternops.decoder.feed_forward` needs to leave out rows of `up` and columns of `down` (at most so
#: many of 1024 are computed by list, 0: never; bytes that a list must save a thread; kernels;
#: offsets in scratch of lists, codes, sums, an OPERANDS record, and counts of rows and columns that
#: were computed, int64 each); what `ternops.decoder.tuned` needs to add the deltas of some tokens
#: (each thread's OPERANDS record, tuned_bytes apart, and from there the offset of its results; what
#: prepares tokens; columns of a block of signs; slots of a layer in a table of SIGNS; RUNs and
#: their number, 0: none); what `ternops.decoder.adapted` needs (a table of LOW_RANK, (layers,
#: slots), 0: none; each thread's memory); what `ternops.decoder.low_activations` needs (whether
#: activations are those of a4.8; codes of each token, its step, and how many are not 0); what this
#: process has of a model that several hold together (rows, or heads, from the first to before the
#: last, of vectors between layers and within the feed-forward part, of queries, of keys and values,
#: of the head; whether tokens are looked up, or x is what another process has made of them; how
#: processes exchange them, see `ternops.decoder.exchange`: the address of MPI_Allgatherv, 0 for one
#: alone, of the GATHER records, and what MPI has for its constants and handles); and this call's
#: tokens.
#: tile_tokens: tokens whose attention is computed together, if they are of one sequence. outputs:
#: tokens whose logits are computed, in output_table; states: the same of normed hidden states, with
#: the weight state_norm, which has no factor of the logits. layer_step: bytes from a layer's keys
#: in a page to the next one's. exact_top: how many of the largest
#: logits must be exact. profile: 0, or the address of int64 nanoseconds that thread 0 adds to, one
#: of each of PARTS.
MODEL = np.dtype([(name, np.intp) for name in _INTEGERS] + [(name, np.float64) for name in _FLOATS])

#: What products with weights of one type need to know, in one pass: of OPERANDS all that is not the
#: matrix's or the call's; bytes of a placed token by its length; how GEMV reads rows.
_OF_OPERANDS = (
    "prepare", "multiply", "fields", "bias", "token_block", "group_bits", "is_blocked", "levels",
    "shift",
)  # fmt: skip
PLACED = ("placed_hidden", "placed_queries", "placed_values", "placed_ffn")
TYPE = np.dtype(
    [("floor", np.float64)]
    + [(name, np.intp) for name in (*_OF_OPERANDS, *PLACED, "streams", "panel", "unit")]
)
TYPE_BYTES = TYPE.itemsize

_MATRIX = ("", "_stride", "_scale", "_scale_step", "_type")
#: A layer: of each matrix the address, row bytes, address of the scale and bytes from one to the
#: next (0: one for all), and which TYPE it has, those of a delta net in their slots; the rows of
#: the first three (0: no such matrix), and which of q's, and of k's and v's, are there; the address
#: of each norm, bias and vector (0: none); `down` by columns (0: not kept); how many positions a
#: token attends to, and the table of rotations; its number among the layers with attention, or
#: where its state begins, in bytes.
LAYER = np.dtype(
    [(f"{name}{part}", np.intp) for name in LINEAR for part in _MATRIX]
    + [(f"{name}_norm", np.intp) for name in NORMS]
    + [(f"{name}_bias", np.intp) for name in BIASED]
    + [(name, np.intp) for name in VECTORS]
    + [(f"{name}_rows", np.intp) for name in ("q", "k", "v")]
    + [(name, np.intp) for name in ("q_first", "q_last", "k_first", "k_last")]
    + [(name, np.intp) for name in ("columns", "columns_stride", "window", "cosine", "sine")]
    + [("place", np.intp)]
)
LAYER_BYTES = LAYER.itemsize

#: One token of a forward pass: what it is, where it stands, and its sequence's cache: the table of
#: its pages' addresses, and its states.
TOKEN = np.dtype([(name, np.intp) for name in ("id", "position", "pages", "states")])
TOKEN_BYTES = TOKEN.itemsize

#: Neighbouring tokens that share a delta: the first, how many, the table of its SIGNS, (layers,
#: slots), and the kernel that multiplies so many.
RUN = np.dtype([(name, np.intp) for name in ("first", "count", "signs", "multiply")])
RUN_BYTES = RUN.itemsize

#: A matrix of signs: its address, row bytes and the address of its scale.
SIGNS = np.dtype([(name, np.intp) for name in ("weights", "stride", "scale")])
SIGNS_BYTES = SIGNS.itemsize

#: Two low-rank matrices of a linear layer: addresses of the first, float32 (rank, columns), and of
#: the second turned, float32 (rank, rows); rank (0: none), a multiple
#: of `low_rank.RANKS`; and what their product is multiplied by.
LOW_RANK = np.dtype([(name, np.intp) for name in ("a", "b", "ranks")] + [("scale", np.float64)])
LOW_RANK_BYTES = LOW_RANK.itemsize

#: What processes gather of a vector that each has a part of: how much each has and from where on,
#: as MPI counts them, int32 (ranks,), and in which MPI datatype. One for each of GATHERED.
GATHER = np.dtype([(name, np.intp) for name in ("counts", "displacements", "type")])
GATHER_BYTES = GATHER.itemsize
GATHERED = ("queries", "hidden", "ffn", "peaks", "logits")

ModelRecord, TypeRecord, LayerRecord, TokenRecord = (
    record_type(each) for each in (MODEL, TYPE, LAYER, TOKEN)
)
RunRecord, SignsRecord, LowRankRecord, GatherRecord = (
    record_type(each) for each in (RUN, SIGNS, LOW_RANK, GATHER)
)

#: What the time of a token is spent on.
PRODUCTS = "ternary products"
PARTS = ("norm and quantise", PRODUCTS, "attention", "waiting", "head")
