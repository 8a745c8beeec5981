_base_ = "./tiny-sam_t8_linear_demoscenes.py"

model = dict(backbone=dict(frozen=True))
