"""One training, several evaluations: in training, after a resume, and from a checkpoint."""

import os
import shutil
import signal
from typing import ClassVar

import pytest
import torch
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.registry import DATASETS
from mmengine.runner import Runner
from mmseg.registry import HOOKS

from vfm_ss.engine.eval_test import test_on_eval_data as evaluate_checkpoint
from vfm_ss.protocol.evaluations import at_step, joined, with_score
from vfm_ss.protocol.records import read_record
from vfm_ss.protocol.runs import collect
from vfm_ss.run_lock import RUN_LOCK, RunLock


class _Set(DATASETS.get("ToyDataset")):
    """Other points; their paths are their own."""

    SCALE: ClassVar = 1.0

    def load_data_list(self):
        kind = type(self).__name__
        return [dict(x=self.SCALE * k, img_path=f"{kind}/{k}.jpg") for k in range(7)]


@DATASETS.register_module(force=True)
class NightDataset(_Set):
    SCALE: ClassVar = 9.0


@DATASETS.register_module(force=True)
class FogDataset(_Set):
    SCALE: ClassVar = -4.0


@DATASETS.register_module(force=True)
class SwappedDataset(_Set):
    METAINFO: ClassVar = dict(classes=("b", "a"))


@DATASETS.register_module(force=True)
class OtherDataset(_Set):
    METAINFO: ClassVar = dict(classes=("a", "c"))


@DATASETS.register_module(force=True)
class MoreDataset(_Set):
    METAINFO: ClassVar = dict(classes=("a", "b", "c"))


SETS = dict(night="Night", fog="Fog", swapped="Swapped", other="Other", more="More", toy="Toy")


@pytest.fixture(autouse=True)
def _data_files(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name, kind in SETS.items():
        data = f"dict(type='{kind}Dataset', serialize_data=False)"
        (tmp_path / f"{name}.py").write_text(f"val_dataloader = dict(dataset={data})")


def record_of(name="run"):
    return read_record(f"{name}/record.json")


def shift(*names):
    return dict(eval_data=[f"{name}.py" for name in names])


def run_test(toy, checkpoint, *names, **changes):
    """Evaluate as ``vfm-ss test CONFIG CHECKPOINT --eval-data`` does."""
    cfg = toy("tests", **changes).cfg
    cfg.eval_data, cfg.load_from = shift(*names)["eval_data"], str(checkpoint)

    def run(cfg, mode, ended):
        runner = Runner.from_cfg(Config(dict(cfg.items(), experiment_name="test")))
        ended(runner, getattr(runner, mode)())

    evaluate_checkpoint(cfg, run, str(checkpoint))


def stock_score(toy, checkpoint, kind):
    """Return mmengine's own test of a checkpoint on one set."""
    cfg = toy("stock", load_from=checkpoint).cfg
    test = dict(
        test_dataloader=dict(
            cfg.val_dataloader, dataset=dict(type=f"{kind}Dataset", serialize_data=False)
        ),
        test_evaluator=cfg.val_evaluator,
        test_cfg=dict(type="TestLoop"),
        experiment_name="stock",
    )
    alone = {k: v for k, v in cfg.items() if k not in ("default_hooks",)}
    return Runner.from_cfg(Config(alone | test)).test()["mIoU"]


def weights(path):
    return torch.load(path, weights_only=False)["state_dict"]


def test_each_set_has_a_score_of_its_own_and_training_stays(toy):
    toy("alone").train()
    toy(**shift("night", "fog")).train()
    record, alone = record_of(), record_of("alone")
    assert record.history == alone.history
    assert record.config_hash == alone.config_hash, "an evaluation more is no other training"
    for key, value in weights("run/iter_6.pth").items():
        assert value.equal(weights("alone/iter_6.pth")[key])
    assert alone.evaluations is None
    assert list(record.evaluations) == ["night", "fog"]
    found = {name: record.evaluations[name]["miou"] for name in ("night", "fog")}
    assert found["night"] == stock_score(toy, "run/iter_6.pth", "Night")
    assert found["fog"] == stock_score(toy, "run/iter_6.pth", "Fog")
    assert len({record.miou, *found.values()}) == 3
    for scores in record.evaluations.values():
        assert [step for step, _ in scores["history"]] == [3, 6]
        assert scores["history"][-1][1] == scores["miou"]


def test_each_is_a_setting_of_its_own_in_the_ranking(toy):
    toy(**shift("night")).train()
    (own, night), skipped = collect(["run"])
    assert not skipped
    record = record_of()
    assert own.setting.endswith("toy")
    assert night.setting.endswith("toy2night")
    assert (own.miou, night.miou) == (record.miou, record.evaluations["night"]["miou"])
    # Trained alike and validated on the set itself, a run has the identity of the evaluation.
    data = dict(type="NightDataset", pipeline=[], test_mode=True)
    loader = dict(num_workers=0, dataset=data)
    sampler = dict(type="DefaultSampler", shuffle=False)
    collate = dict(type="pseudo_collate")
    toy("night", val_dataloader=dict(loader, sampler=sampler, collate_fn=collate)).train()
    assert record_of("night").config == night.record.config
    assert record_of("night").config_hash == night.record.config_hash
    assert night.record.config_hash != own.record.config_hash


def test_from_the_checkpoint_as_in_training(toy):
    toy("whole", **shift("night", "fog")).train()
    toy().train()
    run_test(toy, "run/iter_6.pth", "night", "fog")
    expected, found = record_of("whole").evaluations, record_of().evaluations
    assert found == {
        name: scores | {"history": scores["history"][-1:]} for name, scores in expected.items()
    }
    # An earlier model's score is history, and takes nothing from the last one's.
    run_test(toy, "run/iter_4.pth", "fog")
    fog = record_of().evaluations["fog"]
    assert (fog["miou"], fog["iou"]) == (expected["fog"]["miou"], expected["fog"]["iou"])
    assert [step for step, _ in fog["history"]] == [4, 6]
    assert fog["history"][0][1] == stock_score(toy, "run/iter_4.pth", "Fog")


def test_the_best_checkpoint_counts_at_its_step(toy):
    toy().train()
    record = record_of()
    step = next(at for at, miou in record.history if miou == record.best_miou)
    run_test(toy, f"run/best_mIoU_iter_{step}.pth", "night")
    night = record_of().on("night")
    assert night.history[0][0] == step
    assert night.miou == (night.best_miou if step == 6 else None)
    assert night.best_miou == stock_score(toy, f"run/best_mIoU_iter_{step}.pth", "Night")


@HOOKS.register_module(force=True)
class StopInEvaluation(Hook):
    """Die after the validation of step 3, before further sets have been evaluated."""

    priority = "LOW"

    def after_val_epoch(self, runner, metrics=None):
        raise KeyboardInterrupt


def test_a_stopped_run_ends_as_if_it_had_not_been(toy):
    options = shift("night", "fog")
    toy("whole", **options).train()
    with pytest.raises(KeyboardInterrupt):
        toy(custom_hooks=[dict(type="StopInEvaluation")], **options).train()
    toy(resume="auto", **options).train()
    assert record_of().evaluations == record_of("whole").evaluations
    assert record_of().history == record_of("whole").history


@DATASETS.register_module(force=True)
class SignallingDataset(_Set):
    """Its fourth point asks the run to stop, once."""

    asked = False

    def prepare_data(self, idx):
        if idx == 3 and not SignallingDataset.asked:
            SignallingDataset.asked = True
            os.kill(os.getpid(), signal.SIGTERM)
        return super().prepare_data(idx)


def test_a_signal_ends_an_evaluation_and_a_resume_makes_it_again(toy, tmp_path):
    (tmp_path / "asking.py").write_text(
        "val_dataloader = dict(dataset=dict(type='SignallingDataset'))"
    )
    SignallingDataset.asked = True
    toy("whole", **shift("night", "asking")).train()
    SignallingDataset.asked = False
    with pytest.raises(SystemExit) as stopped:
        toy(**shift("night", "asking")).train()
    assert stopped.value.code == 128 + signal.SIGTERM
    assert (tmp_path / "run" / "iter_3.pth").exists(), "no step is lost"
    toy(resume="auto", **shift("night", "asking")).train()
    assert record_of().evaluations == record_of("whole").evaluations
    assert record_of().history == record_of("whole").history


def test_a_resume_takes_up_scores_and_their_history(toy):
    toy("whole", steps=9, **shift("night")).train()
    toy(steps=9, **shift("night")).train()
    shutil.copy("run/iter_8.pth", "kept.pth")
    (record := record_of()) and shutil.rmtree("run")
    toy(steps=9, resume=True, load_from="kept.pth", **shift("night")).train()
    assert record_of().evaluations == record.evaluations == record_of("whole").evaluations


def test_a_finished_run_that_is_resumed_with_one_set_more_has_it(toy):
    toy().train()
    history = record_of().history
    toy(resume="auto", **shift("night")).train()
    record = record_of()
    assert record.history == history
    assert record.status == "finished"
    assert record.evaluations["night"]["miou"] == stock_score(toy, "run/iter_6.pth", "Night")


def test_scores_of_an_earlier_model_are_never_those_of_a_later_one(toy):
    toy(**shift("night")).train()
    old = record_of().evaluations["night"]
    toy(resume="auto", steps=9, checkpoint=dict(same_config=False)).train()
    record = record_of()
    assert record.step == 9
    assert record.evaluations["night"]["miou"] is None
    assert record.evaluations["night"]["history"] == old["history"]
    runs, skipped = collect(["run"])
    assert [run.miou for run in runs] == [record.miou]
    assert ["evaluation on night" in one.reason for one in skipped] == [True]


REFUSED = {
    "other": "class 1 is 'c', the run's 'b'",
    "more": "class 2 is 'c', the run's missing",
    "swapped": "classes in another order; state order=['a', 'b']",
    "toy": "called 'toy', as another set that the run is evaluated on",
    "nowhere": "the data file nowhere.py does not exist",
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_compared_is_refused_before_training(toy, name):
    with pytest.raises((ValueError, FileNotFoundError)) as caught:
        toy(**shift("night", name)).train()
    assert REFUSED[name] in str(caught.value)
    assert "\n" not in str(caught.value)
    with pytest.raises((ValueError, FileNotFoundError)) as again:
        run_test(toy, "nowhere/iter_6.pth", "night", name)
    assert str(again.value) == str(caught.value)


@pytest.mark.parametrize(
    ("stated", "text"),
    [
        (["bdd"], "'bdd' is neither one of acdc, ade20k, bdd100k, cityscapes, voc2012 nor"),
        (["night.py", "night.py"], "names 'night.py' twice"),
        ([3], "eval_data is [3]; expected a list"),
        ("cityscapes", "data/cityscapes"),
    ],
)
def test_names(toy, stated, text):
    with pytest.raises((ValueError, FileNotFoundError)) as caught:
        toy(eval_data=stated).train()
    assert text in str(caught.value)


class TestTheRecordBesideTheCheckpoint:
    def refused(self, toy, checkpoint, text, error=ValueError, **changes):
        before = record_of()
        with pytest.raises(error, match=text):
            run_test(toy, checkpoint, "night", **changes)
        assert record_of() == before

    def test_another_configuration(self, toy):
        toy().train()
        self.refused(toy, "run/iter_6.pth", "train_cfg.max_iters was 6, is 9", steps=9)

    def test_another_seed_or_run(self, toy):
        toy().train()
        toy("second", randomness=dict(seed=1)).train()
        shutil.copy("second/iter_6.pth", "run/copied.pth")
        self.refused(toy, "run/copied.pth", "is not of the run that saved run/copied.pth")

    def test_a_run_in_training(self, toy):
        toy().train()
        lock = RunLock("run", RUN_LOCK)
        lock.acquire()
        self.refused(toy, "run/iter_6.pth", "run is being trained by process")
        lock.release()

    def test_without_a_record_the_log_has_the_score(self, toy, capsys):
        toy().train()
        shutil.copy("run/iter_6.pth", "alone.pth")
        run_test(toy, "alone.pth", "night")
        assert "the result is in this log only" in " ".join(capsys.readouterr().out.split())

    def test_images_that_the_run_was_trained_on(self, toy, monkeypatch):
        toy().train()
        points = [dict(x=1.0, img_path="3.jpg"), dict(x=2.0, img_path="another.jpg")]
        monkeypatch.setattr(NightDataset, "load_data_list", lambda _: points)
        run_test(toy, "run/iter_6.pth", "night")
        (remark,) = record_of().remarks
        assert remark.startswith("1 images of the evaluation on night are training images, too")


def test_scores_by_hand():
    one = with_score({}, "night", {"a": 1}, 3, 30.0, {"x": 30.0})
    two = with_score(one, "night", {"a": 1}, 6, 60.0, {"x": 60.0})
    assert at_step(two, 6) == {
        "night": dict(miou=60.0, iou={"x": 60.0}, history=[[3, 30.0], [6, 60.0]], config={"a": 1})
    }
    assert at_step(two, 3)["night"]["history"] == [[3, 30.0]]
    assert at_step(two, 3)["night"]["iou"] is None
    assert at_step(two, 9)["night"]["miou"] is None
    assert at_step(one, 2) is None
    # Another set of the same name takes its place, and none of its numbers.
    other = with_score(two, "night", {"a": 2}, 9, 9.0, None)
    assert at_step(other, 9)["night"]["history"] == [[9, 9.0]]
    assert joined(one, two) == joined(two, two) == two
    assert joined(two, other) == other
