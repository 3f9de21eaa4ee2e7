"""smidgen's own int8 post-training quantizer: the converter makes the graph, this sets numbers."""
