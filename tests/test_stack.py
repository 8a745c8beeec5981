import importlib.metadata as metadata
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from vfm_ss import stack

REQUIREMENTS = Path(__file__).parents[1] / "requirements"


@pytest.mark.parametrize(
    ("installed", "message"),
    [
        (
            {"onedl-mmsegmentation": None, "mmsegmentation": None},
            "needs onedl-mmsegmentation >=1.2.0,<2, but mmseg is not installed; mend it with: "
            "pip install 'vfm_ss[mminstall]'",
        ),
        (
            {"onedl-mmengine": None, "mmengine": "0.7.0"},
            "but mmengine 0.7.0 is installed; mend it with: pip install 'mmengine>=0.10.3,<1'",
        ),
        ({"timm": "0.9.2"}, "timm 0.9.2 is installed; mend it with: pip install 'timm>=1.0.31,<2'"),
        ({"torch": None}, "torch is not installed; mend it with: pip install 'torch>=2.4,<3'"),
    ],
)
def test_an_unusable_stack_fails_with_one_line(installed, message, monkeypatch):
    real = metadata.version

    def version(name):
        if name not in installed:
            return real(name)
        if installed[name] is None:
            raise metadata.PackageNotFoundError(name)
        return installed[name]

    monkeypatch.setattr(stack.metadata, "version", version)
    with pytest.raises(ImportError, match=re.escape(message)) as error:
        stack.check()
    assert "\n" not in str(error.value)


def test_the_installed_stack_is_accepted():
    stack.check()


def test_the_checked_versions_are_those_that_setup_requires():
    lines = (REQUIREMENTS / "runtime.txt").read_text().splitlines()
    required = dict(line.split(">=") for line in lines if ">=" in line)
    for module in ("torch", "timm"):
        assert required[module].split(",")[0] == stack._NEEDED[module][1]


def test_the_parts_for_ranking_import_without_torch():
    code = "import sys, vfm_ss.vfms, vfm_ss.benchmark.records as r; print('torch' in sys.modules)"
    env = {**os.environ, "VFM_SS_REGISTER": "0"}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True)
    assert done.stdout.strip() == "False", done.stderr
