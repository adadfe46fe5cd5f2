"""The GEMM's products on AMX: 16 x 64 bytes of codes times 64 x 16 of activations an instruction.

Layout: tokens in groups of 16; a kilobyte has 64 columns of them, four columns a token in each of
16 rows, as the instruction wants its right operand. A panel has four codes a byte, 64 columns
apart, rows beside one another. Trick: 48 rows and 32 tokens are six sums at once, which leaves a
register for each operand; between their products the next lines' codes are unpacked to the
first-level cache, and the sums before them are scaled and written. Bound: the tile product; the
second level brings the activations, 2 KB in six products, where codes as bytes would be 3 KB more.
"""

from ternops.isa import (
    i32,
    tile_configure,
    tile_dot,
    tile_load,
    tile_release,
    tile_store,
    tile_zero,
    u8,
)
from ternops.isa.tier import GemmTile
from ternops.simd import (
    Vector,
    constant,
    inlined,
    load,
    pointer,
    prefetch,
    registers,
    store,
    transpose,
)

SIDE = 16  #: rows and tokens of a tile of sums, and tokens that share a line of activations
ROWS, TOKENS = 3 * SIDE, 2 * SIDE
_LINE = 64
_TILE_BYTES = SIDE * _LINE
_SUMS = 6 * _TILE_BYTES
#: Lines of codes that share a line of a panel, and are unpacked two by two.
FIELDS = 4
_STEP = 3 * _TILE_BYTES
#: Room for two times six tiles of sums and for unpacked codes; before that for the configuration.
SPARE_BYTES = 2 * _SUMS + FIELDS * _STEP
# Palette 1; eight tiles of 16 rows of 64 bytes.
_configuration = constant(
    Vector("u8", 64), [1, *[0] * 15, *[_LINE, 0] * 8, *[0] * 16, *[SIDE] * 8, *[0] * 8]
)


@inlined
def open_tiles(spare):
    """Configure the tile registers of this thread."""
    store(spare, _configuration())
    tile_configure(spare)


@inlined
def close_tiles():
    """Give the tile registers back: while they are in use, switching threads costs more."""
    tile_release()


def packed_bytes(tile: GemmTile) -> int:
    """Of a panel."""
    return -(-tile.depth // (FIELDS * _LINE)) * tile.panel_rows * _LINE


def make_store_packed(tile: GemmTile):
    """A function that writes the codes of 64 columns from `column` on to a panel's row."""
    slot_bytes = tile.panel_rows * _LINE

    @inlined
    def store_packed(panel, row, column, codes):
        # LLVM knows the field, and makes one store of four, where blocks have whole lines.
        field = (column >> 6) & (FIELDS - 1)
        place = panel + ((column >> 8) * slot_bytes + row * _LINE)
        if field == 0:  # which clears the others
            store(place, codes)
        else:
            store(place, load(u8, place) | (codes << 2 * field))

    return store_packed


def make_tiled(tile: GemmTile, add_up):
    """A function that multiplies a panel with a block of tokens by tiles.

    add_up: what writes a vector of sums; None leaves them in the tiles' memory.
    """
    panel_rows = tile.panel_rows
    slot_bytes = panel_rows * _LINE

    @inlined
    def fetch(packed, part, lines):
        """Four of a slot's rows, which are asked for before they are needed."""
        for r in range(4):
            lines[r] = load(u8, packed + (part * 4 + r) * _LINE)

    @inlined
    def unpack(lines, pair, codes, part):
        """Fields 2 * pair and the one after it of those rows, to the codes of two steps."""
        for r in range(4):
            at = codes + (part * 4 + r) * _LINE
            if pair == 0:
                store(at, lines[r] & 3)
                store(at + _STEP, (lines[r] >> 2) & 3)
            else:
                store(at, (lines[r] >> 4) & 3)
                store(at + _STEP, lines[r] >> 6)

    @inlined
    def unpack_first(packed, codes):
        """The first pair of lines, which no products before them have unpacked."""
        lines = registers(u8, 4)
        for part in range(12):
            fetch(packed, part, lines)
            unpack(lines, 0, codes, part)

    @inlined
    def step(field, packed, after, x, group_bytes, codes):
        """The six products of a line; unpacks half of the pair of lines after its own.

        packed, after: its slot and the next one.
        """
        here = codes + field * _STEP
        second, third = here + _TILE_BYTES, here + 2 * _TILE_BYTES
        pair, part = 1 - field // 2, field % 2 * 6
        target = codes + pair * 2 * _STEP
        source = packed if pair == 1 else after
        lines = registers(u8, 4)
        fetch(source, part, lines)
        tile_load(6, x, _LINE)
        tile_load(7, here, _LINE)
        tile_dot(0, 7, 6)
        unpack(lines, pair, target, part)
        fetch(source, part + 1, lines)
        tile_load(7, second, _LINE)
        tile_dot(1, 7, 6)
        unpack(lines, pair, target, part + 1)
        fetch(source, part + 2, lines)
        tile_load(7, third, _LINE)
        tile_dot(2, 7, 6)
        unpack(lines, pair, target, part + 2)
        fetch(source, part + 3, lines)
        tile_load(6, x + group_bytes, _LINE)
        tile_dot(5, 7, 6)
        unpack(lines, pair, target, part + 3)
        fetch(source, part + 4, lines)
        tile_load(7, second, _LINE)
        tile_dot(4, 7, 6)
        unpack(lines, pair, target, part + 4)
        fetch(source, part + 5, lines)
        tile_load(7, here, _LINE)
        tile_dot(3, 7, 6)
        unpack(lines, pair, target, part + 5)

    @inlined
    def transpose_tile(sums):
        square = registers(i32, SIDE)
        for i in range(SIDE):
            square[i] = load(i32, sums + i * _LINE)
        transpose(square)
        for i in range(SIDE):
            store(sums + i * _LINE, square[i])

    @inlined
    def write_part(p, sums, row, token, i):
        """One of 6 + tokens steps of writing 48 rows: tiles transposed, then a token each."""
        if add_up is None:
            return
        if i < 6:
            transpose_tile(sums + i * _TILE_BYTES)
        else:
            t = i - 6
            at = sums + (t // SIDE * _STEP + t % SIDE * _LINE)
            for k in range(3):
                total = load(i32, at + k * _TILE_BYTES)
                add_up(p, total, row + k * SIDE, token + t, SIDE, 0, True)

    @inlined
    def ask_for(p, place, slot, tokens, weights, count):
        """What is needed after these products, in equal parts for each slot: where two tokens of
        them will be written, and `count` lines of the next panel's packed rows."""
        if add_up is not None and 2 * slot < tokens:
            for t in range(2):
                for i in range(3):
                    prefetch(place + (4 * p.out_stride * (2 * slot + t) + i * _LINE))
        for i in range(count):
            prefetch(weights + (slot * count + i) * _LINE)

    @inlined
    def rows_48(
        p, packed, x, lines, group_bytes, codes, sums, before, row, token, parts, place, tokens,
        weights, count,
    ):  # fmt: skip
        """48 rows times 32 tokens: tile i + 3 * j at `sums` has rows 16 * i, tokens 16 * j.

        before, row, token: the sums before these, of which `parts` are to be written meanwhile.
        place and what follows it: see `ask_for`.
        """
        tile_zero(0)
        tile_zero(1)
        tile_zero(2)
        tile_zero(3)
        tile_zero(4)
        tile_zero(5)
        slots = (lines + FIELDS - 1) // FIELDS
        for slot in range(slots):
            line = slot * FIELDS
            source, here = packed + slot * slot_bytes, x + line * _TILE_BYTES
            # Behind the last one the first: the next tokens meet the same rows.
            after = packed + (slot + 1) % slots * slot_bytes
            step(0, source, after, here, group_bytes, codes)
            if 2 * slot < parts:
                write_part(p, before, row, token, 2 * slot)
            ask_for(p, place, slot, tokens, weights, count)
            if line + 1 < lines:
                step(1, source, after, here + _TILE_BYTES, group_bytes, codes)
            if line + 2 < lines:
                step(2, source, after, here + 2 * _TILE_BYTES, group_bytes, codes)
            if 2 * slot + 1 < parts:
                write_part(p, before, row, token, 2 * slot + 1)
            if line + 3 < lines:
                step(3, source, after, here + 3 * _TILE_BYTES, group_bytes, codes)
        for i in range(2 * slots, parts):
            write_part(p, before, row, token, i)
        tile_store(0, sums, _LINE)
        tile_store(1, sums + _TILE_BYTES, _LINE)
        tile_store(2, sums + 2 * _TILE_BYTES, _LINE)
        tile_store(3, sums + 3 * _TILE_BYTES, _LINE)
        tile_store(4, sums + 4 * _TILE_BYTES, _LINE)
        tile_store(5, sums + 5 * _TILE_BYTES, _LINE)

    @inlined
    def rows_16(packed, x, lines, group_bytes, codes, sums):
        """16 rows times 32 tokens."""
        tile_zero(0)
        tile_zero(1)
        for line in range(lines):
            source = packed + line // FIELDS * slot_bytes
            for r in range(SIDE):
                packed_line = load(u8, source + r * _LINE)
                store(codes + r * _LINE, (packed_line >> 2 * (line % FIELDS)) & 3)
            here = x + line * _TILE_BYTES
            tile_load(4, codes, _LINE)
            tile_load(6, here, _LINE)
            tile_load(7, here + group_bytes, _LINE)
            tile_dot(0, 4, 6)
            tile_dot(1, 4, 7)
        tile_store(0, sums, _LINE)
        tile_store(1, sums + _TILE_BYTES, _LINE)

    def make_write(down):
        """A function that writes tiles of 16 * down rows and 32 tokens, of which some may not be
        there, or not complete."""

        @inlined
        def write(p, sums, row, n, token, tokens, depth, is_last):
            if add_up is None:
                return
            for tile in range(2 * down):
                transpose_tile(sums + tile * _TILE_BYTES)
            for t in range(tokens):
                at = sums + (t // SIDE * down * _TILE_BYTES + t % SIDE * _LINE)
                for i in range((n + SIDE - 1) // SIDE):
                    total, left = load(i32, at + i * _TILE_BYTES), min(SIDE, n - i * SIDE)
                    add_up(p, total, row + i * SIDE, token + t, left, depth, is_last)

        return write

    write_48, write_16 = make_write(3), make_write(1)

    @inlined
    def multiply(p, panel, spare, row, n, token, end, depth, lines, is_last):
        """Rows [row, row + n) and tokens [token, end), from column `depth` on."""
        group_bytes = SIDE * p.placed_stride
        codes, sums, before = spare + 2 * _SUMS, spare, spare + _SUMS
        last_row, last_token, parts = row, token, 0
        slots = (lines + FIELDS - 1) // FIELDS
        # Lines of the next panel's rows, which lie behind this one's: so many in each slot.
        weights = pointer(p.weights) + (row + panel_rows) * p.stride
        turns = (end - token + TOKENS - 1) // TOKENS * max(1, slots)
        count = (panel_rows * p.stride // _LINE + turns - 1) // turns
        for t in range(token, end, TOKENS):
            x = pointer(p.placed) + (t // SIDE * group_bytes + depth * SIDE)
            tokens = min(TOKENS, end - t)
            r = 0
            while n - r > SIDE:
                at = panel + r * _LINE
                place = pointer(p.out) + 4 * (t * p.out_stride + row + r)
                if t == token or n > ROWS or lines % FIELDS > 0:
                    unpack_first(at, codes)
                rows_48(
                    p, at, x, lines, group_bytes, codes, sums, before, last_row, last_token, parts,
                    place, tokens, weights + (t - token) // TOKENS * slots * count * _LINE, count,
                )  # fmt: skip
                if n - r >= ROWS and depth == 0 and is_last:  # later, beside the next products
                    last_row, last_token, parts = row + r, t, 6 + tokens
                    sums, before = before, sums
                else:
                    write_48(p, sums, row + r, min(ROWS, n - r), t, tokens, depth, is_last)
                    parts = 0
                r += ROWS
            if r < n:
                rows_16(panel + r * _LINE, x, lines, group_bytes, codes, sums)
                write_16(p, sums, row + r, n - r, t, tokens, depth, is_last)
        for i in range(parts):
            write_part(p, before, last_row, last_token, i)

    return multiply
