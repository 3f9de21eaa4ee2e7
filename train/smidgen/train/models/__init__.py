"""Networks to start from: the table (``backbones``), builders, and readers of their weights.

Light to import: Keras is imported by ``efficientnet_lite``, ``weights`` and ``pretrained`` only.
"""
