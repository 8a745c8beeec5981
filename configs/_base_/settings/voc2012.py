"""The default setting on another dataset: PASCAL VOC 2012, 20k steps."""

_base_ = [
    "../models/linear.py",
    "../datasets/voc2012.py",
    "../schedules/schedule_20k.py",
    "../default_runtime.py",
]

model = dict(
    backbone=dict(img_size={{_base_.crop_size}}),
    decode_head=dict(num_classes={{_base_.num_classes}}),
)
