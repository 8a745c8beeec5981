import importlib.metadata as metadata
import importlib.util
import re

import pytest
from mmseg.registry import MODELS

from vfm_ss.compat import stack


@pytest.mark.parametrize(
    ("installed", "message"),
    [
        (
            {"onedl-mmsegmentation": None, "mmsegmentation": None},
            "needs onedl-mmsegmentation >=1.4.2,<1.5, but mmseg is not installed; fix it with: "
            "pip install 'vfm_ss[mminstall]'",
        ),
        (
            {"onedl-mmengine": None, "mmengine": "0.7.0"},
            "but mmengine 0.7.0 is installed; fix it with: pip install 'mmengine>=0.10.3,<0.11'",
        ),
        ({"timm": "0.9.2"}, "timm 0.9.2 is installed; fix it with: pip install 'timm>=1.0.31,<2'"),
        ({"torch": None}, "torch is not installed; fix it with: pip install 'torch>=2.4,<3'"),
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


@pytest.mark.parametrize(
    ("missing", "message"),
    [
        ("pkg_resources", "mmengine 0.10.7 imports pkg_resources, which is not installed; fix it "
         "with: pip install 'setuptools<81'"),
        ("ftfy", "mmsegmentation 1.2.2 imports ftfy, which is not installed; fix it with: "
         "pip install 'ftfy'"),
    ],
)  # fmt: skip
def test_what_openmmlabs_releases_import_unsaid_is_named(missing, message, monkeypatch):
    releases = {"mmengine": "0.10.7", "mmcv": "2.1.0", "mmsegmentation": "1.2.2"}
    real_version, real_spec = metadata.version, importlib.util.find_spec

    def version(name):
        if name.startswith("onedl-"):
            raise metadata.PackageNotFoundError(name)
        return releases.get(name) or real_version(name)

    monkeypatch.setattr(stack.metadata, "version", version)
    monkeypatch.setattr(
        stack.importlib.util,
        "find_spec",
        lambda name: None if name == missing else real_spec("os"),
    )
    with pytest.raises(ImportError, match=re.escape(message)) as error:
        stack.check()
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("base", ["vfm_ss::vfm/dinov2_b16_linear_ade20k.py",
                                  "mmseg::_base_/models/fcn_r50-d8.py"])  # fmt: skip
def test_configs_of_both_packages_are_inherited_from_anywhere(base, tmp_path, monkeypatch):
    """Whatever the working folder, and however vfm_ss is installed."""
    from mmengine.config import Config

    monkeypatch.chdir(tmp_path)
    config = tmp_path / "mine.py"
    config.write_text(f"_base_ = __import__('vfm_ss') and {base!r}")
    head = Config.fromfile(config).model.decode_head.type
    assert head in ("LinearHead", "FCNHead")
    assert head in MODELS


def test_the_installed_stack_is_accepted():
    stack.check()
