"""A VFM with the single-scale Mask2Former decoder, end to end."""

_base_ = "./linear.py"

# Its predictions are at full size: 4 windows of 150 classes at 512x512 are 0.6 GB.
model = dict(
    decode_head=dict(type="SingleScaleMask2FormerHead"),
    test_cfg=dict(window_batch=4),
)
