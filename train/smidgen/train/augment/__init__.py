"""Named augmentation policies that run inside the training step, on the accelerator.

``margins`` (no Keras) says how large the training images are decoded; ``policies`` makes the Keras
layers of a policy; ``sheet`` draws what they do. The alterations themselves, all of them on
``(n, S, S, 3) float32`` RGB pixels 0..255 and different for every image: ``tone``, ``blur``,
``noise``, ``jpeg``, ``geometry``, ``randaugment``, ``erasing``; ``mixing`` blends pairs of images.
Importing this package is light: Keras is imported by the modules that compute with it.
"""
