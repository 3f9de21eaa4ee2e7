"""Numbers, pictures and logs about a Run.

- numbers: ``evaluation`` (the dataclasses), ``metrics`` (pure functions of arrays)
- pictures: ``curves``, ``confusion``, ``calibration``, ``classes``, ``mistakes``, ``bars``; all on
  a ``canvas`` of matplotlib without a display
- logs: ``step_log`` (``steps.jsonl``), ``predictions`` (``predictions.csv``), ``sink`` (for
  TensorBoard)
- ``report`` writes what there is to see of a trained network

Light to import: a module that draws imports matplotlib, nothing here imports Keras.
"""
