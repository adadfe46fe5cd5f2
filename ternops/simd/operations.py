"""The operations of the language by name; what each does is said where it is lowered."""

from __future__ import annotations

from ternops.simd.language import Operation

# Values out of scalars and out of memory, and back: `ternops.simd.lowering.memory`.
address_of = Operation("memory", "address_of")
full = Operation("memory", "full")
load = Operation("memory", "load")
load_first = Operation("memory", "load_first")
pointer = Operation("memory", "pointer")
prefetch = Operation("memory", "prefetch")
record_at = Operation("memory", "record_at")
registers = Operation("memory", "registers")
store = Operation("memory", "store")
store_first = Operation("memory", "store_first")

# Lanes, converted, moved, compared and added up: `ternops.simd.lowering.lanes`.
at_least = Operation("lanes", "at_least")
bitcast = Operation("lanes", "bitcast")
concatenate = Operation("lanes", "concatenate")
convert = Operation("lanes", "convert")
gather = Operation("lanes", "gather")
greater_bits = Operation("lanes", "greater_bits")
interleave = Operation("lanes", "interleave")
lane = Operation("lanes", "lane")
lowest_bit = Operation("lanes", "lowest_bit")
reduce_add = Operation("lanes", "reduce_add")
select_greater = Operation("lanes", "select_greater")
sum_lanes = Operation("lanes", "sum_lanes")
take = Operation("lanes", "take")
transpose = Operation("lanes", "transpose")
widen = Operation("lanes", "widen")

# What threads tell one another with, and the clock: `ternops.simd.lowering.atomics`.
atomic_add = Operation("atomics", "atomic_add")
atomic_load = Operation("atomics", "atomic_load")
atomic_store = Operation("atomics", "atomic_store")
atomic_swap_if = Operation("atomics", "atomic_swap_if")
nanoseconds = Operation("atomics", "nanoseconds")
pause = Operation("atomics", "pause")

# Threads that wait, sleep and move: `ternops.simd.lowering.scheduling`.
cpu_number = Operation("scheduling", "cpu_number")
futex_wait = Operation("scheduling", "futex_wait")
futex_wake = Operation("scheduling", "futex_wake")
leave_cpu = Operation("scheduling", "leave_cpu")
yield_thread = Operation("scheduling", "yield_thread")

# Calls of jobs by their address, a kind each: `ternops.simd.lowering.calls`.
call_layer_kernel = Operation("calls", "call_layer_kernel")
call_rows_kernel = Operation("calls", "call_rows_kernel")
call_team_job = Operation("calls", "call_team_job")
# And of another library's function.
call_foreign = Operation("calls", "call_foreign")
