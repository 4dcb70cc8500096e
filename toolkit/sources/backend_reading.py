"""Commands of the files worker that only read model files.

Each takes a message and returns a JSON reply; `Files` has a method of the same name.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from exporters import READERS
from exporters.base import StoredTensor
from exporters.proof.weight_parity import compare, could_be_a_weight
from toolkit.core.artifact import PROGRAM, Artifact, Format
from toolkit.core.codec import decode, encode
from toolkit.core.documents import Json
from toolkit.core.dtypes import is_floating
from toolkit.core.import_isolation import toolkit_imports
from toolkit.measuring.workers.wire import MESSAGE


def describe(message: Json) -> Json:
    found = READERS.create(message["format"]).describe(Path(message["path"]))
    return {
        **vars(found),
        "signature": encode(found.signature),
        "directory": str(found.directory),
        "files": list(found.files),
    }


def inventory(message: Json) -> Json:
    source = decode(message["source"], Artifact, MESSAGE)
    arrays = [tensor.array for tensor in _weights(source, _stored(source))]
    return {
        "operators": dict(READERS.create(source.format).operators(source.path)),
        "tensors": len(arrays),
        "parameters": sum(array.size for array in arrays),
        "stored_bytes": sum(array.nbytes for array in arrays),
    }


def weight_parity(message: Json) -> Json:
    source, path = decode(message["source"], Artifact, MESSAGE), Path(message["path"])
    other = READERS.create(message["format"]).stored_tensors(path)
    stored = _stored(source)
    weights = {t.name: t.array for t in _weights(source, stored)}
    scales = [tensor.array for tensor in stored if tensor.scaling]
    parity = compare(weights, other, scales)
    if not parity.passed and (folds := READERS.create(source.format).folds(source.path)):
        parity = compare(weights, other, scales, folds)
    return parity.to_json()


def unread_weights(message: Json) -> Json:
    unread = _unread(_of_program(decode(message["source"], Artifact, MESSAGE)))
    return {"names": [tensor.name for tensor in unread]}


def count_work(message: Json) -> Json:
    with toolkit_imports():
        from exporters.analysis.operation_counts import count_work

        work = count_work(Path(message["path"]), message["shapes"])
    return dict(encode(work))


def matrix_operations(message: Json) -> Json:
    source, shapes = decode(message["source"], Artifact, MESSAGE), message["shapes"]
    if source.format is Format.ONNX:
        with toolkit_imports():
            from exporters.analysis.operation_counts import count_work

        return {"operations": count_work(source.path, shapes).matrix_operations}
    if source.format is Format.TORCH_EXPORT or PROGRAM in source.files:
        with toolkit_imports():
            from exporters.torch_program import matrix_operations

        return {"operations": matrix_operations(source, shapes)}
    return {"operations": None}


def input_ranges(message: Json) -> Json:
    with toolkit_imports():
        from exporters.onnx.ranges import input_ranges

        return {"ranges": input_ranges(Path(message["path"]))}


def wrong_extents(message: Json) -> Json:
    with toolkit_imports():
        from exporters.onnx.reader import wrong_extents

        return {"remarks": wrong_extents(Path(message["path"]))}


def output_parts(message: Json) -> Json:
    with toolkit_imports():
        from exporters.onnx.reader import read_output_parts

        return {"parts": read_output_parts(Path(message["path"]))}


def weights_of(source: Artifact) -> Mapping[str, np.ndarray]:
    """Return the weights of a model by name.

    Those of a checkpoint are the tensors that its model reads, and the constants of its program
    that could be weights. Those of any other format are the tensors that are read and could be
    weights.
    """
    return {tensor.name: tensor.array for tensor in _weights(source, _stored(source))}


def _stored(source: Artifact) -> list[StoredTensor]:
    return list(READERS.create(source.format).stored_tensors(source.path))


def _weights(source: Artifact, stored: list[StoredTensor]) -> list[StoredTensor]:
    if source.format is not Format.CHECKPOINT:
        return [tensor for tensor in stored if tensor.readers and could_be_a_weight(tensor)]
    program = _of_program(source)
    unread = {tensor.name for tensor in _unread(program)}
    names = {tensor.name for tensor in stored}
    # Not all buffers of a module are in its state_dict.
    constants = [
        tensor
        for tensor in program
        if tensor.name not in names and tensor.readers and could_be_a_weight(tensor)
    ]
    return [*(tensor for tensor in stored if tensor.name not in unread), *constants]


def _unread(program: list[StoredTensor]) -> list[StoredTensor]:
    """Return the tensors that the program of a user model has but does not read."""
    return [
        tensor
        for tensor in program
        if not tensor.readers and (could_be_a_weight(tensor) or is_floating(tensor.array.dtype))
    ]


def _of_program(source: Artifact) -> list[StoredTensor]:
    """Return the tensors of a checkpoint's program; the values of its weights are not in it."""
    if PROGRAM not in source.files:
        return []
    with toolkit_imports():
        from exporters.torch_program import tensors_of
        from models.torch.program import program_of

    program = program_of(source)
    assert program is not None
    return list(tensors_of(program))
