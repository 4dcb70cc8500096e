"""Load, write and serve SavedModels and .keras files without running code that they contain.

Both are checked first: see models.keras.saved_model_checks and models.keras.file_checks.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf
from tensorflow.core.protobuf.saved_model_pb2 import SavedModel

import models
from models.keras.file_checks import ENTRIES, check_entry
from models.keras.saved_model_checks import GRAPH, check_saved_model
from toolkit.core.artifact import Artifact, Format
from toolkit.core.errors import FeedError, SourceError
from toolkit.core.specs import CHANNELS_LAST, Dim, Signature, TensorSpec
from toolkit.core.tensors import load_tensors
from toolkit.core.zips import checked_copy

SERVING = "serving_default"
COMPILED = "_XlaMustCompile"
BATCH, OUTPUT = "batch", "output"
MEND = "Fix the model there; tf.function says what it can follow."
MOST_TIMES = 100  # largest ratio of an archive's unpacked size to its file size


def model_of(source: Artifact) -> keras.Model:
    """Load the Keras model, with its weights, of a family's checkpoint or of a .keras file."""
    source.verify()
    if source.format is Format.KERAS:
        return load_keras(source.path)
    builder = models.builder(source.model, "tensorflow")
    model = builder.build(source.model)
    builder.restore(model, load_tensors(source.path))
    return model


def serving_of(source: Artifact, signature: Signature) -> Callable[..., dict[str, Any]]:
    """Return a tf.function that takes the inputs of `signature` in order; its outputs are by name.

    The source is a checkpoint, a .keras file or a SavedModel. `signature` may differ from the
    source's only in the layout of images, which the function transposes to the source's layout. The
    function keeps the model alive.
    """
    return _serve(_runner(source), source.signature, signature)


def serving_of_model(model: keras.Model) -> Any:
    """Return the function of `serving_of` for a functional or sequential model in memory."""
    signature = signature_of_keras(model)
    return _serve(_flat(model, signature), signature, signature)


def _serve(
    run: Callable[[dict[str, Any]], dict[str, Any]], own: Signature, signature: Signature
) -> Callable[..., dict[str, Any]]:
    specs = [
        tf.TensorSpec([d if isinstance(d, int) else None for d in s.shape], s.dtype, s.name)
        for s in signature.inputs
    ]

    @tf.function(input_signature=specs, autograph=False)  # type: ignore[untyped-decorator, unused-ignore]
    def serve(*tensors: Any) -> dict[str, Any]:
        return run(
            {
                mine.name: _turn(tensor, spec.layout, mine.layout or CHANNELS_LAST)
                for mine, spec, tensor in zip(own.inputs, signature.inputs, tensors, strict=True)
            }
        )

    serve.kept = run
    return serve  # type: ignore[no-any-return, unused-ignore]


def _turn(tensor: Any, given: str | None, wanted: str) -> Any:
    """Transpose images from layout `given` to `wanted`; return other tensors unchanged."""
    if given is None or len(given) != 4 or given == wanted:
        return tensor
    return tf.transpose(tensor, [given.index(letter) for letter in wanted])


def _runner(source: Artifact) -> Callable[[dict[str, Any]], dict[str, Any]]:
    outputs = [spec.name for spec in source.signature.outputs]
    if source.format is Format.SAVEDMODEL:
        source.verify()
        serving = load_serving(source.path.parent)
        return lambda feeds: {name: serving(**feeds)[name] for name in outputs}
    model = model_of(source)
    if source.format is Format.KERAS:
        return _flat(model, source.signature)
    layout = source.signature.inputs[0].layout or ""  # Keras families take images channels last
    (taken,) = (spec.name for spec in source.signature.inputs)
    return lambda feeds: {
        outputs[0]: model(_turn(feeds[taken], layout, CHANNELS_LAST), training=False)
    }


def _flat(model: keras.Model, signature: Signature) -> Callable[[dict[str, Any]], dict[str, Any]]:
    """Return a functional or sequential model as a function of feeds."""
    # Operators are named after the model. Without a name, Keras numbers models, so names vary.
    flat = keras.Model(model.inputs, tf.nest.flatten(_outputs(model)), name="model")
    outputs = [spec.name for spec in signature.outputs]

    def run(feeds: dict[str, Any]) -> dict[str, Any]:
        given = [feeds[spec.name] for spec in signature.inputs]
        return dict(zip(outputs, tf.nest.flatten(flat(given, training=False)), strict=True))

    return run


def write_model(
    model: keras.Model, source: str, directory: Path
) -> tuple[Signature, frozenset[str]]:
    """Write a functional or sequential model that is in memory as a SavedModel.

    Return its signature, and the paths of the weights that inference does not read, such as the
    vectors of a spectral normalisation, which are not written. Raises SourceError for a model
    without known inputs, or one that TensorFlow cannot write.
    """
    if not model.built or not getattr(model, "inputs", None):
        raise SourceError(
            f"{source} gave a Keras model that says not what it takes.",
            hint="Begin it with a keras.Input, or return keras.Model(x, y) of its layers.",
        )
    signature = signature_of_keras(model)
    with explained(f"TensorFlow {tf.__version__} could not write {source}", MEND):
        variables = write_saved_model(serving_of_model(model), directory)
    read = {id(variable.handle) for variable in variables}
    unread = [weight.path for weight in model.weights if id(weight.value.handle) not in read]
    return signature, frozenset(unread)


def write_saved_model(serve: Any, directory: Path) -> list[Any]:
    """Write a tf.function as the default signature of a SavedModel, and return its variables."""
    module = tf.Module()
    module.serve = serve
    variables = module.kept = list(serve.get_concrete_function().variables)
    tf.saved_model.save(module, str(directory), signatures={SERVING: serve})
    return variables


def inlinable(serve: Any, signature: Signature, directory: Path) -> Any:
    """Return a function equal to `serve`, but without calls marked for separate XLA compilation.

    TensorFlow does not inline calls with this mark (`jit_compile`), which Keras sets on its grouped
    convolutions. The function is written to `directory`, which must be empty, and loaded again.
    """
    graph = serve.get_concrete_function().graph.as_graph_def()
    if not any(COMPILED in node.attr for node in _nodes(graph)):
        return serve
    write_saved_model(serve, directory)
    model = SavedModel.FromString((directory / GRAPH).read_bytes())
    for meta in model.meta_graphs:
        for holder in (*_nodes(meta.graph_def), *meta.graph_def.library.function):
            holder.attr.pop(COMPILED, None)
    (directory / GRAPH).write_bytes(model.SerializeToString())
    serving = load_serving(directory)
    return _serve(lambda feeds: dict(serving(**feeds)), signature, signature)


def _nodes(graph: Any) -> Iterator[Any]:
    yield from graph.node
    for function in graph.library.function:
        yield from function.node_def


def load_serving(directory: Path) -> Any:
    """Load the default signature of a SavedModel as a function.

    Raises SourceError for a SavedModel that is refused, has no default signature or fails to load.
    """
    check_saved_model(directory)
    try:
        loaded = tf.saved_model.load(str(directory))
        serving = loaded.signatures[SERVING]
    except KeyError:
        raise SourceError(
            f"{directory} serves no {SERVING!r}.",
            hint="Save it with signatures={'serving_default': function}.",
        ) from None
    except Exception as error:  # TensorFlow does not document what it raises
        raise _not_opened(directory, error) from error
    serving.kept = loaded  # variables live only as long as the loaded object
    serving.kept_variables = list(serving.variables)
    return serving


def load_keras(path: Path) -> keras.Model:
    """Load the model of a .keras file, in Keras' safe mode, from a copy of the checked entries.

    Raises SourceError for a file that is refused, that Keras cannot load, or whose model has no
    known inputs.
    """
    with (
        checked_copy(
            path,
            kind="a Keras file",
            hint="Save it with model.save('name.keras').",
            allowed=ENTRIES,
            most_times=MOST_TIMES,
            check=check_entry,
        ) as archive,
        tempfile.NamedTemporaryFile(suffix=path.suffix) as checked,
    ):
        shutil.copyfileobj(archive, checked)
        checked.flush()
        try:
            model = keras.models.load_model(checked.name, compile=False, safe_mode=True)
        except Exception as error:  # Keras does not document what it raises
            raise _not_opened(path, error) from error
    if not isinstance(model, keras.Model) or not model.built or not getattr(model, "inputs", None):
        raise SourceError(
            f"{path} holds no Keras model with known inputs.",
            hint="Save a functional or sequential model, or export it as a SavedModel.",
        )
    return model


def signature_of_keras(model: keras.Model) -> Signature:
    """Return the signature of a Keras model.

    Inputs have the names of the model's input tensors. Outputs have their keys if the model returns
    a dict, otherwise `output`, or `output.0`, `output.1`, ... if there are several.
    """
    outputs = _outputs(model)
    flat = tf.nest.flatten(outputs)
    if isinstance(outputs, dict):
        names = sorted(outputs)  # the order of tf.nest.flatten
    else:
        names = [OUTPUT] if len(flat) == 1 else [f"{OUTPUT}.{place}" for place in range(len(flat))]
    return Signature(
        inputs=tuple(_spec(t.name, t.dtype, t.shape) for t in model.inputs),
        outputs=tuple(_spec(name, t.dtype, t.shape) for name, t in zip(names, flat, strict=True)),
    )


def _outputs(model: keras.Model) -> Any:
    """Return the symbolic outputs, in the structure in which the model returns them.

    A sequential model has one, and no `output` attribute before it is called.
    """
    return model.outputs[0] if isinstance(model, keras.Sequential) else model.output


def signature_of_serving(serving: Any) -> Signature:
    """Return the inputs and outputs by name, in TensorFlow's order, which is alphabetical.

    Raises SourceError for an input or output of unknown rank.
    """
    inputs = serving.structured_input_signature[1]
    return Signature(
        inputs=tuple(_spec(n, s.dtype.name, _rank(n, s)) for n, s in inputs.items()),
        outputs=tuple(
            _spec(n, s.dtype.name, _rank(n, s)) for n, s in serving.structured_outputs.items()
        ),
    )


def _rank(name: str, spec: Any) -> tuple[int | None, ...]:
    if spec.shape.rank is None:
        raise SourceError(
            f"The SavedModel has an input or output {name!r} of unknown rank.",
            hint="Only models whose inputs and outputs are tensors of known rank can be run.",
        )
    return tuple(spec.shape)


def _spec(name: str, dtype: str, shape: tuple[int | None, ...]) -> TensorSpec:
    """Return a tensor spec, in which a float tensor with four axes is an image, channels last.

    TensorFlow's CPU kernels take images in this layout.
    """
    dims: list[Dim] = [
        BATCH if extent is None and axis == 0 else extent for axis, extent in enumerate(shape)
    ]
    layout = CHANNELS_LAST if len(dims) == 4 and dtype.startswith("float") else None
    return TensorSpec(name=name, dtype=dtype, shape=tuple(dims), layout=layout)


def in_layout(signature: Signature, layout: str | None) -> Signature:
    """Return the signature with 4-D inputs in `layout`, NCHW or NHWC; None leaves it unchanged."""
    if layout is None:
        return signature
    return Signature(
        inputs=tuple(_turned(spec, layout) for spec in signature.inputs), outputs=signature.outputs
    )


def _turned(spec: TensorSpec, layout: str) -> TensorSpec:
    if len(spec.shape) != 4 or spec.layout == layout:
        return spec
    known = spec.layout or CHANNELS_LAST
    shape = tuple(spec.shape[known.index(letter)] for letter in layout)
    return TensorSpec(name=spec.name, dtype=spec.dtype, shape=shape, layout=layout)


@contextmanager
def explained(what: str, hint: str) -> Iterator[None]:
    """Convert exceptions of TensorFlow or a converter to SourceError, with `what` and `hint`."""
    try:
        yield
    except (SourceError, FeedError):
        raise
    except Exception as error:
        told = str(error).strip().partition("\n")[0].rstrip(".")
        raise SourceError(f"{what}: {type(error).__name__}: {told}.", hint=hint) from error


def _not_opened(path: Path, error: Exception) -> SourceError:
    told = str(error).strip().partition("\n")[0].rstrip(".")
    return SourceError(
        f"TensorFlow {tf.__version__} could not open {path}: {type(error).__name__}: {told}.",
        hint="A file with layers or Python of its own is not run: export it as a SavedModel where "
        "they are at hand.",
    )
