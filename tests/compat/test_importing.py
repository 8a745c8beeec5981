"""Importing the package, each way in a process of its own."""

import json
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

REGISTERED = """
from mmengine.dataset.sampler import DefaultSampler
from mmengine.fileio.backends import backends
from mmengine.runner.checkpoint import CheckpointLoader
from mmseg.registry import DATASETS, HOOKS, LOOPS, METRICS, MODELS
for registry, name in [(MODELS, "DINOv2"), (MODELS, "LinearHead"), (DATASETS, "GTADataset"),
                       (METRICS, "MeanIoUMetric"), (HOOKS, "RecordHook"),
                       (LOOPS, "OptimStepTrainLoop")]:
    assert registry.get(name).__module__.startswith("vfm_ss."), name
from mmengine.config.utils import MODULE2PACKAGE
assert MODULE2PACKAGE["vfm_ss"] == "vfm_ss"
assert CheckpointLoader._schemes[""].__module__.startswith("vfm_ss."), "the safe reader"
assert "atomic" in backends
"""

WAYS = {
    "the package, then mmseg": "import vfm_ss; import mmseg.registry",
    "mmseg, then the package": "from mmseg.registry import MODELS; import vfm_ss",
    "mmseg's models, then the package": "import mmseg.models; import vfm_ss",
    "a part of mmseg after the package": "import vfm_ss; from mmseg.datasets import BaseSegDataset",
    "a config of any mmseg project": """
from mmengine.config import Config
config = Config.fromstring("custom_imports = dict(imports=['vfm_ss'])", ".py")
from mmseg.registry import MODELS
""",
    "the package, then mmengine's registry": """
import vfm_ss
from mmengine.registry import MODELS
assert MODELS.build(dict(type="mmseg.LinearHead", in_channels=8, num_classes=3)).in_channels == 8
""",
    "mmengine's registry, then the package": """
from mmengine.registry import MODELS
import vfm_ss
assert MODELS.build(dict(type="mmseg.LinearHead", in_channels=8, num_classes=3)).in_channels == 8
""",
    "the scope of inherited configs": """
import vfm_ss
from mmengine.registry import MODELS
head = dict(type="LinearHead", _scope_="vfm_ss", in_channels=8, num_classes=3)
assert MODELS.build(head).in_channels == 8
""",
    "the default scope of mmseg's tools": """
import vfm_ss
from mmengine.registry import MODELS, init_default_scope
init_default_scope("mmseg")
assert MODELS.build(dict(type="LinearHead", in_channels=8, num_classes=3)).in_channels == 8
""",
    **{
        f"{module} first": f"import {module}"
        for module in (
            "vfm_ss.models.backbones",
            "vfm_ss.models.backbones.vfm",
            "vfm_ss.models.losses.mask2former_loss",
            "vfm_ss.datasets.storage",
            "vfm_ss.engine.launch",
            "vfm_ss.engine.checkpoint_io",
            "vfm_ss.evaluation.miou",
            "vfm_ss.registry",
        )
    },
}


BELOW = (
    "timm",
    "safetensors.torch",
    "scipy.optimize",
    "matplotlib.pyplot",
    "transformers",
    "torchvision.models",
    "torch.distributed.optim",
    "torch._dynamo",
)


@pytest.fixture(scope="module")
def run():
    """`run(code)` in a process that has imported nothing but what is below OpenMMLab's stack."""
    script = Path(__file__).with_name("fresh_processes.py")
    command = [sys.executable, str(script), *BELOW]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as p:

        def run(code):
            p.stdin.write(json.dumps(code) + "\n")
            p.stdin.flush()
            return SimpleNamespace(
                **dict(
                    zip(
                        ("returncode", "stdout", "stderr"),
                        json.loads(p.stdout.readline()),
                        strict=True,
                    )
                )
            )

        yield run
        p.stdin.close()


@pytest.mark.parametrize("way", WAYS)
def test_every_way_of_importing_registers_everything(way, run):
    done = run(WAYS[way] + "\n" + REGISTERED)
    assert done.returncode == 0, done.stderr
    assert "OneDL" not in done.stdout + done.stderr


@pytest.mark.parametrize("first", ["pass", "import mmengine", "import mmseg"])
def test_configs_inherit_in_a_process_that_has_imported_nothing_else(first, tmp_path, run):
    (tmp_path / "ours.py").write_text(
        "_base_ = __import__('vfm_ss') and 'vfm_ss::vfm/dinov2_b16_linear_ade20k.py'"
    )
    (tmp_path / "mmsegs.py").write_text("_base_ = 'mmseg::_base_/models/fcn_r50-d8.py'")
    done = run(f"""
{first}
from mmengine.config import Config
for name in ("ours", "mmsegs"):
    print(Config.fromfile("{tmp_path}/" + name + ".py").model.decode_head.type)
""")
    assert done.stdout.split() == ["LinearHead", "FCNHead"], done.stderr


HEAVY = ("torch", "mmengine", "mmcv", "mmseg", "timm")


@pytest.mark.parametrize("modules", [
    "vfm_ss", "vfm_ss.cli.rank, vfm_ss.cli.sweep", "vfm_ss.sweep.status, vfm_ss.sweep.worker",
    "vfm_ss.report.page, vfm_ss.report.write, vfm_ss.ranking.analysis",
])  # fmt: skip
def test_what_ranks_reports_and_sweeps_needs_no_training_stack(modules):
    code = f"import sys, {modules}; print([m for m in {HEAVY} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.strip() == "[]", done.stderr


# As if mmseg were not installed, or one that is too new.
PRETENDED = {
    "mmseg is not installed": "sys.modules['mmseg'] = None; raise metadata.PackageNotFoundError",
    "mmsegmentation 3.0.0 is installed": "return '3.0.0'",
}
PRETEND = """
import importlib.metadata as metadata, sys
real = metadata.version
def version(name):
    if name.endswith("mmsegmentation"):
        {}
    return real(name)
metadata.version = version
"""


@pytest.mark.parametrize("message", PRETENDED)
@pytest.mark.parametrize("code", [
    "import vfm_ss.models", "import mmengine, vfm_ss", "import vfm_ss, mmengine",
    "from vfm_ss.engine import launch",
    "from mmengine.config import Config\n"
    "Config.fromstring('custom_imports = dict(imports=[\"vfm_ss\"])', '.py')",
])  # fmt: skip
def test_an_unusable_stack_is_one_line_however_it_is_met(code, message, run):
    done = run(PRETEND.format(PRETENDED[message]) + code)
    found = re.search("^ImportError: .*vfm_ss needs .*$", done.stderr, re.MULTILINE)
    assert found, done.stderr
    assert message in found[0]
    assert "fix it with: pip install" in found[0]


@pytest.mark.parametrize("code", ["import vfm_ss, mmseg", "import mmseg, vfm_ss",
    "import vfm_ss\ntry: import mmseg\nexcept ImportError: pass\nimport mmseg",
])  # fmt: skip
def test_a_version_that_does_not_work_is_named_by_every_import(code, run):
    done = run(PRETEND.format("return '3.0.0'") + code)
    last = done.stderr.strip().splitlines()[-1]
    assert "mmsegmentation 3.0.0 is installed; fix it with: pip install" in last, done.stderr


@pytest.mark.parametrize("command", ["train", "test", "check-data"])
def test_commands_end_with_one_line_where_mmseg_is_missing(command, run):
    argv = [command, __file__, *(["x.pth"] if command == "test" else [])]
    pretend = PRETEND.format("raise metadata.PackageNotFoundError")
    done = run(f"{pretend}\nfrom vfm_ss.cli.main import main\nsys.exit(main({argv}))")
    assert done.returncode == 2
    assert done.stderr.startswith(f"vfm-ss {command}: error: vfm_ss needs onedl-mmseg")
    assert len(done.stderr.splitlines()) == 1
