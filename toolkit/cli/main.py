"""Entry point of the console script `toolkit`."""

from __future__ import annotations

import contextlib
import io
import signal
import sys
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from toolkit.cli import (
    bench,
    bench_training,
    calibrate,
    compare,
    deploy,
    doctor,
    export,
    inspect,
    models,
    optimize,
    parity,
    report,
    results,
    study,
    train,
    verify,
)
from toolkit.core.errors import ToolkitError, ToolkitWarning
from toolkit.core.temporary import sweep
from toolkit.core.version import VERSION

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer as Buffer

INTERRUPTED = 130

app = typer.Typer(
    name="toolkit",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # importing rich takes longer than the rest of --help
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command()(train.train)
app.command()(export.export)
app.command()(calibrate.calibrate)
app.command()(verify.verify)
app.command()(bench.bench)
app.command()(optimize.optimize)
app.command()(deploy.deploy)
app.command()(bench_training.bench_training)
app.command()(compare.compare)
app.add_typer(study.app, name="study")
app.command()(report.report)
app.add_typer(parity.app, name="parity")
app.command()(inspect.inspect)
app.add_typer(results.app, name="results")
app.command()(models.models)
app.command()(doctor.doctor)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"toolkit {VERSION}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print the version."
        ),
    ] = False,
    debug: Annotated[
        bool, typer.Option("--debug", help="Show the traceback of an unexpected error.")
    ] = False,
) -> None:
    """Export a trained model, prove that the artifact is the model, and measure its speed.

    Exit codes: 0 success; 1 the requested check failed; 2 invalid usage; 3 the command could not be
    completed, or a comparison was inconclusive; 130 interrupted by Ctrl-C.
    """
    sweep(Path(tempfile.gettempdir()))


def main() -> None:
    """Run the command line, and turn every error into a message and an exit code.

    With `--debug`, an unexpected error keeps its traceback. SIGTERM and SIGHUP interrupt a command
    as Ctrl-C does; the exit code is then 128 plus the number of the signal.
    """
    _name_standard_output()
    received = _end_like_ctrl_c(signal.SIGTERM, signal.SIGHUP)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # print ? for unknown characters
            stream.reconfigure(errors="replace")
    warnings.formatwarning = _format_warning
    try:
        app()
    except ToolkitError as error:
        _fail(error.problem, error.hint, error.exit_code)
    except ModuleNotFoundError as error:
        _fail(str(error), "The installation is not complete: pip install 'inference-toolkit'")
    except OSError as error:
        _fail(str(error), "Check that the place exists, can be read and written, and has room.")
    except SystemExit as end:
        if end.code == INTERRUPTED:
            signal.signal(signal.SIGINT, signal.SIG_IGN)  # a second Ctrl-C must not change the code
            sys.exit(128 + received[0] if received else INTERRUPTED)
        raise
    except Exception as error:
        if "--debug" in sys.argv:
            raise
        _fail(
            f"{type(error).__name__}: {error}",
            "Unexpected error. This is a bug: please report it with the output of --debug.",
        )


def _format_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    line: str | None = None,
    default: Callable[..., str] = warnings.formatwarning,
) -> str:
    """Format a ToolkitWarning for the user, and any other warning as Python does."""
    if issubclass(category, ToolkitWarning):
        return f"warning: {message}\n"
    return default(message, category, filename, lineno, line)


def _fail(problem: str, hint: str, code: int = ToolkitError.exit_code) -> NoReturn:
    with contextlib.suppress(OSError):  # standard error may be full
        typer.secho(f"error: {problem}", fg="red", err=True)
        typer.echo(hint, err=True)
    sys.exit(code)


class _StandardOutput(io.FileIO):
    """Standard output whose first error, such as that of a full disk, names it.

    Later writes are dropped, because the interpreter flushes again when it exits.
    """

    broken = False

    def write(self, data: Buffer, /) -> int:
        if self.broken:
            return memoryview(data).nbytes
        try:
            return super().write(data)
        except OSError as error:
            self.broken = True
            error.filename = "standard output"
            raise


def _name_standard_output() -> None:
    """Make errors of standard output name it, unless `sys.stdout` was replaced."""
    stream = sys.stdout
    if not isinstance(stream, io.TextIOWrapper) or stream is not sys.__stdout__:
        return
    buffer: Any = _StandardOutput(stream.fileno(), "wb", closefd=False)
    if not stream.write_through:  # buffered unless PYTHONUNBUFFERED is set
        buffer = io.BufferedWriter(buffer)
    sys.stdout = io.TextIOWrapper(
        buffer,
        encoding=stream.encoding,
        errors="replace",
        line_buffering=stream.line_buffering,
        write_through=stream.write_through,
    )


def _end_like_ctrl_c(*signals: signal.Signals) -> list[int]:
    """Make these signals raise KeyboardInterrupt, and return a list that collects their numbers.

    A signal that the caller ignores stays ignored, as `nohup` requires for SIGHUP.
    """
    received: list[int] = []

    def interrupt(number: int, _: object) -> None:
        received.append(number)
        raise KeyboardInterrupt

    for each in signals:
        if signal.getsignal(each) != signal.SIG_IGN:
            signal.signal(each, interrupt)
    return received


if __name__ == "__main__":
    main()
