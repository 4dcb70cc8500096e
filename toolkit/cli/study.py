"""The commands `toolkit study run`, `status`, `list` and `show`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from toolkit.cli import completion, options

if TYPE_CHECKING:
    from toolkit.study.run import Progressed

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,
    help="Train, export, verify and measure a matrix of models.",
)

Name = Annotated[
    str,
    typer.Argument(
        autocompletion=completion.STUDIES,
        help="TOML file, or a built-in study of `toolkit study list`.",
    ),
]
Out = Annotated[
    Path | None,
    typer.Option(
        help="Directory of the study.  [default: studies/NAME; studies/NAME-quick with --quick]"
    ),
]


@app.command("run")
def run(
    study: Name,
    out: Out = None,
    data: Annotated[
        str | None,
        typer.Option(
            autocompletion=completion.DATA,
            help="Data set or file that replaces all data of the study; digits and diabetes need "
            "no network.",
        ),
    ] = None,
    data_dir: options.DataDir = None,
    quick: Annotated[
        bool, typer.Option("--quick", help="Run the small version that the study defines.")
    ] = False,
    only: Annotated[
        str | None,
        typer.Option(
            help="Run only these cells and those that they depend on: a pattern such as 'bench-*', "
            "or the beginning of an id."
        ),
    ] = None,
    retry: Annotated[
        bool, typer.Option("--retry", help="Run failed and skipped cells again.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print every cell of the plan without running it.")
    ] = False,
    executor: Annotated[
        str, typer.Option(help="local, or ray for one cell at a time on each machine of a cluster.")
    ] = "local",
    address: Annotated[
        str | None,
        typer.Option(help="Address of the Ray cluster.  [default: a new cluster on this machine]"),
    ] = None,
    json: options.Json = False,
) -> None:
    """Run the unfinished cells of a study, and write its report.

    The same command resumes an interrupted run, even after a power failure. If a cell fails, its
    reason is reported, cells that cannot run without it are skipped, and the others continue. Exits
    with 3 if no cell is done.
    """
    from toolkit.cli import output
    from toolkit.report.write import write_report
    from toolkit.study.run import plan_study, run_study
    from toolkit.study.store import State

    out = out or Path("studies") / f"{Path(study).stem}{'-quick' if quick else ''}"
    if dry_run:
        planned = plan_study(study, out=out, data=data, quick=quick, only=only)
        if json:
            output.print_json(planned.to_json())
        else:
            output.print_lines(
                ("cell", "state", "what"),
                [(o.cell.id, o.state, o.cell.described) for o in planned.cells if o.wanted],
            )
            _print_left(planned)
        return
    with output.progress() as progress:

        def show(planned: Progressed) -> None:
            for line in (_counts(planned), _left(planned)):
                progress.note(line)

        done = run_study(
            study,
            out=out,
            data=data,
            data_dir=data_dir,
            quick=quick,
            only=only,
            retry=retry,
            executor=executor,
            address=address,
            show=show,
            progress=progress,
        )
    report = write_report([out], out / "report.html", warn=lambda warning: output.warn([warning]))
    states = [one.state for one in done.cells if one.wanted]
    if json:
        output.print_json({**done.to_json(), "report": str(report)})
    else:
        console = output.stdout()
        for one in done.cells:
            if one.wanted and one.outcome is not None and one.state is not State.DONE:
                console.out(f"{one.cell.id} {one.state}: {one.outcome.reason}")
        console.out(_counts(done))
        console.out(f"report: {report}")
    if states and State.DONE not in states:
        raise typer.Exit(3)


@app.command("status")
def status(
    directory: Annotated[Path, typer.Argument(help="Directory of a study.")],
    json: options.Json = False,
) -> None:
    """Print the state of each cell of a study."""
    from toolkit.cli import output
    from toolkit.study.status import status_of

    found = status_of(directory)
    if json:
        output.print_json(found)
        return
    table = output.table(found["title"], "cell", "state", "took", "of", "reason", numeric=("took",))
    for cell in found["cells"]:
        seconds = cell["seconds"]
        table.add_row(
            cell["id"],
            cell["state"],
            "-" if seconds is None else output.duration(seconds * 1e9),
            output.escape(cell["described"]),
            output.escape(cell["reason"] or ""),
        )
    console = output.stdout()
    console.print(table)
    console.out(", ".join(f"{count} {state}" for state, count in found["counts"].items()))


@app.command("list")
def list_studies(json: options.Json = False) -> None:
    """List the built-in studies."""
    from toolkit.cli import output
    from toolkit.study.document import Study, built_in

    found = [Study.read(name) for name in built_in()]
    if json:
        studies = [{"name": one.name, "title": one.title, "about": one.about} for one in found]
        output.print_json({"schema": "toolkit.studies/1", "studies": studies})
        return
    table = output.table("Studies", "name", "what")
    for one in found:
        table.add_row(one.name, output.escape(one.title))
    output.stdout().print(table)


@app.command("show")
def show_study(study: Name) -> None:
    """Print a study as TOML, as a template for your own."""
    from toolkit.cli import output
    from toolkit.study.document import text_of

    output.stdout().out(text_of(study), end="")


def _print_left(planned: Progressed) -> None:
    from toolkit.cli import output

    console = output.stdout()
    console.out(_counts(planned))
    console.out(_left(planned))


def _counts(planned: Progressed) -> str:
    states: dict[str, int] = {}
    for one in planned.cells:
        if one.wanted:
            states[one.state] = states.get(one.state, 0) + 1
    told = ", ".join(f"{count} {state}" for state, count in states.items())
    stands_in = planned.study.stands_in
    return f"{planned.study.name}: {told}{f' ({stands_in})' if stands_in else ''}"


def _left(planned: Progressed) -> str:
    """Return the estimate of the remaining time as text."""
    left = planned.left
    if not left.seconds and not left.unknown:
        return "nothing is left to do"
    told = f"about {left.seconds / 60:.0f} min" if left.seconds >= 60 else f"{left.seconds:.0f} s"
    if left.unknown:
        told += f", and {left.unknown} cells of which none was run yet"
    return f"left: {told}"
