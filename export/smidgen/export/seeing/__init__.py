"""Seeing: what will hurt on a target, where quantization hurt, and the model card."""
