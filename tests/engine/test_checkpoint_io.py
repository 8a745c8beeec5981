import pickle
import re
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest
import torch
from mmengine.logging import HistoryBuffer
from mmengine.runner.checkpoint import CheckpointLoader


class Bomb:
    def __reduce__(self):
        return (exec, ("raise SystemExit('executed')",))


class Sneaky:
    """Reach `HistoryBuffer.__init__.__globals__` by the one look-up that a log history needs."""

    def __reduce__(self):
        return (getattr, (HistoryBuffer, "__init__"))


def test_what_a_runner_saves_is_loaded(tmp_path):
    history = HistoryBuffer([1.0, 2.0, 6.0], [1, 1, 1])
    meta = {"iter": 3, "lr": np.float64(0.5), "config": "raise SystemExit('executed')"}
    saved = {"meta": meta, "state_dict": {"w": torch.ones(2)}, "message_hub": {"loss": history}}
    torch.save(saved, tmp_path / "iter_3.pth")
    loaded = CheckpointLoader.load_checkpoint(str(tmp_path / "iter_3.pth"))
    assert torch.equal(loaded["state_dict"]["w"], torch.ones(2))
    assert loaded["message_hub"]["loss"].mean() == 3.0
    assert loaded["message_hub"]["loss"].statistics("max") == 6.0
    assert loaded["meta"] == {"iter": 3, "lr": 0.5}, "mmengine would execute the config's text"


@pytest.mark.parametrize("bad", [Bomb(), Sneaky(), [Bomb()]])
def test_pickled_code_is_refused_and_not_executed(bad, tmp_path):
    path = tmp_path / "bad.pth"
    torch.save({"state_dict": bad}, path)
    with pytest.raises(ValueError, match=re.escape(str(path))) as error:
        CheckpointLoader.load_checkpoint(str(path))
    assert "\n" not in str(error.value)


@pytest.fixture
def served(tmp_path):
    """A folder, and its address on this machine."""
    (tmp_path / "served").mkdir()
    handler = partial(SimpleHTTPRequestHandler, directory=str(tmp_path / "served"))
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield tmp_path / "served", f"http://127.0.0.1:{server.server_port}"
    server.shutdown()


def test_a_download_is_data_too(served, tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    folder, address = served
    torch.save({"state_dict": {"w": torch.ones(2)}}, folder / "good.pth")
    torch.save({"state_dict": Bomb()}, folder / "bad.pth")
    good = CheckpointLoader.load_checkpoint(f"{address}/good.pth")
    assert torch.equal(good["state_dict"]["w"], torch.ones(2))
    with pytest.raises(
        ValueError, match=r"bad\.pth is refused: it holds builtins\.exec, which could"
    ):
        CheckpointLoader.load_checkpoint(f"{address}/bad.pth")
    with pytest.raises(ValueError, match=r"s3://x/y\.pth is not loaded from there: download it"):
        CheckpointLoader.load_checkpoint("s3://x/y.pth")


@pytest.mark.parametrize("content", [b"", b"nothing", pickle.dumps({"state_dict": Bomb()})])
def test_a_file_that_is_no_checkpoint_is_named(content, tmp_path):
    path = tmp_path / "bad.pth"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=re.escape(str(path))):
        CheckpointLoader.load_checkpoint(str(path))
    with pytest.raises(FileNotFoundError, match=r"nowhere\.pth does not exist"):
        CheckpointLoader.load_checkpoint(str(tmp_path / "nowhere.pth"))
