"""20k optimiser steps: the schedule of PASCAL VOC, Cityscapes and GTA V."""

_base_ = "./schedule_40k.py"

train_cfg = dict(max_iters=20000, val_interval=2000)
default_hooks = dict(checkpoint=dict(interval=2000))
