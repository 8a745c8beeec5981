"""What goes wrong in a run, one by one; docs/reliability.md is the table."""

import itertools
import os
import re
import resource
import shutil
import signal
import subprocess
import time
import traceback

import pytest
import torch
from mmengine.hooks import Hook
from torch.utils.data import get_worker_info

from vfm_ss.checkpoint_reader import find_damage
from vfm_ss.engine.loss_guard import NonFiniteError
from vfm_ss.protocol.records import read_record


class Fault(Hook):
    """Calls `action` once, at a point and step of the run."""

    def __init__(self, point, step, action):
        setattr(self, point, self.strike)
        self.step, self.action = step, action

    def strike(self, runner, *args, **kwargs):
        if runner.iter == self.step:
            self.step = -1
            self.action()


def with_fault(runner, point, step, action):
    runner.register_hook(Fault(point, step, action), "VERY_HIGH")
    return runner


def send(number):
    return lambda: os.kill(os.getpid(), number)


def outcome(work_dir, step=6):
    checkpoint = torch.load(work_dir / f"iter_{step}.pth", weights_only=False)
    record = read_record(work_dir / "record.json")
    history = record.status, record.history, record.best_miou
    return checkpoint["state_dict"], checkpoint["optimizer"]["state"], history


def assert_resumes_to_the_whole(toy, tmp_path, **changes):
    toy("run", resume=True, **changes).train()
    toy("whole").train()
    found, expected = outcome(tmp_path / "run"), outcome(tmp_path / "whole")
    torch.testing.assert_close(found[:2], expected[:2], rtol=0, atol=0)
    assert found[2] == expected[2]


def in_child(action):
    """Run `action` in a forked process; returns its wait status."""
    pid = os.fork()
    if pid == 0:
        status = 99
        try:
            action()
            status = 0
        except OSError as error:
            hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
            resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))  # for what we print
            os.write(2, f"{error}\n".encode())
            status = 3
        except Exception:
            os.write(2, traceback.format_exc().encode())
        finally:
            os._exit(status)
    return os.waitpid(pid, 0)[1]


class TestStopping:
    @pytest.fixture(autouse=True)
    def _in_the_foreground(self):
        previous = signal.signal(signal.SIGINT, signal.default_int_handler)
        yield
        signal.signal(signal.SIGINT, previous)

    def test_ctrl_c_stays_ignored_in_the_background(self, toy, tmp_path):
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        with_fault(toy(), "before_train_iter", 4, send(signal.SIGINT)).train()
        assert (tmp_path / "run" / "iter_6.pth").exists()

    @pytest.mark.parametrize(
        ("number", "workers"), [(signal.SIGINT, 0), (signal.SIGTERM, 0), (signal.SIGTERM, 2)]
    )
    def test_the_step_is_ended_and_saved(self, number, workers, toy, tmp_path, capfd):
        runner = with_fault(toy(workers=workers), "before_train_iter", 4, send(number))
        with pytest.raises(SystemExit) as stop:
            runner.train()
        assert stop.value.code == 128 + number
        assert (tmp_path / "run" / "iter_5.pth").exists(), "step 5 was begun, and 5 is no interval"
        assert f"{number.name}: saving after this step" in capfd.readouterr().err
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler, "given back"
        assert_resumes_to_the_whole(toy, tmp_path)

    def test_a_validation_is_given_up_and_made_up_for(self, toy, tmp_path):
        runner = with_fault(toy(), "before_val_iter", 3, send(signal.SIGTERM))
        with pytest.raises(SystemExit):
            runner.train()
        assert not (tmp_path / "run" / "record.json").exists()
        assert (tmp_path / "run" / "iter_3.pth").exists()
        assert_resumes_to_the_whole(toy, tmp_path)

    @pytest.mark.fresh_process
    def test_a_second_signal_ends_at_once(self, toy, tmp_path):
        def strike():
            send(signal.SIGINT)()
            send(signal.SIGINT)()

        runner = with_fault(toy(), "before_train_iter", 4, strike)
        status = in_child(runner.train)
        assert os.WIFSIGNALED(status)
        assert os.WTERMSIG(status) == signal.SIGINT
        assert_resumes_to_the_whole(toy, tmp_path)

    def test_a_launcher_s_echo_is_no_second_signal(self, toy, tmp_path, monkeypatch):
        monkeypatch.setenv("TORCHELASTIC_RUN_ID", "x")

        def strike():
            send(signal.SIGINT)()
            send(signal.SIGINT)()

        with pytest.raises(SystemExit):
            with_fault(toy(), "before_train_iter", 4, strike).train()
        assert (tmp_path / "run" / "iter_5.pth").exists()


class TestNonFinite:
    @pytest.fixture
    def bad_step(self, monkeypatch):
        """Make one of the losses of step 5 infinite."""
        from mmengine.registry import MODELS

        model = MODELS.get("ToyModel")
        forward, calls = model.forward, []

        def forward_or_inf(self, inputs, data_samples=None, mode="loss"):
            out = forward(self, inputs, data_samples, mode)
            if mode == "loss":
                calls.append(1)
                if len(calls) == 4 * 4 + 2:
                    out["loss"] = out["loss"] * float("inf")
            return out

        monkeypatch.setattr(model, "forward", forward_or_inf)

    def test_the_run_stops_with_step_images_and_checkpoint(self, bad_step, toy, tmp_path):
        with pytest.raises(NonFiniteError) as error:
            toy().train()
        text = str(error.value)
        assert text.startswith("the loss of step 5 is inf; images: ")
        assert text.count(".jpg") == 16
        assert f"the last good checkpoint is {tmp_path}/run/iter_4.pth." in text
        assert "train_cfg.nonfinite_loss=skip" in text
        assert not (tmp_path / "run" / "iter_6.pth").exists()

    def test_skipping_leaves_the_weights(self, bad_step, toy, tmp_path):
        toy(loop=dict(nonfinite_loss="skip"), checkpoint=dict(interval=1, max_keep_ckpts=9)).train()
        states = [
            torch.load(tmp_path / "run" / f"iter_{k}.pth", weights_only=False)["state_dict"]
            for k in (3, 4, 5, 6)
        ]
        same = [
            all(torch.equal(a[name], b[name]) for name in a) for a, b in itertools.pairwise(states)
        ]
        assert same == [False, True, False]
        assert all(value.isfinite().all() for value in states[-1].values())

    def test_broken_weights_are_not_saved(self, toy, tmp_path):
        runner = toy()
        with_fault(runner, "after_train_iter", 3, lambda: break_weights(runner))
        with pytest.raises(NonFiniteError, match=r"after step 4 weights are not finite \(backbone"):
            runner.train()
        assert sorted(p.name for p in (tmp_path / "run").glob("iter*")) == [
            "iter_2.pth", "iter_3.pth",
        ]  # fmt: skip

    def test_an_unknown_mode(self, toy):
        with pytest.raises(ValueError, match="nonfinite_loss='ignore', use one of stop, skip"):
            toy(loop=dict(nonfinite_loss="ignore")).train()


def break_weights(runner):
    runner.model.backbone.weight.data[0, 0] = float("nan")


class TestResources:
    @pytest.mark.parametrize(
        ("micro_batch", "told"),
        [
            (4, r"step 3 with micro-batch 4; use --micro-batch 2 \(train_cfg.micro_batch=2\)"),
            (1, "step 3 with micro-batch 1; the micro-batch is 1 already"),
        ],
    )
    def test_out_of_memory_names_the_flag(self, micro_batch, told, toy, tmp_path):
        def strike():
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 9 GiB")

        runner = with_fault(toy(micro_batch=micro_batch), "before_train_iter", 2, strike)
        with pytest.raises(torch.OutOfMemoryError, match=told):
            runner.train()
        if micro_batch == 4:
            toy(resume=True, micro_batch=2).train()
            assert read_record(tmp_path / "run" / "record.json").effective_batch == 16

    def test_a_killed_data_worker_is_named(self, toy, tmp_path, monkeypatch):
        from mmengine.registry import DATASETS

        dataset = DATASETS.get("ToyDataset")
        with monkeypatch.context() as patch:
            read = dataset.prepare_data

            def read_or_die(self, idx):
                if get_worker_info() and getattr(idx, "position", 0) == 5 * 16 + 3:
                    os.kill(os.getpid(), signal.SIGKILL)
                return read(self, idx)

            patch.setattr(dataset, "prepare_data", read_or_die)
            begin = time.monotonic()
            with pytest.raises(RuntimeError, match=r"a data worker died before step \d .*--resume"):
                toy(workers=2).train()
            assert time.monotonic() - begin < 60
        assert_resumes_to_the_whole(toy, tmp_path)

    @pytest.mark.fresh_process
    @pytest.mark.parametrize("limit", ["checkpoint", "record"])
    def test_a_full_disk_keeps_what_was_saved(self, limit, toy, tmp_path, capfd):
        """The kernel refuses to make a file longer, as it does on a full disk."""
        small = 600 if limit == "record" else 4000

        def strike():
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
            resource.setrlimit(resource.RLIMIT_FSIZE, (small, hard))

        point = ("before_val_epoch", 3) if limit == "record" else ("before_train_iter", 3)
        save = dict(save_best=None, interval=2)
        runner = with_fault(toy(checkpoint=save), *point, strike)
        assert os.WEXITSTATUS(in_child(runner.train)) == 3
        text = capfd.readouterr().err
        assert "File too large; the old file, if any, is untouched; make room" in text
        assert ("record.json" if limit == "record" else "iter_4.pth") in text
        assert [p.name for p in (tmp_path / "run").glob("iter*")] == ["iter_2.pth"]
        assert find_damage(tmp_path / "run" / "iter_2.pth") is None
        assert not list((tmp_path / "run").glob(".*"))
        assert_resumes_to_the_whole(toy, tmp_path, checkpoint=save)

    def test_a_read_only_work_dir_is_named(self, toy, tmp_path):
        (tmp_path / "run").mkdir()
        mount = ["mount", "--bind", str(tmp_path / "run"), str(tmp_path / "run")]
        if shutil.which("mount") is None or subprocess.run(mount, capture_output=True).returncode:
            pytest.skip("needs the right to mount")
        try:
            subprocess.run(["mount", "-o", "remount,ro,bind", str(tmp_path / "run")], check=True)
            with pytest.raises(OSError, match=f"Read-only file system: '{tmp_path}/run"):
                toy().train()
        finally:
            subprocess.run(["umount", str(tmp_path / "run")], check=True)


def test_a_clock_that_goes_back_changes_no_time(toy, tmp_path, monkeypatch):
    real, start = time.time, time.time()
    monkeypatch.setattr(time, "time", lambda: start - 10 * (real() - start))
    toy().train()
    record = read_record(tmp_path / "run" / "record.json")
    assert record.train_seconds > 0
    assert record.step_seconds > 0
    log = "".join(path.read_text() for path in (tmp_path / "run").glob("*/*.log"))
    line = next(line for line in log.splitlines() if "Iter(train) [6/6]" in line)
    assert re.search(r"eta: 0:00:00 +time: 0\.\d+ +data_time: 0\.\d+", line), line


def test_any_character_in_a_path(toy, tmp_path):
    name = "räume & 空 100% {x} 'y'"
    runner = with_fault(toy(name), "before_train_iter", 4, send(signal.SIGTERM))
    with pytest.raises(SystemExit):
        runner.train()
    toy(name, resume=True).train()
    assert read_record(tmp_path / name / "record.json").status == "finished"
