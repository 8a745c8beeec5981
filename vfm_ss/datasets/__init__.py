from .demo_scenes_dataset import DemoScenesDataset

__all__ = ["DemoScenesDataset"]
