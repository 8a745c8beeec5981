"""The linear probe of DINOv3's evaluation, on a frozen VFM; docs/fidelity.md says what it is.

Its optimiser and augmentation are in ../schedules/dinov3-probe.py.
"""

_base_ = "./linear.py"

# Windows lie 341 pixels apart at 512.
model = dict(
    backbone=dict(frozen=True),
    decode_head=dict(type="BatchNormLinearHead"),
    test_cfg=dict(stride=2 / 3),
)
