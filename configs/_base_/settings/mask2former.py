"""Mask2Former: the default setting with the single-scale Mask2Former decoder."""

_base_ = [
    "../models/mask2former.py",
    "../datasets/ade20k.py",
    "../schedules/schedule_40k.py",
    "../default_runtime.py",
]

model = dict(
    backbone=dict(img_size={{_base_.crop_size}}),
    decode_head=dict(num_classes={{_base_.num_classes}}),
)
