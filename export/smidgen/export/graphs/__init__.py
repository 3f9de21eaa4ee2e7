"""The network as Keras graphs that are converted."""
