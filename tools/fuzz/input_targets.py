"""Targets of `random_inputs`: each makes one random input, reads it, and checks what comes back.

A target returns whether the input was accepted, or raises.
"""

import contextlib
import io
import json
import os
import pickle
import struct
from collections.abc import Callable
from pathlib import Path
from random import Random

import numpy as np
import torch
from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmseg.registry import DATASETS, MODELS
from PIL import Image
from safetensors.torch import save

import vfm_ss  # noqa: F401  registers
from vfm_ss.cli.call import foreseen
from vfm_ss.engine.image_files import SUFFIXES, find_images, plan_outputs
from vfm_ss.engine.predict import _Images
from vfm_ss.protocol.identity import config_hash, differing, identity

Target = Callable[[Random, Path], bool]
NAMES = ("a", "b1", "ä", "a.b", ".c", "x y", "-o", "c_mask", "日本", "a'\"", "e\n", "%s", "\udcff")


def weights() -> Target:
    """Random layouts and damages of a ViT's weights, by ``pretrained=FILE``."""
    torch.manual_seed(0)
    options = dict(
        type="TimmViT", model_name="vit_tiny_patch16_224", img_size=32, patch_size=16,
        depth=1, embed_dim=12, num_heads=3, out_indices=(0,),
        pretrained=False,
    )  # fmt: skip
    init_default_scope("mmseg")
    backbone = MODELS.build(options)
    state = {k: torch.randn_like(v) for k, v in backbone.vit.state_dict().items()}
    resized = {"pos_embed", "patch_embed.proj.weight"}  # to the model, whatever theirs is

    def target(rng: Random, folder: Path) -> bool:
        nonlocal backbone
        changed, whole = dict(state), True
        for _ in range(rng.choice([0, 1, 1, 2, 4])):
            name = rng.choice(list(changed) or [""])
            value = changed.get(name)
            match rng.randrange(9):
                case 0:
                    changed.pop(name, None)
                case 1:
                    changed[f"{rng.choice(NAMES)}{name}"] = changed.pop(name, torch.zeros(1))
                case 2:
                    shape = [rng.choice([0, 1, 2, 12, 13]) for _ in range(rng.randrange(5))]
                    changed[name] = torch.zeros(shape)
                case 3 if isinstance(value, torch.Tensor):
                    kinds = (torch.float16, torch.bfloat16, torch.float64, torch.int8, torch.bool)
                    changed[name] = value.to(rng.choice((*kinds, torch.complex64)))
                case 4:
                    changed[name] = rng.choice([None, 1, "x", [], {}, {"a": torch.zeros(2)}])
                case 5:
                    changed[rng.choice([1, None, ("a",), "", ".", "head.", "norm"])] = value
                case 6:
                    changed[name] = torch.zeros(1).expand(12)
                case 7 if isinstance(value, torch.Tensor):
                    changed[name] = value.to_sparse() if rng.random() < 0.5 else value.T
                case _:
                    other = {k: v for k, v in state.items() if rng.random() < 0.5}
                    end = rng.choice(["teacher.", "student.", "head.", "x.", "fc_norm.", "layers."])
                    changed |= {end + k: v for k, v in other.items()}
        prefixes = ("module.", "backbone.", "teacher.", "vit.", "model.", "a.", "embeddings.", "")
        prefix = "".join(rng.choice(prefixes) for _ in range(rng.randrange(4)))
        renamed = {prefix + k if isinstance(k, str) else k: v for k, v in changed.items()}
        for key in ("state_dict", "model", "x", "meta"):
            if rng.random() < 0.15:
                renamed = {key: renamed}
        path = folder / f"w{rng.choice(['.pth', '.pt', '.bin', '.safetensors'])}"
        data = _save(renamed, path, rng)
        if rng.random() < 0.4:
            data, whole = _damaged(data, rng), False
        path.write_bytes(data)
        if len(backbone.vit.state_dict()) < len(state):  # the last one had no final norm
            backbone = MODELS.build(options)
        backbone._pretrained = str(path)
        backbone.read_weights()
        if not whole and not data.startswith(b"PK"):
            return True  # without checksums, see docs/reliability.md
        for name, value in backbone.vit.state_dict().items():
            if name in resized and changed[name].shape != state[name].shape:
                continue
            if name.startswith("norm.") and name not in changed:
                raise AssertionError(f"{name} is not in the file")
            torch.testing.assert_close(value, changed[name].float(), rtol=0, atol=0, msg=name)
        return True

    return target


def _save(content, path: Path, rng: Random) -> bytes:
    out = io.BytesIO()
    try:
        if path.suffix == ".safetensors" and rng.random() < 0.9:
            return save({k: v.contiguous().clone() for k, v in content.items()})
        torch.save(content, out, _use_new_zipfile_serialization=rng.random() < 0.7)
    except (AttributeError, ValueError, RuntimeError, TypeError):  # it cannot be saved so
        out = io.BytesIO(pickle.dumps(list(map(str, content))))
    return out.getvalue()


def _damaged(data: bytes, rng: Random) -> bytes:
    data = bytearray(data)
    for _ in range(rng.randint(1, 4)):
        # Often at the start or the end, where headers and tables of contents are.
        edge = min(len(data), rng.choice([16, 400, len(data) + 1]))
        at = rng.randrange(edge + 1) if rng.random() < 0.5 else len(data) - rng.randrange(edge + 1)
        size = struct.pack("<Q", rng.choice([0, 1, 255, 2**31, 2**32 - 1, 2**63, 2**64 - 1]))
        new = rng.choice([rng.randbytes(rng.randrange(8)), size, size[:4], size[3::-1]])
        data[at : at + rng.choice([0, 1, len(new), 100])] = new
    return bytes(data[: rng.choice([len(data), len(data), rng.randrange(len(data) + 1)])])


def folder() -> Target:
    """Random folders of images and masks, with random class maps, splits and shares."""
    init_default_scope("mmseg")
    odd_ends = (".png", ".jpg", ".PNG", ".bmp", ".tif", ".txt", "_mask.png", "")

    def target(rng: Random, root: Path) -> bool:
        places, values, files = ("photos", "masks"), range(rng.choice([2, 2, 4, 9, 1])), {}
        same = rng.random() < 0.1
        factor = rng.choice([1, 1, 1, 28])
        ends = odd_ends if rng.random() < 0.2 else (".png", ".bmp", ".tif")
        image_end, mask_end = rng.choice(ends), "_mask.png" if same else rng.choice(ends)
        for _ in range(rng.choice([0, 1, 2, 5, 5])):
            stem = "/".join(rng.choice(NAMES) for _ in range(rng.choice([1, 1, 1, 2])))
            size = (4, 5) if rng.random() < 0.02 else (4, 4)
            mask = np.array([[rng.choice(values) for _ in range(4)]] * 4, np.uint8)
            mask = mask * factor
            mode = rng.choice(["RGB", "I;16", "1"]) if rng.random() < 0.03 else rng.choice("LLP")
            for place, end, array, kind in (
                (0, image_end, np.zeros((*size, 3), np.uint8), "RGB"),
                (0 if same else 1, mask_end, mask, mode),
            ):
                if rng.random() < 0.02:
                    continue
                path = root / places[place] / (stem + end)
                data = _picture(array, kind, rng)
                with contextlib.suppress(OSError, ValueError):
                    path.parent.mkdir(parents=True, exist_ok=True)
                    path.write_bytes(_damaged(data, rng) if rng.random() < 0.02 else data)
            files[stem] = mask, mode
        options = dict(
            images="photos", labels=places[not same], classes=_classes(values, factor, rng),
            data_root=str(root), img_suffix=rng.choice(["", image_end]),
            seg_map_suffix=mask_end if same else rng.choice(["", mask_end]), ignore=rng.choice(
                [(255,), (0,), 3, ("a",), None, (1.5,), (-1,)] if rng.random() < 0.1 else [()]
            ),
            pipeline=[dict(type="LoadImage"), dict(type="LoadLabel"), dict(type="PackSegInputs")],
        )  # fmt: skip
        if rng.random() < 0.3:
            options["shares"] = rng.choice(
                [dict(train=0.5, val=0.5), dict(a=1), dict(train=-1), {}, dict(train="x"), [1],
                 dict(train=0.7, val=0.7), dict(train=float("nan")), {1: 0.5}, dict(train=1e-9)]
            )  # fmt: skip
            options["split"] = rng.choice(["train", "train", "val", "test", None, 3])
        elif rng.random() < 0.2:
            options["split"] = rng.choice(["train", "a", "l.txt", "m.txt", "..", "", "/", 1])
            lines = rng.choice(["\n".join(files), "a\na\n", "\0", "", "é", "  \n", "a.png", "../a"])
            (root / "l.txt").write_bytes(lines.encode(rng.choice(["utf8", "utf16"]), "ignore"))
        for name, chosen in (
            ("group", ["a", "(", "(.)", "(?P<x>.)(.)", "", 1, "(a)|b"]),
            ("split_seed", [1, -1, None, "x"]),
            ("order", [["c0", "c1"], ["c0"], [], "c0", [1]]),
            ("palette", [[[0, 0, 0]] * 4, [[1]], "x", [[300, 0, 0]] * 2, 1]),
            ("name", ["x", "", "ä", "\n", 1, "a/b"]),
            ("bit_depth", [16, 7, "x", None]),
        ):
            if rng.random() < 0.03:
                options[name] = rng.choice(chosen)
        dataset = DATASETS.build(dict(options, type="FolderDataset"))
        return _read_all(dataset, files, options, root)

    return target


def _classes(values, factor: int, rng: Random):
    names = [f"c{rng.choice([v, v, v, 0])}" for v in values]
    good = {v * factor: name for v, name in zip(values, names, strict=True)}
    odd = [names, names, {}, [], "ab", 3, {"0": "a"}, {0: 1}, {-1: "a"}, {300: "a"}, {0: ""},
           {0.5: "a"}, {True: "a"}, {0: "a", None: "b"}, [None], {0: "\n", 1: "b"}]  # fmt: skip
    return good if rng.random() < 0.9 else rng.choice(odd)


def _read_all(dataset, files, options, root: Path) -> bool:
    """Read every sample; each label must be what the class map makes of its file."""
    names, stored = dataset.metainfo["classes"], options["classes"]
    stored = stored if isinstance(stored, dict) else dict(enumerate(stored))
    refused = 0
    for index in range(len(dataset)):
        try:
            sample = dataset[index]["data_samples"]
        except Exception as error:
            if foreseen(error) is None:
                raise
            refused += 1
            continue
        try:
            with Image.open(dataset.get_data_info(index)["seg_map_path"]) as image:
                assert image.mode in ("L", "P"), image.mode
                values = np.array(image)
        except OSError:  # Pillow refuses damaged EXIF
            continue
        wanted = [
            [255 if v in options["ignore"] else names.index(stored[int(v)]) for v in row]
            for row in values
        ]
        assert sample.gt_sem_seg.data[0].tolist() == wanted, values
    if isinstance(options.get("shares"), dict) and options["shares"]:
        others = [share for share in options["shares"] if share != options["split"]]
        mine = {info["img_path"] for info in dataset.load_data_list()}
        for share in others:
            with contextlib.suppress(ValueError):
                other = DATASETS.build(dict(options, type="FolderDataset", split=share))
                assert mine.isdisjoint(info["img_path"] for info in other.load_data_list())
    return not refused


def _picture(array: np.ndarray, mode: str, rng: Random, kinds=("PNG",)) -> bytes:
    image, out = Image.fromarray(array), io.BytesIO()
    if mode == "P" and image.mode == "L":
        image.putpalette(rng.randbytes(3 * rng.choice([256, 256, 4])))
    elif mode == "I;16":
        image = Image.fromarray(array.astype(np.uint16))
    elif image.mode != mode:
        image = image.convert(mode)
    kind = rng.choice(kinds)
    try:
        image.save(out, kind, **({"exif": _exif(rng)} if rng.random() < 0.1 else {}))
    except (OSError, KeyError, ValueError):
        image.convert("RGB").save(out, "PNG")
    return out.getvalue()


def _exif(rng: Random) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = rng.choice([1, 3, 6, 9, 0])
    return exif.tobytes()


def images() -> Target:
    """Random trees of files, and damaged images, as ``vfm-ss predict`` reads them."""
    init_default_scope("mmseg")
    pipeline = [dict(type="LoadImage"), dict(type="PackSegInputs")]
    cfg = Config(dict(dataset=dict(pipeline=pipeline)))
    kinds = ("PNG", "JPEG", "TIFF", "GIF", "BMP", "WEBP", "PPM")
    modes = ("RGB", "L", "P", "1", "RGBA", "LA", "CMYK", "I;16", "F")
    ends = (*SUFFIXES, ".JPG", ".txt", "", ".tar.png")

    def target(rng: Random, root: Path) -> bool:
        made = []
        for _ in range(rng.choice([1, 1, 1, 2, 4])):
            stem = "/".join(rng.choice(NAMES) for _ in range(rng.choice([1, 1, 2])))
            path = root / "in" / (stem + rng.choice(ends))
            array = np.frombuffer(rng.randbytes(5 * 7 * 3), np.uint8).reshape(5, 7, 3)
            mode = rng.choice(modes)
            array = array if mode in ("RGB", "RGBA", "CMYK") else array[..., 0].copy()
            data = _picture(array, mode, rng, kinds)
            data = _damaged(data, rng) if rng.random() < 0.7 else data
            if os.path.lexists(path):
                continue
            with contextlib.suppress(OSError, ValueError):
                path.parent.mkdir(parents=True, exist_ok=True)
                match rng.randrange(20):
                    case 0:
                        path.symlink_to(rng.choice([".", "..", path.name, "nowhere", "/dev/zero"]))
                    case 1:
                        os.mkfifo(path)
                    case 2:
                        path.mkdir()
                    case _:
                        path.write_bytes(data)
                made.append(path)
        inputs = [root / "in"] if rng.random() < 0.7 else rng.choices([*made, root], k=2)
        out = rng.choice([root / "out", root / "out", root, root / "in" / "a", root / "in"])
        found = find_images(inputs, out)
        sub = rng.choice([{"": ".png"}, {"": ".png", "overlay": ".png", "probabilities": ".npz"}])
        plan = plan_outputs(found, out, sub, rng.random() < 0.5)
        files = [os.path.abspath(file) for of in plan.values() for file in of.values()]
        assert len(set(files)) == len(files)
        assert all(Path(file).is_relative_to(out.absolute()) for file in files)
        assert not any(Path(file).exists() and Path(file) in found for file in files)
        good = 0
        data = _Images(list(plan), cfg.dataset, None, None, rng.random() < 0.5)
        for index, path in enumerate(plan):
            read, error, *rest = data[index]
            assert read == path
            if error is None:
                good += 1
                sample, picture, _ = rest
                assert len(sample["inputs"]) == 3
                assert picture is None or picture.shape[:2] == tuple(sample["inputs"].shape[1:])
            else:
                assert " ".join(str(path).split()) in error or str(path) in error, error
        return good == len(plan)

    return target


def configs() -> Target:
    """Random configs: their identity is their content's, and changes with what counts alone."""
    sections = ("model", "train_cfg", "optim_wrapper", "train_dataloader", "custom_hooks")
    keys = ("type", "lr", "a", "b", "distortion", "pipeline", "dataset", "images", "depth")
    leaves = (0, 1, 1.5, True, None, "x", "/a/b", "", (), [1, 2], [None], float("inf"), print)

    def value(rng: Random, depth: int):
        if depth == 0 or rng.random() < 0.3:
            return rng.choice(leaves)
        inner = [value(rng, depth - 1) for _ in range(rng.randrange(4))]
        return inner if rng.random() < 0.3 else dict(zip(rng.sample(keys, 4), inner, strict=False))

    def turned(part):
        if isinstance(part, dict):
            return {k: turned(v) for k, v in reversed(part.items())}
        return [turned(v) for v in part] if isinstance(part, list) else part

    def dicts(part):
        if isinstance(part, dict):
            yield part
        for v in part.values() if isinstance(part, dict) else part if type(part) is list else ():
            yield from dicts(v)

    def target(rng: Random, root: Path) -> bool:
        cfg = {name: {k: value(rng, 3) for k in rng.sample(keys, 3)} for name in sections[:4]}
        cfg["custom_hooks"] = [{"type": "MyHook", "a": value(rng, 2)}]
        found = identity(cfg)
        assert json.loads(json.dumps(found)) == found
        assert config_hash(identity(turned(cfg))) == config_hash(found)
        place = rng.choice(list(dicts(cfg))[1:])  # a variable of the config itself does not count
        place["num_workers"] = rng.choice(leaves)
        assert identity(cfg) == found, "workers do not count"
        place["another"] = "value"
        now = identity(cfg)
        assert differing(found, now), "a new value counts"
        assert config_hash(now) != config_hash(found)
        return True

    return target


TARGETS = {"weights": weights, "folder": folder, "images": images, "configs": configs}
