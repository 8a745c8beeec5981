"""Checkpoints of runs that are killed: whole, found again, few."""

import os
import re
import shutil
from pathlib import Path
from typing import ClassVar

import pytest
import torch
from mmengine.registry import DATA_SAMPLERS, MODELS
from mmengine.runner import find_latest_checkpoint

from vfm_ss.engine.resume import check_model_weights
from vfm_ss.protocol.records import read_record


class Killed(BaseException):
    """Ends a run where a signal would."""


def kill_at(monkeypatch, name, after=False):
    """Make the run end when it gives the file `name` its name."""
    replace = os.replace

    def replace_or_die(source, destination):
        if Path(destination).name == name:
            if after:
                replace(source, destination)
            raise Killed
        replace(source, destination)

    monkeypatch.setattr(os, "replace", replace_or_die)


def outcome(work_dir, step=6):
    checkpoint = torch.load(work_dir / f"iter_{step}.pth", weights_only=False)
    (best,) = work_dir.glob("best_mIoU_*.pth")
    record = read_record(work_dir / "record.json")
    state = checkpoint["state_dict"], checkpoint["optimizer"]["state"]
    return state, best.name, (record.status, record.history, record.best_miou)


def assert_same(a, b):
    torch.testing.assert_close(a[0], b[0], rtol=0, atol=0)
    assert a[1:] == b[1:]


def names(work_dir):
    return sorted(path.name for path in work_dir.glob("*.pth"))


def log_of(work_dir):
    return "".join(path.read_text() for path in sorted(work_dir.glob("*/*.log")))


@pytest.fixture
def whole(toy, tmp_path):
    toy("whole").train()
    return outcome(tmp_path / "whole")


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize(
    "moment",
    ["iter_4.pth", "best_mIoU_iter_3.pth", "iter_3.pth", "last_checkpoint", "record.json"],
)
def test_a_run_killed_in_a_write_ends_as_the_whole_one(
    moment, after, toy, whole, tmp_path, monkeypatch
):
    with monkeypatch.context() as patch:
        kill_at(patch, moment, after)
        with pytest.raises(Killed):
            toy().train()
    toy(resume=True).train()
    assert_same(outcome(tmp_path / "run"), whole)


def test_killed_again_and_again(toy, whole, tmp_path, monkeypatch):
    for moment in ("best_mIoU_iter_3.pth", "iter_3.pth", "iter_6.pth"):
        with monkeypatch.context() as patch:
            kill_at(patch, moment)
            with pytest.raises(Killed):
                toy(resume=True).train()
    toy(resume=True).train()
    assert_same(outcome(tmp_path / "run"), whole)


@pytest.mark.parametrize("workers", [0, 2])
def test_stopped_and_resumed_from_any_checkpoint(workers, toy, whole, tmp_path):
    runner = toy(checkpoint=dict(interval=1, max_keep_ckpts=-1))
    runner.train()
    assert_same(outcome(tmp_path / "run"), whole)
    for step in (1, 3):
        work_dir = tmp_path / f"from{step}"
        work_dir.mkdir()
        for path in (f"iter_{step}.pth", whole[1]) if step == 3 else (f"iter_{step}.pth",):
            shutil.copy(tmp_path / "run" / path, work_dir)
        toy(f"from{step}", resume=True, workers=workers).train()
        assert_same(outcome(work_dir)[:1], whole[:1])
        assert outcome(work_dir)[2] == whole[2], "the history comes from the checkpoint"


def test_another_micro_batch_goes_on_with_the_same_images(toy, tmp_path, monkeypatch):
    seen = []
    for micro_batch in (4, 16):
        work_dir = tmp_path / f"{micro_batch}"
        if micro_batch == 16:
            work_dir.mkdir()
            shutil.copy(tmp_path / "4" / "iter_3.pth", work_dir)
        runner = toy(work_dir.name, resume=True, steps=4, micro_batch=micro_batch)
        loop = runner.build_train_loop(runner._train_loop)
        runner._train_loop = loop
        step, found = loop.run_iter, []
        monkeypatch.setattr(
            loop, "run_iter", lambda b, f=found, s=step: (f.append(torch.stack(b["inputs"])), s(b))
        )
        runner.train()
        seen.append(torch.stack(found))
    assert torch.equal(seen[1], seen[0][3:])


def test_a_drawn_seed_is_taken_up_again(toy, tmp_path):
    toy("whole", randomness=dict(seed=None)).train()
    (tmp_path / "run").mkdir()
    shutil.copy(tmp_path / "whole" / "iter_4.pth", tmp_path / "run")
    toy(resume=True, randomness=dict(seed=None)).train()
    assert_same(outcome(tmp_path / "run")[:1], outcome(tmp_path / "whole")[:1])


def damage_empty(path):
    path.write_bytes(b"")


def damage_cut(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def damage_flip(path):
    """Flip one bit of a weight, which torch does not notice."""
    data = bytearray(path.read_bytes())
    weight = torch.load(path, weights_only=False)["state_dict"]["backbone.weight"]
    data[data.find(weight.numpy().tobytes())] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize(
    ("damage", "reason"),
    [(damage_empty, "the file is empty"), (damage_cut, "incomplete"), (damage_flip, "checksum")],
)
def test_the_last_sound_checkpoint_is_found(damage, reason, toy, whole, tmp_path):
    work_dir = tmp_path / "run"
    toy().train()
    assert names(work_dir) == ["best_" + whole[1][5:], "iter_4.pth", "iter_6.pth"]
    damage(work_dir / "iter_6.pth")
    toy(resume=True).train()
    log = log_of(work_dir)
    assert re.search(rf"Skipped checkpoint \S+iter_6\.pth: .*{reason}", log)
    assert re.search(r"Load checkpoint from \S+iter_4\.pth", log)
    assert_same(outcome(work_dir), whole)


@pytest.mark.parametrize("content", [None, b"", b"\xff\x00\x80", b"/nowhere/iter_9.pth"])
def test_the_pointer_is_not_needed(content, toy, whole, tmp_path):
    work_dir = tmp_path / "run"
    toy().train()
    pointer = work_dir / "last_checkpoint"
    assert find_latest_checkpoint(str(work_dir)) == str(work_dir / "iter_6.pth")
    (work_dir / "iter_6.pth").unlink()
    pointer.unlink() if content is None else pointer.write_bytes(content)
    toy(resume=True).train()
    assert ("last_checkpoint is missing or damaged" in log_of(work_dir)) == (
        content != b"/nowhere/iter_9.pth"
    )
    assert_same(outcome(work_dir), whole)


def test_nothing_left_to_resume_from_says_so(toy, tmp_path):
    work_dir = tmp_path / "run"
    toy(steps=2).train()
    (work_dir / "iter_2.pth").write_bytes(b"")
    with pytest.raises(ValueError, match=r"none of the 1 checkpoint.* the file is empty; delete"):
        toy(resume=True).train()
    (work_dir / "iter_2.pth").unlink()
    with pytest.raises(FileNotFoundError, match=r"names \S+iter_2\.pth, which is gone"):
        toy(resume=True).train()
    (work_dir / "last_checkpoint").unlink()
    runner = toy(resume=True, steps=2)
    runner.train()
    assert "training from the start" in log_of(work_dir)
    assert runner.iter == 2


def test_a_moved_work_dir_is_resumed_and_keeps_one_best(toy, whole, tmp_path):
    toy().train()
    shutil.move(tmp_path / "run", tmp_path / "moved")
    (tmp_path / "moved" / "iter_6.pth").unlink()
    toy("moved", resume=True).train()
    assert_same(outcome(tmp_path / "moved"), whole)
    assert not (tmp_path / "run").exists()


def test_a_run_that_starts_from_weights_resumes_from_its_own_checkpoints(
    toy, tmp_path, monkeypatch
):
    torch.manual_seed(5)
    weights = tmp_path / "weights.pth"
    torch.save(MODELS.build(dict(type="ToyModel")).state_dict(), weights)
    toy("whole", load_from=weights).train()
    with monkeypatch.context() as patch:
        kill_at(patch, "iter_6.pth")
        with pytest.raises(Killed):
            toy(resume="auto", load_from=weights).train()
    assert "training from the start" in log_of(tmp_path / "run")
    toy(resume="auto", load_from=weights).train()
    assert_same(outcome(tmp_path / "run"), outcome(tmp_path / "whole"))
    toy("other").train()
    assert outcome(tmp_path / "other")[2] != outcome(tmp_path / "run")[2], "the weights matter"


@DATA_SAMPLERS.register_module(force=True)
class RoundAndRound:
    """A sampler without a method `skip`."""

    def __init__(self, dataset, seed=None, round_up=True):
        self.size = len(dataset)

    def __len__(self):
        return 10 * self.size

    def __iter__(self):
        yield from (7 * k % self.size for k in range(len(self)))


def test_a_sampler_that_cannot_skip_reads_again_and_says_so(toy, tmp_path):
    data = dict(
        num_workers=0,
        batch_size=16,
        dataset=dict(type="ToyDataset"),
        collate_fn=dict(type="pseudo_collate"),
        sampler=dict(type="RoundAndRound"),
    )
    toy("whole", train_dataloader=data).train()
    toy(train_dataloader=data).train()
    (tmp_path / "run" / "iter_6.pth").unlink()
    toy(resume=True, train_dataloader=data).train()
    assert_same(outcome(tmp_path / "run"), outcome(tmp_path / "whole"))
    told = "RoundAndRound cannot skip: reading the images of 4 steps again"
    assert told in log_of(tmp_path / "run")


def test_weights_alone_are_not_resumed(toy, tmp_path):
    weights = tmp_path / "weights.pth"
    torch.save(MODELS.build(dict(type="ToyModel")).state_dict(), weights)
    with pytest.raises(ValueError, match=r"weights\.pth holds weights alone, which cannot"):
        toy(resume=True, load_from=weights).train()


def test_the_best_weights_are_not_resumed(toy, tmp_path):
    toy().train()
    (best,) = (tmp_path / "run").glob("best_*.pth")
    with pytest.raises(ValueError, match=r"best_\S+ holds weights alone, which cannot be resumed"):
        toy("other", resume=True, load_from=best).train()
    for key in ("optimizer", "param_schedulers"):
        checkpoint = torch.load(tmp_path / "run" / "iter_6.pth", weights_only=False)
        del checkpoint[key]
        torch.save(checkpoint, tmp_path / "part.pth")
        with pytest.raises(ValueError, match="holds weights alone"):
            toy("other", resume=True, load_from=tmp_path / "part.pth").train()


class TestWeightsOfAnotherModel:
    TEST: ClassVar = dict(
        test_dataloader=dict(
            num_workers=0,
            dataset=dict(type="ToyDataset"),
            collate_fn=dict(type="pseudo_collate"),
            sampler=dict(type="DefaultSampler", shuffle=False),
        ),
        test_cfg=dict(type="TestLoop"),
        test_evaluator=dict(type="ToyScore"),
    )

    @pytest.fixture
    def weights(self, tmp_path):
        model = MODELS.build(dict(type="ToyModel"))
        state = model.state_dict()
        torch.save({"state_dict": {f"module.{k}": v for k, v in state.items()}}, tmp_path / "w.pth")
        return tmp_path / "w.pth"

    def test_its_own_are_evaluated(self, toy, weights):
        assert 0 <= toy(load_from=weights, **self.TEST).test()["mIoU"] <= 100

    def test_others_are_refused(self, toy, weights):
        model = dict(type="ToyModel", classes=3)
        told = (
            r"w\.pth is of another model: 2 of 4 weights do not fit, such as decode_head\.weight "
            r"\(3, 8\), which is of shape \(2, 8\) there"
        )
        with pytest.raises(ValueError, match=told):
            toy(load_from=weights, model=model, **self.TEST).test()

    def test_one_that_computes_more_is_refused(self, toy, weights):
        state = torch.load(weights)["state_dict"]
        more = {**state, "auxiliary_head.weight": torch.zeros(3)}  # no part of what is evaluated
        torch.save(more, weights)
        toy(load_from=weights, **self.TEST).test()
        torch.save({**more, "backbone.blocks.1.weight": torch.zeros(3)}, weights)
        told = r"of another model: it has 1 weight.* lacks, such as backbone\.blocks\.1\.weight;"
        with pytest.raises(ValueError, match=told):
            toy(load_from=weights, **self.TEST).test()
        toy(steps=1, load_from=weights).train()

    def test_statistics_of_a_batch_norm_are_weights_too(self):
        model = torch.nn.ModuleDict({"decode_head": torch.nn.BatchNorm1d(2)})
        state = model.state_dict()
        del state["decode_head.num_batches_tracked"]
        check_model_weights(model, state, "w.pth")
        del state["decode_head.running_var"]
        with pytest.raises(ValueError, match=r"lacks 1 buffer.* such as decode_head\.running_var;"):
            check_model_weights(model, state, "w.pth")

    def test_a_training_may_take_some_but_not_none(self, toy, weights, tmp_path):
        toy("some", steps=1, load_from=weights, model=dict(type="ToyModel", classes=3)).train()
        torch.save({"other.weight": torch.zeros(3)}, tmp_path / "none.pth")
        told = "4 of 4 weights do not fit, such as backbone.weight .8, 3., which is missing there"
        with pytest.raises(ValueError, match=told):
            toy(steps=1, load_from=tmp_path / "none.pth").train()


def test_a_new_run_does_not_start_beside_an_old_one(toy, tmp_path):
    toy(steps=2).train()
    with pytest.raises(ValueError, match=r"run holds iter_2\.pth of an earlier run; go on"):
        toy().train()
    assert names(tmp_path / "run") == ["best_mIoU_iter_2.pth", "iter_2.pth"]


def test_few_are_kept_and_leftovers_removed(toy, tmp_path):
    work_dir = tmp_path / "run"
    work_dir.mkdir()
    (work_dir / ".iter_2.pth.123.partial").write_bytes(b"half")
    toy(resume=True, steps=9, checkpoint=dict(interval=1)).train()
    kept = names(work_dir)
    assert kept[0].startswith("best_mIoU_iter_")
    assert kept[1:] == ["iter_8.pth", "iter_9.pth"]
    assert not list(work_dir.glob(".*"))
    best = max(read_record(work_dir / "record.json").history, key=lambda row: row[1])
    assert kept[0] == f"best_mIoU_iter_{best[0]}.pth"


def test_another_folder_for_checkpoints(toy, whole, tmp_path):
    common = dict(checkpoint=dict(out_dir=str(tmp_path / "elsewhere")))
    toy(**common).train()
    assert not names(tmp_path / "run")
    (tmp_path / "elsewhere" / "run" / "iter_6.pth").unlink()
    assert "iter_4.pth" in names(tmp_path / "elsewhere" / "run")
    toy(resume=True, **common).train()
    assert names(tmp_path / "elsewhere" / "run")[-1] == "iter_6.pth"


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        (dict(steps=9), "train_cfg.max_iters was 6, is 9"),
        (dict(model=dict(type="ToyModel", classes=3)), "model.classes was not set, is 3"),
        (dict(optim_wrapper=dict(optimizer=dict(type="AdamW", lr=0.1))),
         "optim_wrapper.optimizer.lr was 0.05, is 0.1"),
    ],
)  # fmt: skip
def test_another_run_is_not_resumed(changes, told, toy, tmp_path):
    toy().train()
    before = (tmp_path / "run" / "iter_6.pth").read_bytes()
    with pytest.raises(
        ValueError, match=rf"iter_6\.pth is of another run: {re.escape(told)}\. Use"
    ):
        toy(resume=True, **changes).train()
    assert (tmp_path / "run" / "iter_6.pth").read_bytes() == before


def test_what_does_not_change_a_run_may_change(toy, tmp_path):
    toy().train()
    toy(resume=True, workers=1, micro_batch=16, loop=dict(nonfinite_loss="skip")).train()
    toy(resume=True, steps=7, checkpoint=dict(same_config=False)).train()
    assert names(tmp_path / "run")[-1] == "iter_7.pth"


def test_a_missing_score_is_named(toy):
    with pytest.raises(ValueError, match="save_best='mDice', but the validation gives mIoU"):
        toy(checkpoint=dict(save_best="mDice")).train()


def test_a_damaged_record_does_not_stop_a_resume(toy, whole, tmp_path):
    toy().train()
    (tmp_path / "run" / "iter_6.pth").unlink()
    (tmp_path / "run" / "record.json").write_text("{")
    toy(resume=True).train()
    assert "The record is rebuilt" in log_of(tmp_path / "run")
    assert_same(outcome(tmp_path / "run"), whole)
