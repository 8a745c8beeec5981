"""The one reader of checkpoints: damaged, hostile and unusual files."""

import os
import pickle
import random
import re
import struct
import subprocess
import sys
import zipfile
from collections import OrderedDict

import numpy as np
import pytest
import torch
from mmengine.logging import HistoryBuffer
from mmengine.runner.checkpoint import CheckpointLoader
from safetensors.torch import save_file
from torch import nn

from vfm_ss.checkpoint_reader import find_damage, read
from vfm_ss.models.backbones.checkpoint import read_file


@pytest.fixture(scope="module")
def weights():
    torch.manual_seed(0)
    return {f"blocks.{k}.weight": torch.randn(64, 32) for k in range(8)}


def flip(data: bytes, position: int, bit: int) -> bytes:
    return data[:position] + bytes([data[position] ^ 1 << bit]) + data[position + 1 :]


def positions_of_tensors(data: bytes, weights) -> list[int]:
    """Return the positions of all bytes of the tensors in a file."""
    found = []
    for tensor in weights.values():
        content = tensor.numpy().tobytes()
        start = data.index(content)
        found += range(start, start + len(content))
    return found


READERS = {
    "pretrained=": read_file,
    "load_from=": lambda path: CheckpointLoader.load_checkpoint(str(path)),
}


@pytest.mark.parametrize("reader", READERS)
def test_no_flipped_bit_in_a_pth_is_loaded(reader, weights, tmp_path):
    path = tmp_path / "weights.pth"
    torch.save({"state_dict": weights}, path)
    sound = path.read_bytes()
    positions = positions_of_tensors(sound, weights)
    draw = random.Random(0)
    for _ in range(600):
        path.write_bytes(flip(sound, draw.choice(positions), draw.randrange(8)))
        with pytest.raises(
            ValueError, match=f"{re.escape(str(path))} .*wrong checksum of its part"
        ):
            READERS[reader](path)
    path.write_bytes(sound)
    READERS[reader](path)


def test_what_safetensors_lets_through_is_as_the_docs_say(weights, tmp_path):
    """Values have no checksum; no flip in the header gives a tensor another value in silence."""
    path = tmp_path / "weights.safetensors"
    save_file(weights, path)
    sound = path.read_bytes()
    start = 8 + struct.unpack("<Q", sound[:8])[0]
    draw = random.Random(0)
    for _ in range(20):
        path.write_bytes(flip(sound, draw.randrange(start, len(sound)), draw.randrange(8)))
        assert read(path).keys() == weights.keys()
    for _ in range(600):
        path.write_bytes(flip(sound, draw.randrange(start), draw.randrange(8)))
        found = read_or_line(path)
        same = all(torch.equal(found[name], value) for name, value in weights.items()
                   if name in found)  # fmt: skip
        assert same, "another name is refused by whoever loads a state dict"


def read_or_line(path) -> dict:
    """Read a file; nothing where one line refuses it."""
    text = ""
    try:
        return read(path)
    except ValueError as error:
        text = str(error)
    assert str(path) in text
    assert "\n" not in text
    return {}


def repacked(path, changed=None, compression=zipfile.ZIP_STORED, doubled=()):
    """Write a zip checkpoint again, with sound checksums."""
    with zipfile.ZipFile(path) as archive:
        parts = [(name, archive.read(name)) for name in archive.namelist()]
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, data in parts:
            archive.writestr(name, (changed or (lambda n, d: d))(name, data))
            if name.endswith(doubled or "\0"):
                archive.writestr(name, data)


def refused(path, match):
    with pytest.raises(ValueError, match=match) as error:
        read(path)
    text = str(error.value)
    assert str(path) in text
    assert "\n" not in text
    assert len(text) < 600
    assert find_damage(path), "a resume passes it over"


def test_a_compressed_part_is_refused_before_it_is_unpacked(tmp_path):
    path = tmp_path / "bomb.pth"
    torch.save({"w": torch.zeros(2**22)}, path)
    repacked(path, compression=zipfile.ZIP_DEFLATED)
    assert path.stat().st_size < 2**16
    refused(path, r"its part bomb/data.* is compressed, to \d+ bytes when unpacked")


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_two_parts_of_one_name_are_refused(tmp_path):
    path = tmp_path / "twice.pth"
    torch.save({"w": torch.zeros(8)}, path)
    repacked(path, doubled="data/0")
    refused(path, "two of its parts have the same name")


def test_a_storage_larger_than_its_part_is_refused(tmp_path):
    path = tmp_path / "large.pth"
    torch.save({"w": torch.zeros(1000)}, path)

    def claim(name, data):
        if not name.endswith("data.pkl"):
            return data
        assert data.count(b"M\xe8\x03") == 2  # elements of the storage, and of the tensor
        return data.replace(b"M\xe8\x03", b"J" + struct.pack("<i", 2_000_000_000))

    repacked(path, claim)
    refused(path, "asks for 8000000000 bytes of its part data/0, which has 4000")


class Call:
    """Pickles as a call."""

    def __init__(self, function, *arguments):
        self.function, self.arguments = function, arguments

    def __reduce__(self):
        return self.function, self.arguments


N = 10**11  # float32: 373 GiB
HUNGRY = {
    "a tensor by its size": Call(torch.Tensor, N),
    "a tensor by its shape": Call(torch.Tensor, Call(torch.Size, (N,))),
    "a tensor of a type": Call(torch.FloatTensor, N, 2),
    "a tensor's type in a rebuilt one": Call(
        torch._tensor._rebuild_from_type_v2, torch.Tensor, torch.Tensor, (N,), {}
    ),
    "an array by numpy's helper": Call(np._core.multiarray._reconstruct, np.ndarray, (N,), "b")
    if hasattr(np, "_core")
    else Call(np.core.multiarray._reconstruct, np.ndarray, (N,), "b"),
    "an array": Call(np.ndarray, (N,), "f"),
    "bytes": Call(bytearray, N),
    "a tensor that repeats one element": torch.zeros(1).expand(N),
    "a tensor larger than its storage": Call(
        torch._utils._rebuild_tensor_v2, torch.zeros(4).storage(), 0, (N,), (1,), False,
        OrderedDict(),
    ),
}  # fmt: skip


@pytest.mark.filterwarnings("ignore:TypedStorage is deprecated")
@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("kind", HUNGRY)
def test_what_asks_for_memory_by_a_number_is_refused(kind, zipped, tmp_path):
    path = tmp_path / "hungry.pth"
    torch.save({"w": HUNGRY[kind]}, path, _use_new_zipfile_serialization=zipped)
    assert path.stat().st_size < 4096
    refused(path, "asks for .*which it does not hold")


def test_a_storage_larger_than_an_old_file_is_refused(tmp_path):
    path = tmp_path / "old.pth"
    torch.save({"w": torch.zeros(1000)}, path, _use_new_zipfile_serialization=False)
    data = path.read_bytes()
    path.write_bytes(data.replace(b"M\xe8\x03N", b"J" + struct.pack("<i", 2_000_000_000) + b"N"))
    refused(path, "asks for 8000000000 bytes of tensors, but has")


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_refusing_takes_no_memory(tmp_path):
    """A process that reads all of them peaks where one that reads a small sound file does."""
    torch.save({"w": torch.zeros(2**28)}, tmp_path / "bomb.pth")
    repacked(tmp_path / "bomb.pth", compression=zipfile.ZIP_DEFLATED)  # 1 GiB in about 1 MB
    torch.save({"w": HUNGRY["a tensor by its size"]}, tmp_path / "hungry.pth")
    torch.save({"w": torch.zeros(8)}, tmp_path / "small.pth")
    code = """
import resource, sys
from vfm_ss.checkpoint_reader import read
for path in sys.argv[1:]:
    try:
        read(path)
    except ValueError:
        pass
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""
    peaks = []
    for names in (["small.pth"], ["small.pth", "bomb.pth", "hungry.pth"]):
        command = [sys.executable, "-c", code, *(str(tmp_path / name) for name in names)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        peaks.append(int(done.stdout) / 1024)
    assert peaks[1] < peaks[0] + 50


def tagged(tensor):
    tensor.note = "an attribute"
    return tensor


SOUND = {
    "weights": lambda: {"w": torch.randn(3, 4), "n": torch.tensor(3)},
    "views of one storage": lambda: {"a": (x := torch.arange(12.0))[2:8:2], "b": x.view(3, 4).T},
    "half, bool, complex, empty": lambda: {
        "h": torch.ones(3).half(), "b": torch.tensor([True]), "c": torch.ones(2) * 1j,
        "e": torch.empty(0, 5), "bf": torch.ones(2, dtype=torch.bfloat16), "i": torch.ones(2).int(),
    },
    "parameters and buffers": lambda: {"p": nn.Parameter(torch.ones(2))},
    "a module's state": lambda: nn.BatchNorm2d(3).state_dict(),
    "an optimiser's state": lambda: _optimiser_state(),
    "quantised": lambda: {"q": torch.quantize_per_tensor(torch.ones(4), 0.1, 0, torch.qint32)},
    "eight-bit floats": lambda: {"f": torch.ones(4).to(torch.float8_e4m3fn)},
    "sparse": lambda: {"s": torch.eye(3).to_sparse()},
    "plain values": lambda: {"big": 2**70, "x": 1e300, "t": (1, [2, {"a": None}]), "s": {1, 2},
                             "b": b"\0\1", "size": torch.Size([10**11]), "d": torch.float16},
    "a log history": lambda: {"loss": HistoryBuffer([1.0, 2.0, 6.0], [1, 1, 1]),
                              "lr": np.float64(0.5)},
}  # fmt: skip


def _optimiser_state():
    model = nn.Linear(3, 2)
    optimiser = torch.optim.AdamW(model.parameters(), amsgrad=True)
    model(torch.ones(1, 3)).sum().backward()
    optimiser.step()
    return {"state_dict": model.state_dict(), "optimizer": optimiser.state_dict()}


def equal(a, b) -> bool:
    if isinstance(a, torch.Tensor):
        if a.is_sparse or a.dtype == torch.float8_e4m3fn or a.is_quantized:
            a, b = (t.dequantize() if t.is_quantized else t.to_dense().float() for t in (a, b))
        return a.dtype == b.dtype and torch.equal(a, b)
    if isinstance(a, HistoryBuffer):
        return a.mean() == b.mean() and a.statistics("max") == b.statistics("max")
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(equal(a[k], b[k]) for k in a)
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(map(equal, a, b))
    return a == b


@pytest.mark.filterwarnings("ignore:TypedStorage is deprecated")
@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("kind", SOUND)
def test_what_checkpoints_hold_is_read(kind, zipped, tmp_path):
    if kind == "eight-bit floats" and not zipped:
        pytest.skip("PyTorch cannot read them in its old format")
    path = tmp_path / "sound.pth"
    saved = SOUND[kind]()
    torch.save(saved, path, _use_new_zipfile_serialization=zipped)
    assert find_damage(path) is None
    assert equal(read(path), saved)


def test_a_safetensors_file_is_known_by_its_content(tmp_path):
    save_file({"w": torch.ones(2)}, tmp_path / "weights.pth")
    assert torch.equal(read(tmp_path / "weights.pth")["w"], torch.ones(2))


@pytest.mark.parametrize("content", [
    struct.pack("<Q", 2**62) + b"{}", struct.pack("<Q", 10**8) + b"{" + b" " * 100,
    b'\x40\0\0\0\0\0\0\0{"w":{"dtype":"F32","shape":[100000000000],"data_offsets":[0,8]}}        ',
])  # fmt: skip
def test_a_safetensors_header_that_asks_for_more_is_refused(content, tmp_path):
    path = tmp_path / "weights.safetensors"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=re.escape(str(path))) as error:
        read(path)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("protocol", range(6))
def test_a_plain_pickle_of_code_is_named_and_not_executed(protocol, tmp_path):
    path = tmp_path / "code.pth"
    path.write_bytes(pickle.dumps({"w": Call(exec, "raise SystemExit('executed')")}, protocol))
    with pytest.raises(ValueError, match=r"is refused: it holds builtins\.exec, which could run"):
        read(path)


def test_only_regular_files_are_read(tmp_path):
    path = tmp_path / "pipe.pth"
    os.mkfifo(path)
    refused(path, "it is not a regular file")
    with pytest.raises(FileNotFoundError, match=r"nowhere\.pth does not exist"):
        read(tmp_path / "nowhere.pth")


@pytest.mark.slow
def test_no_random_change_of_a_file_escapes_as_another_error(tmp_path, weights):
    path = tmp_path / "changed.pth"
    draw = random.Random(1)
    for zipped in (True, False):
        torch.save(SOUND["an optimiser's state"](), path, _use_new_zipfile_serialization=zipped)
        sound = path.read_bytes()
        for _ in range(3000):
            data = bytearray(sound)
            for _ in range(draw.choice((1, 1, 4, 30))):
                data[draw.randrange(len(data))] = draw.randrange(256)
            if draw.random() < 0.2:
                del data[draw.randrange(len(data)) :]
            path.write_bytes(data)
            read_or_line(path)
