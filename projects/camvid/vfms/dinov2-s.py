"""DINOv2 ViT-S/14 as it was published."""

backbone = dict(type="DINOv2", arch="small", pretrained="weights/dinov2-s.safetensors")
