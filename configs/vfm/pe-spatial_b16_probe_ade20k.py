_base_ = "../_base_/settings/probe.py"

model = dict(backbone=dict(type="PESpatial"))
