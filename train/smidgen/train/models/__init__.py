"""Networks to start from: the table (``backbones``), ``build``, heads, blocks, and their weights.

Light to import; so are ``backbones``, ``facts``, ``weights_file``, ``imagenet`` and
``torch_pickle``. The other modules import Keras.
"""
