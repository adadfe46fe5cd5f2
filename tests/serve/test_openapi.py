"""The OpenAPI document, and what schemathesis makes of it."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest

from ternops.serve import openapi

pytestmark = pytest.mark.xdist_group("openapi")
#: Cases of each operation, beside those of the coverage phase.
CASES = 40


def test_the_document_is_served(server):
    document = server.client.get("/openapi.json").json()
    expected = openapi.document("0")
    assert document["paths"] == expected["paths"]
    assert document["components"] == expected["components"]


def test_no_case_is_an_error_of_the_server(talking, tmp_path):
    """Whatever is asked: no 5xx, and nothing but what the document says."""
    checks = "not_a_server_error,status_code_conformance,content_type_conformance"
    command = [
        sys.executable, "-m", "schemathesis.cli", "run", f"{talking.url}/openapi.json",
        "--checks", f"{checks},response_schema_conformance", "--max-examples", str(CASES),
        "--phases", "coverage,fuzzing", "--seed", "1", "--no-color",
        "--generation-database", "none",
    ]  # fmt: skip
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=500, check=False, cwd=tmp_path
    )
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr
    generated = re.search(r"(\d+) generated", done.stdout)
    assert generated, done.stdout[-2000:]
    assert int(generated[1]) > 100
