_base_ = "../_base_/settings/large.py"

model = dict(backbone=dict(type="SigLIP2"))
