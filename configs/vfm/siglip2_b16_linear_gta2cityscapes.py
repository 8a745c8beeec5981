_base_ = "../_base_/settings/gta2cityscapes.py"

model = dict(backbone=dict(type="SigLIP2"))
