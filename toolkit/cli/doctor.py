"""toolkit doctor"""

from __future__ import annotations

from typing import TYPE_CHECKING

from toolkit.cli import options

if TYPE_CHECKING:
    from toolkit.steps.doctor import Diagnosis


def doctor(json: options.Json = False) -> None:
    """Say which runtimes can run here, what to install for the others, and what machine it is."""
    import toolkit
    from toolkit.cli import output

    with output.progress() as progress:
        found = toolkit.doctor(progress=progress)
    if json:
        output.print_json(found.to_json())
    else:
        _print(found)


def _print(found: Diagnosis) -> None:
    from toolkit.cli import output

    console = output.stdout()
    runtimes = output.table("Runtimes", "runtime", "status", "version", "what to do")
    for runtime in found.runtimes:
        advice = " ".join(filter(None, (runtime.reason, runtime.hint)))
        runtimes.add_row(
            runtime.name, runtime.status, runtime.version or "-", output.escape(advice)
        )
    console.print(runtimes)
    environment = found.environment
    cpu = environment["cpu"]
    facts = {
        "processor": cpu["model"],
        "cores": f"{cpu['available_cores']} available, {cpu['physical_cores']} physical, "
        f"{cpu['logical_cores']} logical",
        "container quota": f"{cpu['container_cores']} cores" if cpu["container_cores"] else "none",
        "governor": cpu["governor"] or "unknown",
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
