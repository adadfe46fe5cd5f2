"""The tree of pages: which ones stay, which ones go first, which one is copied."""

from __future__ import annotations

import numpy as np

from ternops.decoder.prefix_cache import MIN_COPIED, PrefixCache, SequencePages

TOKENS = list(range(1000))


def new_page():
    """A small one."""
    return np.zeros(8, np.uint8)


def computed(cache, tokens, key="base"):
    """The pages of a sequence that has computed these."""
    pages = SequencePages(cache, key)
    pages.share(tokens)
    for number in range(len(pages), -(-len(tokens) // 64)):
        pages.page(number)
    pages.note(tokens)
    return pages


def shared(cache, tokens, key="base"):
    """How many pages a sequence with these tokens finds."""
    pages = SequencePages(cache, key)
    found = pages.share(tokens)
    pages.let_go()
    return found


def test_full_pages_are_shared():
    """While they are used and after that, with the same key alone; each is there once."""
    cache = PrefixCache(new_page, None, 100)
    first, second = computed(cache, TOKENS[:200]), computed(cache, TOKENS[:150])
    assert cache.used == 4 + 1
    assert first.page(1) is second.page(1)
    assert first.page(2) is not second.page(2)
    first.let_go()
    assert (cache.used, cache.unused) == (3, 2)
    second.let_go()
    assert (cache.used, cache.unused) == (0, 5)
    assert shared(cache, TOKENS[:192]) == 3
    assert shared(cache, TOKENS[:191]) == 2
    assert shared(cache, TOKENS[:64], "other") == 0
    assert shared(cache, TOKENS[1:200]) == 0


def test_the_least_recently_used_goes_first():
    """Of a sequence its last page; pages that another one uses stay."""
    cache = PrefixCache(new_page, 6, 6)
    computed(cache, TOKENS[:192]).let_go()
    computed(cache, TOKENS[300:428]).let_go()
    assert shared(cache, TOKENS[:192]) == 3
    third = computed(cache, TOKENS[500:628])
    assert cache.used + cache.unused == 6
    assert shared(cache, TOKENS[300:428]) == 1
    assert shared(cache, TOKENS[:192]) == 3
    used = computed(cache, TOKENS[:64])
    more = computed(cache, TOKENS[700:892])
    assert (cache.used, cache.unused) == (6, 0)
    assert shared(cache, TOKENS[:192]) == 1
    for each in (third, used, more):
        each.let_go()
    assert cache.unused == 6


def test_no_more_are_kept():
    """The last ones that were used."""
    cache = PrefixCache(new_page, None, 3)
    computed(cache, TOKENS[:256]).let_go()
    assert cache.unused == 3
    assert shared(cache, TOKENS[:256]) == 3
    computed(cache, TOKENS[300:364]).let_go()
    assert shared(cache, TOKENS[:256]) == 2


def test_a_copy_is_of_the_page_that_is_most_alike():
    """Of one that is still written, too; none of few tokens, or where there is no room for it."""
    cache = PrefixCache(new_page, 4, 4)
    one, other = computed(cache, TOKENS[:30]), computed(cache, [*TOKENS[:20], 7, 7])
    one.page(0)[:], other.page(0)[:] = 1, 2
    pages = SequencePages(cache, "base")
    assert pages.copy(TOKENS[:25]) == 25
    assert (pages.page(0) == 1).all()
    assert pages.page(0) is not one.page(0)
    pages.let_go()
    few = SequencePages(cache, "base")
    assert few.copy(TOKENS[: MIN_COPIED - 1]) == 0
    assert few.copy([5, *TOKENS[:50]]) == 0
    assert len(few) == 0
    # Full, and nothing but the source could go.
    other.let_go()
    one.let_go()
    busy = computed(cache, TOKENS[500:628])
    last = computed(cache, TOKENS[628:692])
    assert (cache.used, cache.unused) == (3, 1)
    assert few.copy(TOKENS[:25]) == 0
    busy.let_go()
    last.let_go()
    assert few.copy(TOKENS[:20]) == 20


def test_pages_that_were_made_and_not_used_are_there():
    """As after an interrupt: the same page again, and nothing is known of it."""
    cache = PrefixCache(new_page, None, 9)
    pages = computed(cache, TOKENS[:64])
    assert pages.page(1) is pages.page(1)
    pages.note(TOKENS[:64])
    assert len(pages) == 2
    pages.let_go()
    pages.let_go()
    assert (cache.used, cache.unused) == (0, 2)
