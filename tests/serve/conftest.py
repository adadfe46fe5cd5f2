"""One server of the tiny model for the tests that do not change it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.helpers.serving import Server, make_serving, running, talker


@pytest.fixture(scope="package")
def server() -> Iterator[Server]:
    with running(make_serving()) as found:
        yield found


@pytest.fixture(scope="package")
def talking(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server of the tiny model with a template that knows tools."""
    folder = talker(tmp_path_factory.mktemp("talker"))
    with running(make_serving(folder)) as found:
        yield found
