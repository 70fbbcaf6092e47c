"""Designs for the emulated pyxrt, built once, and a session with one of these designs."""

from pathlib import Path

import pytest
from emulated_session import LARGER_K, ON_XDNA2, OTHER_K, PLAN, Session

from tilewhisper.kernels.xdna import artifacts
from tilewhisper.kernels.xdna.devices import XDNA1
from tilewhisper.kernels.xdna.emulated.build import build
from tilewhisper.kernels.xdna.emulated.pyxrt import make


@pytest.fixture(scope="session")
def root(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("designs")
    build([PLAN, OTHER_K, LARGER_K, ON_XDNA2], folder)
    return folder


@pytest.fixture
def xclbin(root) -> str:
    return str(artifacts.find(root, PLAN).xclbin)


@pytest.fixture
def session(root) -> Session:
    return Session(make(XDNA1), root)
