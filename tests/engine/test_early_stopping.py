"""mmengine's EarlyStoppingHook: the run is finished, and says where."""

import pytest
import torch
from mmengine.hooks import Hook

from vfm_ss.protocol.records import read_record
from vfm_ss.protocol.runs import collect
from vfm_ss.ranking.analysis import analyse
from vfm_ss.sweep.status import look

# Every change of the score is too small to count.
STOP = dict(type="EarlyStoppingHook", monitor="mIoU", min_delta=1000, patience=2, rule="greater")


def early(**changes):
    return dict(loop=dict(), custom_hooks=[STOP], steps=30, **changes)


def record_of(tmp_path, name="run"):
    return read_record(tmp_path / name / "record.json")


def checkpoint(path):
    return torch.load(path, weights_only=False)


def test_the_run_is_finished_at_its_step_and_ranked_with_a_note(toy, tmp_path):
    toy(**early()).train()  # the first validation is the best, two do not improve it
    record = record_of(tmp_path)
    assert (record.status, record.stopped_early) == ("finished", True)
    assert (record.step, record.max_steps) == (9, 30)
    assert [step for step, _ in record.history] == [3, 6, 9]
    assert record.miou == record.history[-1][1]
    assert checkpoint(tmp_path / "run" / "iter_9.pth")["meta"]["iter"] == 9
    assert look(tmp_path / "run").state == "done"
    (run,), skipped = collect([tmp_path / "run"])
    assert not skipped
    (note,) = [note for note in analyse([run]).notes if "early" in note]
    assert "with seed 0: stopped early, at step 9 of 30." in note
    assert analyse([run]).costs["train_seconds"].isna().all()


def test_a_whole_run_says_that_it_was_not_stopped(toy, tmp_path):
    toy(custom_hooks=[{**STOP, "patience": 9}]).train()
    assert record_of(tmp_path).stopped_early is False


def test_a_resume_of_it_trains_no_further_and_keeps_the_record(toy, tmp_path):
    toy(**early()).train()
    before = (tmp_path / "run" / "record.json").read_bytes()
    runner = toy(resume=True, **early())
    runner.train()
    assert runner.iter == 9
    assert (tmp_path / "run" / "record.json").read_bytes() == before


@pytest.mark.parametrize("step", [4, 7])
def test_a_run_that_was_killed_stops_at_the_same_step(step, toy, tmp_path):
    class Killed(BaseException):
        pass

    class Kill(Hook):
        def before_train_iter(self, runner, batch_idx, data_batch=None):
            if runner.iter == step:
                raise Killed

    toy("whole", **early()).train()
    runner = toy(**early())
    runner.register_hook(Kill())
    with pytest.raises(Killed):
        runner.train()
    record = record_of(tmp_path)
    assert (record.status, record.stopped_early) == ("running", None)
    assert look(tmp_path / "run").state != "done"
    toy(resume=True, **early()).train()
    found, whole = record_of(tmp_path), record_of(tmp_path, "whole")
    assert (found.history, found.step, found.status) == (whole.history, 9, "finished")
    a, b = (checkpoint(tmp_path / name / "iter_9.pth") for name in ("run", "whole"))
    torch.testing.assert_close(a["state_dict"], b["state_dict"], rtol=0, atol=0)


def test_another_monitor_starts_counting_again_and_says_so(toy, tmp_path):
    stop = {**STOP, "monitor": "mAcc", "strict": False}
    toy(steps=3, custom_hooks=[stop]).train()
    (tmp_path / "run" / "iter_3.pth").unlink()
    toy(steps=3, resume=True, custom_hooks=[stop]).train()
    log = "".join(path.read_text() for path in (tmp_path / "run").glob("*/*.log"))
    assert "counts the validations without a better mAcc from 0 again" in log


def test_a_hook_that_stops_after_a_step_gets_a_score_for_it(toy, tmp_path):
    class Enough(Hook):
        def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
            if runner.iter == 4:
                runner.train_loop.stop_training = True

    runner = toy(steps=30)
    runner.register_hook(Enough())
    runner.train()
    record = record_of(tmp_path)
    assert (record.status, record.stopped_early, record.step) == ("finished", True, 5)
    assert record.history[-1] == [5, record.miou]
