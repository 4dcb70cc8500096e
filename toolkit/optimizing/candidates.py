"""Candidates of a search: a variant of the model, on a runtime, with options."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace

from runtimes import FOR_CUDA
from toolkit.core.artifact import Format
from toolkit.core.documents import Json
from toolkit.core.errors import UsageError, unknown_name
from toolkit.core.session import SessionOptions
from toolkit.sources.reference_runtime import REFERENCES

REWRITES = ("fold-batch-norm", "fold-time-channel", "simplify")  # exact up to rounding
EXACT = "float32"
PRECISIONS: Mapping[str, str] = {
    "int8": "int8",
    "bf16": "bfloat16",
    "fp16": "float16",
    "tf32": "tf32",
}
"""Precisions by their names in `--allow`."""
METHODS = ("minmax", "mse", "percentile", "mixed")
"""Calibration methods, each tried if the one before is not accurate enough. The last one leaves
some nodes in floating point."""
HINT = "INFERENCE_PRECISION_HINT"
TF32 = "tf32"
ENGINES: Mapping[str, Format] = {"tensorrt": Format.TENSORRT, "tensorrt-rtx": Format.TENSORRT_RTX}
"""Runtimes that open an engine built for this GPU, and the export target that builds it."""
ON_CUDA: Mapping[Format, str] = {
    Format.CHECKPOINT: "torch-cuda",
    Format.ONNX: "onnxruntime-cuda",
}
"""Runtime of the baseline on a GPU, by the format of the source."""


@dataclass(frozen=True, kw_only=True)
class VariantRecipe:
    """How to make a variant from the source.

    The source is exported to `target` with `passes`, calibrated for `preset` with `method`, and
    fixed to `batch` or built into an engine. `target` None is the unchanged source.
    """

    target: str | None
    passes: tuple[str, ...] = ()
    preset: str | None = None
    method: str = METHODS[0]
    batch: int | None = None

    @property
    def name(self) -> str:
        """Name for messages, and of the folder of the variant."""
        parts = [self.target or "source"]
        parts += ["plain"] if self.target == Format.ONNX and not self.passes else []
        parts += [one for one in self.passes if one not in REWRITES]
        if self.preset:
            parts += ["int8", self.preset, self.method]
        parts += [f"batch{self.batch}"] if self.batch else []
        return "-".join(parts)

    @property
    def parent(self) -> VariantRecipe | None:
        """Form from which this one is made, or None if that is the source itself."""
        if self.preset is not None and self.target in ENGINES.values():
            return replace(self, target=Format.ONNX)
        if self.preset is not None:
            return replace(self, preset=None, method=METHODS[0])
        return None if self.batch is None else replace(self, batch=None)


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """Form of the model on a runtime with options.

    `tuning` has the runtime's own options, and `precision` is the precision to compute in.
    """

    form: VariantRecipe
    runtime: str
    threads: int
    tuning: Mapping[str, str] = field(default_factory=dict)
    precision: str = EXACT

    @property
    def name(self) -> str:
        """Name as reported, such as "openvino on onnx, 1 thread"."""
        parts = [f"{self.runtime} on {self.form.name}", f"{self.threads} threads"]
        parts += [f"{name}={value}" for name, value in self.tuning.items()]
        return ", ".join(parts).replace(" 1 threads", " 1 thread")

    @property
    def arithmetic(self) -> str:
        """Name that is equal for candidates with the same arithmetic, and so the same accuracy."""
        parts = [f"{self.runtime} on {replace(self.form, batch=None).name}"]
        parts += [self.tuning[HINT]] if HINT in self.tuning else []
        parts += [TF32] if TF32 in self.tuning else []
        return ", ".join(parts)

    @property
    def exact(self) -> bool:
        return self.precision == EXACT

    def effort(self, threads: int) -> int:
        """Return how many settings differ from the default: fewer is plainer.

        These are the options in `tuning` other than for precision, a number of threads other than
        `threads`, a fixed batch, and a lower precision.
        """
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
    """Return the names as a set. Raises UnknownNameError for a name that is not in PRECISIONS."""
    for name in names:
        if name not in PRECISIONS:
            raise unknown_name("precision to allow", name, PRECISIONS)
    return frozenset(names)


def baseline(format: Format, threads: int, device: str) -> Candidate:
    """Return the baseline: the source on the runtime nearest to its format.

    Raises UsageError for a format from which no other can be made, or which no GPU runtime opens.
    """
    if device == "cuda":
        if format not in ON_CUDA:
            raise UsageError(
                f"Got {format}, which no runtime for a GPU opens.",
                hint="Give a checkpoint, or ONNX: `toolkit export --to onnx` makes it.",
            )
        return Candidate(form=VariantRecipe(target=None), runtime=ON_CUDA[format], threads=threads)
    if format not in REFERENCES or format in (Format.AOTINDUCTOR, Format.LITERT):
        raise UsageError(
            f"Got {format}, of which no other form can be made.",
            hint="Give the model that it was made from: a checkpoint, ONNX or Keras.",
        )
    return Candidate(form=VariantRecipe(target=None), runtime=REFERENCES[format], threads=threads)


def openers(
    format: Format, threads: int, allowed: Collection[str], objective: str, device: str
) -> list[Candidate]:
    """Return one candidate for each runtime and allowed precision, with default options.

    On a CPU, float16 is tried only for the objectives `memory` and `size`: CPUs do not compute in
    it, so it saves only bytes.
    """
    onnx = VariantRecipe(target=Format.ONNX, passes=REWRITES)
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


def _openers_on_cuda(
    onnx: VariantRecipe, threads: int, allowed: Collection[str]
) -> list[Candidate]:
    """Return one candidate for each GPU runtime and allowed precision.

    TF32 is tried with ONNX Runtime on CUDA only, because engines keep the precision of the graph.
    INT8 is tried where TensorRT fuses it. bfloat16 is not tried, because GPUs that support it are
    as fast, and more precise, in float16.
    """
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
    """Return the candidates that need a compiler and take some time to make."""
    if format is not Format.CHECKPOINT or device != "cpu":
        return []
    return [
        Candidate(
            form=VariantRecipe(target=Format.AOTINDUCTOR), runtime="aotinductor", threads=threads
        )
    ]


def variants(one: Candidate, batch: int) -> list[Candidate]:
    """Return the candidate with one option changed each; an option may help or harm a model.

    On a GPU, batch and threads are not changed: sessions fix the batch themselves, and host threads
    matter little.
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
        ("graph_optimization_level", "extended"),  # without layout optimisations
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
    """Return `origin` with the changes of all candidates in `better`."""
    tuning = {**origin.tuning}
    for one in better:
        tuning.update(one.tuning)
    return replace(
        origin,
        form=replace(origin.form, batch=next((o.form.batch for o in better if o.form.batch), None)),
        threads=min(one.threads for one in (origin, *better)),
        tuning=tuning,
    )
