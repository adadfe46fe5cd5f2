"""The GEMM's products on AMX: 16 x 64 bytes of codes times 64 x 16 of activations an instruction.

Layout: tokens in groups of 16; a kilobyte has 64 columns of them, four columns a token in each of
16 rows, as the instruction wants its right operand; the codes lie as they are. Trick: 32 rows and
32 tokens are four sums at once, each tile is loaded for two. Bound: the tile product.
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
from ternops.simd import Vector, constant, inlined, load, pointer, registers, store, transpose

SIDE = 16  #: rows and tokens of a tile of sums, and tokens that share a line of activations
TOKENS = 2 * SIDE
_LINE = 64
_TILE_BYTES = SIDE * _LINE
#: Room for the tiles of sums, and before that for the configuration.
SPARE_BYTES = 4 * _TILE_BYTES
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
    """A function that multiplies a panel with all tokens by tiles."""

    @inlined
    def multiply(p, panel, spare, row, n, depth, lines, is_last):
        """Rows [row, row + n) from column `depth` on; all of the panel's rows are computed."""
        square = registers(i32, SIDE)
        group_bytes = SIDE * p.placed_stride
        for token in range(0, p.tokens, TOKENS):
            x = pointer(p.placed) + (token // SIDE * group_bytes + depth * SIDE)
            for r in range(0, n, 2 * SIDE):
                codes = panel + r * panel_stride
                tile_zero(0)
                tile_zero(1)
                tile_zero(2)
                tile_zero(3)
                for line in range(lines):
                    tile_load(4, codes + line * _LINE, panel_stride)
                    tile_load(6, x + line * _TILE_BYTES, _LINE)
                    tile_load(5, codes + (SIDE * panel_stride + line * _LINE), panel_stride)
                    tile_load(7, x + (group_bytes + line * _TILE_BYTES), _LINE)
                    tile_dot(0, 4, 6)
                    tile_dot(1, 4, 7)
                    tile_dot(2, 5, 6)
                    tile_dot(3, 5, 7)
                tile_store(0, spare, _LINE)
                tile_store(1, spare + _TILE_BYTES, _LINE)
                tile_store(2, spare + 2 * _TILE_BYTES, _LINE)
                tile_store(3, spare + 3 * _TILE_BYTES, _LINE)
                for tile in range(4):
                    down, right = tile // 2 * SIDE, tile % 2 * SIDE
                    for i in range(SIDE):
                        square[i] = load(i32, spare + (tile * _TILE_BYTES + i * _LINE))
                    transpose(square)
                    count = min(SIDE, n - r - down)
                    for t in range(min(SIDE, p.tokens - token - right) if count > 0 else 0):
                        at = row + r + down
                        add_up(p, square[t], at, token + right + t, count, depth, is_last)

    return multiply
