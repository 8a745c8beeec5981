"""The network of DINOv2 ViT-S/14 with everything re-initialised, by weights.py."""

backbone = dict(type="DINOv2", arch="small", pretrained="weights/random.safetensors")
