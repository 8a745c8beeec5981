_base_ = "../_base_/settings/cityscapes.py"

model = dict(backbone=dict(type="TIPSv2"))
