import os
import pathlib

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]


@pytest.fixture
def test_data():
    return ROOT / "tests" / "data"


@pytest.fixture
def program():
    """The program of the same build, for what must be the same from both."""
    path = os.environ.get("MXLM_BINARY")
    if not path:
        pytest.skip("MXLM_BINARY names no program")
    return path
