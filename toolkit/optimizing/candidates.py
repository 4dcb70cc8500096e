"""What competes: a form of the model, on a runtime, with options."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace

from runtimes import FOR_CUDA
from toolkit.core.artifact import Format
from toolkit.core.documents import Json
from toolkit.core.errors import UsageError, unknown_name
from toolkit.core.session import SessionOptions
from toolkit.steps.reference import REFERENCES

REWRITES = ("fold-batch-norm", "fold-time-channel", "simplify")  # exact but for rounding
EXACT = "float32"
PRECISIONS: Mapping[str, str] = {
    "int8": "int8",
    "bf16": "bfloat16",
    "fp16": "float16",
    "tf32": "tf32",
}
"""What `--allow` names, and the precision that it is."""
METHODS = ("minmax", "mse", "percentile", "mixed")
"""Of calibration, each tried where the one before is not accurate enough; the last leaves nodes in
floating point."""
FILES = frozenset({Format.ONNX, Format.OPENVINO, Format.TORCH_EXPORT})  # that run without code
HINT = "INFERENCE_PRECISION_HINT"
TF32 = "tf32"
ENGINES: Mapping[str, Format] = {"tensorrt": Format.TENSORRT, "tensorrt-rtx": Format.TENSORRT_RTX}
"""Runtimes that open what an export built for this GPU, and the target of that."""
ON_CUDA: Mapping[Format, str] = {
    Format.CHECKPOINT: "torch-cuda",
    Format.ONNX: "onnxruntime-cuda",
}
"""What is nearest to a source on a GPU."""


@dataclass(frozen=True, kw_only=True)
class Form:
    """How it is made of the source: by an export target and passes, calibrated for `preset`, then
    fixed to `batch`, or built into an engine. `target` None is the source as it is."""

    target: str | None
    passes: tuple[str, ...] = ()
    preset: str | None = None
    method: str = METHODS[0]
    batch: int | None = None

    @property
    def name(self) -> str:
        """For people, and for the folder that it lies in."""
        parts = [self.target or "source"]
        parts += ["plain"] if self.target == Format.ONNX and not self.passes else []
        parts += [one for one in self.passes if one not in REWRITES]
        if self.preset:
            parts += ["int8", self.preset, self.method]
        parts += [f"batch{self.batch}"] if self.batch else []
        return "-".join(parts)

    @property
    def parent(self) -> Form | None:
        """The form that it is made of; None for one that is made of the source itself."""
        if self.preset is not None and self.target in ENGINES.values():
            return replace(self, target=Format.ONNX)
        if self.preset is not None:
            return replace(self, preset=None, method=METHODS[0])
        return None if self.batch is None else replace(self, batch=None)


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """`tuning` holds options of the runtime's own; `precision` is what it is to compute in."""

    form: Form
    runtime: str
    threads: int
    tuning: Mapping[str, str] = field(default_factory=dict)
    precision: str = EXACT

    @property
    def name(self) -> str:
        """As it is told, such as "openvino on onnx, 1 thread"."""
        parts = [f"{self.runtime} on {self.form.name}", f"{self.threads} threads"]
        parts += [f"{name}={value}" for name, value in self.tuning.items()]
        return ", ".join(parts).replace(" 1 threads", " 1 thread")

    @property
    def arithmetic(self) -> str:
        """The same for candidates that compute the same: those of one accuracy."""
        parts = [f"{self.runtime} on {replace(self.form, batch=None).name}"]
        parts += [self.tuning[HINT]] if HINT in self.tuning else []
        parts += [TF32] if TF32 in self.tuning else []
        return ", ".join(parts)

    @property
    def exact(self) -> bool:
        return self.precision == EXACT

    def effort(self, threads: int) -> int:
        """How far it is from the plain, where `threads` is usual."""
        own = [name for name in self.tuning if name not in (HINT, TF32)]
        return (
            len(own) + (self.threads != threads) + (self.form.batch is not None) + (not self.exact)
        )

    @property
    def options(self) -> SessionOptions:
        return SessionOptions(threads=self.threads, tuning=self.tuning)

    def to_json(self) -> Json:
        return {
            "name": self.name,
            "form": self.form.name,
            "passes": list(self.form.passes),
            "runtime": self.runtime,
            "threads": self.threads,
            "tuning": dict(self.tuning),
            "precision": self.precision,
        }


def parse_allowed(names: Collection[str]) -> frozenset[str]:
    """Raises UnknownNameError for a precision that is none of PRECISIONS."""
    for name in names:
        if name not in PRECISIONS:
            raise unknown_name("precision to allow", name, PRECISIONS)
    return frozenset(names)


def baseline(format: Format, threads: int, device: str) -> Candidate:
    """The source on the runtime that is nearest to it. Raises UsageError for a format of which
    nothing else can be made."""
    if device == "cuda":
        if format not in ON_CUDA:
            raise UsageError(
                f"Got {format}, which no runtime for a GPU opens.",
                hint="Give a checkpoint, or ONNX: `toolkit export --to onnx` makes it.",
            )
        return Candidate(form=Form(target=None), runtime=ON_CUDA[format], threads=threads)
    if format not in REFERENCES or format in (Format.AOTINDUCTOR, Format.LITERT):
        raise UsageError(
            f"Got {format}, of which no other form can be made.",
            hint="Give the model that it was made from: a checkpoint, ONNX or Keras.",
        )
    return Candidate(form=Form(target=None), runtime=REFERENCES[format], threads=threads)


def openers(
    format: Format, threads: int, allowed: Collection[str], objective: str, device: str
) -> list[Candidate]:
    """One for each runtime and precision that is allowed, with its usual options.

    No processor here computes in float16: what it saves are bytes.
    """
    onnx = Form(target=Format.ONNX, passes=REWRITES)
    if device == "cuda":
        return _openers_on_cuda(onnx, threads, allowed)
    if format is Format.OPENVINO:
        return []
    found = [
        Candidate(form=onnx, runtime=runtime, threads=threads)
        for runtime in ("onnxruntime", "openvino")
    ]
    if "bf16" in allowed:
        found.append(replace(found[1], tuning={HINT: "bf16"}, precision="bfloat16"))
    if "int8" in allowed:
        found += [
            Candidate(
                form=replace(onnx, preset=runtime),
                runtime=runtime,
                threads=threads,
                precision="int8",
            )
            for runtime in ("openvino", "onnxruntime")
        ]
    if "fp16" in allowed and objective in ("memory", "size"):
        half = replace(onnx, passes=(*REWRITES, "float16"))
        found.append(Candidate(form=half, runtime="openvino", threads=threads, precision="float16"))
    return found


def _openers_on_cuda(onnx: Form, threads: int, allowed: Collection[str]) -> list[Candidate]:
    """Engines keep to the precision of the graph, so that TF32 is ONNX Runtime's to take; eight
    bits gain where TensorRT fuses them. GPUs that compute in bfloat16 do so in float16, as fast
    and more exactly."""
    forms = {
        "onnxruntime-cuda": onnx,
        "onnxruntime-tensorrt": onnx,
        "onnxruntime-nv-tensorrt-rtx": onnx,
        **{runtime: replace(onnx, target=target) for runtime, target in ENGINES.items()},
    }
    plain = [Candidate(form=form, runtime=name, threads=threads) for name, form in forms.items()]
    found = [*plain]
    if "tf32" in allowed:
        found.append(replace(plain[0], tuning={TF32: "true"}, precision="tf32"))
    if "fp16" in allowed:
        half = (*REWRITES, "float16")
        found += [
            replace(one, form=replace(one.form, passes=half), precision="float16") for one in plain
        ]
    if "int8" in allowed:
        found += [
            replace(one, form=replace(one.form, preset="tensorrt"), precision="int8")
            for one in plain[1:]
        ]
    return found


def compiled(format: Format, threads: int, device: str) -> list[Candidate]:
    """Those that take a compiler and some time to make."""
    if format is not Format.CHECKPOINT or device != "cpu":
        return []
    return [Candidate(form=Form(target=Format.AOTINDUCTOR), runtime="aotinductor", threads=threads)]


def variants(one: Candidate, batch: int) -> list[Candidate]:
    """It with one option changed, each of which helps some models and harms others.

    On a GPU sessions fix the batch by themselves, and threads of the host have little to do.
    """
    found = []
    on_cpu = one.runtime not in FOR_CUDA
    if on_cpu and one.form.target == Format.ONNX and one.form.batch is None:
        found.append(replace(one, form=replace(one.form, batch=batch)))
    if on_cpu and one.threads > 1:
        found.append(replace(one, threads=1))
    for name, value in TUNING.get(one.runtime, ()):
        if name not in one.tuning:
            found.append(replace(one, tuning={**one.tuning, name: value}))
    if one.form.preset and one.runtime == "openvino" and HINT not in one.tuning:
        found.append(replace(one, tuning={**one.tuning, HINT: "bf16"}))
    return found


TUNING: Mapping[str, Sequence[tuple[str, str]]] = {
    "onnxruntime": (
        ("session.intra_op.allow_spinning", "0"),
        ("graph_optimization_level", "extended"),  # without layouts of its own
    ),
    "openvino": (("ENABLE_CPU_PINNING", "NO"),),
    "onnxruntime-cuda": (
        ("enable_cuda_graph", "1"),
        ("prefer_nhwc", "1"),
        ("fuse_conv_bias", "1"),
    ),
    "onnxruntime-tensorrt": (("trt_cuda_graph_enable", "1"),),
    "onnxruntime-nv-tensorrt-rtx": (("enable_cuda_graph", "1"),),
}


def combined(origin: Candidate, better: Sequence[Candidate]) -> Candidate:
    """The origin with all that is changed in those that were better than it."""
    tuning = {**origin.tuning}
    for one in better:
        tuning.update(one.tuning)
    return replace(
        origin,
        form=replace(origin.form, batch=next((o.form.batch for o in better if o.form.batch), None)),
        threads=min(one.threads for one in (origin, *better)),
        tuning=tuning,
    )
