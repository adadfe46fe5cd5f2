"""valgrind finds nothing in kernels, and what is wrong on purpose it does find."""

from __future__ import annotations

import pytest

from tests.helpers import processes
from tests.memcheck import run
from tests.memcheck.child import CONTROLS

#: Errors of an interpreter, of a kernel, of NumPy with what a kernel gave, of memcpy for a kernel,
#: and of what is not freed.
REPORT = """<valgrindoutput>
<error><unique>0x0</unique><kind>UninitCondition</kind><what>jump</what>
 <stack><frame><obj>/lib/libpython3.so</obj><fn>long</fn></frame><frame/></stack></error>
<error><unique>0x1</unique><kind>InvalidRead</kind><what>Invalid read of size 32</what>
 <stack><frame><ip>0x1</ip></frame><frame><obj>/lib/libffi.so</obj></frame></stack></error>
<error><unique>0x2</unique><kind>UninitCondition</kind><what>jump</what>
 <stack><frame><obj>/numpy/_core/_multiarray_umath.so</obj><fn>all</fn></frame></stack></error>
<error><unique>0x3</unique><kind>InvalidWrite</kind><what>Invalid write of size 8</what>
 <stack><frame><obj>/vgpreload.so</obj><fn>memcpy@GLIBC</fn></frame><frame/></stack></error>
<error><unique>0x4</unique><kind>Leak_PossiblyLost</kind><xwhat><text>lost</text></xwhat>
 <stack><frame/></stack></error>
<errorcounts><pair><count>7</count><unique>0x1</unique></pair></errorcounts>
</valgrindoutput>"""


def test_whose_errors_count():
    assert run.errors(REPORT) == {
        "InvalidRead: Invalid read of size 32, in a kernel": 7,
        "UninitCondition: jump, in all": 1,
        "InvalidWrite: Invalid write of size 8, in a kernel": 1,
    }


@pytest.fixture
def tier():
    """The plainest that this machine has and valgrind can run."""
    if reason := run.lacking() or processes.lacking("generic"):
        pytest.skip(reason)
    return "generic"


@pytest.mark.slow
@pytest.mark.tiers
@pytest.mark.timeout(1000)
@pytest.mark.parametrize("control", CONTROLS)
def test_what_is_wrong_is_found(tier, control):
    assert run.check(control, tier).errors


@pytest.mark.slow
@pytest.mark.tiers
@pytest.mark.timeout(2000)
@pytest.mark.parametrize("part", ["packing", "floats"])
def test_nothing_is_found(tier, part):
    """`make memcheck` has all parts, on two tiers."""
    found = run.check(part, tier)
    assert found.kernels
    assert not found.errors
