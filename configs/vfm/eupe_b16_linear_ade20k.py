_base_ = "../_base_/settings/default.py"

model = dict(backbone=dict(type="EUPE"))
