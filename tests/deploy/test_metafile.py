"""The list of configs that mim and mmengine's hub read."""

from pathlib import Path

import pytest
import yaml
from mmengine.hub import get_config
from modelindex.load_model_index import load

from vfm_ss.compat import stack
from vfm_ss.deploy import metafile
from vfm_ss.protocol.vfms import VFMS

ROOT = Path(__file__).parents[2]
MIM = ROOT / "vfm_ss" / ".mim"


@pytest.fixture(scope="module")
def written():
    return yaml.safe_load((ROOT / "configs" / "vfm" / "metafile.yml").read_text())


def test_it_is_up_to_date(written):
    """After a new VFM: python -m vfm_ss.deploy.metafile configs/vfm/metafile.yml."""
    assert written == metafile.metafile()


def test_it_lists_exactly_the_configs(written):
    listed = [model["Config"] for model in written["Models"]]
    there = [str(path.relative_to(ROOT)) for path in (ROOT / "configs" / "vfm").glob("*.py")]
    assert sorted(listed) == sorted(there)
    assert all((MIM / path).is_file() for path in listed)
    assert [c["Name"] for c in written["Collections"]] == [vfm.name for vfm in VFMS.values()]


def test_mims_reader_takes_it(written):
    """mim reads it by the package model-index, which names every slip."""
    index = load(str(MIM / "model-index.yml"))
    assert len(index.models) == len(written["Models"])
    assert index.models[0].name == written["Models"][0]["Name"]
    assert index.collections[0].name == "EVA02"
    for model in index.models:
        assert model.paper[1] == "https://arxiv.org/abs/2404.12172"
        assert "github.com" in model.code
        (result,) = model.results
        assert result.task == "Semantic Segmentation"
        assert not result.metrics  # nothing has been measured


@pytest.mark.skipif(
    stack.installed("mmengine")[0] == "mmengine", reason="its hub finds no editable installation"
)
def test_mmengines_hub_finds_a_config():
    cfg = get_config("vfm_ss::vfm/dinov2_b16_linear_ade20k.py")
    assert cfg.model.backbone.type == "DINOv2"
    assert cfg.model.decode_head.num_classes == 150
