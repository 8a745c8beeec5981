"""What every test needs: offline, registered modules, and no state left by another test."""

import os
import signal

os.environ["HF_HUB_OFFLINE"] = "1"

import pytest
from mmengine.logging import MessageHub, MMLogger
from mmengine.registry import DefaultScope
from mmengine.visualization import Visualizer

import vfm_ss  # noqa: F401  registers the modules

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # A suite that a script starts in the background; the commands that tests interrupt inherit it.
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def _no_state_of_other_runs():
    """Clear mmengine's process-wide instances, which a runner leaves behind."""
    yield
    for manager in (DefaultScope, MessageHub, MMLogger, Visualizer):
        manager._instance_dict.clear()
