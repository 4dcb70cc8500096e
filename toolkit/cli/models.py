"""toolkit models"""

from __future__ import annotations

from toolkit.cli import options


def models(json: options.Json = False) -> None:
    """List the built-in models, with the sizes counted on them."""
    import toolkit
    from toolkit.cli import output

    found = toolkit.models()
    if json:
        document = {"schema": "toolkit.models/1", "models": [model.to_json() for model in found]}
        output.print_json(document)
        return
    sizes = ("parameters", "state dict bytes")
    table = output.table(
        "Models", "name", "family", "frameworks", *sizes, "inputs", "outputs", numeric=sizes
    )
    for model in found:
        table.add_row(
            model.name,
            model.family,
            ", ".join(model.frameworks),
            f"{model.parameters:,}",
            f"{model.state_dict_bytes:,}",
            *(
                output.escape("; ".join(map(str, specs)))
                for specs in (model.signature.inputs, model.signature.outputs)
            ),
        )
    output.stdout().print(table)
