"""PyTorch on an NVIDIA GPU in eager mode, and functions shared by torch's GPU runtimes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, final

import torch
from torch import nn

from models.torch.program import module_of
from runtimes.operator_trace import Node
from runtimes.torch import tf32
from runtimes.torch.accelerator import Accelerator, Cuda
from runtimes.torch.device_session import TorchDeviceSession
from runtimes.torch.float64 import OPTIONS as DTYPES
from runtimes.torch.float64 import in_asked_dtype
from runtimes.torch.session import dtypes_of
from toolkit.core import nvidia
from toolkit.core.artifact import Artifact, Format
from toolkit.core.documents import Json
from toolkit.core.errors import UnavailableError
from toolkit.core.session import Availability, Runtime, Session, SessionOptions, parse_value

INDEX = "https://download.pytorch.org/whl"
INDEXES = ("cu126", "cu128", "cu130")
FLAGS = ("cuda_graph", "cudnn_benchmark", tf32.OPTION)


@dataclass(frozen=True, kw_only=True)
class CudaOptions:
    """Options of torch on a GPU; `others` has the remaining options of the session."""

    cuda_graph: bool = False
    cudnn_benchmark: bool = False
    tf32: bool = False
    others: SessionOptions = field(default_factory=SessionOptions)


def parse(options: SessionOptions) -> CudaOptions:
    """Return the options of a session. Raise UsageError if a flag is neither true nor false."""
    flags = {name: text for name, text in options.tuning.items() if name in FLAGS}
    others = {name: text for name, text in options.tuning.items() if name not in FLAGS}
    return CudaOptions(
        **{name: parse_value(name, text, bool) for name, text in flags.items()},
        others=replace(options, tuning=others),
    )


@final
class TorchCuda(Runtime):
    name: ClassVar[str] = "torch-cuda"
    accepts: ClassVar[frozenset[Format]] = frozenset({Format.CHECKPOINT})
    device: ClassVar[str] = Cuda.device

    def probe(self) -> Availability:
        return probe_torch()

    def open(self, artifact: Artifact, options: SessionOptions) -> Session:
        options.require_known(self.name, (*FLAGS, *DTYPES))
        require(self)
        given = parse(options)
        module = in_asked_dtype(module_of(artifact), self.name, given.others)
        return open_on(
            Cuda,
            artifact,
            module,
            runtime=self.name,
            options=given,
            runs=lambda module: module,
        )


def open_on(
    accelerator: type[Accelerator],
    artifact: Artifact,
    module: nn.Module,
    *,
    runtime: str,
    options: CudaOptions,
    runs: Callable[[nn.Module], Callable[..., Any]],
    details: Callable[[], Json] = dict,
    generated: Callable[[], list[Node]] = list,
) -> Session:
    """Return a session of `module` on an accelerator.

    `runs` returns the callable to run, given the module on the device.
    """
    torch.set_num_threads(options.others.threads)
    set_arithmetic(options)
    dtypes = dtypes_of(module)
    placed = module.to(accelerator.device)
    return TorchDeviceSession(
        artifact.signature,
        runs(placed),
        accelerator=accelerator(),  # after the copy of the weights was started
        runtime=runtime,
        graph=options.cuda_graph,
        precision=lambda ran: tf32.precision_with(options.tf32, ran),
        details=lambda: {"parameter_dtypes": dtypes, **describe_device(), **details()},
        generated=generated,
    )


def set_arithmetic(options: CudaOptions) -> None:
    """Set TF32 and cuDNN's benchmark mode for the whole process."""
    nvidia.hush_tf32_advice()
    torch.set_float32_matmul_precision("high" if options.tf32 else "highest")
    torch.backends.cuda.matmul.allow_tf32 = options.tf32
    torch.backends.cudnn.allow_tf32 = options.tf32
    torch.backends.cudnn.benchmark = options.cudnn_benchmark


def describe_device() -> Json:
    """Return the GPU, its libraries and the arithmetic settings, as torch reports them."""
    found: dict[str, Any] = {
        "cuda": torch.version.cuda,
        "cudnn": torch.backends.cudnn.version(),
        "matmul_allow_tf32": torch.backends.cuda.matmul.allow_tf32,
        "cudnn_allow_tf32": torch.backends.cudnn.allow_tf32,
        "cudnn_benchmark": torch.backends.cudnn.benchmark,
    }
    if torch.cuda.is_available():
        major, minor = torch.cuda.get_device_capability()
        found |= {"gpu": torch.cuda.get_device_name(), "compute_capability": 10 * major + minor}
    return found


def require(runtime: Runtime) -> None:
    """Raise UnavailableError if the runtime cannot be used here."""
    found = runtime.probe()
    if not found.ok:
        raise UnavailableError(
            f"{runtime.name} cannot be used here: {found.reason}.", hint=found.hint or ""
        )


def probe_torch() -> Availability:
    """Return whether torch can use a GPU, or why not: its build, the driver, or both together."""
    version = torch.__version__
    if torch.version.cuda is None:
        return Availability(
            ok=False,
            version=version,
            reason=f"torch {version} is built without CUDA",
            hint=install_command(),
        )
    found = nvidia.available(version)
    if found.ok and not torch.cuda.is_available():
        return replace(
            found,
            ok=False,
            reason=f"torch {version}, built for CUDA {torch.version.cuda}, finds no GPU; the "
            f"driver is for CUDA {nvidia.driver().version}",
            hint=install_command(),
        )
    return found


def install_command() -> str:
    """Return the command that installs torch for this machine's driver, or for the newest CUDA."""
    index = index_for(nvidia.driver().version)
    return f"pip install --force-reinstall torch --index-url {INDEX}/{index}"


def index_for(cuda: str | None) -> str:
    """Return torch's newest package index for a driver's CUDA version: "cu128" for 12.9.

    Return the newest index of all for None, and the oldest for a driver that is older.
    """
    if cuda is None:
        return INDEXES[-1]
    major, minor = (int(part) for part in cuda.split("."))
    able = [name for name in INDEXES if int(name[2:]) <= 10 * major + minor]
    return able[-1] if able else INDEXES[0]
