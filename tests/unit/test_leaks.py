"""Nothing is left behind by many calls: memory, hooks, open files, threads, temporary files."""

from __future__ import annotations

import os

import numpy as np
import pytest
from everything import calls, keeping, network
from leftovers import growth

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore::facexai.FaceXAIWarning")]
CALLS = int(os.environ.get("FACEXAI_CALLS", "4"))
NAMES = tuple(calls(network()))


@pytest.mark.parametrize("name", NAMES)
def test_calls_leave_nothing_behind(name):
    net = network()
    found = growth(calls(net)[name], net, CALLS, warm=2)
    assert found.clean, found


def test_results_leave_nothing_behind(tmp_path):
    net = network()
    for name, call in keeping(net, tmp_path).items():
        found = growth(call, net, max(2, CALLS // 2), tmp_path, warm=1)
        assert found.clean, (name, found)


@pytest.mark.parametrize("keep", [lambda: bytes(range(256)) * 4096, lambda: np.ones(2**17), object])
def test_what_is_kept_is_found(keep):
    """The bookkeeping itself: bytes and arrays are unknown to Python's garbage collector."""
    kept: list[object] = []
    assert not growth(lambda: kept.append([keep()]), network(), 60, warm=2).clean
