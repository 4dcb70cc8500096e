"""ONNX -> engine of TensorRT or TensorRT-RTX, stored with the graph that it was built from.

The library is passed in. Networks are strongly typed and TF32 is off: float32 is multiplied in
float32, and the graph determines any other precision. An engine keeps the details of its layers, so
that a profile can tell them apart.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, final

from exporters.base import Description, Exported, StoredTensor, TensorReader
from exporters.onnx.reader import external_files, read_precision
from exporters.tensorrt import network as parsed_network
from exporters.tensorrt.network import Library, Parsed, parse
from toolkit.core.artifact import Artifact
from toolkit.core.engines import DTYPES, ENGINE, GRAPH, WHOLE, EngineRecord
from toolkit.core.errors import IntegrityError, SourceError, UsageError, unknown_name
from toolkit.core.files import digest_file, write_atomically
from toolkit.core.specs import Dim, TensorSpec

BATCHES = (1, 8, 64)
Shapes = tuple[tuple[int, ...], ...]  # of one input: the smallest, the usual and the largest


def _nothing(config: Any) -> None:
    pass


@dataclass(frozen=True, kw_only=True)
class BuildRequest:
    """Parameters of the build of an engine.

    `compute_capabilities` are those of the GPUs that the engine is for, `gpu` is the name of the
    GPU that builds it, None if none is needed. `batches` are the smallest, the usual and the
    largest batch, `profiles` such shapes of inputs by name. `prepare` is called with the builder's
    configuration before the build, `keep` after it.
    """

    compute_capabilities: tuple[int, ...]
    batches: tuple[int, ...] | None
    profiles: Mapping[str, Shapes]
    gpu: str | None = None
    prepare: Callable[[Any], None] = _nothing
    keep: Callable[[Any], None] = _nothing


def write_engine(
    library: Library, source: Artifact, directory: Path, request: BuildRequest
) -> Exported:
    """Write the engine, the graph that it was built from, and the record of both.

    The engine takes shapes from the smallest to the largest: those of a profile, or those of the
    batches, with every other axis fixed. Raises SourceError, with TensorRT's message, if the engine
    cannot be built, and UsageError for a profile or batches that do not fit the model.
    """
    parsed = parse(library, source.path)
    _require_signature(parsed, source)
    shapes = _shapes(parsed, source, request)
    batches = _batches(source, shapes)
    _copy(source, directory)
    write_atomically(directory / ENGINE, _built(parsed, request, shapes))
    names = (ENGINE, GRAPH, *external_files(source.path))
    EngineRecord(
        library=library.target,
        version=library.trt.__version__,
        compute_capabilities=request.compute_capabilities,
        gpu=request.gpu,
        batches=batches,
        tf32=False,
        files={name: digest_file(directory / name) for name in names},
    ).save(directory)
    options = {
        "exporter": library.target,
        library.trt.__name__: library.trt.__version__,
        "compute_capabilities": list(request.compute_capabilities),
        "batches": batches,
        "profiles": shapes,
    }
    return Exported(entry=ENGINE, precision=read_precision(source.path), options=options)


class EngineTensors(TensorReader):
    """Reader of the network that an engine was built from, parsed again from the stored graph.

    Digests must show that the graph and the engine are the two that were written together.
    """

    library: ClassVar[Library]

    @final
    def stored_tensors(self, path: Path) -> Sequence[StoredTensor]:
        return parsed_network.stored_tensors(parse(self.library, graph_of(path)))

    @final
    def operators(self, path: Path) -> Mapping[str, int]:
        return parsed_network.operators(parse(self.library, graph_of(path)))

    @final
    def describe(self, path: Path) -> Description:
        raise SourceError(
            f"{path} is an engine of TensorRT: neither its weights nor what it takes and gives can "
            "be read without the GPU that it is for.",
            hint="Give the directory that `toolkit export` wrote, or the ONNX file that the engine "
            "was built from.",
        )


def graph_of(path: Path) -> Path:
    """Return the graph beside an engine. Raises SourceError if the engine was not built from it."""
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
    """Copy the graph, and the files of its external data, to the engine's directory."""
    for name in external_files(source.path):
        (directory / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source.directory / name, directory / name)
    shutil.copyfile(source.path, directory / GRAPH)


def _require_signature(parsed: Parsed, source: Artifact) -> None:
    """Raise SourceError if an input or output of the network is missing or has another dtype.

    TensorRT turns float64 into float32.
    """
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


def _shapes(parsed: Parsed, source: Artifact, request: BuildRequest) -> dict[str, Shapes]:
    """Return the smallest, usual and largest shape of each input with a dynamic axis or a profile.

    Raises SourceError for a dynamic axis that is neither in a profile nor the batch, UsageError for
    a profile or batches that do not fit the model.
    """
    specs = {spec.name: spec for spec in source.signature.inputs}
    for name in request.profiles:
        if name not in specs:
            raise unknown_name("input", name, specs)
    found: dict[str, Shapes] = {}
    batches = request.batches or _batches(source, request.profiles) or BATCHES
    by_batch: set[Dim] = set()
    for tensor in parsed.inputs():
        spec, shape = specs[tensor.name], tuple(tensor.shape)
        if (profile := request.profiles.get(tensor.name)) is not None:
            _require_fit(spec, shape, profile)
            found[tensor.name] = profile
            continue
        free = [axis for axis, extent in enumerate(shape) if extent < 0]
        by_batch |= {spec.shape[axis] for axis in free}
        if free not in ([], [source.signature.batch_position(spec)]) or len(by_batch) > 1:
            raise _free_axes(source, spec)
        if free:
            found[tensor.name] = tuple(
                tuple(batch if extent < 0 else extent for extent in shape) for batch in batches
            )
    if request.batches is not None and not by_batch:
        raise UsageError(
            f"Got batches {', '.join(map(str, request.batches))}, but {source.path} takes "
            f"{source.signature.describe_inputs()}: "
            f"{'the profiles have them' if found else 'one batch only'}.",
            hint="Leave the batches out, or give a model whose first axis is dynamic.",
        )
    return found


def _batches(source: Artifact, shapes: Mapping[str, Shapes]) -> tuple[int, ...] | None:
    """Return the batches of the shapes, or None if no input has a dynamic batch."""
    for spec in source.signature.inputs:
        axis = source.signature.batch_position(spec)
        if spec.name in shapes and axis is not None and not isinstance(spec.shape[axis], int):
            return tuple(shape[axis] for shape in shapes[spec.name])
    return None


def _require_fit(spec: TensorSpec, shape: Sequence[int], profile: Shapes) -> None:
    """Raise UsageError unless a profile has the rank and the fixed extents of an input."""
    fits = all(
        len(given) == len(shape)
        and all(extent in (-1, wanted) for extent, wanted in zip(shape, given, strict=True))
        for given in profile
    )
    if not fits:
        told = ":".join("x".join(map(str, given)) for given in profile)
        raise UsageError(
            f"Got the profile {told} for {spec}, which it does not fit.",
            hint="Give every axis of the input; where the model fixes an extent, that extent.",
        )


def _free_axes(source: Artifact, spec: TensorSpec) -> SourceError:
    ranges = ["x".join(_extent_of(source, spec, k) for k in range(len(spec.shape)))] * 3
    return SourceError(
        f"{source.path} takes {source.signature.describe_inputs()}, and {spec.name!r} has another "
        "dynamic axis than the batch.",
        hint="Give its least, usual and largest shape, for example "
        f"--profile {spec.name}={':'.join(ranges)}",
    )


def _extent_of(source: Artifact, spec: TensorSpec, axis: int) -> str:
    extent = spec.shape[axis]
    if isinstance(extent, int):
        return str(extent)
    return "1" if axis == source.signature.batch_position(spec) else "16"


def _built(parsed: Parsed, request: BuildRequest, shapes: Mapping[str, Shapes]) -> bytes:
    """Build the engine. Raises SourceError, with the library's messages, if that fails."""
    library, builder = parsed.library, parsed.builder
    trt = library.trt
    config = builder.create_builder_config()
    config.clear_flag(trt.BuilderFlag.TF32)
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
    if shapes:
        config.add_optimization_profile(profile_of(parsed, shapes))
    request.prepare(config)
    library.log.take()
    engine = builder.build_serialized_network(parsed.network, config)
    if engine is None:
        raise SourceError(
            f"{library} built no engine of {parsed.path} for compute capabilities "
            f"{', '.join(map(str, request.compute_capabilities))}: {library.log.take()}.",
            hint="The message names what it does not take; choose another compute capability, or "
            "another target.",
        )
    request.keep(config)
    return bytes(engine)


def profile_of(parsed: Parsed, shapes: Mapping[str, Shapes]) -> Any:
    """Return an optimization profile with the smallest, usual and largest shape of each input."""
    profile = parsed.builder.create_optimization_profile()
    for name, given in shapes.items():
        profile.set_shape(name, *given)
    return profile
