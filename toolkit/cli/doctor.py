"""The command `toolkit doctor`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from toolkit.cli import options

if TYPE_CHECKING:
    from rich.table import Table

    from toolkit.environment.doctor import Diagnosis
    from toolkit.measuring.machine.roofline import Ceilings


def doctor(
    ceilings: Annotated[
        bool,
        typer.Option(
            "--ceilings",
            help="Measure the peak FLOP/s and bandwidth of this machine, and store them for "
            "`toolkit bench`.",
        ),
    ] = False,
    threads: Annotated[
        int | None,
        typer.Option(help="Number of threads for --ceilings.  [default: one per available core]"),
    ] = None,
    json: options.Json = False,
) -> None:
    """Report which runtimes can run on this machine.

    Also reports what to install for the other runtimes, and the environment. Exits with 1 if
    installed packages exclude each other.
    """
    import toolkit
    from toolkit.cli import output

    with output.progress() as progress:
        found = toolkit.doctor(ceilings=ceilings, threads=threads, progress=progress)
    if json:
        output.print_json(found.to_json())
    else:
        _print(found)
    if found.conflicts:
        raise typer.Exit(1)


def _print(found: Diagnosis) -> None:
    from toolkit.cli import output

    console = output.stdout()
    runtimes = output.table("Runtimes", "runtime", "status", "version", "what to do")
    for runtime in found.runtimes:
        reason = f"{runtime.reason.rstrip('.')}." if runtime.reason else None
        advice = " ".join(filter(None, (reason, runtime.hint)))
        runtimes.add_row(
            runtime.name, runtime.status, runtime.version or "-", output.escape(advice)
        )
    console.print(runtimes)
    for conflict in found.conflicts:
        console.out(f"conflict: {conflict.reason}. {conflict.hint}")
    environment = found.environment
    cpu = environment["cpu"]
    facts = {
        "processor": cpu["model"],
        "cores": f"{cpu['available_cores']} available, {cpu['physical_cores']} physical, "
        f"{cpu['logical_cores']} logical",
        "container quota": f"{cpu['container_cores']} cores" if cpu["container_cores"] else "none",
        "governor": cpu["governor"] or "unknown",
        **{
            f"GPU {number}": ", ".join(f"{key} {value}" for key, value in {**gpu, **state}.items())
            for number, (gpu, state) in enumerate(
                zip(environment["gpus"], environment["gpu_states"], strict=True)
            )
        },
        "memory": output.size(environment["memory_bytes"]),
        "load": ", ".join(f"{load:.2f}" for load in environment["load_average"] or ()),
        "platform": environment["platform"],
        "python": environment["python"],
        "vector flags": " ".join(cpu["flags"]),
        **{f"{name} version": version for name, version in environment["versions"].items()},
        **environment["variables"],
    }
    table = output.table("Environment", "what", "found")
    for what, value in facts.items():
        table.add_row(what, output.escape(str(value)))
    console.print(table)
    if found.ceilings:
        console.print(_ceilings(found.ceilings))
    else:
        console.out("No ceilings are stored for this machine: toolkit doctor --ceilings")


def _ceilings(found: Sequence[Ceilings]) -> Table:
    """Return a table of the measured peaks, by number of threads."""
    from toolkit.cli import output

    table = output.table("Ceilings", "threads", "what", "best", "measured", numeric=("threads",))
    for ceilings in found:
        units = {"int8": "GOP/s"}
        bests = {
            **{
                f"{name} product": f"{rate / 1e9:,.0f} {units.get(name, 'GFLOP/s')}"
                for name, rate in ceilings.operations_per_second.items()
            },
            **{f"{name} product": f"none: {reason}" for name, reason in ceilings.absent.items()},
            "copy": f"{ceilings.copy_bytes_per_second / 1e9:,.0f} GB/s",
        }
        for what, best in bests.items():
            table.add_row(str(ceilings.threads), what, output.escape(best), ceilings.measured)
    return table
