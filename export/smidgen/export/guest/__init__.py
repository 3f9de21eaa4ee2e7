"""tf_keras as the guest room of tensorflow-model-optimization: copy in, work there, copy back."""
