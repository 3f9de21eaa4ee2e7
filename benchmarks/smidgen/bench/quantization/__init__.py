"""int8 files of smidgen and of other quantizers beside the float model, on the same images."""
