"""What MPI is told before it begins."""

from __future__ import annotations

import os
import sys
import types

import pytest

from ternops.ranks.world import mpi

NAME = "MPIR_CVAR_ALLGATHERV_PIPELINE_MSG_SIZE"


class Begun(types.ModuleType):
    """mpi4py, whose MPI begins when it is asked for: it then reads the environment."""

    def __getattr__(self, name):
        if name != "MPI":
            raise AttributeError(name)
        self.seen = os.environ.get(NAME)
        return types.SimpleNamespace(Query_thread=lambda: 3, THREAD_MULTIPLE=3)


@pytest.mark.parametrize(("given", "expected"), [(None, "0"), ("65536", "65536"), ("", "")])
def test_long_vectors_go_round_whole(monkeypatch, given, expected):
    """Unless the user has said otherwise; which transport there is stays MPI's choice."""
    begun = Begun("mpi4py")
    monkeypatch.setitem(sys.modules, "mpi4py", begun)
    monkeypatch.setattr(os, "environ", dict(os.environ))
    os.environ.pop(NAME, None)
    os.environ.pop("UCX_TLS", None)
    if given is not None:
        os.environ[NAME] = given
    mpi.cache_clear()
    try:
        mpi()
    finally:
        mpi.cache_clear()
    assert begun.seen == expected
    assert "UCX_TLS" not in os.environ
