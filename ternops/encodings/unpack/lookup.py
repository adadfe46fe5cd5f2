"""Kernel code of tl1 and tl2: sums that 4-bit indices look up, with each tier's own shuffles.

A line has one byte for each of BYTES rows, which holds two indices: into the tables of two tuples
of neighbouring activations. With triples there is a line of signs besides; bit t of a byte tells
that the sum which triple t of eight looks up is to be subtracted.

A table is 16 int16, with triples 32 of them, the later ones negated (TABLE_OF_WORDS); or it is 16
low bytes and then 16 high bytes. The sums of a line's rows take SUMS registers of the type SUM, in
a form that `rows_of` turns into int16 in the order of the rows, right modulo 2**16. A look-up adds
one; at most 255 may be added up.
"""

import numpy as np

from ternops.isa.detect import TIER
from ternops.simd import (
    Vector,
    bitcast,
    concatenate,
    constant,
    convert,
    full,
    gather,
    inlined,
    instruction,
    interleave,
    load,
    select_greater,
    store,
    take,
)

BYTES = TIER.vector_bytes
SUM = Vector("i16", BYTES // 2)
_U8, _I8, _U16 = Vector("u8", BYTES), Vector("i8", BYTES), Vector("u16", BYTES // 2)
_U8X16, _I16X16 = Vector("u8", 16), Vector("i16", 16)
#: The bytes of 16 rows in a line.
LINE = _U8X16

TABLE_OF_WORDS = TIER.shuffle_bytes is None


def patterns(tuples):
    """index -> values of a tuple, as one constant vector for each weight of the tuple."""
    rows = zip(*tuples, strict=True)
    return [constant(_I16X16, (*row, *[0] * (16 - len(row)))) for row in rows]


@inlined
def weighted(x, at, pattern):
    """The activation at x + at times what each index has of it."""
    return pattern * np.int16(load(np.int8, x + at))


@inlined
def write_entries(entries, target):
    """A table of 16 sums."""
    if TABLE_OF_WORDS:
        store(target, entries)
    else:
        store(target, convert(_U8X16, entries))
        store(target + 16, convert(_U8X16, entries >> 8))


if TIER.shuffle_words is not None:
    # vpermw looks up 32 words and ignores all but the low five bits of an index. A 16-bit lane
    # holds the bytes of two rows, so even and odd rows are added up apart.
    SUMS = 2
    _permute = TIER.shuffle_words

    @inlined
    def _add(sums, at, index, table):
        sums[at] = sums[at] + _permute(table, bitcast(SUM, index))

    @inlined
    def add_pair(sums, line, half, table):
        """Add the pairs of the low (half 0) or high (half 1) indices."""
        words, entries = bitcast(_U16, line), load(_I16X16, table)
        # Twice the same: an index has four bits, the fifth belongs to another.
        both = concatenate(entries, entries)
        _add(sums, 0, words >> 4 * half, both)
        _add(sums, 1, words >> (8 + 4 * half), both)

    @inlined
    def add_triple(sums, line, half, signs, triple, table):
        """Add the triples of the low or high indices; bit `triple` of signs is theirs."""
        words, entries, sign = bitcast(_U16, line), load(SUM, table), bitcast(_U16, signs)
        for odd in range(2):
            bit = 8 * odd + triple
            fifth = (sign << max(0, 4 - bit)) >> max(0, bit - 4)
            index = ((words >> (8 * odd + 4 * half)) & 15) | (fifth & 0xFFF0)
            _add(sums, odd, index, entries)

    @inlined
    def rows_of(sums):
        """The sums of a line's rows."""
        return interleave(sums[0], sums[1])

elif TIER.shuffle_bytes is not None:
    # vpshufb and tbl look up bytes, so low and high bytes of the sums are looked up apart. The low
    # ones are added as words, which the even rows' bytes begin, and once more shifted down; high
    # ones may wrap around. Negation is ~x + 1: the ones are counted in the fourth register.
    SUMS = 4
    _subtract = instruction(f"llvm.ssub.sat.v{BYTES}i8", _I8, _I8, _I8)
    _shuffle = TIER.shuffle_bytes

    @inlined
    def _add(sums, low, high):
        words = bitcast(_U16, low)
        sums[0] = sums[0] + bitcast(SUM, words)
        sums[1] = sums[1] + bitcast(SUM, words >> 8)
        sums[2] = bitcast(SUM, bitcast(_U8, sums[2]) + high)

    @inlined
    def _each_half(entries):
        return entries if BYTES == 16 else concatenate(entries, entries)

    @inlined
    def _look_up(line, half, table):
        index = bitcast(_U8, bitcast(_U16, line) >> 4 * half) & 15
        low, high = load(_U8X16, table), load(_U8X16, table + 16)
        return _shuffle(_each_half(low), index), _shuffle(_each_half(high), index)

    @inlined
    def add_pair(sums, line, half, table):
        """Add the pairs of the low (half 0) or high (half 1) indices."""
        low, high = _look_up(line, half, table)
        _add(sums, low, high)

    @inlined
    def add_triple(sums, line, half, signs, triple, table):
        """Add the triples of the low or high indices; bit `triple` of signs is theirs."""
        low, high = _look_up(line, half, table)
        # Shifted as words: what comes up from the byte below stays below the top bit.
        top = bitcast(_I8, bitcast(_U16, signs) << (7 - triple))
        zero = full(_I8, 0)
        negative = select_greater(zero, top, full(_I8, -1), zero)
        flip = bitcast(_U8, negative)
        _add(sums, low ^ flip, high ^ flip)
        # Never saturates; but LLVM would gather up plain subtractions, and run out of registers.
        sums[3] = bitcast(SUM, _subtract(bitcast(_I8, sums[3]), negative))

    @inlined
    def rows_of(sums):
        """The sums of a line's rows."""
        high, ones = sums[2], bitcast(_U16, sums[3])
        even = sums[0] - (sums[1] << 8) + (high << 8) + bitcast(SUM, ones & 255)
        odd = sums[1] + (high & -256) + bitcast(SUM, ones >> 8)
        return interleave(even, odd)

else:
    # No byte shuffle that every CPU has: scalar loads. First half of the rows, second half.
    SUMS = 2

    @inlined
    def add_pair(sums, line, half, table):
        """Add the pairs of the low (half 0) or high (half 1) indices."""
        index = (line >> 4 * half) & 15
        sums[0] = sums[0] + gather(SUM, table, take(index, 0, 8, 1))
        sums[1] = sums[1] + gather(SUM, table, take(index, 8, 8, 1))

    @inlined
    def add_triple(sums, line, half, signs, triple, table):
        """Add the triples of the low or high indices; bit `triple` of signs is theirs."""
        index = ((line >> 4 * half) & 15) | (((signs >> triple) & 1) << 4)
        sums[0] = sums[0] + gather(SUM, table, take(index, 0, 8, 1))
        sums[1] = sums[1] + gather(SUM, table, take(index, 8, 8, 1))

    @inlined
    def rows_of(sums):
        """The sums of a line's rows."""
        return concatenate(sums[0], sums[1])
