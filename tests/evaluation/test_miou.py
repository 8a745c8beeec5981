import logging

import numpy as np
import pytest
import torch
import torch.multiprocessing as mp
from mmengine.logging import MMLogger
from mmseg.evaluation import IoUMetric
from torchmetrics.classification import MulticlassJaccardIndex

from vfm_ss.evaluation.miou import MeanIoUMetric, class_counts, count_pixels

CLASSES = 7


def batch(pred, label, name="a/label.png"):
    return [
        {
            "pred_sem_seg": {"data": pred[None]},
            "gt_sem_seg": {"data": label[None]},
            "seg_map_path": name,
        }
    ]


def images(count, classes=CLASSES, seed=0, absent=()):
    generator = torch.Generator().manual_seed(seed)
    for _ in range(count):
        size = torch.randint(5, 40, (2,), generator=generator).tolist()
        label = torch.randint(0, classes, size, generator=generator)
        right = torch.rand(size, generator=generator) < 0.6
        pred = torch.where(right, label, torch.randint(0, classes, size, generator=generator))
        for klass in absent:
            pred[pred == klass] = (klass + 1) % classes
            label[label == klass] = (klass + 1) % classes
        label[torch.rand(size, generator=generator) < 0.2] = 255
        yield pred, label


def evaluate(metric, pairs, classes=CLASSES):
    metric.dataset_meta = {"classes": [f"class {k}" for k in range(classes)]}
    count = 0
    for pred, label in pairs:
        metric.process({}, batch(pred, label))
        count += 1
    return metric.evaluate(count)


@pytest.mark.parametrize("classes", [2, 19, 150])
def test_equals_mmseg_s_metric(classes):
    ours = evaluate(MeanIoUMetric(), images(30, classes), classes)
    theirs = evaluate(IoUMetric(), images(30, classes), classes)
    assert ours.keys() == theirs.keys()
    for key, value in theirs.items():
        assert ours[key] == pytest.approx(value, abs=0.0051)  # mmseg rounds to two places


def test_equals_torchmetrics_per_class():
    metric = MeanIoUMetric()
    evaluate(metric, images(30))
    jaccard = MulticlassJaccardIndex(CLASSES, ignore_index=255, average=None)
    for pred, label in images(30):
        jaccard.update(pred[None], label[None])
    ours = list(metric.per_class["IoU"].values())
    np.testing.assert_allclose(ours, 100 * jaccard.compute().numpy(), rtol=1e-5)


def test_absent_class_is_left_out_as_in_mmseg():
    metric = MeanIoUMetric()
    ours = evaluate(metric, images(5, absent=(3,)))
    theirs = evaluate(IoUMetric(), images(5, absent=(3,)))
    assert np.isnan(metric.per_class["IoU"]["class 3"])
    assert ours["mIoU"] == pytest.approx(theirs["mIoU"], abs=0.0051)


def test_counts_are_exact_where_float32_is_not():
    pixels = 2**24 + 3
    pred = torch.zeros(pixels, dtype=torch.uint8)
    counts = class_counts(pred, torch.zeros_like(pred), 2, 255)
    assert counts.tolist() == [[pixels, 0]] * 3


@pytest.mark.parametrize("wrong", [CLASSES, 254, -1])
def test_label_outside_the_classes_names_the_file(wrong):
    label = torch.zeros(4, 4, dtype=torch.int64)
    label[1, 2] = wrong
    metric = MeanIoUMetric()
    metric.dataset_meta = {"classes": range(CLASSES)}
    with pytest.raises(ValueError, match=rf"a/label.png: label values \[{wrong}\] .*0 to 6.*255"):
        metric.process({}, batch(torch.zeros_like(label), label))


def test_prediction_outside_the_classes_is_an_error():
    pred = torch.full((4, 4), CLASSES)
    metric = MeanIoUMetric()
    metric.dataset_meta = {"classes": range(CLASSES)}
    with pytest.raises(ValueError, match=r"a/label\.png: class 7 was predicted, but there are 7"):
        metric.process({}, batch(pred, torch.zeros_like(pred)))


def test_whole_numbers_as_floats_are_classes_and_others_are_an_error():
    pred, label = next(images(1, classes=2))
    expected = evaluate(IoUMetric(), [(pred.float(), label)], 2)
    found = evaluate(MeanIoUMetric(), [(pred.float(), label)], 2)
    assert found["mIoU"] == pytest.approx(expected["mIoU"], abs=0.0051)
    metric = MeanIoUMetric()
    metric.dataset_meta = {"classes": range(2)}
    for wrong in (0.7, float("nan"), float("inf"), 2.0):
        with pytest.raises(ValueError, match=r"a/label\.png: class .* was predicted"):
            metric.process({}, batch(torch.full((4, 4), wrong), torch.zeros(4, 4).long()))


def test_size_mismatch_names_the_file():
    metric = MeanIoUMetric()
    metric.dataset_meta = {"classes": range(CLASSES)}
    pred, label = torch.zeros(4, 5, dtype=torch.int64), torch.zeros(5, 4, dtype=torch.int64)
    with pytest.raises(ValueError, match=r"a/label.png: .*\(4, 5\).*\(5, 4\)"):
        metric.process({}, batch(pred, label))


def test_another_ignore_index():
    pred, label = torch.tensor([[0, 1]]), torch.tensor([[0, 99]])
    result = evaluate(MeanIoUMetric(ignore_index=99), [(pred, label)])
    assert result["aAcc"] == 100


def _rank(rank, world, address, queue):
    torch.distributed.init_process_group("gloo", address, rank=rank, world_size=world)
    metric = MeanIoUMetric()
    metric.dataset_meta = {"classes": [f"class {k}" for k in range(CLASSES)]}
    pairs = list(images(5))
    pairs.append(pairs[0])  # 5 images over 2 ranks: the sampler repeats one
    for pred, label in pairs[rank::world]:
        metric.process({}, batch(pred, label))
    result = metric.evaluate(5)
    queue.put(result)
    torch.distributed.destroy_process_group()


def test_two_ranks_equal_one_without_counting_the_repeated_image(tmp_path):
    context = mp.get_context("fork")
    queue = context.Queue()
    address = f"file://{tmp_path}/store"
    ranks = [context.Process(target=_rank, args=(k, 2, address, queue)) for k in range(2)]
    for process in ranks:
        process.start()
    results = [queue.get(timeout=60) for _ in ranks]
    for process in ranks:
        process.join()
    expected = evaluate(MeanIoUMetric(), images(5))
    assert results == [pytest.approx(expected)] * 2


def test_counts_are_those_of_a_confusion_matrix_and_wrong_values_are_counted():
    generator = torch.Generator().manual_seed(0)
    pred, label = torch.randint(0, 7, (2, 40, 50), generator=generator)
    label[:5] = 255
    valid = label != 255
    matrix = torch.bincount(label[valid] * 7 + pred[valid], minlength=49).view(7, 7)
    expected = torch.stack([matrix.diagonal(), matrix.sum(0), matrix.sum(1)])
    assert torch.equal(count_pixels(pred, label, 7, 255)[:3], expected)
    label[9, 9], pred[8, 8] = 9, 7
    assert count_pixels(pred, label, 7, 255)[3].tolist() == [1, 1, 0, 0, 0, 0, 0]


def test_counts_that_wait_are_fetched_before_the_scores_and_name_the_file():
    metric = MeanIoUMetric()
    metric.dataset_meta = dict(classes=["a", "b"])
    label = torch.tensor([[0, 1], [1, 255]])
    for name, pred in {"x.png": label.clamp(max=1), "y.png": torch.zeros_like(label)}.items():
        metric._pending.append((name, count_pixels(pred, label, 2, 255)))
    scores = metric.evaluate(2)
    assert scores["aAcc"] == pytest.approx(100 * 4 / 6)
    assert not metric._pending
    metric._pending.append(("bad.png", count_pixels(label.clamp(max=1), label + 2, 2, 255)))
    with pytest.raises(ValueError, match=r"bad\.png: .* outside the 2 classes; fix the file"):
        metric.evaluate(1)


@pytest.mark.parametrize("absent", [(), (3,), (0, 6), tuple(range(1, CLASSES))])
def test_classes_that_are_left_out_of_the_mean_are_counted_and_named(caplog, absent):
    logger = MMLogger.get_current_instance()
    logger.addHandler(caplog.handler)
    metric = MeanIoUMetric()
    pairs = list(images(5))
    for pred, label in pairs:
        for klass in absent:
            pred[pred == klass] = 1 if 1 not in absent else 0
            label[label == klass] = 1 if 1 not in absent else 0
    try:
        with caplog.at_level(logging.WARNING):
            evaluate(metric, pairs)
    finally:
        logger.removeHandler(caplog.handler)
    assert [k for k, v in enumerate(metric.per_class["IoU"].values()) if np.isnan(v)] == [*absent]
    if not absent:
        assert caplog.text == ""
        return
    named = ", ".join(f"class {k}" for k in absent)
    assert f"mIoU is the mean of {CLASSES - len(absent)} of {CLASSES} classes" in caplog.text
    assert f"in neither labels nor predictions: {named}\n" in caplog.text


def test_classes_that_are_only_predicted_are_named(caplog):
    logger = MMLogger.get_current_instance()
    logger.addHandler(caplog.handler)
    try:
        with caplog.at_level(logging.WARNING):
            result = evaluate(
                MeanIoUMetric(), [(torch.tensor([[0, 1]]), torch.tensor([[0, 0]]))], 2
            )
    finally:
        logger.removeHandler(caplog.handler)
    assert result["mIoU"] == 25
    assert "false predictions count as IoU 0: class 1" in caplog.text


def test_some_images_without_a_label_are_refused():
    metric = MeanIoUMetric(format_only=None)
    metric.dataset_meta = dict(classes=("a", "b"))
    labelled = dict(
        pred_sem_seg=dict(data=torch.zeros(1, 2, 2)), gt_sem_seg=dict(data=torch.zeros(1, 2, 2))
    )
    metric.process({}, [labelled, dict(pred_sem_seg=labelled["pred_sem_seg"])])
    with pytest.raises(ValueError, match="1 of 2 images have no label"):
        metric.evaluate(2)
