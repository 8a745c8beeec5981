_base_ = "./tiny-eva02_t8_linear_demoscenes.py"

model = dict(backbone=dict(frozen=True))
