"""ONNX -> an engine of TensorRT or TensorRT-RTX, with the graph that it was built from beside it.

The library is passed in. Networks are strongly typed and TF32 is off: float32 is multiplied as
float32, and any other precision is what the graph says. Layers can be told apart afterwards.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, final

from exporters import tensorrt_network
from exporters.base import Description, Exported, StoredTensor, TensorReader
from exporters.onnx_file import external_files, read_precision
from exporters.tensorrt_network import Library, Parsed, parse
from toolkit.core.artifact import Artifact
from toolkit.core.engines import DTYPES, ENGINE, GRAPH, WHOLE, EngineRecord
from toolkit.core.errors import IntegrityError, SourceError, UsageError
from toolkit.core.files import digest_file, write_atomically
from toolkit.core.specs import Dim, TensorSpec

BATCHES = (1, 8, 64)


def _nothing(config: Any) -> None:
    pass


@dataclass(frozen=True, kw_only=True)
class Order:
    """What an engine is wanted for: GPUs of these compute capabilities, `gpu` being the one that it
    is built on, and the least, the usual and the largest batch.

    `prepare` has the builder's configuration before the engine is built, `keep` after it.
    """

    compute_capabilities: tuple[int, ...]
    batches: tuple[int, ...] | None
    gpu: str | None = None
    prepare: Callable[[Any], None] = _nothing
    keep: Callable[[Any], None] = _nothing


def write_engine(library: Library, source: Artifact, directory: Path, order: Order) -> Exported:
    """Writes the engine, the graph that it was built from, and the record of both.

    The engine takes batches from the least to the largest; every other axis has to be fixed. Raises
    SourceError, with TensorRT's words, for what it builds none of.
    """
    parsed = parse(library, source.path)
    _require_signature(parsed, source)
    batches = _batches(parsed, source, order.batches)
    _copy(source, directory)
    write_atomically(directory / ENGINE, _built(parsed, order, batches))
    names = (ENGINE, GRAPH, *external_files(source.path))
    EngineRecord(
        library=library.target,
        version=library.trt.__version__,
        compute_capabilities=order.compute_capabilities,
        gpu=order.gpu,
        batches=batches,
        tf32=False,
        files={name: digest_file(directory / name) for name in names},
    ).save(directory)
    options = {
        "exporter": library.target,
        library.trt.__name__: library.trt.__version__,
        "compute_capabilities": list(order.compute_capabilities),
        "batches": batches,
    }
    return Exported(entry=ENGINE, precision=read_precision(source.path), options=options)


class EngineTensors(TensorReader):
    """What the network has that an engine was built from: it is parsed again, from the graph that
    was kept, once that and the engine are known to be the two that were written together."""

    library: ClassVar[Library]

    @final
    def stored_tensors(self, path: Path) -> Sequence[StoredTensor]:
        return tensorrt_network.stored_tensors(parse(self.library, graph_of(path)))

    @final
    def operators(self, path: Path) -> Mapping[str, int]:
        return tensorrt_network.operators(parse(self.library, graph_of(path)))

    @final
    def describe(self, path: Path) -> Description:
        raise SourceError(
            f"{path} is an engine of TensorRT: neither its weights nor what it takes and gives can "
            "be read without the GPU that it is for.",
            hint="Give the directory that `toolkit export` wrote, or the ONNX file that the engine "
            "was built from.",
        )


def graph_of(path: Path) -> Path:
    """The graph beside an engine, if the engine was built from it. Raises SourceError."""
    try:
        written = EngineRecord.load(path.parent).files
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
        tensor = tensors.get(spec.name)
        found = "not there" if tensor is None else DTYPES.get(tensor.dtype.name)
        if found != spec.dtype:
            raise SourceError(
                f"{parsed.library} parsed {source.path} into a network in which {spec.name!r} is "
                f"{found}, expected {spec.dtype}.",
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


def _built(parsed: Parsed, order: Order, batches: Sequence[int] | None) -> bytes:
    """The engine. Raises SourceError, with what the library said, where it builds none."""
    library, builder = parsed.library, parsed.builder
    trt = library.trt
    config = builder.create_builder_config()
    config.clear_flag(trt.BuilderFlag.TF32)
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
    if batches is not None:
        config.add_optimization_profile(profile_of(parsed, batches))
    order.prepare(config)
    library.log.take()
    engine = builder.build_serialized_network(parsed.network, config)
    if engine is None:
        raise SourceError(
            f"{library} built no engine of {parsed.path} for compute capabilities "
            f"{', '.join(map(str, order.compute_capabilities))}: {library.log.take()}.",
            hint="The message names what it does not take; choose another compute capability, or "
            "another target.",
        )
    order.keep(config)
    return bytes(engine)


def profile_of(parsed: Parsed, batches: Sequence[int]) -> Any:
    """The shapes of the inputs at the least, the usual and the largest batch."""
    profile = parsed.builder.create_optimization_profile()
    for tensor in parsed.inputs():
        shape = tuple(tensor.shape)
        if -1 in shape:
            profile.set_shape(tensor.name, *((batch, *shape[1:]) for batch in batches))
    return profile
