"""SavedModel -> LiteRT, a .tflite file (a FlatBuffer)."""

from __future__ import annotations

import struct
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, final

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from exporters import ROUTES
from exporters.base import (
    Description,
    Exported,
    Exporter,
    ExportOptions,
    Quantisation,
    Route,
    StoredTensor,
    TensorReader,
)
from toolkit.core.artifact import Artifact
from toolkit.core.errors import SourceError
from toolkit.core.import_isolation import toolkit_imports
from toolkit.core.specs import Dim, Feeds, Signature, TensorSpec

ENTRY = "model.tflite"
IDENTIFIER = b"TFL3"
BATCH = "batch"
T = schema.TensorType
DTYPES = {
    T.FLOAT32: "float32", T.FLOAT16: "float16", T.FLOAT64: "float64", T.INT8: "int8",
    T.UINT8: "uint8", T.INT16: "int16", T.UINT16: "uint16", T.INT32: "int32", T.UINT32: "uint32",
    T.INT64: "int64", T.UINT64: "uint64", T.BOOL: "bool",
}  # fmt: skip
OPERATORS = {code: name for name, code in vars(schema.BuiltinOperator).items() if name[0] != "_"}


@final
class LiteRt(Exporter):
    """Exporter to LiteRT. float32 stays float32, and the converter folds batch norms."""

    route: ClassVar[Route] = ROUTES["litert"]

    def export(self, source: Artifact, directory: Path, options: ExportOptions) -> Exported:
        return self._converted(source, directory, None)

    def quantise(self, source: Artifact, directory: Path, rows: Feeds) -> Exported:
        """Export as INT8 with floating-point inputs and outputs. Raises as `export`.

        The range of each tensor is measured on `rows`, arrays by input name with the samples on
        axis 0.
        """
        return self._converted(source, directory, rows)

    def _converted(self, source: Artifact, directory: Path, rows: Feeds | None) -> Exported:
        with toolkit_imports():
            import tensorflow as tf

            from models.keras.program import SERVING, explained
            from models.keras.saved_model_checks import check_saved_model
        source.verify()
        check_saved_model(source.path.parent)
        with explained(
            f"TensorFlow {tf.__version__} could not convert {source.path} to LiteRT",
            "The message names what it does not support; choose another target.",
        ):
            converter = tf.lite.TFLiteConverter.from_saved_model(
                str(source.path.parent), signature_keys=[SERVING]
            )
            if rows is not None:
                converter.optimizations = [tf.lite.Optimize.DEFAULT]
                converter.representative_dataset = lambda: _one_by_one(rows)
            try:
                content = converter.convert()
            except Exception as error:
                if "element_shape to be static" in str(error):
                    raise SourceError(
                        f"TensorFlow {tf.__version__} converts the recurrent layers of "
                        f"{source.path} to LiteRT only with a fixed batch.",
                        hint="Give the batch where the model is made: keras.Input(shape, "
                        "batch_size=1).",
                    ) from error
                raise
        (directory / ENTRY).write_bytes(content)
        return Exported(
            entry=ENTRY,
            precision=_precision(_read(directory / ENTRY)),
            options={"exporter": "tf.lite", "tensorflow": tf.__version__},
        )


def _one_by_one(rows: Feeds) -> Iterator[Feeds]:
    for place in range(min(map(len, rows.values()))):
        yield {name: array[place : place + 1] for name, array in rows.items()}


@final
class LiteRtTensors(TensorReader):
    def stored_tensors(self, path: Path) -> Sequence[StoredTensor]:
        """Return every tensor that has data, in all subgraphs, and the operators that read it."""
        model = _read(path)
        return [
            stored
            for number, graph in enumerate(model.subgraphs)
            for stored in _constants(model, graph, number, path)
        ]

    def operators(self, path: Path) -> Mapping[str, int]:
        model = _read(path)
        return Counter(_operator(model, node) for g in model.subgraphs for node in g.operators)

    def describe(self, path: Path) -> Description:
        model = _read(path)
        graph = model.subgraphs[0]
        names = _signature_names(model)
        return Description(
            signature=Signature(
                inputs=tuple(_spec(graph, place, names, path) for place in graph.inputs),
                outputs=tuple(_spec(graph, place, names, path) for place in graph.outputs),
            ),
            precision=_precision(model),
            directory=path.parent,
            entry=path.name,
            files=[path.name],
        )


def _read(path: Path) -> Any:
    """Return the file as FlatBuffer objects. Raises SourceError if it is not a LiteRT model."""
    hint = "Give a .tflite file, or a directory that `toolkit export --to litert` wrote."
    try:
        content = path.read_bytes()
        if content[4:8] != IDENTIFIER:
            raise ValueError("it has not the mark of a LiteRT model")
        model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(content, 0))
        if not model.subgraphs:
            raise ValueError("it holds no graph")
    except (
        OSError, ValueError, TypeError, IndexError, AttributeError, MemoryError, OverflowError,
        RecursionError, struct.error,
    ) as error:  # fmt: skip
        raise SourceError(f"{path} is not a LiteRT model: {error}.", hint=hint) from error
    return model


def _constants(model: Any, graph: Any, number: int, path: Path) -> list[StoredTensor]:
    readers: dict[int, list[str]] = defaultdict(list)
    for place, node in enumerate(graph.operators):
        kind = _operator(model, node)
        for index in [] if node.inputs is None else node.inputs:
            readers[int(index)].append(f"{number}.{place} ({kind})")
    return [
        StoredTensor(
            name=f"{_text(tensor.name)}.{index}" if repeated else _text(tensor.name),
            array=_array(tensor, model.buffers[tensor.buffer].data, path),
            readers=tuple(readers.get(index, ())),
            quantisation=_quantisation(tensor),
        )
        for index, tensor, repeated in _numbered(graph.tensors)
        if tensor.buffer < len(model.buffers)
        and model.buffers[tensor.buffer].data is not None
        and len(model.buffers[tensor.buffer].data)
    ]


def _numbered(tensors: Sequence[Any]) -> list[tuple[int, Any, bool]]:
    """Return each tensor with its index, and whether another tensor has its name."""
    count = Counter(_text(tensor.name) for tensor in tensors)
    return [(i, tensor, count[_text(tensor.name)] > 1) for i, tensor in enumerate(tensors)]


def _array(tensor: Any, data: np.ndarray, path: Path) -> np.ndarray:
    """Return the values of a tensor; packed numbers and strings as bytes.

    Raises SourceError if the size of the shape differs from that of the stored bytes, or if the
    positions of a sparse tensor are not valid.
    """
    shape = [] if tensor.shape is None else [int(extent) for extent in tensor.shape]
    content = bytes(bytearray(data))
    if tensor.type not in DTYPES:
        return np.frombuffer(content, np.uint8)
    dtype = np.dtype(DTYPES[tensor.type]).newbyteorder("<")
    if tensor.sparsity is not None:
        try:
            values = np.frombuffer(content, dtype).astype(dtype.newbyteorder("="))
            return _dense(tensor.sparsity, shape, values)
        except (AttributeError, IndexError, MemoryError, TypeError, ValueError) as error:
            raise SourceError(
                f"{path} has a sparse tensor {_text(tensor.name)!r} that cannot be read: {error}.",
                hint="The file is damaged, or was never valid.",
            ) from error
    if min(shape, default=0) < 0 or int(np.prod(shape, dtype=object)) * dtype.itemsize != len(
        content
    ):
        raise SourceError(
            f"{path} has a tensor {_text(tensor.name)!r} of shape {shape} of {dtype.name}, and "
            f"{len(content)} bytes.",
            hint="The file is damaged, or was never valid.",
        )
    return np.frombuffer(content, dtype).reshape(shape).astype(dtype.newbyteorder("="))


def _dense(sparsity: Any, shape: Sequence[int], values: np.ndarray) -> np.ndarray:
    """Return a sparse tensor as a dense array of this shape.

    The dimensions are traversed in `traversalOrder`; those beyond the rank are blocks of the
    dimensions in `blockMap`. A dense dimension has all indices, a sparse one those of
    `arrayIndices` between two entries of `arraySegments`, as in compressed sparse rows. The format
    is that of SparsityParameters in LiteRT's schema.
    """
    positions = np.zeros(1, np.int64)  # of each entry in the dimensions so far
    indices: dict[int, np.ndarray] = {}  # of each entry, by dimension
    sizes: dict[int, int] = {}  # of the dense dimensions
    for dimension, level in zip(sparsity.traversalOrder, sparsity.dimMetadata, strict=True):
        if level.format == schema.DimensionType.DENSE:
            counts = np.full(len(positions), level.denseSize)
            index = np.tile(np.arange(level.denseSize), len(positions))
            following = np.repeat(positions, counts) * level.denseSize + index
            sizes[int(dimension)] = level.denseSize
        else:
            segments = np.asarray(level.arraySegments.values, np.int64)
            counts = segments[positions + 1] - segments[positions]
            ends = np.cumsum(counts)
            within = np.arange(counts.sum()) - np.repeat(ends - counts, counts)
            following = np.repeat(segments[positions], counts) + within
            index = np.asarray(level.arrayIndices.values, np.int64)[following]
            if min(counts.min(initial=0), index.min(initial=0)) < 0:
                raise ValueError("an index is negative")
        indices = {key: np.repeat(known, counts) for key, known in indices.items()}
        indices[int(dimension)] = index
        positions = following
    for block, dimension in enumerate([] if sparsity.blockMap is None else sparsity.blockMap):
        inner = len(shape) + block
        indices[int(dimension)] = indices[int(dimension)] * sizes[inner] + indices[inner]
    dense = np.zeros(shape, values.dtype)
    dense[tuple(indices[axis] for axis in range(len(shape)))] = values[positions]
    return dense


def _quantisation(tensor: Any) -> Quantisation | None:
    found = tensor.quantization
    if found is None or found.scale is None or not len(found.scale):
        return None
    zero = found.zeroPoint if found.zeroPoint is not None else np.zeros(1, np.int64)
    return Quantisation(
        scale=np.asarray(found.scale), zero_point=np.asarray(zero), axis=found.quantizedDimension
    )


def _operator(model: Any, node: Any) -> str:
    code = model.operatorCodes[node.opcodeIndex]
    if code.customCode:
        return _text(code.customCode)
    builtin = max(code.builtinCode, code.deprecatedBuiltinCode)
    return OPERATORS.get(builtin, str(builtin))


def _signature_names(model: Any) -> dict[int, str]:
    """Return the names of tensors in the first signature of subgraph 0, by tensor index."""
    for found in model.signatureDefs or ():
        if found.subgraphIndex == 0:
            return {m.tensorIndex: _text(m.name) for m in (*found.inputs, *found.outputs)}
    return {}


def _spec(graph: Any, place: int, names: Mapping[int, str], path: Path) -> TensorSpec:
    tensor = graph.tensors[place]
    if tensor.type not in DTYPES:
        raise SourceError(
            f"{path} has an input or output {_text(tensor.name)!r} of type {tensor.type}, which "
            "NumPy has not.",
            hint="Only models whose inputs and outputs are numbers can be run.",
        )
    given = tensor.shapeSignature if tensor.shapeSignature is not None else tensor.shape
    dims: list[Dim] = []
    for axis, extent in enumerate([] if given is None else given):
        dims.append(int(extent) if extent >= 0 else BATCH if axis == 0 else None)
    return TensorSpec(
        name=names.get(place, _text(tensor.name)), dtype=DTYPES[tensor.type], shape=tuple(dims)
    )


def _precision(model: Any) -> str:
    """Return "int8" if the file stores 8-bit tensors, otherwise its floating-point dtype.

    Tensors of at most 8 bytes are ignored. "mixed" stands for several floating-point dtypes, "none"
    for no such tensor.
    """
    kinds = {
        DTYPES.get(tensor.type, "none")
        for graph in model.subgraphs
        for tensor in graph.tensors
        if model.buffers[tensor.buffer].data is not None
        and len(model.buffers[tensor.buffer].data) > 8
    }
    if kinds & {"int8", "uint8"}:
        return "int8"
    floats = {kind for kind in kinds if kind.startswith("float")}
    return floats.pop() if len(floats) == 1 else "mixed" if floats else "none"


def _text(name: bytes | str | None) -> str:
    return name.decode(errors="replace") if isinstance(name, bytes) else name or ""
