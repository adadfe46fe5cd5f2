"""Pages of keys and values that sequences share where they begin alike, kept for later ones.

As in PagedAttention (Kwon et al., arXiv 2309.06180) and RadixAttention (Zheng et al., arXiv
2312.07104), with exact arithmetic: what another sequence computed has the bits that its own pass
would give. A page that is full is shared as it is; of one that is not, or that goes on otherwise,
the sequence writes a copy.
"""

from __future__ import annotations

import weakref
from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence

import numpy as np

from ternops.decoder.alike import common
from ternops.decoder.cache import PageArray
from ternops.kernels.attention import POSITIONS

#: Tokens of a page for which it is copied. Two take longer to compute; the first ones of a template
#: are everybody's.
MIN_COPIED = 4


class Page:
    """A node of the tree of pages, or, without memory, a root of it.

    tokens: of its positions, those that are computed. users: sequences that have it in their
    tables. full: those of the children that hold POSITIONS tokens, by them.
    """

    __slots__ = ("__weakref__", "children", "full", "memory", "parent", "tokens", "users")

    def __init__(self, memory: PageArray | None, parent: Page | None) -> None:
        self.memory = memory
        # Or the memory of a batch that is gone would stay until cycles are collected.
        self.parent = weakref.ref(parent) if parent else None
        self.tokens: tuple[int, ...] = ()
        self.users = 0
        self.children: dict[Page, None] = {}
        self.full: dict[tuple[int, ...], Page] = {}


class PrefixCache:
    """The pages of all sequences, as a tree of what they begin with.

    new_page: makes the memory of one. limit: the most pages there may be, None for any number.
    kept: the most of them that no sequence uses; the least recently used ones go first.
    """

    def __init__(
        self, new_page: Callable[[], PageArray], limit: int | None, kept: int,
        copy: Callable[[PageArray, PageArray], None] = np.copyto,
    ) -> None:  # fmt: skip
        self._new_page, self._limit, self._kept = new_page, limit, kept
        #: Writes the second one's content into the first.
        self.copy = copy
        self._roots: dict[Hashable, Page] = {}
        # Least recently used first. A page comes before those that it follows in a sequence.
        self._unused: OrderedDict[Page, None] = OrderedDict()
        #: Pages in the tables of sequences.
        self.used = 0

    @property
    def unused(self) -> int:
        """Pages that are kept for sequences to come."""
        return len(self._unused)

    def root(self, key: Hashable) -> Page:
        """Where sequences begin that are computed with the same weights."""
        return self._roots.setdefault(key, Page(None, None))

    def make(self, parent: Page) -> Page:
        """A new page behind another one, used by one sequence."""
        while self._limit is not None and self.used + self.unused >= self._limit:
            self._evict()
        page = Page(self._new_page(), parent)
        parent.children[page] = None
        page.users = 1
        self.used += 1
        return page

    def use(self, page: Page) -> None:
        """One more sequence has the page in its table."""
        if not page.users:
            del self._unused[page]
            self.used += 1
        page.users += 1

    def let_go(self, pages: Sequence[Page]) -> None:
        """A sequence ends that had these, in order, in its table."""
        for page in reversed(pages):
            page.users -= 1
            if not page.users:
                self.used -= 1
                self._unused[page] = None
        while self.unused > self._kept:
            self._evict()

    def copied(self, parent: Page, tokens: Sequence[int]) -> tuple[Page | None, int]:
        """Of the pages behind `parent` the one whose tokens begin most like these, and how many
        are alike; None if these are too few, or if the page would have to make room for its copy.
        """
        count, source, wanted = 0, None, tuple(tokens)
        for page in parent.children:
            alike = common(page.tokens, wanted)
            if alike > count:
                count, source = alike, page
        if source is None or count < MIN_COPIED:
            return None, 0
        is_unused = source in self._unused
        if is_unused:
            self._unused.move_to_end(source)
        is_full = self._limit is not None and self.used + self.unused >= self._limit
        if is_full and self.unused == is_unused:
            return None, 0
        return source, count

    def _evict(self) -> None:
        page, _ = self._unused.popitem(last=False)
        parent = page.parent() if page.parent else None
        assert parent is not None
        assert not page.children  # or they would be used, or come before
        del parent.children[page]
        if parent.full.get(page.tokens) is page:
            del parent.full[page.tokens]


class SequencePages:
    """The pages of one sequence, in order.

    key: of the weights that it is computed with, see `PrefixCache.root`.
    """

    def __init__(self, cache: PrefixCache, key: Hashable) -> None:
        self._cache = cache
        self._path = [cache.root(key)]
        self._full = 0

    def __len__(self) -> int:
        return len(self._path) - 1

    def page(self, number: int) -> PageArray:
        """The memory of a page that is there, or of the next one, which is made."""
        if number == len(self):
            self._path.append(self._cache.make(self._path[-1]))
        memory = self._path[number + 1].memory
        assert memory is not None
        return memory

    def share(self, tokens: Sequence[int]) -> int:
        """Have the full pages that hold the next tokens; how many there are."""
        before = len(self)
        for start in range(0, len(tokens) - POSITIONS + 1, POSITIONS):
            page = self._path[-1].full.get(tuple(tokens[start : start + POSITIONS]))
            if page is None:
                break
            self._cache.use(page)
            self._path.append(page)
            self._full += 1
        return len(self) - before

    def copy(self, tokens: Sequence[int]) -> int:
        """Make the next page a copy of one that holds some of the next tokens; of how many."""
        source, count = self._cache.copied(self._path[-1], tokens[:POSITIONS])
        if source is not None:
            assert source.memory is not None
            self._cache.copy(self.page(len(self)), source.memory)
        return count

    def note(self, tokens: Sequence[int]) -> None:
        """Say which tokens of the sequence are computed, all from its first one on."""
        while self._full < len(self):
            page, start = self._path[self._full + 1], self._full * POSITIONS
            page.tokens = tuple(tokens[start : start + POSITIONS])
            if len(page.tokens) < POSITIONS:
                return
            self._path[self._full].full.setdefault(page.tokens, page)
            self._full += 1

    def place(self, number: int) -> Page:
        """What a page with this number comes behind."""
        return self._path[number]

    def let_go(self) -> None:
        """The sequence has ended; what it computed stays as long as the cache keeps it."""
        pages = self._path[1:]
        del self._path[1:]
        self._cache.let_go(pages)
