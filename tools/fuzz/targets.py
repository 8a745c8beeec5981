"""What the fuzzer calls: each target reads one input as a user's file and checks what comes back.

A target returns whether the input was accepted. Anything but acceptance or a `ValueError` of one
line that names the file is a finding, and so is a reader that hangs or needs much memory.
"""

import contextlib
import io
import json
import tarfile
import zipfile
from dataclasses import asdict
from pathlib import Path

from PIL import Image

from vfm_ss.datasets.archives import Archive
from vfm_ss.protocol.examples import EXAMPLES_NAME, SIDE, Example, Examples, encoded
from vfm_ss.protocol.records import Record, read_record, write_record
from vfm_ss.protocol.runs import collect
from vfm_ss.report.examples import read_pictures
from vfm_ss.sweep.status import discover, table

# An input may hold this much once unpacked; a reader must not be talked into more.
_MOST = 2**26
_NAME = "mae_b16_linear_ade20k"
_WORK_DIR = {
    "20261121_100000/vis_data/scalars.json": b'{"loss": 2.0, "time": 0.5, "step": 5}\n'
    b'{"mIoU": 30.0, "step": 5}\n{"mIoU": 40.5, "step": 10}\n',
    f"{_NAME}.py": b"randomness = dict(seed=3)\ntrain_cfg = dict(\n    max_iters=10, type='X')\n",
    "sweep.json": b'{"schema": 1, "name": "mae", "seed": 3, "job": null, "error": null, '
    b'"attempts": [{"sweep": "a", "started": 1.5, "result": "failed", "pid": 1, "error": "x"}]}',
}


def record(data: bytes, folder: Path) -> bool:
    """Read a record; what is accepted can be named, written and read again."""
    path = folder / "record.json"
    path.write_bytes(data)
    found = _one_line(path, lambda: read_record(path))
    if found is None:
        return False
    assert found.setting
    write_record(path, found)
    assert read_record(path) == found
    return True


def examples(data: bytes, folder: Path) -> bool:
    """Read a run's examples and their pictures, as the report does."""
    path = folder / EXAMPLES_NAME
    path.write_bytes(data)
    found = _one_line(path, lambda: read_pictures(path))
    if found is None:
        return False
    shapes = [label.shape for label in found[1]]
    assert shapes == [prediction.shape for prediction in found[2]]
    assert all(0 < side <= SIDE for shape in shapes for side in shape)
    return True


def log(data: bytes, folder: Path) -> bool:
    """Read a log of plain mmengine, as ranking and status do."""
    return _work_dir(folder, "20261121_100000/vis_data/scalars.json", data)


def config(data: bytes, folder: Path) -> bool:
    """Read a dumped config beside a log; nothing in it is executed."""
    return _work_dir(folder, f"{_NAME}.py", data)


def journal(data: bytes, folder: Path) -> bool:
    """Read the journal of a sweep."""
    return _work_dir(folder, "sweep.json", data)


def _work_dir(folder: Path, name: str, data: bytes) -> bool:
    run = folder / _NAME
    for file, sound in _WORK_DIR.items():
        (run / file).parent.mkdir(parents=True, exist_ok=True)
        (run / file).write_bytes(data if file == name else sound)
    runs, skipped = collect([folder])
    assert len(runs) + len(skipped) == 1
    assert all(s.path == str(run) and s.reason.isprintable() for s in skipped)
    assert all(0 <= r.miou <= 100 and (r.seed is None or r.seed >= 0) for r in runs)
    (state,) = discover([folder])
    assert table([state]).replace("\n", "").isprintable()
    return bool(runs) and not state.note


def zip_archive(data: bytes, folder: Path) -> bool:
    """Index a zip and read every member."""
    return _archive(data, folder / "data.zip")


def tar_archive(data: bytes, folder: Path) -> bool:
    """Index a tar and read every member."""
    return _archive(data, folder / "data.tar")


def _archive(data: bytes, path: Path) -> bool:
    path.write_bytes(data)
    archive = _one_line(path, lambda: Archive(str(path)))
    if archive is None:
        return False
    for name, member in list(archive.members.items())[:20]:
        content = _one_line(path, lambda name=name: archive.read(name))
        assert content is None or len(content) == member.size <= _MOST
    for name in ("", "a", "a/b.png", "../a"):
        assert archive.find(name) in {None, *archive.members, *archive.folders}
    return True


def _one_line(path: Path, read):
    """Return what ``read`` returns, or None where it refuses the file properly."""
    try:
        return read()
    except ValueError as error:
        message = str(error)
        assert str(path) in message, f"does not name the file: {message!r}"
        assert message.isprintable(), f"not one printable line: {message!r}"
        return None


TARGETS = {
    "record": record,
    "examples": examples,
    "log": log,
    "config": config,
    "journal": journal,
    "zip": zip_archive,
    "tar": tar_archive,
}


def seeds(target: str) -> list[bytes]:
    """Return valid inputs of a target to start from."""
    if target in ("log", "config", "journal"):
        name = {"log": "20261121_100000/vis_data/scalars.json", "config": f"{_NAME}.py"}
        return [_WORK_DIR[name.get(target, "sweep.json")]]
    if target == "record":
        return [json.dumps(asdict(r)).encode() for r in _records()]
    if target == "examples":
        return [json.dumps(_examples()).encode()]
    return [_pack(target, files, how) for files in _FILES for how in _WAYS[target]]


def _records() -> list[Record]:
    names = dict(name="a_b16_linear_x", vfm="a", train_dataset="x", eval_dataset="x")
    empty = Record(**names, decoder="linear", status="running")
    full = Record(
        **names, decoder="mask2former", status="finished", size="b", patch=16, seed=0, step=4,
        max_steps=4, miou=1.5, best_miou=2.0, iou={"wall": 1.5, "sky": None},
        history=[[2, 2.0], [4, 1.5]], train_seconds=0.5, step_seconds=0.1, trainable_params=1,
        total_params=2, peak_memory_mb=3.5, device="CPU", world_size=1, micro_batch=4,
        effective_batch=16, precision="fp32", compiled=False, versions={"torch": "2.12.1"},
        commit="0" * 40,
    )  # fmt: skip
    return [empty, full]


def _examples() -> dict:
    files = {}
    for kind, mode, form in (("photo", "RGB", "JPEG"), ("label", "L", "PNG")):
        data = io.BytesIO()
        Image.new(mode, (4, 3)).save(data, form)
        files[kind] = encoded(data.getvalue())
    one = Example("a.jpg", 1, 50.0, **files, prediction=files["label"])
    found = Examples(2, ["wall", "sky"], [[0, 0, 0], [9, 9, 255]], [one], step=4, seed=0, miou=1.5)
    return {"schema": 1, **asdict(found)}


_FILES = (
    {"a/b.png": b"\x89PNG" + bytes(40), "a/c/d.txt": b"words " * 20},
    {"x": b""},
    {"long/" * 30 + "é.png": b"1"},
)
_WAYS = {
    "zip": (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED),
    "tar": (tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT),
}


def _pack(kind: str, files: dict[str, bytes], how: int) -> bytes:
    out = io.BytesIO()
    if kind == "zip":
        with zipfile.ZipFile(out, "w", how) as archive:
            for name, content in files.items():
                archive.writestr(name, content)
        return out.getvalue()
    with tarfile.open(fileobj=out, mode="w", format=how) as archive:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            with contextlib.suppress(ValueError):  # a name too long for this format
                archive.addfile(info, io.BytesIO(content))
    return out.getvalue()
