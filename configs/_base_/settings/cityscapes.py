"""The default setting on another dataset: Cityscapes, 20k steps."""

_base_ = [
    "../models/linear.py",
    "../datasets/cityscapes.py",
    "../schedules/schedule_20k.py",
    "../default_runtime.py",
]

model = dict(
    backbone=dict(img_size={{_base_.crop_size}}),
    decode_head=dict(num_classes={{_base_.num_classes}}),
)
