"""A run that goes on under another config: the schedule is that config's, the moments stay."""

import re
import shutil

import pytest
import torch
from mmengine.config import Config

from vfm_ss.engine.fingerprint import difference, fingerprint, samples_of
from vfm_ss.protocol.identity import describe
from vfm_ss.protocol.records import read_record

LR, POWER = 0.05, 0.9
GO_ON = dict(checkpoint=dict(same_config=False))


def rates(monkeypatch):
    """Collect (step, rate) of every step that is made."""
    found = {}
    step = torch.optim.AdamW.step

    def noted(self, *args, **kwargs):
        found[len(found)] = [group["lr"] for group in self.param_groups]
        return step(self, *args, **kwargs)

    monkeypatch.setattr(torch.optim.AdamW, "step", noted)
    return found


def poly(step, steps, lr=LR):
    return lr * (1 - step / steps) ** POWER


def state(path):
    return torch.load(path, weights_only=False)


def log_of(work_dir):
    return "".join(path.read_text() for path in sorted(work_dir.glob("*/*.log")))


def test_more_steps_learn_at_the_rate_of_the_longer_schedule(toy, tmp_path, monkeypatch):
    toy().train()
    with pytest.raises(ValueError, match=r"same_config=False, which goes on .* again for 12 steps"):
        toy(resume=True, steps=12).train()
    found = rates(monkeypatch)
    toy(resume=True, steps=12, **GO_ON).train()
    assert [found[k][0] for k in range(6)] == pytest.approx([poly(k, 12) for k in range(6, 12)])
    assert min(found[k][0] for k in found) > 0
    after = state(tmp_path / "run" / "iter_12.pth")["optimizer"]["state"]
    assert {int(s["step"]) for s in after.values()} == {12}, "the moments go on"
    record = read_record(tmp_path / "run" / "record.json")
    assert (record.status, record.step, record.max_steps) == ("finished", 12, 12)
    (line,) = record.remarks
    assert line.startswith(
        "resumed at step 6 with another config (train_cfg.max_iters was 6, is 12)"
    )
    assert line.endswith("for 12 steps in all")
    assert line in log_of(tmp_path / "run")


def test_a_restated_run_that_is_resumed_again_keeps_its_remark_and_bits(toy, tmp_path):
    toy().train()
    toy(resume=True, steps=12, **GO_ON).train()
    whole = state(tmp_path / "run" / "iter_12.pth")
    remarks = read_record(tmp_path / "run" / "record.json").remarks
    (tmp_path / "run" / "iter_12.pth").unlink()
    toy(resume=True, steps=12).train()  # it is the run of this config now
    again = state(tmp_path / "run" / "iter_12.pth")
    torch.testing.assert_close(again["state_dict"], whole["state_dict"], rtol=0, atol=0)
    assert read_record(tmp_path / "run" / "record.json").remarks == remarks


def test_another_rate_and_decay_are_the_config_s(toy, tmp_path, monkeypatch):
    toy(checkpoint=dict(interval=1, max_keep_ckpts=9)).train()
    for step in (5, 6):
        (tmp_path / "run" / f"iter_{step}.pth").unlink()
    found = rates(monkeypatch)
    other = dict(optimizer=dict(type="AdamW", lr=0.2, weight_decay=0.3))
    toy(resume=True, optim_wrapper=other, **GO_ON).train()
    assert [found[k][0] for k in found] == pytest.approx([poly(4, 6, 0.2), poly(5, 6, 0.2)])
    (group,) = state(tmp_path / "run" / "iter_6.pth")["optimizer"]["param_groups"]
    assert group["weight_decay"] == 0.3


def test_warm_up_and_decay_are_made_again_step_by_step(toy, tmp_path, monkeypatch):
    def schedule(steps):
        warm_up = dict(type="LinearLR", start_factor=0.1, begin=0, end=3, by_epoch=False)
        return [warm_up, dict(type="FullPolyLR", power=POWER, begin=3, end=steps, by_epoch=False)]

    found = rates(monkeypatch)
    toy("whole", steps=10, param_scheduler=schedule(10)).train()
    expected = [found[k][0] for k in range(10)]
    found.clear()
    toy(param_scheduler=schedule(6)).train()
    found.clear()
    toy(resume=True, steps=10, param_scheduler=schedule(10), **GO_ON).train()
    assert [found[k][0] for k in range(4)] == pytest.approx(expected[6:])


def test_a_run_cannot_be_made_shorter_than_it_is(toy):
    toy().train()
    with pytest.raises(ValueError, match=r"has made 6 steps, more than train_cfg\.max_iters=4"):
        toy(resume=True, steps=4, **GO_ON).train()


def test_a_checkpoint_that_does_not_say_its_config_is_known_by_its_schedule(toy, tmp_path):
    toy().train()
    path = tmp_path / "run" / "iter_6.pth"
    checkpoint = state(path)
    del checkpoint["meta"]["run"]
    torch.save(checkpoint, path)
    with pytest.raises(ValueError, match=r"param_scheduler\.end was \[7\], is \[10\]"):
        toy(resume=True, steps=9).train()


def test_another_seed_is_not_resumed(toy):
    toy().train()
    with pytest.raises(ValueError, match=r"is of seed 0, .* --seed 0, or train seed 1 in another"):
        toy(resume=True, randomness=dict(seed=1), **GO_ON).train()


def validation(**dataset):
    return dict(
        num_workers=0, dataset=dict(type="ToyDataset", test_mode=True, **dataset),
        sampler=dict(type="DefaultSampler", shuffle=False),
        collate_fn=dict(type="pseudo_collate"),
    )  # fmt: skip


def test_another_evaluation_does_not_go_into_one_history(toy, tmp_path):
    kept = dict(checkpoint=dict(max_keep_ckpts=9), val_dataloader=validation(data_root="/a"))
    toy(**kept).train()
    (tmp_path / "run" / "record.json").unlink()
    again = dict(resume=True, load_from=tmp_path / "run" / "iter_4.pth")
    for changes, told in (
        (dict(val_dataloader=validation(indices=5)), r"indices was not set, is 5"),
        (dict(val_evaluator=dict(type="ToyScore", prefix="x")), r"prefix was not set, is .x."),
    ):
        with pytest.raises(ValueError, match=rf"evaluated otherwise: .*{told}.* by vfm-ss test"):
            toy(**{**kept, **again, **changes}).train()
    moved = dict(val_dataloader=validation(data_root="/b", data_prefix=dict(img_path="/x/")))
    with pytest.raises(ValueError, match="data_prefix"):
        toy(**{**kept, **again, **moved}).train()
    toy(**{**kept, **again, "val_dataloader": validation(data_root="/b")}).train()
    assert read_record(tmp_path / "run" / "record.json").remarks == []


def test_what_else_changes_on_resume_is_a_remark(toy, tmp_path):
    toy(checkpoint=dict(max_keep_ckpts=9)).train()
    changes = dict(
        custom_hooks=[dict(type="EMAHook")],
        optim_wrapper=dict(
            type="MixedPrecisionOptimWrapper", optimizer=dict(type="AdamW", lr=0.05),
            precision="bf16",
        ),
    )  # fmt: skip
    checkpoint = dict(max_keep_ckpts=9, same_config=False)
    toy(
        resume=True, load_from=tmp_path / "run/iter_4.pth", checkpoint=checkpoint, **changes
    ).train()
    remarks = read_record(tmp_path / "run" / "record.json").remarks
    assert 'resumed at step 4: custom_hooks.0.type was not set, is "EMAHook"' in remarks
    assert "resumed at step 4 in bf16; the steps before are in fp32" in remarks


CROP = dict(type="RandomCrop", crop_size=(64, 64), cat_max_ratio=0.75)


def config(pipeline=(CROP,), img_size=(64, 64), **dataset):
    """A config with an augmentation and places of data."""
    dataset = {"type": "A", "data_root": "here", "pipeline": list(pipeline), **dataset}
    return Config(
        dict(
            model=dict(backbone=dict(type="B", img_size=img_size)),
            train_cfg=dict(max_iters=4),
            train_dataloader=dict(batch_size=16, dataset=dataset),
        )
    )


class TestFingerprint:
    @pytest.mark.parametrize(
        ("changes", "key"),
        [
            (dict(pipeline=[{**CROP, "cat_max_ratio": 1.0}]), "pipeline.0.cat_max_ratio"),
            (dict(pipeline=[{**CROP, "crop_size": (32, 64)}]), "pipeline.0.crop_size"),
            (dict(pipeline=[CROP, dict(type="RandomFlip", prob=0.5)]), "pipeline.1.prob"),
            (dict(reduce_zero_label=True), "reduce_zero_label"),
            (dict(indices=100), "indices"),
            (dict(metainfo=dict(classes=("a",))), "metainfo.classes"),
        ],
    )
    def test_what_changes_the_images_differs(self, changes, key):
        keys = difference(fingerprint(config()), fingerprint(config(**changes)))
        assert f"train_dataloader.dataset.{key}" in keys

    @pytest.mark.parametrize(
        "changes",
        [
            dict(data_root="there"),
            dict(data_prefix=dict(img_path="x"), ann_file="list.txt"),
            dict(backend_args=dict(backend="archive"), lazy_init=True),
            dict(pipeline=[{**CROP, "backend_args": None}]),
            dict(pipeline=[{**CROP, "crop_size": None}]),
            dict(pipeline=[{k: v for k, v in CROP.items() if k != "crop_size"}]),
            dict(pipeline=[{**CROP, "crop_size": 64}], img_size=64),
        ],
    )
    def test_where_files_are_and_how_a_size_is_written_do_not(self, changes):
        assert difference(fingerprint(config()), fingerprint(config(**changes))) == []

    def test_what_saves_memory_does_not(self):
        changed = config()
        changed.model.backbone.update(with_cp=True, compile=True)
        assert difference(fingerprint(config()), fingerprint(changed)) == []
        older = {**fingerprint(config()), "model.backbone.with_cp": "true"}
        assert difference(older, fingerprint(config())) == []

    def test_the_first_fingerprints_are_compared_in_what_they_say(self):
        first = {
            "model.backbone.type": '"B"',
            "model.backbone.img_size": "64",
            "train_cfg.max_iters": "4",
            "train_dataloader.dataset.type": '"A"',
            "train_dataloader.dataset.pipeline.0.type": '"RandomCrop"',
        }
        current = fingerprint(config())
        assert difference(first, current) == []
        other = {**first, "train_dataloader.dataset.pipeline.0.type": '"Resize"'}
        (key,) = difference(other, current)
        told = f'{key} was "Resize", is "RandomCrop"'
        assert describe([key], other, current) == told

    def test_more_than_three_changes_are_counted(self):
        saved = {f"model.{k}": "1" for k in "abcde"}
        told = describe(difference(saved, {}), saved, {})
        assert told == "; ".join(f"model.{k} was 1, is not set" for k in "abc") + "; and 2 more"


def test_the_names_of_the_samples_are_relative_and_in_order():
    class Listed:
        def __init__(self, *paths):
            self.paths = paths

        def __len__(self):
            return len(self.paths)

        def get_data_info(self, i):
            return dict(img_path=self.paths[i])

    known = samples_of(Listed("a/x/1.jpg", "a/y/2.jpg"))
    assert known["count"] == 2
    assert samples_of(Listed("/elsewhere/b.zip/x/1.jpg", "/elsewhere/b.zip/y/2.jpg")) == known
    for other in (
        ("a/y/2.jpg", "a/x/1.jpg"),
        ("a/x/1.jpg", "a/y/3.jpg"),
        ("a/x/1.jpg", "a/y/2.jpg", "a/y/3.jpg"),
    ):
        assert samples_of(Listed(*other)) != known
    assert samples_of([1, 2, 3]) == {"count": 3}
    assert samples_of(torch.utils.data.Subset([1, 2, 3], [0])) == {"count": 1}


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda rows: rows[:-1], "23 samples, now 22"),
        (lambda rows: [*rows[:-1], {**rows[-1], "img_path": "new.jpg"}], "23 samples of other"),
    ],
)
def test_another_list_of_samples_is_a_remark(change, told, toy, tmp_path, monkeypatch):
    from mmengine.registry import DATASETS

    toy().train()
    (tmp_path / "run" / "iter_6.pth").unlink()
    dataset = DATASETS.get("ToyDataset")
    listed = dataset.load_data_list
    rows = change(listed(None))

    def load(self):
        return listed(self) if self.test_mode else [dict(row) for row in rows]

    monkeypatch.setattr(dataset, "load_data_list", load)
    toy(resume=True).train()
    (line,) = read_record(tmp_path / "run" / "record.json").remarks
    assert line.startswith(f"the training set has changed before step 5: {told}")


def test_a_checkpoint_without_augmentation_resumes_with_a_warning(toy, tmp_path):
    toy().train()
    (tmp_path / "run" / "iter_6.pth").unlink()
    path = tmp_path / "run" / "iter_4.pth"
    checkpoint = state(path)
    checkpoint["meta"]["run"].pop("fingerprint")
    torch.save(checkpoint, path)
    toy(resume=True).train()
    assert "does not say how its images were augmented" in log_of(tmp_path / "run")
    assert read_record(tmp_path / "run" / "record.json").remarks == []


def test_a_pointer_to_another_folder_is_said(toy, tmp_path):
    toy("other", checkpoint=dict(interval=5)).train()
    toy(steps=6).train()
    for path in (tmp_path / "run").glob("iter_*.pth"):
        path.unlink()
    shutil.copy(tmp_path / "other" / "iter_5.pth", tmp_path / "elsewhere.pth")
    (tmp_path / "run" / "last_checkpoint").write_text(str(tmp_path / "elsewhere.pth"))
    toy(resume=True).train()
    told = rf"last_checkpoint names {re.escape(str(tmp_path))}/elsewhere\.pth, of another folder"
    assert re.search(told, log_of(tmp_path / "run"))
