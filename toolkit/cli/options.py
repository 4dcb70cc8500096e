"""Options that several commands share, and parsers of their values."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from toolkit.cli import completion
from toolkit.core.errors import UsageError, unknown_name

if TYPE_CHECKING:
    from toolkit.measuring.load_test.scenarios import Traffic
    from toolkit.sources.capture import Example
    from toolkit.sources.inputs import InputRequest, RandomInput

Artifact = Annotated[
    Path,
    typer.Argument(
        help="Directory of an artifact, checkpoint or SavedModel; or a model file: .onnx, .pt2, "
        ".keras, .tflite, OpenVINO's .xml."
    ),
]
Source = Annotated[
    str,
    typer.Argument(
        help="Directory of an artifact, checkpoint or SavedModel; a model file: .onnx, .pt2, "
        ".keras, .tflite, OpenVINO's .xml; the name of a model family, with untrained weights; or "
        "your own code that returns the model, file.py:callable or package.module:callable, which "
        "is run."
    ),
]
ExampleCode = Annotated[
    str | None,
    typer.Option(
        "--example",
        help="Function that returns example inputs for your torch module, as file.py:callable: a "
        "tuple of arguments, a dict of arguments by name, or a tuple of both.  [default: inputs "
        "returned with the module, samples of --inputs, or random values as in --input]",
    ),
]
Dynamic = Annotated[
    list[str] | None,
    typer.Option(
        help="Dynamic axes of an input of your torch module, as INPUT:AXIS=NAME,...: "
        "input:0=batch,2=height. Axes count from 0. May be repeated; none makes every axis fixed.  "
        "[default: 0=batch for each input]"
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON on standard output.")]
Runtimes = Annotated[
    str | None,
    typer.Option(
        "--runtime",
        autocompletion=completion.RUNTIMES,
        help="Runtimes, separated by commas.  [default: all on --device that open the model]",
    ),
]
Device = Annotated[
    str,
    typer.Option(
        help="cpu or cuda. On cuda, a CPU runtime stands for its GPU counterpart: torch for "
        "torch-cuda, onnxruntime for onnxruntime-cuda."
    ),
]
Provider = Annotated[
    str | None,
    typer.Option(
        help="Execution providers of ONNX Runtime, one row each, separated by commas: cpu, cuda, "
        "tensorrt, nv-tensorrt-rtx. Without --runtime, no other runtime is used."
    ),
]
Threads = Annotated[
    int | None,
    typer.Option(help="Number of CPU threads.  [default: one per available core]"),
]
Timeout = Annotated[
    float,
    typer.Option(
        help="Time limit in seconds for each reply of a runtime, and for each read of a model file."
    ),
]
ReadingTimeout = Annotated[
    float, typer.Option("--timeout", help="Time limit in seconds for each read of a model file.")
]

Batches = Annotated[
    str | None,
    typer.Option(
        "--batch",
        help="Batch sizes, separated by commas.  [default: the one that the model or --input "
        "fixes, else 1]",
    ),
]
Scopes = Annotated[
    str | None,
    typer.Option(
        "--scope",
        help="What to time, separated by commas: forward (inputs and outputs on the device), "
        "end_to_end (from host memory to host memory), open (from a new process to its first "
        "output).  [default: forward,end_to_end]",
    ),
]
Cpus = Annotated[
    str | None,
    typer.Option(help="CPU cores to pin every measured process to: 0,1.  [default: not pinned]"),
]
Tuning = Annotated[
    list[str] | None,
    typer.Option(
        "--option",
        help="Option of one runtime, as RUNTIME.NAME=VALUE: "
        "onnxruntime.graph_optimization_level=basic. May be repeated.",
    ),
]
Warmup = Annotated[
    int | None,
    typer.Option(help="Exact number of warm-up runs.  [default: until times are stable]"),
]
Runs = Annotated[
    int | None,
    typer.Option(
        help="Exact number of measured runs per row and scope.  [default: until --target-ci or "
        "--max-seconds is reached]"
    ),
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
    float,
    typer.Option(
        help="Time limit in seconds per scope and batch size, shared by the rows that are measured "
        "in turn."
    ),
]
Data = Annotated[
    str | None,
    typer.Option(
        autocompletion=completion.DATA,
        help="Take inputs from the test samples of a data set, or of a .csv or .npz file of "
        "samples and targets.  [default: the data set of the model, else random values]",
    ),
]
DataDir = Annotated[
    Path | None,
    typer.Option(
        help="Directory of downloaded data sets.  [default: $TOOLKIT_DATA_DIR, else the user's "
        "cache]"
    ),
]
DataOptions = Annotated[
    list[str] | None,
    typer.Option("--data-option", help="Option of the data set, as NAME=VALUE. May be repeated."),
]
Inputs = Annotated[
    Path | None,
    typer.Option(help="Take inputs from an .npz file with an array for each input, by name."),
]
Dims = Annotated[
    list[str] | None,
    typer.Option(
        "--dim",
        help="Extent of a dynamic axis: time=16, or x:2=16 for an axis 2 of x without a name. May "
        "be repeated.",
    ),
]
RandomInputs = Annotated[
    list[str] | None,
    typer.Option(
        "--input",
        help="Random values for an input, from LOW to below HIGH, as NAME=SHAPE,DTYPE,LOW,HIGH: "
        "ids=1x128,int64,0,1000. Parts may be empty. May be repeated.",
    ),
]
AllowFallback = Annotated[
    bool,
    typer.Option(
        "--allow-fallback",
        help="Accept a row that fell back to another precision or device, with a warning.",
    ),
]
Out = Annotated[Path, typer.Option(help="Directory in which the result is stored, as ID.json.")]


def names(text: str | None) -> list[str] | None:
    """Parse `a,b` into ["a", "b"], and None into None. Raises UsageError if there are no names."""
    if text is None:
        return None
    parts = [part.strip() for part in text.split(",") if part.strip()]
    if not parts:
        raise UsageError(f"Got {text!r}, expected names.", hint="Give one, or several as a,b,c.")
    return parts


def runtimes(text: str | None, provider: str | None, device: str) -> list[str] | None:
    """Parse the runtimes in `text`; onnxruntime becomes a runtime for each named provider.

    With providers, `text` defaults to onnxruntime alone; without, None is returned for None. Raises
    UnknownNameError for an unknown provider, UsageError if runtimes are named without onnxruntime,
    or if the provider cpu is named with another device.
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
    """Parse `1,200` into [1, 200]. Raises UsageError for anything else."""
    try:
        return [int(part) for part in text.split(",")]
    except ValueError:
        raise UsageError(
            f"Got {option} {text!r}, expected whole numbers.",
            hint=f"Give one, or several as {option} 1,200.",
        ) from None


def numbers(text: str, option: str) -> tuple[float, ...]:
    """Parse `50,99.9` into (50.0, 99.9). Raises UsageError for anything else."""
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError:
        raise UsageError(
            f"Got {option} {text!r}, expected numbers.", hint=f"Give, say, {option} 50,99.9."
        ) from None


def dims(texts: list[str]) -> dict[str, int]:
    """Parse `["time=16"]` into {"time": 16}. Raises UsageError for anything else."""
    pairs = [text.partition("=") for text in texts]
    try:
        return {name: int(extent) for name, _, extent in pairs}
    except ValueError:
        raise UsageError(
            f"Got --dim {' --dim '.join(texts)}, expected name=whole number.",
            hint="Give, for example, --dim time=16.",
        ) from None


def random_inputs(texts: list[str]) -> dict[str, RandomInput]:
    """Parse `["ids=1x128,int64,0,1000"]`; the keys are names of inputs, and empty parts are None.

    Raises UsageError if a shape or bound is not a number.
    """
    from toolkit.sources.inputs import RandomInput

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
    """Parse `["x=1x3:8x3:64x3"]` into {"x": ((1, 3), (8, 3), (64, 3))}.

    Raises UsageError for anything else, or a name twice.
    """
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
    """Parse `["blocks=3"]` into {"blocks": "3"}.

    Raises UsageError, naming `option`, for anything else, or a name twice.
    """
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
    """Return the example that --example and --dynamic request; None if neither is given."""
    from toolkit.sources.capture import Example

    if code is None and dynamic is None:
        return None
    return Example(code=code, axes=None if dynamic is None else axes(dynamic))


def axes(texts: list[str]) -> dict[str, dict[int, str]]:
    """Parse `["input:0=batch,2=height"]` into {"input": {0: "batch", 2: "height"}}.

    `["none"]` becomes {}. Raises UsageError for anything else, or an input or axis twice.
    """
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
    """Parse `["onnxruntime.key=value"]` into {"onnxruntime": {"key": "value"}}.

    Raises UsageError for anything else.
    """
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
    """Return the load scenario that the options request; None without --scenario.

    Raises UsageError for other load options without --scenario, and what Traffic raises.
    """
    from toolkit.measuring.load_test.scenarios import Traffic

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
    """Return the inputs that the options request. Raises UsageError for invalid values."""
    from toolkit.sources.inputs import InputRequest

    return InputRequest(
        data=data,
        data_dir=data_dir,
        data_settings=settings(data_option or [], "--data-option"),
        file=inputs,
        dims=dims(dim or []),
        random=random_inputs(input_ or []),
    )
