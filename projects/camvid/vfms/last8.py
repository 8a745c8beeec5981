"""DINOv2 ViT-S/14 with the last eight of its twelve blocks re-initialised, by weights.py."""

backbone = dict(type="DINOv2", arch="small", pretrained="weights/last8.safetensors")
