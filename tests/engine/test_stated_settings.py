"""What a config or a flag states is done, or refused before training."""

import pytest
import torch
from mmengine.config import Config
from mmengine.model import BaseModel
from mmengine.registry import MODELS
from mmengine.structures import PixelData

from vfm_ss.engine import prepared_config
from vfm_ss.errors import UsageError
from vfm_ss.protocol.records import read_record


def config(batch_size=16, launcher="none", **train_cfg):
    return Config(
        dict(
            launcher=launcher,
            train_cfg=dict(type="OptimStepTrainLoop", **train_cfg),
            train_dataloader=dict(batch_size=batch_size),
            optim_wrapper=dict(optimizer=dict(type="AdamW")),
        )
    )


def test_no_workers_is_enough_to_say(tmp_path):
    path = tmp_path / "a.py"
    loader = "dict(num_workers=2, persistent_workers=True, prefetch_factor=4)"
    path.write_text(f"train_dataloader = val_dataloader = {loader}\n")
    cfg = prepared_config.load_config(str(path), {"train_dataloader.num_workers": 0})
    torch.utils.data.DataLoader([1], **cfg.train_dataloader)
    assert cfg.val_dataloader == dict(num_workers=2, persistent_workers=True, prefetch_factor=4)


@pytest.mark.parametrize("launcher", prepared_config.LAUNCHERS)
def test_a_launcher_that_did_not_start_the_process_is_named(launcher, tmp_path, monkeypatch):
    path = tmp_path / "a.py"
    path.touch()
    number = prepared_config.LAUNCHERS[launcher]
    monkeypatch.delenv(number, raising=False)
    with pytest.raises(UsageError, match=f"--launcher {launcher}, but {number} is not set"):
        prepared_config.load_config(str(path), launcher=launcher)
    monkeypatch.setenv(number, "0")
    assert prepared_config.load_config(str(path), launcher=launcher).launcher == launcher


class TestBatchSize:
    @pytest.mark.parametrize(
        ("stated", "effective", "processes", "share"),
        [
            (16, 16, 1, 16),
            (16, 16, 4, 4),  # the published configs, on four processes
            (4, 16, 4, 4),
            (16, 8, 1, 8),  # the published data set under another effective batch
            (32, 32, 2, 16),
        ],
    )
    def test_the_effective_batch_and_a_share_are_fine(
        self, stated, effective, processes, share, monkeypatch
    ):
        monkeypatch.setenv("WORLD_SIZE", str(processes))
        cfg = config(stated, "pytorch", effective_batch=effective)
        prepared_config.share_effective_batch(cfg)
        assert cfg.train_dataloader.batch_size == share

    def test_anything_else_is_refused_with_the_flags(self):
        told = r"batch_size=4 has no effect .*--micro-batch 4 .*train_cfg\.effective_batch=4"
        with pytest.raises(ValueError, match=told):
            prepared_config.share_effective_batch(config(4))

    def test_another_loop_keeps_its_own(self):
        cfg = config(4)
        cfg.train_cfg.type = "IterBasedTrainLoop"
        prepared_config.share_effective_batch(cfg)
        assert cfg.train_dataloader.batch_size == 4


class TestAmp:
    @pytest.mark.parametrize(
        ("device", "kind", "expected"),
        [
            ("cuda", None, dict(type="MixedPrecisionOptimWrapper", precision="mixed")),
            ("cuda", "OptimWrapper", dict(type="MixedPrecisionOptimWrapper", precision="mixed")),
            ("cuda", "AmpOptimWrapper", dict(type="AmpOptimWrapper")),
            ("cuda", "MixedPrecisionOptimWrapper", dict(precision="mixed")),
            ("cpu", "OptimWrapper", dict(type="MixedPrecisionOptimWrapper", precision="mixed")),
            ("cpu", "MixedPrecisionOptimWrapper", dict(precision="mixed")),
        ],
    )
    def test_it_means_mixed_precision_for_every_wrapper(self, device, kind, expected, monkeypatch):
        monkeypatch.setattr(prepared_config, "get_device", lambda: device)
        cfg = config()
        if kind:
            cfg.optim_wrapper.type = kind
        prepared_config.force_mixed_precision(cfg)
        kept = {"type": kind, "optimizer": {"type": "AdamW"}}
        assert cfg.optim_wrapper.to_dict() == {**kept, **expected}

    def test_others_are_refused(self, monkeypatch):
        monkeypatch.setattr(prepared_config, "get_device", lambda: "cpu")
        cfg = config()
        cfg.optim_wrapper.type = "ApexOptimWrapper"
        with pytest.raises(ValueError, match=r"--amp goes with .* on a CPU, not with ApexOptim"):
            prepared_config.force_mixed_precision(cfg)


def test_accumulation_is_the_loop_s(toy):
    wrapper = dict(optimizer=dict(type="AdamW", lr=0.05), accumulative_counts=4)
    runner = toy(optim_wrapper=wrapper)
    with pytest.raises(ValueError, match=r"accumulative_counts=4 has no effect .*--micro-batch"):
        runner.train()


@pytest.mark.parametrize(
    ("stated", "told"),
    [
        (dict(clip_grad=dict(max_norm=0)), r"clip_grad\.max_norm=0 makes every gradient 0"),
        (dict(clip_grad=dict(type="value", clip_value=0.0)), r"clip_value=0 makes"),
        (dict(paramwise_cfg=dict(layer_decay=0.5)), r"ignores .*layer_decay; set .*'Grouped"),
    ],
)
def test_what_would_train_otherwise_than_stated_is_refused(stated, told, toy):
    wrapper = dict(optimizer=dict(type="AdamW", lr=0.05), **stated)
    with pytest.raises(ValueError, match=told):
        toy(optim_wrapper=wrapper).train()


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        (dict(param_scheduler=dict(type="FullPolyLR", power=0.9, end=6)),
         r"FullPolyLR counts epochs .* set by_epoch=False"),
        (dict(param_scheduler=dict(type="PolyLR", end=4, eta_min=0, by_epoch=False)),
         r"PolyLR ends at step 4 with a rate of 0, .*max_iters=6 .* set its end=6"),
        (dict(checkpoint=dict(by_epoch=True)), r"checkpoint counts epochs .* by_epoch=False"),
        (dict(loop=dict(val_begin=7)), r"val_begin=7 is after the last step 6"),
    ],
)  # fmt: skip
def test_what_would_do_nothing_is_refused_before_the_first_step(changes, told, toy, tmp_path):
    with pytest.raises(ValueError, match=told):
        toy(**changes).train()
    assert not list((tmp_path / "run").glob("iter_*"))


@pytest.mark.parametrize(
    ("classes", "told"),
    [(("b", "a"), r"class 0 is 'b' in .*, but 'a' in training"), (("a",), "1 classes, but 2")],
)
def test_a_model_is_not_evaluated_on_classes_of_other_numbers(classes, told, toy, tmp_path):
    dataset = dict(type="ToyDataset", test_mode=True, metainfo=dict(classes=classes))
    loader = dict(
        num_workers=0, dataset=dataset, sampler=dict(type="DefaultSampler", shuffle=False),
        collate_fn=dict(type="pseudo_collate"),
    )  # fmt: skip
    with pytest.raises(ValueError, match=told):
        toy(val_dataloader=loader).train()
    assert not list((tmp_path / "run").glob("iter_*"))
    toy(steps=2).train()
    tested = dict(test_dataloader=loader, test_cfg=dict(type="TestLoop"))
    runner = toy(
        "test", load_from=tmp_path / "run/iter_2.pth", test_evaluator=dict(type="ToyScore"),
        **tested,
    )  # fmt: skip
    with pytest.raises(ValueError, match=told):
        runner.test()


def test_classes_that_are_written_otherwise_are_a_remark(toy, tmp_path):
    dataset = dict(type="ToyDataset", test_mode=True, metainfo=dict(classes=("A", "b")))
    loader = dict(
        num_workers=0, dataset=dataset, sampler=dict(type="DefaultSampler", shuffle=False),
        collate_fn=dict(type="pseudo_collate"),
    )  # fmt: skip
    toy(steps=2, val_dataloader=loader).train()
    (told,) = read_record(tmp_path / "run" / "record.json").remarks
    assert told.startswith("class 0 is 'A' in val_dataloader.dataset, but 'a' in training")


def test_a_schedule_that_ends_after_training_is_said(toy, tmp_path):
    toy(steps=2, param_scheduler=dict(type="PolyLR", end=9, eta_min=0, by_epoch=False)).train()
    log = "".join(path.read_text() for path in (tmp_path / "run").glob("*/*.log"))
    assert "PolyLR ends at step 9, training at step 2: the rate stops above 0" in log


@MODELS.register_module(force=True)
class ToySegmentor(BaseModel):
    """The toy with mmseg's head on a map of one cell."""

    def __init__(self, loss):
        super().__init__()
        self.backbone = torch.nn.Linear(3, 8)
        self.decode_head = MODELS.build(
            dict(type="mmseg.FCNHead", in_channels=8, channels=8, num_classes=2, num_convs=0,
                 concat_input=False, kernel_size=1, norm_cfg=None, loss_decode=loss)
        )  # fmt: skip

    def forward(self, inputs, data_samples=None, mode="loss"):
        x = self.backbone(torch.stack(inputs))[..., None, None]
        if mode != "loss":
            return list(self.decode_head((x,)))
        for sample, image in zip(data_samples, inputs, strict=True):
            label = (image.sum() > 1).long().view(1, 1, 1)
            sample.gt_sem_seg = PixelData(data=label)
        losses = self.decode_head.loss((x,), data_samples, None)
        return dict(loss=losses["loss_ce"])


class TestMixing:
    def model(self, mixing=True):
        loss = dict(type="mmseg.CrossEntropyLoss", avg_non_ignore=mixing)
        return dict(type="ToySegmentor", loss=loss)

    def test_auto_is_the_whole_share_and_the_record_says_so(self, toy, tmp_path):
        toy(model=self.model(), micro_batch="auto").train()
        record = read_record(tmp_path / "run" / "record.json")
        assert record.micro_batch == 16
        (line,) = record.remarks
        assert line.startswith("decode_head's loss (CrossEntropyLoss): images of a micro-batch act")
        assert "which is 16 of the 16 images of a process (all of them" in line

    def test_a_stated_one_is_kept_and_said_and_cannot_change_on_resume(self, toy, tmp_path):
        toy(model=self.model(), steps=4).train()
        record = read_record(tmp_path / "run" / "record.json")
        assert record.micro_batch == 4
        assert record.remarks[0].endswith("which is 4 of the 16 images of a process")
        (tmp_path / "run" / "iter_4.pth").unlink()
        with pytest.raises(ValueError, match=r"train_cfg\.micro_batch was 4, is 8"):
            toy(model=self.model(), steps=4, micro_batch=8, resume=True).train()

    def test_a_loss_of_each_image_leaves_auto_free(self, toy, tmp_path):
        toy(model=self.model(mixing=False), steps=2).train()
        record = read_record(tmp_path / "run" / "record.json")
        assert (record.micro_batch, record.remarks) == (4, [])
