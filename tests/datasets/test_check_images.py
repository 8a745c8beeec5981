"""Images that would be read wrongly: refused before training, in evaluation and by check-data."""

import cv2
import numpy as np
import pytest
from mmengine.registry import init_default_scope
from mmseg.datasets import BaseSegDataset
from mmseg.registry import DATASETS
from PIL import Image

from vfm_ss.datasets.check import check_config
from vfm_ss.datasets.raw_files import RawFilesMixin

SIZE = (24, 40)
PIPELINES = {
    "train": [dict(type="LoadRandomCrop", crop_size=(16, 16)), dict(type="PackSegInputs")],
    "val": [dict(type="LoadImage"), dict(type="LoadLabel"), dict(type="PackSegInputs")],
}


@DATASETS.register_module()
class PhotoDataset(RawFilesMixin, BaseSegDataset):
    METAINFO = dict(classes=("a", "b"), palette=[[0, 0, 0], [255, 0, 0]])  # noqa: RUF012


@pytest.fixture(autouse=True)
def _scope():
    init_default_scope("mmseg")


def config_of(root, split, **kwargs):
    return (
        dict(
            type="PhotoDataset",
            data_root=str(root),
            data_prefix=dict(img_path="images", seg_map_path="labels"),
            img_suffix=".img",
            pipeline=PIPELINES[split],
            test_mode=split == "val",
        )
        | kwargs
    )


def write(root, image, label=None, count=2, end=".png", **options):
    rng = np.random.default_rng(0)
    for folder in ("images", "labels"):
        (root / folder).mkdir()
    for k in range(count):
        path = root / "images" / f"{k}.img"
        if isinstance(image, Image.Image):
            image.save(path, end[1:].upper(), **options)
        else:
            path.write_bytes(cv2.imencode(end, image)[1].tobytes())
        values = rng.integers(0, 2, SIZE, np.uint8) if label is None else label
        Image.fromarray(values).save(root / "labels" / f"{k}.png")


def check(root, capsys, **kwargs):
    parts = {f"{s}_dataloader": dict(dataset=config_of(root, s, **kwargs)) for s in PIPELINES}
    text = "\n".join(f"{name} = {value!r}" for name, value in parts.items())
    (root / "config.py").write_text(f"default_scope = 'mmseg'\n{text}\n")
    with pytest.MonkeyPatch.context() as patch:  # one folder is training and validation set here
        patch.setattr("vfm_ss.datasets.check.image_paths", lambda dataset: set())
        status = check_config(str(root / "config.py"))
    captured = capsys.readouterr()
    return status, captured.out + captured.err


VALUES = np.random.default_rng(0).integers(0, 200, (*SIZE, 3))
WRONG = {
    "12-bit PNG": (VALUES.astype(np.uint16) * 16, ".png", "16-bit numbers"),
    "16-bit gray TIFF": (VALUES[..., 0].astype(np.uint16) * 256, ".tiff", "16-bit numbers"),
    "float TIFF": (VALUES[..., 0].astype(np.float32), ".tiff", "float32 numbers"),
    "CMYK": (Image.fromarray(VALUES.astype(np.uint8)).convert("CMYK"), ".jpeg", "mode CMYK"),
    "alpha": (Image.new("RGBA", SIZE[::-1], (9, 9, 9, 99)), ".png", "transparent pixels"),
    "gray and alpha": (Image.new("LA", SIZE[::-1], (9, 99)), ".png", "transparent pixels"),
}


@pytest.mark.parametrize("name", WRONG)
def test_an_image_that_would_be_read_wrongly(tmp_path, capsys, name):
    image, end, text = WRONG[name]
    write(tmp_path, image, end=end)
    for split in PIPELINES:
        late = DATASETS.build(config_of(tmp_path, split, probe=False))
        for read in (
            lambda s=split: DATASETS.build(config_of(tmp_path, s)),  # before training
            lambda d=late: d[0],  # where the probe has not seen it
        ):
            with pytest.raises(ValueError, match=text) as error:
                read()
            assert str(error.value).startswith(f"{tmp_path}/images/0.img: an image must hold 8-bit")
            assert "export it" in str(error.value)
            assert "\n" not in str(error.value)
    status, out = check(tmp_path, capsys)
    assert status == 1
    assert out.count(f"UNUSABLE: {tmp_path}/images/") == 4  # two images in two splits
    assert out.count(text) == 4


@pytest.mark.parametrize("bits", [10, 12, 16])
def test_a_stated_range_gives_the_pixels_of_the_8_bit_image(tmp_path, capsys, bits):
    write(tmp_path, (VALUES * (2**bits - 1) / 255).round().astype(np.uint16))
    sample = DATASETS.build(config_of(tmp_path, "val", bit_depth=bits))[0]
    assert np.array_equal(sample["inputs"].numpy(), VALUES.transpose(2, 0, 1))
    crop = [dict(PIPELINES["train"][0], distortion=None, scale_range=(1, 1), crop_size=SIZE)]
    crop.append(dict(type="PackSegInputs"))
    sample = DATASETS.build(config_of(tmp_path, "train", bit_depth=bits, pipeline=crop))[0]
    expected = VALUES.transpose(2, 0, 1)
    pixels = sample["inputs"].numpy()
    assert np.array_equal(pixels, expected) or np.array_equal(pixels, expected[..., ::-1])
    assert check(tmp_path, capsys, bit_depth=bits)[0] == 0


@pytest.mark.parametrize("bits", [7, 17, 0, 12.5, None])
def test_a_range_that_is_none(tmp_path, bits):
    write(tmp_path, VALUES.astype(np.uint8))
    with pytest.raises(ValueError, match="it can be 8 to 16"):
        DATASETS.build(config_of(tmp_path, "val", bit_depth=bits))


@pytest.mark.parametrize("turn", range(1, 9))
@pytest.mark.parametrize("end", [".jpeg", ".png", ".webp"])
def test_turned_photos(tmp_path, capsys, turn, end):
    """They are reported; a label of the turned size is refused with what to do."""
    exif = Image.Exif()
    exif[0x0112] = turn
    photo = Image.fromarray(VALUES.astype(np.uint8))
    write(tmp_path, photo, end=end, exif=exif)
    status, out = check(tmp_path, capsys)
    assert status == 0
    note = "2 images read as stored, though their EXIF orientation turns them: 0.img, 1.img"
    assert out.count(note) == (2 if turn > 1 else 0)
    if turn < 5:
        return
    labels = np.random.default_rng(0).integers(0, 2, SIZE[::-1], np.uint8)
    Image.fromarray(labels).save(tmp_path / "labels" / "0.png")
    for split in PIPELINES:
        dataset = DATASETS.build(config_of(tmp_path, split, probe=False))
        with pytest.raises(ValueError, match=rf"24 x 40 .* 40 x 24; .*orientation {turn} turns it"):
            dataset[0]
        with pytest.raises(ValueError, match=r"turn the image's pixels"):
            DATASETS.build(config_of(tmp_path, split))
