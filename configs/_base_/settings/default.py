"""The default setting: end to end, linear decoder, ViT-B, 16x16 patches, ADE20K, 40k steps."""

_base_ = [
    "../models/linear.py",
    "../datasets/ade20k.py",
    "../schedules/schedule_40k.py",
    "../default_runtime.py",
]

model = dict(
    backbone=dict(img_size={{_base_.crop_size}}),
    decode_head=dict(num_classes={{_base_.num_classes}}),
)
