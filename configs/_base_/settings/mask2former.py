"""Mask2Former: the default setting with the single-scale Mask2Former decoder."""

_base_ = "./default.py"

# Its predictions are at full size: 4 windows of 150 classes at 512x512 are 0.6 GB.
model = dict(
    decode_head=dict(type="SingleScaleMask2FormerHead"),
    test_cfg=dict(window_batch=4),
)
