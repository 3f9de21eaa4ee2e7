"""Model files: TFLite and ONNX, and the manifest inside them."""
