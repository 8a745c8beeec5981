import io

import numpy as np
import pytest
from PIL import Image

from vfm_ss.datasets.transforms import decode
from vfm_ss.datasets.transforms.decode import decode_image, decode_label, read_header, reduction
from vfm_ss.datasets.transforms.labels import ILLEGAL, label_table, map_label


@pytest.fixture(params=["kornia-rs", "fallback"], autouse=True)
def _library(request, monkeypatch):
    if request.param == "fallback":
        monkeypatch.setattr(decode, "decode_image_png_u8", None)


def encode(array, kind="PNG", mode=None, **options):
    image = Image.fromarray(array)
    if mode == "P":
        image = Image.frombytes("P", image.size, array.tobytes())
        image.putpalette([(3 * k) % 256 for k in range(768)])
    elif mode:
        image = image.convert(mode)
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


COLOURS = np.random.default_rng(0).integers(0, 256, (33, 45, 3), np.uint8)
INDICES = np.random.default_rng(1).integers(0, 16, (33, 45), np.uint8)


class TestImage:
    @pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF"])
    def test_lossless_files_keep_their_pixels(self, kind):
        assert np.array_equal(decode_image(encode(COLOURS, kind), "x"), COLOURS[..., ::-1])

    def test_gray_palette_and_alpha_become_bgr(self):
        for mode in ("L", "RGBA"):
            expected = np.asarray(Image.fromarray(COLOURS).convert(mode).convert("RGB"))
            result = decode_image(encode(COLOURS, mode=mode), "x")
            assert np.array_equal(result, expected[..., ::-1])

    def test_jpeg_equals_pillow(self):
        smooth = np.add.outer(np.arange(64), np.arange(80)).astype(np.uint8)
        data = encode(np.stack([smooth] * 3, -1), "JPEG", quality=95)
        expected = np.asarray(Image.open(io.BytesIO(data)))[..., ::-1]
        assert np.abs(decode_image(data, "x").astype(int) - expected).max() <= 2

    def test_orientation_is_ignored(self):
        exif = Image.Exif()
        exif[0x0112] = 6  # turned by 90 degrees
        data = encode(COLOURS, "JPEG", exif=exif)
        assert decode_image(data, "x").shape == COLOURS.shape
        assert read_header(data, "x")[:2] == COLOURS.shape[:2]

    @pytest.mark.parametrize("factor", [0.1, 0.125, 0.2, 0.25, 0.4, 0.5, 0.51, 1, 2])
    def test_reduced_jpeg_still_has_all_pixels_that_show(self, factor):
        data = encode(COLOURS, "JPEG")
        reduce = reduction(data, factor)
        shape = decode_image(data, "x", reduce).shape[:2]
        assert shape == (-(-33 // reduce), -(-45 // reduce))
        assert reduce == 1 or reduce * factor <= 1
        assert reduce == 8 or 2 * reduce * factor > 1
        assert reduction(encode(COLOURS), factor) == 1

    def test_absurd_size_is_refused_before_decoding(self, monkeypatch):
        monkeypatch.setattr(decode, "MAX_PIXELS", 1000)
        with pytest.raises(ValueError, match=r"big\.png: .*header says 45 x 33"):
            decode_image(encode(COLOURS), "big.png")


class TestLabel:
    @pytest.mark.parametrize("mode", [None, "P"])
    @pytest.mark.parametrize("bits", [8, 4])
    def test_stored_numbers(self, mode, bits):
        if mode is None and bits == 4:
            pytest.skip("Pillow writes no 4-bit gray")
        data = encode(INDICES, mode=mode, **(dict(bits=bits) if mode else {}))
        assert np.array_equal(decode_label(data, "x"), INDICES)

    def test_other_lossless_files(self):
        assert np.array_equal(decode_label(encode(INDICES, "TIFF"), "x"), INDICES)

    @pytest.mark.parametrize(
        ("array", "mode"),
        [
            (COLOURS, "RGB"),
            (np.full((4, 4), 258, np.uint16), "I;16"),
            (INDICES > 8, "1"),
        ],
    )
    def test_other_modes_are_refused(self, array, mode):
        with pytest.raises(ValueError, match=rf"dir/l\.png: .*8-bit class index.*mode {mode};"):
            decode_label(encode(array), "dir/l.png")


class TestTable:
    def info(self, **kwargs):
        return dict(reduce_zero_label=False, label_map=None, **kwargs)

    def test_equals_mmseg_s_load_annotations(self, tmp_path):
        from mmseg.datasets.transforms import LoadAnnotations

        values = np.arange(256, dtype=np.uint8).reshape(16, 16)
        path = tmp_path / "l.png"
        Image.fromarray(values).save(path)
        for reduce in (False, True):
            for label_map in (None, {k: (k * 3) % 20 for k in range(256)} | {255: 255}):
                info = dict(reduce_zero_label=reduce, label_map=label_map, seg_map_path=str(path))
                theirs = LoadAnnotations()(dict(info, seg_fields=[]))["gt_seg_map"]
                ours = label_table(info)[values]
                legal = ours != ILLEGAL
                assert np.array_equal(ours[legal], theirs[legal])
                assert legal.mean() > 0.99

    def test_bounds(self):
        table = label_table(self.info(num_classes=20))
        assert (table[:20] == np.arange(20)).all()
        assert (table[20:255] == ILLEGAL).all()
        assert table[255] == 255

    def test_another_ignore_index(self):
        table = label_table(self.info(num_classes=20), ignore_index=20)
        assert table[20] == table[255] == 20

    def test_wrong_value_names_file_and_values(self):
        label = np.full((5, 5), 3, np.uint8)
        label[1, 1] = 77
        with pytest.raises(ValueError, match=r"d/l\.png: label values \[77\] .*stored as 0 to 19"):
            map_label(label, label_table(self.info(num_classes=20)), "d/l.png")
