"""The command `toolkit models`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from toolkit.cli import options

if TYPE_CHECKING:
    from toolkit.core.specs import Task


def models(json: options.Json = False) -> None:
    """List the built-in models, and their options for --set."""
    import toolkit
    from toolkit.cli import output

    found = toolkit.models()
    if json:
        document = {"schema": "toolkit.models/2", "models": [model.to_json() for model in found]}
        output.print_json(document)
        return
    sizes = ("parameters", "bytes")
    table = output.table("Models", "name", "task", *sizes, "frameworks", "options", numeric=sizes)
    for column in table.columns[:1] + table.columns[2:4]:
        column.no_wrap = True  # not cut, even in 80 columns
    table.columns[4].min_width = max(len(name) for model in found for name in model.frameworks)
    for model in found:
        table.add_row(
            model.name,
            _task(model.task),
            f"{model.parameters:,}",
            f"{model.state_dict_bytes:,}",
            " ".join(model.frameworks),
            " ".join(model.options) or "-",
        )
    console = output.stdout()
    console.print(table)
    lines = [
        f"  {name}={option.default}: {option.help} Expects {option.describe()}."
        for model in found
        for name, option in model.options.items()
    ]
    console.print("Options, each given as --set NAME=VALUE:", markup=False)
    for line in dict.fromkeys(lines):  # families share options
        console.print(line, markup=False)


def _task(task: Task) -> str:
    """Return the input shape and the outputs of a task, such as `3x32x32 to 10 classes`."""
    value = "value" if task.outputs == 1 else "values"
    what = "classes" if task.kind == "classification" else value
    return f"{'x'.join(map(str, task.input_shape))} to {task.outputs} {what}"
