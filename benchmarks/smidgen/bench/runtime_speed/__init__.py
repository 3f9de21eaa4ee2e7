"""How fast the runtime is: decoders, streams, and others beside it."""
