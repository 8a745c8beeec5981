"""VFM files of a sweep: what is read off them, and the config that a cell of one becomes."""

import json
from pathlib import Path

import pytest
from mmengine.config import Config
from mmseg.registry import MODELS

from vfm_ss.cli.sweep_files import answer, look_up, parsed
from vfm_ss.errors import UsageError
from vfm_ss.sweep.cells import config_text
from vfm_ss.sweep.factors import of_factors, of_settings
from vfm_ss.sweep.plan import expand

OURS = 'backbone = dict(type="DINOv2", arch="small", pretrained=False, drop_path_rate=0.1)\n'


@pytest.fixture(autouse=True)
def _here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def read(name, text):
    Path(name).write_text(text)
    found = answer({"data": [], "vfms": [name], "timm": []})
    return parsed(json.loads(json.dumps(found))).vfms


def test_the_config_of_a_cell_builds_the_backbone_of_the_file():
    own = read("ours.py", OURS)
    product = of_factors(["mae", "ours.py"], dict(decoders=["probe"], patches=["8"]), own=own)
    assert [cell.name for cell in product.cells] == [
        "mae_b8_probe_ade20k",
        "ours_s8_probe_ade20k",
    ]
    cell = product.cells[1]
    assert cell.leaf is None
    assert cell.setting == "s8_probe_ade20k"
    Path("x.py").write_text(config_text(cell))
    cfg = Config.fromfile("x.py")
    assert cfg.model.backbone == dict(
        type="DINOv2", arch="small", pretrained=False, drop_path_rate=0.1, patch_size=8,
        img_size=(512, 512), frozen=True,
    )  # fmt: skip
    record = cfg.default_hooks.record
    assert (record.type, record.vfm, record.size) == ("RecordHook", "ours", "s")
    assert MODELS.build(cfg.model.backbone).embed_dim == 384


def test_its_own_size_alone_is_trained():
    own = read("ours.py", OURS)
    (cell,) = of_factors(["ours.py"], dict(decoders=["linear"]), own=own).cells
    assert (cell.size, cell.model.key) == ("s", "ours")
    product = of_factors(["mae", "ours.py"], dict(sizes=["b"]), own=own)
    assert product.left_out == ("ours is not of size b",)
    with pytest.raises(ValueError, match="nothing to train: ours is not of size b"):
        of_settings(["ours.py"], ["default"], own)
    large = read("ours.py", OURS + "size = 'b'\n")
    assert of_settings(["ours.py"], ["default"], large).cells[0].setting == "default"


def test_two_of_one_name_are_refused(tmp_path):
    for folder in ("a", "b"):
        Path(folder).mkdir()
    own = read("a/ours.py", OURS) | read("b/ours.py", OURS + "backbone['drop_path_rate'] = 0.2")
    product = of_factors(list(own), {}, own=own)
    with pytest.raises(
        ValueError, match=r"a/ours\.py and b/ours\.py would both be trained as ours_"
    ):
        expand(tmp_path, product)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.py", "x = 1", "VFM file a.py: it has no backbone of a type"),
        ("a.py", "x = ", "VFM file a.py: "),
        ("a.py", OURS + "backbone['patch_size'] = 8", "patch_size is stated in it; give --patches"),
        ("a.py", OURS + "backbone['frozen'] = True", "frozen is stated in it; give --decoders"),
        ("a.py", OURS + "backbone['type'] = 'DINOv9'", "no backbone is registered as 'DINOv9'"),
        ("a.py", OURS + "backbone['pretrained'] = 'no.pth'", "'no.pth', which does not exist"),
        ("a.py", OURS + "backbone['norm'] = print", "backbone holds more than numbers"),
        ("a.py", "backbone = dict(type='TimmViT', model_name='x')", "size is None; state size='s'"),
        ("a.py", OURS + "size = 'small'", "size is 'small'; state size='s'"),
        ("mae.py", OURS, "a VFM of the table is called 'mae', too; rename the file"),
    ],
)  # fmt: skip
def test_what_cannot_be_used_is_one_line(name, text, message):
    with pytest.raises(UsageError, match=message) as error:
        read(name, text)
    assert str(error.value).isprintable()


def test_another_process_is_asked():
    Path("ours.py").write_text(OURS)
    found = look_up([], ["ours.py"], [])
    assert found.vfms["ours.py"].size == "s"
    assert look_up([], [], []).vfms == {}
    with pytest.raises(UsageError, match=r"VFM file none\.py: the file does not exist"):
        look_up([], ["none.py"], [])
