"""Benchmark vision foundation models for semantic segmentation on MMSegmentation."""
