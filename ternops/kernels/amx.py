"""The GEMM's products on AMX: 16 x 64 bytes of codes times 64 x 16 of activations an instruction.

Layout: tokens in groups of 16; a kilobyte has 64 columns of them, four columns a token in each of
16 rows, as the instruction wants its right operand; the codes lie as they are. Trick: 48 rows and
32 tokens are six sums at once, which leaves a register for each operand: of the seven loads a step
two find their kilobyte in the first-level cache, where 32 x 32 loads four from the second for four
products. Bound: the tile product; the second level brings 5 KB in less than six of them take.
"""

from ternops.isa import (
    i32,
    tile_configure,
    tile_dot,
    tile_load,
    tile_release,
    tile_store,
    tile_zero,
)
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
#: Room for the tiles of sums, and before that for the configuration.
SPARE_BYTES = 6 * _TILE_BYTES
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


def make_tiled(panel_stride, add_up):
    """A function that multiplies a panel with a block of tokens by tiles.

    add_up: what writes a vector of sums; None leaves them in the tiles' memory.
    """

    @inlined
    def rows_48(codes, x, lines, group_bytes, spare, place, step, tokens):
        """48 rows times 32 tokens: tile i + 3 * j at `spare` has rows 16 * i, tokens 16 * j.

        place, step, tokens: where the result will be written. Its lines are asked for meanwhile.
        """
        tile_zero(0)
        tile_zero(1)
        tile_zero(2)
        tile_zero(3)
        tile_zero(4)
        tile_zero(5)
        second, third = codes + SIDE * panel_stride, codes + 2 * SIDE * panel_stride
        for line in range(lines):
            at, here = line * _LINE, x + line * _TILE_BYTES
            if line < tokens:
                prefetch(place + line * step)
                prefetch(place + (line * step + _LINE))
                prefetch(place + (line * step + 2 * _LINE))
            tile_load(6, here, _LINE)
            tile_load(7, codes + at, panel_stride)
            tile_dot(0, 7, 6)
            tile_load(7, second + at, panel_stride)
            tile_dot(1, 7, 6)
            tile_load(7, third + at, panel_stride)
            tile_dot(2, 7, 6)
            tile_load(6, here + group_bytes, _LINE)
            tile_dot(5, 7, 6)
            tile_load(7, second + at, panel_stride)
            tile_dot(4, 7, 6)
            tile_load(7, codes + at, panel_stride)
            tile_dot(3, 7, 6)
        tile_store(0, spare, _LINE)
        tile_store(1, spare + _TILE_BYTES, _LINE)
        tile_store(2, spare + 2 * _TILE_BYTES, _LINE)
        tile_store(3, spare + 3 * _TILE_BYTES, _LINE)
        tile_store(4, spare + 4 * _TILE_BYTES, _LINE)
        tile_store(5, spare + 5 * _TILE_BYTES, _LINE)

    @inlined
    def rows_16(codes, x, lines, group_bytes, spare):
        """16 rows times 32 tokens."""
        tile_zero(0)
        tile_zero(1)
        for line in range(lines):
            here = x + line * _TILE_BYTES
            tile_load(4, codes + line * _LINE, panel_stride)
            tile_load(6, here, _LINE)
            tile_load(7, here + group_bytes, _LINE)
            tile_dot(0, 4, 6)
            tile_dot(1, 4, 7)
        tile_store(0, spare, _LINE)
        tile_store(1, spare + _TILE_BYTES, _LINE)

    def make_write(down):
        """A function that writes tiles of 16 * down rows and 32 tokens."""

        @inlined
        def write(p, spare, row, n, token, tokens, depth, is_last):
            if add_up is None:
                return
            square = registers(i32, SIDE)
            for tile in range(2 * down):
                sums = spare + tile * _TILE_BYTES
                for i in range(SIDE):
                    square[i] = load(i32, sums + i * _LINE)
                transpose(square)
                for i in range(SIDE):
                    store(sums + i * _LINE, square[i])
            for t in range(tokens):
                sums = spare + (t // SIDE * down * _TILE_BYTES + t % SIDE * _LINE)
                if n == SIDE * down and depth == 0 and is_last:
                    for i in range(down):  # the usual case, without masks
                        total = load(i32, sums + i * _TILE_BYTES)
                        add_up(p, total, row + i * SIDE, token + t, SIDE, 0, True)
                else:
                    for i in range((n + SIDE - 1) // SIDE):
                        total, left = load(i32, sums + i * _TILE_BYTES), min(SIDE, n - i * SIDE)
                        add_up(p, total, row + i * SIDE, token + t, left, depth, is_last)

        return write

    write_48, write_16 = make_write(3), make_write(1)

    @inlined
    def multiply(p, panel, spare, row, n, token, end, depth, lines, is_last):
        """Rows [row, row + n) and tokens [token, end), from column `depth` on."""
        group_bytes = SIDE * p.placed_stride
        for t in range(token, end, TOKENS):
            x = pointer(p.placed) + (t // SIDE * group_bytes + depth * SIDE)
            tokens = min(TOKENS, end - t)
            r = 0
            while n - r > 2 * SIDE:
                place = pointer(p.out) + 4 * (t * p.out_stride + row + r)
                codes, step = panel + r * panel_stride, 4 * p.out_stride
                rows_48(codes, x, lines, group_bytes, spare, place, step, tokens)
                write_48(p, spare, row + r, min(ROWS, n - r), t, tokens, depth, is_last)
                r += ROWS
            while r < n:
                rows_16(panel + r * panel_stride, x, lines, group_bytes, spare)
                write_16(p, spare, row + r, min(SIDE, n - r), t, tokens, depth, is_last)
                r += SIDE

    return multiply
