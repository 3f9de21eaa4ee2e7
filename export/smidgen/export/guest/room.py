"""The one place that imports tf_keras and tensorflow-model-optimization (tfmot).

Both are slow to import, talk on the way, and set an environment variable that makes programs
started later take tf_keras for ``tf.keras``; it is put back.
"""

from __future__ import annotations

import os
import warnings
from typing import Any

from smidgen.export.errors import BackendError
from smidgen.export.tensorflow_backend import captured_output

_LEGACY = "TF_USE_LEGACY_KERAS"


def _import() -> tuple[Any, Any]:
    before = os.environ.get(_LEGACY)
    try:
        with captured_output(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            import tensorflow_model_optimization
            import tf_keras
    except ImportError as error:
        raise BackendError(
            "sparsity, clustering and quantization-aware training need tf_keras and "
            f"tensorflow-model-optimization, which are not installed here ({error}): install both, "
            "or leave these tables out of the recipe"
        ) from error
    finally:
        os.environ.pop(_LEGACY, None)
        if before is not None:
            os.environ[_LEGACY] = before
    return tf_keras, tensorflow_model_optimization


tf_keras, tfmot = _import()

__all__ = ["tf_keras", "tfmot"]
