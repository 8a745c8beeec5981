_base_ = "../_base_/settings/patch8.py"

model = dict(backbone=dict(type="LingBotVision"))
