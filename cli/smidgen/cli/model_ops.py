"""What a model file computes: its operators, counted by name."""

from __future__ import annotations

from collections import Counter
from typing import Any

from smidgen.runtime.bundle import Bundle
from smidgen.runtime.errors import EngineFailed


def op_counts(bundle: Bundle) -> dict[str, int]:
    """Operator name to how often it occurs, most frequent first, then by name.

    Reads the file's graph with ``ai-edge-litert``'s schema or with ``onnx``; nothing is run.

    Raises:
        ModuleNotFoundError: the package that reads the format is not installed.
        EngineFailed: the graph cannot be read.
    """
    reader = _tflite_ops if bundle.manifest.model_format == "tflite" else _onnx_ops
    try:
        counts = reader(bundle.data)
    except ModuleNotFoundError:
        raise
    except Exception as error:
        raise EngineFailed(
            f"{bundle.path}: the graph cannot be read ({error}); export the model again"
        ) from error
    return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))


def _tflite_ops(data: bytes) -> Counter[str]:
    from ai_edge_litert import schema_py_generated as schema

    names = {
        value: name
        for name, value in vars(schema.BuiltinOperator).items()
        if isinstance(value, int)
    }
    model = schema.Model.GetRootAs(data, 0)
    codes = [model.OperatorCodes(i) for i in range(model.OperatorCodesLength())]
    counts: Counter[str] = Counter()
    for index in range(model.SubgraphsLength()):
        graph = model.Subgraphs(index)
        for position in range(graph.OperatorsLength()):
            counts[_tflite_name(codes[graph.Operators(position).OpcodeIndex()], names)] += 1
    return counts


def _tflite_name(code: Any, names: dict[int, str]) -> str:
    """Old files keep the code in one byte, new ones in four: the larger of both counts."""
    if code.CustomCode():
        return str(code.CustomCode().decode("utf-8", errors="replace"))
    number = max(code.BuiltinCode(), code.DeprecatedBuiltinCode())
    return names.get(number, f"operator {number}")


def _onnx_ops(data: bytes) -> Counter[str]:
    import onnx

    return _onnx_graph_ops(onnx.load_model_from_string(data).graph)


def _onnx_graph_ops(graph: Any) -> Counter[str]:
    """The nodes of a graph and of the graphs inside its nodes (If, Loop)."""
    counts: Counter[str] = Counter()
    for node in graph.node:
        counts[f"{node.domain}.{node.op_type}" if node.domain else node.op_type] += 1
        for attribute in node.attribute:
            for inner in (attribute.g, *attribute.graphs):
                counts.update(_onnx_graph_ops(inner))
    return counts
