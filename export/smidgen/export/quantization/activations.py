"""Running a TFLite file so that the values between its operators are seen, image by image.

The tensors asked for become outputs of a copy of the file. So they are computed by the kernels
that run on devices (XNNPACK), several times as fast as with ``preserve_all_tensors``, which needs
an interpreter without delegates.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from smidgen.export.formats.tflite_file import read_model, write_model
from smidgen.export.tensorflow_backend import captured_output

Values = dict[int, NDArray[Any]]


class Probe:
    """An interpreter for a file that shows the values of some of its tensors.

    Args:
        model: a ``ModelT``; it is not changed, but its buffers are shared until this returns.
        tensors: indices of tensors that operators compute.
        threads: of the interpreter.
    """

    def __init__(self, model: Any, tensors: Sequence[int], threads: int = 2) -> None:
        from ai_edge_litert.interpreter import Interpreter

        wanted = list(dict.fromkeys(int(index) for index in tensors))
        data = write_model(_showing(model, wanted))
        with captured_output():  # it announces its delegate on stderr
            self._interpreter = Interpreter(model_content=data, num_threads=threads)
            self._interpreter.allocate_tensors()
        self._entry = self._interpreter.get_input_details()[0]["index"]
        ends = self._interpreter.get_output_details()
        self._ends = {index: end["index"] for index, end in zip(wanted, ends)}

    def __call__(self, image: NDArray[Any]) -> Values:
        """The tensors' values for an image, by index. ``image``: the file's input, with batch 1."""
        self._interpreter.set_tensor(self._entry, image)
        self._interpreter.invoke()
        return {index: self._interpreter.get_tensor(end) for index, end in self._ends.items()}


def observed(
    model: Any, tensors: Sequence[int], images: Iterable[NDArray[Any]], threads: int = 2
) -> Iterator[Values]:
    """The values of ``tensors`` for each of ``images``, one image in memory at a time."""
    probe = Probe(model, tensors, threads)
    for image in images:
        yield probe(image)


def _showing(model: Any, tensors: Sequence[int]) -> Any:
    """A shallow copy with other outputs, and without the operators that these do not need."""
    twin, graph = copy.copy(model), copy.copy(model.subgraphs[0])
    graph.outputs = np.asarray(tensors, np.int32)
    last = max(
        number
        for number, operator in enumerate(graph.operators)
        if set(map(int, operator.outputs)) & set(tensors)
    )
    graph.operators = graph.operators[: last + 1]
    twin.subgraphs, twin.signatureDefs, twin.buffers = [graph], None, list(model.buffers)
    return twin


__all__ = ["Probe", "Values", "observed", "read_model"]
