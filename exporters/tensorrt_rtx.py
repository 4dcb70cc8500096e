"""ONNX -> an engine of TensorRT-RTX, built ahead of time, which takes no GPU."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, final

import tensorrt_rtx as trt

from exporters import ROUTES, tensorrt_network
from exporters.base import (
    Description,
    Exported,
    Exporter,
    ExportOptions,
    Route,
    StoredTensor,
    TensorReader,
)
from exporters.onnx_file import external_files, read_precision
from exporters.tensorrt_network import LOG, Parsed, parse
from toolkit.core.artifact import Artifact
from toolkit.core.documents import read_document, seal, write_document
from toolkit.core.errors import IntegrityError, SourceError, UsageError
from toolkit.core.files import digest_file, write_atomically
from toolkit.core.specs import Dim, TensorSpec

ENGINE = "model.engine"
GRAPH = "model.onnx"  # the very one that was parsed, since an engine does not give its weights back
PAIR = "engine.json"  # what the engine was built from, by digest
PAIR_SCHEMA = "toolkit.tensorrt-rtx/1"
CAPABILITIES = (80, 86, 89, 120)  # 75 multiplies no matrices in float32
KNOWN = tuple(sorted(int(c) for c in trt.ComputeCapability.__members__.values() if int(c) > 1))
BATCHES = (1, 8, 64)
DTYPES = {
    trt.DataType.FLOAT: "float32",
    trt.DataType.HALF: "float16",
    trt.DataType.BF16: "bfloat16",
    trt.DataType.INT8: "int8",
    trt.DataType.INT32: "int32",
    trt.DataType.INT64: "int64",
    trt.DataType.UINT8: "uint8",
    trt.DataType.BOOL: "bool",
}


@final
class TensorRtRtx(Exporter):
    """Built from a strongly typed network, TF32 off: float32 is multiplied as float32.

    The engine runs on GPUs of the compute capabilities that it was built for, in batches from the
    least to the largest. Every axis but the batch has to be fixed.
    """

    route: ClassVar[Route] = ROUTES["tensorrt-rtx"]

    def export(self, source: Artifact, directory: Path, options: ExportOptions) -> Exported:
        capabilities = _capabilities(options.compute_capabilities)
        parsed = parse(source.path)
        _require_signature(parsed, source)
        batches = _batches(parsed, source, options.batches)
        _copy(source, directory)
        write_atomically(directory / ENGINE, _built(parsed, capabilities, batches))
        settings = {
            "tensorrt_rtx": trt.__version__,
            "compute_capabilities": capabilities,
            "batches": batches,
        }
        names = (ENGINE, GRAPH, *external_files(source.path))
        pair = {name: digest_file(directory / name) for name in names}
        write_document(directory / PAIR, seal(PAIR_SCHEMA, {**settings, "files": pair}))
        return Exported(
            entry=ENGINE,
            precision=read_precision(source.path),
            options={"exporter": "tensorrt-rtx", **settings},
        )


@final
class TensorRtRtxTensors(TensorReader):
    """What the network has that the engine was built from: it is parsed again, from the graph that
    was kept, once that and the engine are known to be the two that were written together."""

    def stored_tensors(self, path: Path) -> Sequence[StoredTensor]:
        return tensorrt_network.stored_tensors(parse(_graph_of(path)))

    def operators(self, path: Path) -> Mapping[str, int]:
        return tensorrt_network.operators(parse(_graph_of(path)))

    def describe(self, path: Path) -> Description:
        raise SourceError(
            f"{path} is an engine of TensorRT: neither its weights nor what it takes and gives can "
            "be read without the GPU that it is for.",
            hint="Give the directory that `toolkit export` wrote, or the ONNX file that the engine "
            "was built from.",
        )


def _capabilities(asked: Sequence[int] | None) -> list[int]:
    found = sorted(set(CAPABILITIES if asked is None else asked))
    if unknown := [str(number) for number in found if number not in KNOWN]:
        raise UsageError(
            f"TensorRT-RTX {trt.__version__} builds nothing for compute capability "
            f"{', '.join(unknown)}.",
            hint=f"Known: {', '.join(map(str, KNOWN))} (89 is 8.9). `nvidia-smi "
            "--query-gpu=compute_cap --format=csv` says what a GPU has.",
        )
    return found


def _copy(source: Artifact, directory: Path) -> None:
    """The graph, and the files that hold its external data, beside the engine."""
    for name in external_files(source.path):
        (directory / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source.directory / name, directory / name)
    shutil.copyfile(source.path, directory / GRAPH)


def _require_signature(parsed: Parsed, source: Artifact) -> None:
    """Raises SourceError where the engine would take or give another dtype: float64 becomes
    float32."""
    specs = (*source.signature.inputs, *source.signature.outputs)
    tensors = {tensor.name: tensor for tensor in (*parsed.inputs(), *parsed.outputs())}
    for spec in specs:
        found = DTYPES.get(tensors[spec.name].dtype) if spec.name in tensors else "not there"
        if found != spec.dtype:
            raise SourceError(
                f"TensorRT-RTX {trt.__version__} parsed {source.path} into a network in which "
                f"{spec.name!r} is {found}, expected {spec.dtype}.",
                hint="Give a model with inputs and outputs of another dtype, such as float32.",
            )


def _batches(
    parsed: Parsed, source: Artifact, asked: Sequence[int] | None
) -> tuple[int, ...] | None:
    """The least, the usual and the largest, None where the model fixes its batch.

    Raises SourceError for any other axis of no fixed extent, UsageError for batches that were
    asked for in vain.
    """
    specs = {spec.name: spec for spec in source.signature.inputs}
    names: set[Dim] = set()
    for tensor in parsed.inputs():
        free = [axis for axis, extent in enumerate(tensor.shape) if extent < 0]
        names |= {specs[tensor.name].shape[axis] for axis in free}
        if free not in ([], [0]) or len(names) > 1:
            raise _free_axes(source, specs[tensor.name])
    if not names and asked is not None:
        raise UsageError(
            f"Got batches {', '.join(map(str, asked))}, but {source.path} takes "
            f"{source.signature.describe_inputs()}: one batch only.",
            hint="Leave the batches out, or give a model whose first axis is dynamic.",
        )
    return (*(asked or BATCHES),) if names else None


def _free_axes(source: Artifact, spec: TensorSpec) -> SourceError:
    return SourceError(
        f"{source.path} takes {source.signature.describe_inputs()}. An engine is built for a range "
        f"of batches, all on axis 0, and {spec.name!r} has another axis without an extent.",
        hint="Fix it in the ONNX graph: python -m onnxruntime.tools.make_dynamic_shape_fixed "
        "--dim_param NAME --dim_value N IN.onnx OUT.onnx; or export a model that has it fixed.",
    )


def _built(parsed: Parsed, capabilities: Sequence[int], batches: Sequence[int] | None) -> bytes:
    """The engine. Raises SourceError, with what TensorRT-RTX said, where it builds none."""
    config = _configured(parsed, capabilities)
    if batches is not None:
        config.add_optimization_profile(profile_of(parsed, batches))
    LOG.errors.clear()
    engine = parsed.builder.build_serialized_network(parsed.network, config)
    if engine is None:
        told = "; ".join(LOG.errors) or "it does not say why"
        raise SourceError(
            f"TensorRT-RTX {trt.__version__} built no engine of {parsed.path} for compute "
            f"capabilities {', '.join(map(str, capabilities))}: {told}.",
            hint="The message names what it does not take; choose another compute capability, or "
            "another target.",
        )
    return bytes(engine)


def _configured(parsed: Parsed, capabilities: Sequence[int]) -> Any:
    config = parsed.builder.create_builder_config()
    config.clear_flag(trt.BuilderFlag.TF32)
    config.num_compute_capabilities = len(capabilities)
    for place, number in enumerate(capabilities):
        config.set_compute_capability(trt.ComputeCapability(number), place)
    return config


def profile_of(parsed: Parsed, batches: Sequence[int]) -> Any:
    """The shapes of the inputs at the least, the usual and the largest batch."""
    profile = parsed.builder.create_optimization_profile()
    for tensor in parsed.inputs():
        shape = tuple(tensor.shape)
        if -1 in shape:
            profile.set_shape(tensor.name, *((batch, *shape[1:]) for batch in batches))
    return profile


def _graph_of(path: Path) -> Path:
    """The graph beside an engine, if the engine was built from it. Raises SourceError."""
    try:
        written = read_document(path.parent / PAIR, PAIR_SCHEMA)["files"]
        found = {name: digest_file(path.parent / name) for name in written}
    except (OSError, IntegrityError) as error:
        raise SourceError(f"{path} could not be read: {error}", hint=WHOLE) from error
    found |= {ENGINE: digest_file(path)}
    if found != written:
        altered = ", ".join(name for name in written if found[name] != written[name])
        raise SourceError(
            f"{altered} in {path.parent} is not what was written there: the engine and the graph "
            "do not belong to each other.",
            hint=WHOLE,
        )
    return path.parent / GRAPH


WHOLE = "Give a whole directory that `toolkit export --to tensorrt-rtx` wrote, or export again."
