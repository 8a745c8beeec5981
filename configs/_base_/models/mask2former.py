"""A VFM with single-scale Mask2Former as the decoder."""

_base_ = "./linear.py"

model = dict(decode_head=dict(type="SingleScaleMask2FormerHead"))
