"""ONNX Runtime on an NVIDIA GPU, with its providers for CUDA, TensorRT and TensorRT-RTX."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, ClassVar, final

import onnxruntime as ort

from runtimes.onnxruntime import libraries
from runtimes.onnxruntime import options as option_names
from runtimes.onnxruntime.device_session import DeviceSession, Target, read_axes
from runtimes.onnxruntime.options import GpuOptions
from runtimes.operator_trace import Node, precision_of
from runtimes.tensorrt import engine_cache
from runtimes.tensorrt.engine_cache import Shapes
from runtimes.torch.tf32 import forbid_in_libraries, precision_with
from toolkit.core import nvidia
from toolkit.core.artifact import Artifact, Format
from toolkit.core.documents import Json
from toolkit.core.errors import UnavailableError
from toolkit.core.session import Availability, Runtime, Session, SessionOptions

CUDA = "CUDAExecutionProvider"
TENSORRT = "TensorrtExecutionProvider"
NV_TENSORRT_RTX = "NvTensorRTRTXExecutionProvider"
ENGINES = frozenset({TENSORRT, NV_TENSORRT_RTX})

FOR_GPU = (
    "pip uninstall --yes onnxruntime; pip install onnxruntime-gpu "
    "(preferably in a separate environment: docs/gpu.md)."
)
FOR_CUDA = "pip install 'onnxruntime-gpu[cuda,cudnn]', which brings CUDA's libraries and cuDNN."
FOR_TENSORRT = (
    "This onnxruntime-gpu stands on TensorRT 10: pip install 'tensorrt>=10.13,<11' "
    f"'onnxruntime-gpu[cuda,cudnn]' {nvidia.INDEX}, with CUDA's libraries and cuDNN."
)
FOR_PLUGIN = "pip install 'onnxruntime>=1.24' onnxruntime-ep-nv-tensorrt-rtx"
FOR_PLUGIN_LIBRARIES = (
    "It needs an RTX GPU of Ampere or newer (compute capability 8.6 or more) and a driver for the "
    "CUDA that its package is built for."
)


@dataclass(frozen=True, kw_only=True)
class Kind:
    """GPU provider of ONNX Runtime, with its options and what it takes to use it.

    `options` are the names of the provider's options, and `ours` those of the toolkit's options.
    `fault` returns why the provider's libraries cannot be used, and `remedy` is the hint for it.
    `cached` returns the options that make the provider cache engines in a directory.
    """

    runtime: str
    provider: str
    options: frozenset[str]
    ours: frozenset[str]
    fault: Callable[[], str | None]
    remedy: str
    cached: Callable[[str], Mapping[str, str]] | None = None


KINDS = {
    kind.runtime: kind
    for kind in (
        Kind(
            runtime="onnxruntime-cuda",
            provider=CUDA,
            options=option_names.CUDA,
            ours=frozenset({"allow_cpu_nodes", "tf32"}),
            fault=libraries.cuda_fault,
            remedy=FOR_CUDA,
        ),
        Kind(
            runtime="onnxruntime-tensorrt",
            provider=TENSORRT,
            options=option_names.TENSORRT,
            ours=frozenset({"allow_cpu_nodes", "allow_cuda_nodes", "engine_cache", "tf32"}),
            fault=libraries.tensorrt_fault,
            remedy=FOR_TENSORRT,
            cached=lambda place: {
                "trt_engine_cache_enable": "1",
                "trt_engine_cache_path": place,
            },
        ),
        Kind(
            runtime="onnxruntime-nv-tensorrt-rtx",
            provider=NV_TENSORRT_RTX,
            options=option_names.NV_TENSORRT_RTX,
            ours=frozenset({"allow_cpu_nodes", "engine_cache", "tf32"}),
            fault=libraries.plugin_fault,
            remedy=FOR_PLUGIN_LIBRARIES,
            cached=lambda place: {"nv_runtime_cache_path": place},
        ),
    )
}


class OnGpu(Runtime):
    """Runtime for one of KINDS, chosen by its name."""

    accepts: ClassVar[frozenset[Format]] = frozenset({Format.ONNX})
    device: ClassVar[str] = "cuda"

    @final
    def probe(self) -> Availability:
        """Check for packages, then for a GPU, then for libraries; report the first one missing."""
        kind, version = KINDS[self.name], str(ort.__version__)
        packaged = _has_plugin if kind.provider == NV_TENSORRT_RTX else _has_provider
        if wrong := nvidia.conflict_of(kind.runtime, version) or packaged(kind):
            return wrong
        found = nvidia.available(version)
        if found.ok and (fault := kind.fault()):
            return Availability(
                ok=False,
                version=version,
                reason=f"{kind.provider} cannot be used: {fault}",
                hint=kind.remedy,
            )
        return found

    @final
    def open(self, artifact: Artifact, options: SessionOptions) -> Session:
        return _open(KINDS[self.name], self.probe(), artifact, options)


@final
class OnnxRuntimeCuda(OnGpu):
    name: ClassVar[str] = "onnxruntime-cuda"


@final
class OnnxRuntimeTensorRt(OnGpu):
    """TensorRT's provider, which builds an engine for new shapes in a slow first pass."""

    name: ClassVar[str] = "onnxruntime-tensorrt"


@final
class OnnxRuntimeNvTensorRtRtx(OnGpu):
    """TensorRT-RTX via its plugin for ONNX Runtime, with an engine for each shape."""

    name: ClassVar[str] = "onnxruntime-nv-tensorrt-rtx"


def _has_provider(kind: Kind) -> Availability | None:
    if kind.provider in ort.get_available_providers():
        return None
    return Availability(
        ok=False,
        version=ort.__version__,
        reason=f"this package of onnxruntime {ort.__version__} has no {kind.provider}",
        hint=FOR_GPU,
    )


def _has_plugin(kind: Kind) -> Availability | None:
    if libraries.plugin_version() is None:
        reason = "the package onnxruntime-ep-nv-tensorrt-rtx is not installed"
    elif not hasattr(ort, "get_ep_devices"):  # since 1.23
        reason = f"onnxruntime {ort.__version__} takes no providers from other packages"
    else:
        return None
    return Availability(ok=False, version=ort.__version__, reason=reason, hint=FOR_PLUGIN)


def _open(kind: Kind, found: Availability, artifact: Artifact, options: SessionOptions) -> Session:
    parsed = option_names.parse(
        options, runtime=kind.runtime, provider=kind.options, ours=kind.ours
    )
    if not found.ok:
        raise UnavailableError(
            f"{kind.runtime} cannot be used here: {found.reason}.", hint=found.hint or ""
        )
    if kind.provider in ENGINES:
        options.require_optimize(kind.runtime)
        forbid_in_libraries(unless=parsed.tf32)  # these providers have no option for TF32
    return DeviceSession(target(kind, artifact, parsed))


def target(kind: Kind, artifact: Artifact, options: GpuOptions) -> Target:
    """Return the target of sessions. Raise SourceError if the file is not an ONNX model."""
    plugin = kind.provider == NV_TENSORRT_RTX
    return Target(
        runtime=kind.runtime,
        artifact=artifact,
        options=options.session,
        provider=kind.provider,
        device="cuda",
        axes=read_axes(artifact),
        provider_options=partial(provider_options, kind, artifact, options),
        precision=partial(precision, kind.provider, artifact.precision, options),
        details=partial(_details, kind, artifact, options),
        further={CUDA: _tf32_of_cuda(options)} if options.allow_cuda_nodes else {},
        allow_cpu_nodes=options.allow_cpu_nodes,
        plugin=libraries.plugin_devices if plugin else None,
    )


def provider_options(
    kind: Kind, artifact: Artifact, options: GpuOptions, shapes: Shapes
) -> Mapping[str, str]:
    """Return the options to pass to the provider for inputs of these shapes."""
    ours: Mapping[str, str] = {}
    if kind.provider == CUDA:
        ours = _tf32_of_cuda(options)
    elif kind.cached is not None and options.engine_cache:
        key = engine_key(kind, artifact, options, shapes)
        ours = kind.cached(str(engine_cache.folder(key)))
    return {**options.provider, **ours}


def _tf32_of_cuda(options: GpuOptions) -> Mapping[str, str]:
    return {"use_tf32": "1" if options.tf32 else "0"}


def engine_key(kind: Kind, artifact: Artifact, options: GpuOptions, shapes: Shapes) -> str:
    """Return the key of the engine for these shapes in the engine cache."""
    session = {name: options.session.tuning[name] for name in options.session.tuning}
    return engine_cache.key(
        artifact,
        runtime=kind.runtime,
        shapes=shapes,
        options={
            **session,
            **options.provider,
            "optimize": str(options.session.optimize),
            "tf32": str(options.tf32),
            "allow_cpu_nodes": str(options.allow_cpu_nodes),
            "allow_cuda_nodes": str(options.allow_cuda_nodes),
        },
        versions=_versions(kind),
        driver=nvidia.driver(),
    )


def _versions(kind: Kind) -> dict[str, str]:
    found = {"onnxruntime": str(ort.__version__)}
    if kind.provider == TENSORRT:
        found["tensorrt"] = libraries.tensorrt_version()
    elif kind.provider == NV_TENSORRT_RTX:
        found["plugin"] = libraries.plugin_version() or "unknown"
    return found


def precision(provider: str, asked: str, options: GpuOptions, nodes: Collection[Node]) -> str:
    """Return the precision of the arithmetic of a pass; `asked` is the precision of the model.

    A profile shows an engine as one node, with the dtypes of its inputs and outputs only. TensorRT
    computes a float32 graph in float32 unless an option lowers the precision; for a graph of
    another precision, the profile does not show what it computes in. TensorRT-RTX keeps to the
    types of the graph.
    """
    inside = None
    if options.lowered:
        inside = "mixed"
    elif asked != "float32":
        inside = asked if provider == NV_TENSORRT_RTX else "unknown"
    told = [
        replace(node, dtype=inside) if inside and node.provider in ENGINES else node
        for node in nodes
    ]
    return precision_with(options.tf32, precision_of(told))


def _details(kind: Kind, artifact: Artifact, options: GpuOptions, shapes: Shapes) -> Json:
    driver = nvidia.driver()
    details: dict[str, Any] = {
        "gpu": driver.gpus[0].name if driver.gpus else None,
        "compute_capability": driver.gpus[0].capability if driver.gpus else None,
        "driver_cuda": driver.version,
        "tf32": options.tf32,
        "shapes": {name: list(shape) for name, shape in shapes.items()},
        **_versions(kind),
    }
    if kind.cached is not None and options.engine_cache:
        details["engine_cache"] = engine_key(kind, artifact, options, shapes)
    return details
