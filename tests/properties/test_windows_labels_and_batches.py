"""Sliding windows, label maps and the effective batch, for all numbers."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from vfm_ss.datasets.transforms.labels import ILLEGAL, label_table, map_label
from vfm_ss.engine.batching import accumulation_steps, per_rank_batch
from vfm_ss.models.segmentors.sliding_window import axis_matrix, window_starts

every = settings(max_examples=500, deadline=None, derandomize=True)
lengths = st.integers(1, 5000)


@every
@given(lengths, lengths)
def test_windows_cover_every_pixel_evenly(length, window):
    assume(length >= window)
    starts = window_starts(length, window)
    assert len(starts) == math.ceil(length / window)
    assert starts[0] == 0
    assert starts[-1] + window == length
    steps = {b - a for a, b in itertools.pairwise(starts)}
    assert all(0 < step <= window for step in steps), "no pixel is left out"
    assert len(steps) <= 2
    assert max(steps, default=0) - min(steps, default=0) <= 1, "as even as whole pixels allow"


@every
@given(lengths, lengths, lengths)
def test_mmsegs_windows_cover_every_pixel(length, window, stride):
    assume(length >= window >= stride)
    starts = window_starts(length, window, stride)
    assert (starts[0], starts[-1] + window) == (0, length)
    assert all(0 <= b - a <= stride for a, b in itertools.pairwise(starts))


@every
@given(lengths, lengths)
def test_an_image_smaller_than_the_window_is_refused(length, more):
    with pytest.raises(ValueError, match=r"is smaller than the .*ResizeToCover"):
        window_starts(length, length + more)


@settings(max_examples=100, deadline=None, derandomize=True)
@given(st.integers(1, 12), st.integers(1, 4), st.integers(0, 40), st.integers(1, 60), st.booleans())
def test_merged_windows_are_averages(cells, scale, more, size, align_corners):
    """Rows sum to 1: constant logits stay what they are, whatever the sizes."""
    window = cells * scale
    length = window + more
    starts = window_starts(length, window)
    matrix = axis_matrix(starts, window, cells, length, size, align_corners)
    assert matrix.shape == (size, len(starts) * cells)
    assert (matrix >= 0).all()
    assert matrix.sum(1) == pytest.approx(1, rel=1e-7)


@st.composite
def label_rules(draw):
    rules = {"reduce_zero_label": draw(st.booleans())}
    if draw(st.booleans()):
        rules["num_classes"] = draw(st.integers(1, 200))
    if draw(st.booleans()):
        values = st.integers(0, rules.get("num_classes", ILLEGAL) - 1) | st.just(255)
        rules["label_map"] = draw(st.dictionaries(st.integers(0, 255), values, max_size=40))
    return rules


def mmsegs_rule(value, rules):
    """Mmseg's `LoadAnnotations` for one pixel, in its words: reduce, then map.

    But for one thing: what `reduce_zero_label` ignores stays ignored where the map names 255.
    """
    if rules["reduce_zero_label"]:
        if value == 0:
            return 255
        value = 255 if value == 255 else value - 1
    if value in rules.get("label_map", {}):
        return rules["label_map"][value]
    if value == 255:
        return 255
    if "label_map" in rules:
        return "illegal"
    return value if value < rules.get("num_classes", ILLEGAL) else "illegal"


@every
@given(label_rules(), npst.arrays(np.uint8, (3, 4)))
def test_labels_are_mapped_as_mmseg_maps_them_or_refused(rules, label):
    expected = [mmsegs_rule(int(value), rules) for value in label.flat]
    table = label_table(rules)
    if "illegal" in expected:
        with pytest.raises(ValueError, match=r"a\.png: label values .* are outside the classes"):
            map_label(label, table, "a.png")
    else:
        assert map_label(label, table, "a.png").flatten().tolist() == expected


numbers = st.integers(1, 256)


@every
@given(numbers, numbers, numbers)
def test_micro_batch_accumulation_and_processes_make_the_effective_batch(effective, world, micro):
    try:
        share = per_rank_batch(effective, world)
        steps = accumulation_steps(effective, micro, world, share)
    except ValueError as error:
        assert effective % world or effective // world % min(micro, effective // world)
        assert "use one of" in str(error)
    else:
        assert min(micro, share) * steps * world == effective


@every
@given(numbers, numbers, numbers)
def test_the_numbers_that_an_error_names_work(effective, world, micro):
    def named(error):
        return [int(n) for n in str(error).rpartition("[")[2].partition("]")[0].split(",")]

    try:
        share = per_rank_batch(effective, world)
    except ValueError as error:
        for n in named(error):
            assert per_rank_batch(effective, n) * n == effective
        return
    try:
        accumulation_steps(effective, micro, world, share)
    except ValueError as error:
        for n in named(error):
            assert accumulation_steps(effective, n, world, share) * n == share
