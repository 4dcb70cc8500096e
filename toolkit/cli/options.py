"""Options that several commands share, and how comma-separated values are read."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from toolkit.cli import completion
from toolkit.core.errors import UsageError, unknown_name

if TYPE_CHECKING:
    from toolkit.measuring.traffic import Traffic
    from toolkit.steps.capture import Example
    from toolkit.steps.inputs import InputRequest, RandomInput

Artifact = Annotated[
    Path,
    typer.Argument(
        help="Directory of an artifact, checkpoint or SavedModel, or a file: .onnx, .pt2, .keras, "
        ".tflite, OpenVINO's .xml."
    ),
]
Source = Annotated[
    str,
    typer.Argument(
        help="Directory of an artifact, checkpoint or SavedModel; a file: .onnx, .pt2, .keras, "
        ".tflite, OpenVINO's .xml; the name of a family, with fresh weights; or your own code, "
        "which is run: file.py:callable or package.module:callable, which gives the model."
    ),
]
ExampleCode = Annotated[
    str | None,
    typer.Option(
        "--example",
        help="Your code that gives what your torch module is called with: file.py:callable, for a "
        "tuple of arguments, a dict of them by name, or both in a tuple.  [default: random values "
        "of the shapes given by --input, or rows of --inputs]",
    ),
]
Dynamic = Annotated[
    list[str] | None,
    typer.Option(
        help="The axes of your torch module's inputs that vary, counted from 0, and their names: "
        "input:0=batch,2=height. May be repeated, or none.  [default: 0=batch]"
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON on standard output.")]
Runtimes = Annotated[
    str | None,
    typer.Option(
        "--runtime",
        autocompletion=completion.RUNTIMES,
        help="Runtimes, separated by commas.  [default: all that open it]",
    ),
]
Device = Annotated[
    str,
    typer.Option(
        help="cpu or cuda: there, torch means torch-cuda, onnxruntime onnxruntime-cuda, and so on."
    ),
]
Provider = Annotated[
    str | None,
    typer.Option(
        help="Execution providers of onnxruntime, a row each: cpu, cuda, tensorrt, "
        "nv-tensorrt-rtx; separated by commas."
    ),
]
Threads = Annotated[
    int | None,
    typer.Option(help="Threads for every runtime.  [default: the cores available]"),
]
Timeout = Annotated[
    float,
    typer.Option(
        help="Seconds after which a runtime that does not answer, or the reading of a file, is "
        "stopped."
    ),
]
ReadingTimeout = Annotated[
    float, typer.Option("--timeout", help="Seconds after which the reading of a file is stopped.")
]

Batches = Annotated[
    str | None, typer.Option("--batch", help="Batches, separated by commas.  [default: 1]")
]
Scopes = Annotated[
    str | None,
    typer.Option(
        "--scope",
        help="forward (inputs and outputs on the device), end_to_end (host to host), open "
        "(new process to first output); separated by commas.  [default: forward,end_to_end]",
    ),
]
Cpus = Annotated[
    str | None, typer.Option(help="Pin every runtime to these cores: 0,1.  [default: no pin]")
]
Tuning = Annotated[
    list[str] | None,
    typer.Option(
        "--option",
        help="An option of a runtime's own: onnxruntime.graph_optimization_level=basic. "
        "May be repeated.",
    ),
]
Warmup = Annotated[
    int | None, typer.Option(help="Exactly so many warm-up runs.  [default: until settled]")
]
Runs = Annotated[
    int | None,
    typer.Option(help="Exactly so many runs.  [default: until the intervals are narrow]"),
]
Processes = Annotated[
    int | None,
    typer.Option(
        help="Number of processes of each row, one after the other, which share the time or runs.  "
        "[default: 4 to 10, fewer if opening takes long; 1 with --runs]"
    ),
]
TargetCi = Annotated[
    float, typer.Option(help="Stop when all 95 % intervals are within ± this fraction.")
]
MaxSeconds = Annotated[
    float, typer.Option(help="Stop a scope of a batch after so many seconds at the latest.")
]
Data = Annotated[
    str | None,
    typer.Option(
        autocompletion=completion.DATA, help="Take inputs from the test rows of this data set."
    ),
]
DataDir = Annotated[
    Path | None, typer.Option(help="Where the data lies or goes.  [default: a cache]")
]
DataOptions = Annotated[
    list[str] | None,
    typer.Option("--data-option", help="An option of the data set: name=value. May be repeated."),
]
Inputs = Annotated[
    Path | None, typer.Option(help="Take inputs from an .npz file, an array for each by name.")
]
Dims = Annotated[
    list[str] | None,
    typer.Option(
        "--dim",
        help="Extent of a dynamic axis: time=16, or x:2=16 for axis 2 of x. May be repeated.",
    ),
]
RandomInputs = Annotated[
    list[str] | None,
    typer.Option(
        "--input",
        help="Random values for one input: name=shape,dtype,low,high such as "
        "ids=1x128,int64,0,1000; parts may be left empty. May be repeated.",
    ),
]
AllowFallback = Annotated[
    bool,
    typer.Option(
        "--allow-fallback",
        help="Take a row that ran in another precision or on another device than it was asked "
        "for, with a warning.",
    ),
]
Out = Annotated[Path, typer.Option(help="Where the result is stored.")]


def names(text: str | None) -> list[str] | None:
    """`a,b` as ["a", "b"]; None stays None. Raises UsageError when nothing is named."""
    if text is None:
        return None
    parts = [part.strip() for part in text.split(",") if part.strip()]
    if not parts:
        raise UsageError(f"Got {text!r}, expected names.", hint="Give one, or several as a,b,c.")
    return parts


def runtimes(text: str | None, provider: str | None, device: str) -> list[str] | None:
    """The runtimes that are named, onnxruntime with each of its providers that are.

    Raises UnknownNameError for a provider that is none, UsageError for one of no runtime, or of
    another device.
    """
    given, providers = names(text), names(provider)
    if providers is None:
        return given
    from runtimes import PROVIDERS

    for name in providers:
        if name not in PROVIDERS:
            raise unknown_name("execution provider", name, PROVIDERS)
    if "cpu" in providers and device != "cpu":
        raise UsageError(
            f"Got --provider {provider} with --device {device}, where the cpu has no part.",
            hint="Leave --device out: each provider says where it runs.",
        )
    if given is not None and "onnxruntime" not in given:
        raise UsageError(
            f"Got --provider {provider} with --runtime {text}, which has no onnxruntime.",
            hint="Name onnxruntime as well, or leave --provider out.",
        )
    return [
        one
        for runtime in given or ["onnxruntime"]
        for one in (
            [PROVIDERS[name] for name in providers] if runtime == "onnxruntime" else [runtime]
        )
    ]


def integers(text: str, option: str) -> list[int]:
    """`1,200` as [1, 200]. Raises UsageError for anything else."""
    try:
        return [int(part) for part in text.split(",")]
    except ValueError:
        raise UsageError(
            f"Got {option} {text!r}, expected whole numbers.",
            hint=f"Give one, or several as {option} 1,200.",
        ) from None


def numbers(text: str, option: str) -> tuple[float, ...]:
    """`50,99.9` as (50.0, 99.9). Raises UsageError for anything else."""
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError:
        raise UsageError(
            f"Got {option} {text!r}, expected numbers.", hint=f"Give, say, {option} 50,99.9."
        ) from None


def dims(texts: list[str]) -> dict[str, int]:
    """`["time=16"]` as {"time": 16}. Raises UsageError for anything else."""
    pairs = [text.partition("=") for text in texts]
    try:
        return {name: int(extent) for name, _, extent in pairs}
    except ValueError:
        raise UsageError(
            f"Got --dim {' --dim '.join(texts)}, expected name=whole number.",
            hint="Give, for example, --dim time=16.",
        ) from None


def random_inputs(texts: list[str]) -> dict[str, RandomInput]:
    """`["ids=1x128,int64,0,1000"]` by name of the input; empty parts are left to the model."""
    from toolkit.steps.inputs import RandomInput

    found = {}
    for text in texts:
        name, _, rest = text.partition("=")
        shape, dtype, low, high = (*rest.split(","), *[""] * 4)[:4]
        try:
            found[name] = RandomInput(
                shape=tuple(int(extent) for extent in shape.split("x")) if shape else None,
                dtype=dtype or None,
                low=float(low) if low else None,
                high=float(high) if high else None,
            )
        except ValueError:
            raise UsageError(
                f"Got --input {text}, expected name=shape,dtype,low,high.",
                hint="Give, for example, --input ids=1x128,int64,0,1000.",
            ) from None
    return found


def profiles(texts: list[str]) -> dict[str, tuple[tuple[int, ...], ...]]:
    """`["x=1x3:8x3:64x3"]` as {"x": ((1, 3), (8, 3), (64, 3))}. Raises UsageError."""
    found: dict[str, tuple[tuple[int, ...], ...]] = {}
    for text in texts:
        name, equals, rest = text.rpartition("=")
        try:
            shapes = tuple(
                tuple(int(extent) for extent in shape.split("x")) for shape in rest.split(":")
            )
        except ValueError:
            shapes = ()
        if not (name and equals and shapes) or name in found:
            raise UsageError(
                f"Got --profile {text}{' again' if name in found else ''}, expected "
                "name=LEAST:USUAL:LARGEST, a shape each.",
                hint="Give, for example, --profile x=1x3x224x224:8x3x224x224:64x3x640x640.",
            )
        found[name] = shapes
    return found


def settings(texts: list[str], option: str) -> dict[str, str]:
    """`["blocks=3"]` as {"blocks": "3"}. Raises UsageError for anything else, or a name twice."""
    found: dict[str, str] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not (name and equals) or name in found:
            raise UsageError(
                f"Got {option} {text}{' again' if name in found else ''}, expected name=value.",
                hint=f"Give, for example, {option} blocks=3, each name once.",
            )
        found[name] = value
    return found


def example(code: str | None, dynamic: list[str] | None) -> Example | None:
    """What --example and --dynamic ask for together; None for neither."""
    from toolkit.steps.capture import Example

    if code is None and dynamic is None:
        return None
    return Example(code=code, axes=None if dynamic is None else axes(dynamic))


def axes(texts: list[str]) -> dict[str, dict[int, str]]:
    """`["input:0=batch,2=height"]` as {"input": {0: "batch", 2: "height"}}; ["none"] as {}."""
    found: dict[str, dict[int, str]] = {}
    for text in texts if texts != ["none"] else []:
        name, _, rest = text.rpartition(":")
        pairs = [part.strip().partition("=")[::2] for part in rest.split(",")]
        known = {
            int(axis): word for axis, word in pairs if axis.isdecimal() and word.isidentifier()
        }
        if not name or name in found or len(known) < len(pairs):
            raise UsageError(
                f"Got --dynamic {text}{' again' if name in found else ''}, expected axes by place.",
                hint="Give, for example, --dynamic input:0=batch,2=height, each input and axis "
                "once, or --dynamic none.",
            )
        found[name] = known
    return found


def tuning(texts: list[str]) -> dict[str, dict[str, str]]:
    """`["onnxruntime.key=value"]` as {"onnxruntime": {"key": "value"}}."""
    found: dict[str, dict[str, str]] = {}
    for text in texts:
        path, equals, value = text.partition("=")
        runtime, dot, name = path.partition(".")
        if not (equals and dot and runtime and name):
            raise UsageError(
                f"Got --option {text}, expected runtime.name=value.",
                hint="Give, for example, --option openvino.NUM_STREAMS=2.",
            )
        found.setdefault(runtime, {})[name] = value
    return found


def traffic(
    *,
    scenario: str | None,
    concurrency: int,
    qps: float | None,
    find_qps: bool,
    p99_ms: float | None,
) -> Traffic | None:
    """What the options on load ask for together. Raises UsageError for any without a scenario."""
    from toolkit.measuring.traffic import Traffic

    if scenario is not None:
        return Traffic(
            scenario=scenario, concurrency=concurrency, qps=qps, find_qps=find_qps, p99_ms=p99_ms
        )
    given = {
        "--concurrency": concurrency != 1,
        "--qps": qps is not None,
        "--find-qps": find_qps,
        "--p99-ms": p99_ms is not None,
    }
    if any(given.values()):
        named = " and ".join(option for option, is_given in given.items() if is_given)
        raise UsageError(
            f"Got {named} without --scenario.",
            hint="Add --scenario server for a rate; single or offline for none.",
        )
    return None


def input_request(
    *,
    data: str | None,
    data_dir: Path | None,
    data_option: list[str] | None,
    inputs: Path | None,
    dim: list[str] | None,
    input_: list[str] | None,
) -> InputRequest:
    """What the options on inputs ask for together."""
    from toolkit.steps.inputs import InputRequest

    return InputRequest(
        data=data,
        data_dir=data_dir,
        data_settings=settings(data_option or [], "--data-option"),
        file=inputs,
        dims=dims(dim or []),
        random=random_inputs(input_ or []),
    )
