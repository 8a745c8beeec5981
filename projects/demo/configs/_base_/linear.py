"""The demo: the default setting in miniature, with tiny backbones and random weights."""

_base_ = [
    "../../../../configs/_base_/models/linear.py",
    "./demoscenes.py",
    "../../../../configs/_base_/schedules/schedule_40k.py",
    "../../../../configs/_base_/default_runtime.py",
]

custom_imports = dict(imports=["vfm_ss", "demo_scenes_dataset"], allow_failed_imports=False)

model = dict(
    backbone=dict(_delete_=True, patch_size=8, img_size={{_base_.crop_size}}, pretrained=False),
    decode_head=dict(num_classes={{_base_.num_classes}}),
)

# The paper's rates, 1e-4 and a tenth of it for the encoder, fine-tune pretrained weights in 40k
# steps. Random ones have to get somewhere in a few hundred: a hundred times both.
optim_wrapper = dict(optimizer=dict(lr=1e-2))
train_cfg = dict(max_iters=120, val_interval=60, micro_batch=16)
default_hooks = dict(
    logger=dict(interval=10),
    checkpoint=dict(interval=60),
    record=dict(size="t"),
)
