import importlib.metadata as metadata
import sys

import pytest
import torch

from vfm_ss.cli.main import main
from vfm_ss.compat import stack
from vfm_ss.protocol.settings import all_config_names
from vfm_ss.protocol.vfms import VFMS


def rows(capsys):
    """Return what was printed as {name: value}, and the last line."""
    lines = capsys.readouterr().out.splitlines()
    return dict(line.split("  ", 1) for line in lines if "  " in line), lines[-1]


def without(monkeypatch, *distributions):
    real = metadata.version

    def version(name):
        if name in distributions:
            raise metadata.PackageNotFoundError(name)
        return real(name)

    monkeypatch.setattr(stack.metadata, "version", version)


def test_versions_devices_and_stack(capsys):
    assert main(["info"]) == 0
    found, last = rows(capsys)
    assert last == "nothing is missing"
    found = {name: value.strip() for name, value in found.items()}
    assert found["torch"] == metadata.version("torch")
    assert found["timm"] == metadata.version("timm")
    for module in ("mmengine", "mmcv", "mmseg"):
        distribution, version = stack.installed(module)
        assert found[module].startswith(version)
        assert (f"({distribution})" in found[module]) == (distribution != module)
    onedl = stack.installed("mmseg")[0].startswith("onedl-")
    assert found["stack"] == ("OneDL" if onedl else "OpenMMLab")
    gpus = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    assert all(gpu in found["devices"] for gpu in gpus or ["no GPU"])


def test_a_machine_without_torch_and_mmseg_is_told_what_to_install(capsys, monkeypatch):
    without(monkeypatch, "torch", "mmsegmentation", "onedl-mmsegmentation")
    monkeypatch.setitem(sys.modules, "torch", None)  # cannot be imported
    assert main(["info"]) == 1
    found, _ = rows(capsys)
    assert found["torch"].strip() == found["mmseg"].strip() == "not installed"
    assert "torch cannot be imported" in found["devices"]
    assert main(["info"]) == 1
    out = capsys.readouterr().out
    assert "torch is not installed" in out
    assert "pip install 'torch>=" in out
    assert "mmseg is not installed" in out
    assert "pip install 'vfm_ss[mminstall]'" in out


@pytest.mark.parametrize("name", [*VFMS, *(vfm.name for vfm in VFMS.values()), "dinoV2"])
def test_the_facts_about_a_vfm(name, capsys):
    assert main(["info", name]) == 0
    out = capsys.readouterr().out
    vfm = next(v for v in VFMS.values() if name.lower() in (v.key.lower(), v.name.lower()))
    models = [vfm.timm_name(arch) for arch in vfm.archs]
    facts = [*models, vfm.licence, f"{vfm.paper} ({vfm.year})", *map(str, (*vfm.mean, *vfm.std))]
    for fact in (*facts, vfm.data, vfm.objective, vfm.supervision):
        assert (fact or "unknown") in out
    configs = [config for config in all_config_names() if config.startswith(f"{vfm.key}_")]
    assert len(configs) == (7 if "base" in vfm.archs else 0) + ("large" in vfm.archs)
    assert all(config in out for config in configs)
    assert out.count("https://huggingface.co/") == len(models), "where the weights come from"


def test_the_size_of_a_download(capsys):
    assert main(["info", "mae"]) == 0
    weights = [line for line in capsys.readouterr().out.splitlines() if ": weights" in line]
    assert "85.8 M parameters, 343 MB in fp32" in weights[0]
    assert "303.3 M parameters, 1213 MB in fp32" in weights[1]


def test_a_vfm_without_timm(capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "timm.models", None)
    assert main(["info", "mae"]) == 0
    assert "timm, which cannot be imported, knows" in capsys.readouterr().out


def test_an_unknown_vfm(capsys):
    assert main(["info", "dino"]) == 2
    assert capsys.readouterr().err == (
        f"vfm-ss info: error: no VFM is called 'dino'; there are {', '.join(VFMS)}\n"
    )
