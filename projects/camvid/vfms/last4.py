"""DINOv2 ViT-S/14 with the last four of its twelve blocks re-initialised, by weights.py."""

backbone = dict(type="DINOv2", arch="small", pretrained="weights/last4.safetensors")
