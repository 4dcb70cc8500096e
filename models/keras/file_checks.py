"""Security checks of the entries of a .keras file, before Keras reads them.

Keras creates the objects that the configuration names: from its own modules or, if no module is
named, via legacy code. Safe mode refuses lambdas, but not every class that reads files. HDF5
follows links to other files, and reads datasets that are stored in other files.
"""

from __future__ import annotations

import inspect
import io
import json
import re
import sys
from collections.abc import Callable, Iterator
from typing import Any

import h5py
import keras

from toolkit.core.zips import RefusedEntry

CONFIG, METADATA, WEIGHTS = "config.json", "metadata.json", "model.weights.h5"
ENTRIES = re.compile(
    rf"{re.escape(CONFIG)}|{re.escape(METADATA)}|{re.escape(WEIGHTS)}"
    r"|assets(?:/(?!\.+(?:/|$))[\w. -]+)+"
)
# A configuration may name subclasses of these classes, and functions of these modules.
KINDS = (
    keras.Operation,  # layers and models too
    keras.Initializer,
    keras.Regularizer,
    keras.constraints.Constraint,
    keras.DTypePolicy,
    keras.dtype_policies.DTypePolicyMap,
    keras.Quantizer,
    keras.quantizers.QuantizationConfig,
    keras.random.SeedGenerator,
)
FUNCTION_MODULES = ("activations", "constraints", "initializers", "ops", "regularizers")
NO_FUNCTIONS = frozenset({"deserialize", "get", "serialize"})
# Layers that run code, read a model or load a pickle.
REACHING = (
    keras.layers.FlaxLayer, keras.layers.JaxLayer, keras.layers.Lambda, keras.layers.TFSMLayer,
    keras.layers.TorchModuleWrapper, keras.utils.FeatureSpace,
)  # fmt: skip
VALUES = frozenset(
    {"__bytes__", "__ellipsis__", "__keras_tensor__", "__numpy__", "__slice__", "__tensor__"}
)
PATHS = frozenset({"filepath", "idf_weights", "vocabulary"})  # a list is data, a string is a path
STORED_KINDS = "biufcV"  # V is bfloat16


def check_entry(name: str, read: Callable[[], bytes]) -> bytes | None:
    """Check one entry of a .keras file, and return its replacement, or None to keep it unchanged.

    The configuration is replaced by one without training settings. Raises RefusedEntry for a
    configuration or weights that could access something outside the file.
    """
    if name == CONFIG:
        config = _without_training(json.loads(read()))
        for suspect in _suspects(config):
            raise RefusedEntry(f"its configuration has {suspect}, which could reach beyond it")
        return json.dumps(config).encode()
    if name == WEIGHTS:
        _check_weights(read())
    return None


def _suspects(value: Any) -> Iterator[str]:
    """Yield the parts of a configuration that could access something outside the file.

    These are objects that are not allowed, file paths, and names that are paths.
    """
    if isinstance(value, list):
        for inner in value:
            yield from _suspects(inner)
    if not isinstance(value, dict):
        return
    if "class_name" in value and not _is_object(value):
        yield f"{str(value['class_name'])[:100]!r} of {str(value.get('module'))[:100]!r}"
    for key, inner in value.items():
        if key in PATHS and isinstance(inner, str):
            yield f"the file {inner[:100]!r} as {key}"
        if key == "name" and isinstance(inner, str) and re.search(r"[/\\]|^\.+$", inner):
            yield f"the name {inner[:100]!r}"
        yield from _suspects(inner)


def _is_object(value: dict[str, Any]) -> bool:
    """Return whether a configuration describes a value, or an allowed Keras function or class."""
    name, module = value["class_name"], value.get("module")
    if name in VALUES:
        return True
    if not isinstance(name, str) or not isinstance(module, str):
        return False
    if name == "function":
        function = value.get("config")
        return isinstance(function, str) and _is_function(module, function)
    found = _symbol(module, name)
    return (
        value.get("registered_name") in (None, name)
        and inspect.isclass(found)
        and issubclass(found, KINDS)
        and not issubclass(found, REACHING)
    )


def _is_function(module: str, name: str) -> bool:
    modules = FUNCTION_MODULES if module == "builtins" else [module.removeprefix("keras.")]
    return name not in NO_FUNCTIONS and any(
        one in FUNCTION_MODULES and inspect.isfunction(_symbol(f"keras.{one}", name))
        for one in modules
    )


def _symbol(module: str, name: str) -> object:
    """Return the attribute `name` of an imported Keras module, or None. Import nothing."""
    known = module == "keras" or module.startswith("keras.")
    return getattr(sys.modules.get(module), name, None) if known else None


def _without_training(value: Any) -> Any:
    """Return a copy of a configuration without the training settings of its models."""
    if isinstance(value, dict):
        return {
            key: None if key == "compile_config" else _without_training(inner)
            for key, inner in value.items()
        }
    return [_without_training(inner) for inner in value] if isinstance(value, list) else value


def _check_weights(content: bytes) -> None:
    """Raise RefusedEntry unless an HDF5 file has only groups, and datasets stored in the file."""
    with h5py.File(io.BytesIO(content), "r") as file:
        seen: set[int] = set()
        groups = [file["/"]]
        while groups:
            group = groups.pop()
            for name in group:
                if not isinstance(group.get(name, getlink=True), h5py.HardLink):
                    raise RefusedEntry(f"its weights have a link {name!r}")
                member = group[name]
                if isinstance(member, h5py.Dataset):
                    _check_dataset(member)
                elif not isinstance(member, h5py.Group):
                    raise RefusedEntry(f"its weights have {name!r}, which is no dataset")
                elif (address := h5py.h5o.get_info(member.id).addr) not in seen:
                    seen.add(address)
                    groups.append(member)


def _check_dataset(dataset: h5py.Dataset) -> None:
    """Raise RefusedEntry unless a dataset has numbers that are stored in the file, unfiltered."""
    name = dataset.name
    if dataset.is_virtual or dataset.external:
        raise RefusedEntry(f"its weights {name!r} are stored in another file")
    if dataset.dtype.kind not in STORED_KINDS or dataset.dtype.hasobject:
        raise RefusedEntry(f"its weights {name!r} are {dataset.dtype}, expected numbers")
    if dataset.id.get_create_plist().get_nfilters():
        raise RefusedEntry(f"its weights {name!r} are stored by a filter")
    if dataset.nbytes > dataset.id.get_storage_size():
        raise RefusedEntry(f"its weights {name!r} are declared larger than they are stored")
