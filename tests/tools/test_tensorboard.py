"""The line of docs/after_training.md that logs to TensorBoard."""

from pathlib import Path

import pytest

from vfm_ss.engine import launch


def test_losses_and_validations_are_in_tensorboard(project, monkeypatch):
    events = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    monkeypatch.chdir(project)
    monkeypatch.setattr("mmengine.runner.runner.collect_env", dict)
    options = {"visualizer.vis_backends.0.type": "TensorboardVisBackend"}
    assert "visualizer.vis_backends.0.type=TensorboardVisBackend" in (
        Path(__file__).parents[2] / "docs" / "after_training.md"
    ).read_text(encoding="utf-8")
    launch.train("tiny.py", options, work_dir="run")
    (file,) = Path("run").rglob("events.out.tfevents*")
    found = events.EventAccumulator(str(file.parent)).Reload()
    assert [event.step for event in found.Scalars("mIoU")] == [2, 4]
    assert len(found.Scalars("loss")) == 4
