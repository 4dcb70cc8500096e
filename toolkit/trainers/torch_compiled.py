"""Compiled training loops in torch: whole steps, with backward and update, in one function.

make_fx traces a step, including torch's autograd. The graph therefore contains any custom backward
of a module, and torch.compile gets a function that needs no gradients. The data is in memory.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, final

import numpy as np
import torch
from torch._dynamo import config as dynamo
from torch._inductor import list_mode_options
from torch.func import functional_call
from torch.fx import GraphModule
from torch.fx.experimental.proxy_tensor import make_fx

from models.torch.base import TorchBuilder
from toolkit.core.errors import UsageError
from toolkit.data.base import Split
from toolkit.trainers.base import Epoch, EpochRun, Job, TrainingSession
from toolkit.trainers.torch_model import TorchModel
from toolkit.trainers.torch_pooling import DECOMPOSITIONS
from toolkit.trainers.torch_updates import slot_names, step_numbers, update_of

# Call kernels from C++, and parallelise only with at least 4,096 values per core: the steps of a
# perceptron are so short that calls and thread synchronisation cost more than the arithmetic.
CPU_OPTIONS = {"cpp_wrapper": True, "cpp.min_chunk_size": 4096}
MOST_STEPS = 6
# Compilation takes about 0.1 s per operation. More steps in a function only save the overhead of
# calls, which is small compared with the time of this many operations.
MOST_OPERATIONS = 600

Tensors = list[torch.Tensor]


@final
class CompiledSession(TrainingSession):
    """Session of the compiled modes.

    `most_steps` is the number of steps in one function; None derives it from the number of
    operations of a step, up to MOST_STEPS. `mode` is that of torch.compile, None for its default.
    `run_epoch` raises UsageError if make_fx cannot trace the model.
    """

    def __init__(
        self, job: Job, builder: TorchBuilder, *, most_steps: int | None, mode: str | None
    ) -> None:
        self._job = job
        self._model = TorchModel(job, builder)
        self._mode = mode
        self._most_steps = most_steps
        module, zeros = self._model.module, torch.zeros_like
        self._parameters = {n: p for n, p in module.named_parameters() if p.requires_grad}
        self._slots = {
            f"{name}/{slot}": zeros(parameter, requires_grad=False)
            for name, parameter in self._parameters.items()
            for slot in slot_names(job.recipe)
        }
        self._done = 0
        self._inputs = self._model.on_device(job.train.inputs)
        self._targets = self._model.on_device(job.train.targets)
        self._graphs: dict[int, GraphModule] = {}  # by batch size
        self._functions: dict[tuple[int, ...], Callable[..., Any]] = {}  # by the size of each batch
        # The limit counts the compilations of all sessions in the process; the default is 8.
        dynamo.recompile_limit = dynamo.accumulated_recompile_limit

    def run_epoch(self, epoch: Epoch) -> EpochRun:
        torch.manual_seed(epoch.draw)
        self._model.module.train()
        numbers = torch.from_numpy(step_numbers(self._job.recipe, epoch.rates, self._done))
        numbers = numbers.to(self._model.device)
        order = torch.from_numpy(epoch.order).to(self._model.device)
        batches = epoch.batches(self._job.train) if epoch.augmentation else None
        losses: Tensors = []
        metrics: Tensors = []
        step = 0
        for group in self._groups(epoch):
            count = sum(group)
            rows = order[step * epoch.batch :][:count]
            data = (self._inputs, self._targets)
            if batches is not None:
                data, rows = self._augmented([next(batches) for _ in group])
            loss, metric = self._function(group)(
                *self._values(), *data, rows, numbers[step : step + len(group)]
            )
            # With CUDA graphs, the next call overwrites the outputs of this one.
            losses.append(loss.clone() if self._mode else loss)
            metrics.append(metric.clone() if self._mode else metric)
            step += len(group)
        self._done += step
        return EpochRun(
            losses=torch.cat(losses).cpu().numpy(),
            metric=float(torch.cat(metrics).double().sum()) / len(epoch.order),
        )

    def _groups(self, epoch: Epoch) -> list[tuple[int, ...]]:
        """Return the size of each batch, grouped by call of a compiled function."""
        sizes = [
            min(epoch.batch, len(epoch.order) - at)
            for at in range(0, len(epoch.order), epoch.batch)
        ]
        together = self._together(sizes[0])
        tail = len(sizes) % together or together * (sizes[-1] != sizes[0])
        groups = [tuple(sizes[at : at + together]) for at in range(0, len(sizes) - tail, together)]
        rest = sizes[len(sizes) - tail :]
        if self._most_steps == 1:
            return [*groups, *((size,) for size in rest)]
        return [*groups, tuple(rest)] if rest else groups

    def _together(self, size: int) -> int:
        if self._most_steps is not None:
            return self._most_steps
        operations = sum(node.op == "call_function" for node in self._graph(size).graph.nodes)
        return max(1, min(MOST_STEPS, MOST_OPERATIONS // operations))

    def _augmented(
        self, batches: Sequence[Split]
    ) -> tuple[tuple[torch.Tensor, torch.Tensor], torch.Tensor]:
        inputs = self._model.on_device(np.concatenate([batch.inputs for batch in batches]))
        targets = self._model.on_device(np.concatenate([batch.targets for batch in batches]))
        return (inputs, targets), torch.arange(len(targets), device=self._model.device)

    def _values(self) -> tuple[Tensors, Tensors, Tensors]:
        """Return the tensors that steps change in place: parameters, slots and buffers."""
        return (
            [parameter.detach() for parameter in self._parameters.values()],
            list(self._slots.values()),
            list(self._model.module.buffers()),
        )

    def _function(self, sizes: tuple[int, ...]) -> Callable[..., Any]:
        """Return the compiled function for steps of these batch sizes."""
        if sizes not in self._functions:
            graphs = [self._graph(size) for size in sizes]
            ends = np.cumsum(sizes).tolist()
            self._functions[sizes] = torch.compile(
                _steps(graphs, list(zip([0, *ends], ends, strict=False))),
                dynamic=False,
                fullgraph=True,
                options=self._options(),
            )
        return self._functions[sizes]

    def _options(self) -> dict[str, Any]:
        """Return the Inductor options of the mode, and on a CPU also CPU_OPTIONS."""
        mode = list_mode_options(self._mode) if self._mode else {}
        return {**mode, **(CPU_OPTIONS if self._model.device.type == "cpu" else {})}

    def _graph(self, size: int) -> GraphModule:
        """Return the graph of one step with batch size `size`; all its tensors are arguments.

        Raises UsageError if make_fx cannot trace the model.
        """
        if size not in self._graphs:
            rows = torch.arange(size, device=self._model.device) % len(self._inputs)
            numbers = torch.ones(2, device=self._model.device)
            try:
                with torch.random.fork_rng(devices=[]):
                    self._graphs[size] = make_fx(
                        lambda *given: self._step(*given), dict(DECOMPOSITIONS)
                    )(*self._values(), self._inputs[rows], self._targets[rows], numbers)
            except RuntimeError as error:
                raise UsageError(
                    f"Model {self._job.spec.name!r} cannot be compiled as a whole: {error}",
                    hint="Give --mode eager, or let nothing in the model depend on values that "
                    "are known only when it runs.",
                ) from error
        return self._graphs[size]

    def _step(
        self,
        parameters: Tensors,
        slots: Tensors,
        buffers: Tensors,
        inputs: torch.Tensor,
        targets: torch.Tensor,
        numbers: torch.Tensor,
    ) -> tuple[Tensors, Tensors, Tensors, torch.Tensor, torch.Tensor]:
        """Compute forward, backward and update of a step, without changing an argument."""
        model, update = self._model, update_of(self._job.recipe)
        with torch.enable_grad():
            values = [value.detach().requires_grad_() for value in parameters]
            buffers = [buffer.clone() for buffer in buffers]
            names = [name for name, _ in model.module.named_buffers()]
            replaced = dict(zip((*self._parameters, *names), (*values, *buffers), strict=True))
            outputs = functional_call(model.module, replaced, (inputs,))
            loss = model.loss(outputs, targets)
            gradients = torch.autograd.grad(loss, values, allow_unused=True)
        each = len(slots) // len(parameters)
        new_parameters: Tensors = []
        new_slots: Tensors = []
        for index, (value, gradient) in enumerate(zip(parameters, gradients, strict=True)):
            own: Sequence[torch.Tensor] = slots[index * each : (index + 1) * each]
            new = value
            if gradient is not None:
                new, own = update(value, gradient, own, numbers)
            new_parameters.append(new)
            new_slots.extend(own)
        metric = model.metric_sum(outputs.detach(), targets)
        return new_parameters, new_slots, buffers, loss.detach(), metric

    def predict(self, inputs: np.ndarray) -> np.ndarray:
        return self._model.predict(inputs)

    def weights(self) -> dict[str, np.ndarray]:
        return self._model.weights()

    def state(self) -> dict[str, np.ndarray]:
        slots = {f"optimizer/{n}": t.cpu().numpy().copy() for n, t in self._slots.items()}
        model = {f"model/{name}": array for name, array in self.weights().items()}
        return {**model, **slots, "steps": np.array(self._done)}

    @torch.no_grad()
    def restore(self, state: Mapping[str, np.ndarray]) -> None:
        model = {n.partition("/")[2]: a for n, a in state.items() if n.startswith("model/")}
        self._model.restore(model)
        for name, slot in self._slots.items():
            slot.copy_(torch.from_numpy(state[f"optimizer/{name}"].copy()))
        self._done = int(state["steps"])

    def provenance(self) -> dict[str, Any]:
        return {
            **self._model.provenance(),
            "compiler": "inductor",
            "compile_mode": self._mode or "default",
            "compile_options": self._options(),
            "steps_in_a_function": sorted({len(sizes) for sizes in self._functions}),
            "evaluation": "eager",
        }

    def close(self) -> None:
        if self._functions or self._graphs:
            self._functions, self._graphs = {}, {}
            torch.compiler.reset()
        self._model.close()


def _steps(graphs: Sequence[GraphModule], spans: Sequence[tuple[int, int]]) -> Callable[..., Any]:
    """Return a function that runs the graphs in order, then updates its arguments in place."""

    def steps(
        parameters: Tensors,
        slots: Tensors,
        buffers: Tensors,
        inputs: torch.Tensor,
        targets: torch.Tensor,
        rows: torch.Tensor,
        numbers: torch.Tensor,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        now = (parameters, slots, buffers)
        losses: Tensors = []
        metrics: Tensors = []
        for index, (graph, (begin, end)) in enumerate(zip(graphs, spans, strict=True)):
            batch = rows[begin:end]
            *now, loss, metric = graph(
                *now, inputs.index_select(0, batch), targets.index_select(0, batch), numbers[index]
            )
            losses.append(loss)
            metrics.append(metric)
        for old, new in zip((parameters, slots, buffers), now, strict=True):
            for place, value in zip(old, new, strict=True):
                place.copy_(value)
        return torch.stack(losses), torch.stack(metrics)

    return steps
