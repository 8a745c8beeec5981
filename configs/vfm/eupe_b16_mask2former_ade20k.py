_base_ = "../_base_/settings/mask2former.py"

model = dict(backbone=dict(type="EUPE"))
