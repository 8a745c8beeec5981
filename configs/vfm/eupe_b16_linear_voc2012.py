_base_ = "../_base_/settings/voc2012.py"

model = dict(backbone=dict(type="EUPE"))
