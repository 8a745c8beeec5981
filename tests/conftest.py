"""What every test needs: offline, registered modules, and no state left by another test."""

import os

os.environ["HF_HUB_OFFLINE"] = "1"

import pytest
from mmengine.logging import MessageHub, MMLogger
from mmengine.registry import DefaultScope
from mmengine.visualization import Visualizer

import vfm_ss  # noqa: F401  registers the modules


@pytest.fixture(autouse=True)
def _no_state_of_other_runs():
    """Clear mmengine's process-wide instances, which a runner leaves behind."""
    yield
    for manager in (DefaultScope, MessageHub, MMLogger, Visualizer):
        manager._instance_dict.clear()
