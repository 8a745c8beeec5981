"""What a trained run's record says of its identity, on a toy model."""

import json

from vfm_ss.files import sha256
from vfm_ss.protocol.identity import identity
from vfm_ss.protocol.records import read_record


def test_the_record_says_what_identifies_the_run(toy, tmp_path):
    runner = toy()
    before = identity(runner.cfg)
    runner.train()
    record = read_record(tmp_path / "run" / "record.json")
    assert record.schema == 2
    assert record.config == before, "the runner changed nothing that counts"
    assert record.config["optim_wrapper.optimizer.lr"] == record.lr == 0.05
    assert record.layer_decay == 1.0
    assert record.data == {"train_samples": 23, "fraction": 1.0, "subset_seed": None}
    # A toy says nothing of these: not known, which is not 0.
    assert (record.model_name, record.weights, record.crop_size, record.classes) == (None,) * 4


def test_seed_resume_micro_batch_and_logging_keep_the_identity(toy, tmp_path):
    toy().train()
    toy("other", micro_batch=8, workers=1, randomness=dict(seed=5), log_level="ERROR").train()
    toy("longer", steps=9).train()
    first, other, longer = (
        read_record(tmp_path / name / "record.json") for name in ("run", "other", "longer")
    )
    assert other.config_hash == first.config_hash != longer.config_hash
    assert first.seed != other.seed


def test_weights_that_a_run_begins_from_outlive_a_resume(toy, tmp_path):
    toy("first").train()
    start = tmp_path / "first" / "iter_6.pth"
    toy(load_from=start, steps=4, loop=dict()).train()
    expected = {"source": str(start)[-200:], "sha256": sha256([start])}
    assert json.loads((tmp_path / "run" / "record.json").read_text())["weights"] == expected
    (tmp_path / "run" / "iter_4.pth").unlink()
    (tmp_path / "run" / "record.json").unlink()
    toy(resume="auto", steps=4).train()
    assert read_record(tmp_path / "run" / "record.json").weights == expected
