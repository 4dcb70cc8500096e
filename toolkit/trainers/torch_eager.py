"""Eager training loop in torch, with a DataLoader and torch.optim."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, final

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, Sampler

from models.torch.base import TorchBuilder
from toolkit.data.augment import augmented
from toolkit.data.base import Split
from toolkit.trainers.base import Epoch, EpochRun, Job, TrainingSession
from toolkit.trainers.recipe import Recipe
from toolkit.trainers.torch_model import TorchModel
from toolkit.trainers.torch_team import Team


@final
class EagerSession(TrainingSession):
    """Session of the `eager` mode.

    With `team`, it computes this process's part of each batch, together with the other processes.
    """

    def __init__(self, job: Job, builder: TorchBuilder, team: Team | None = None) -> None:
        self._team = team
        self._model = TorchModel(job, builder)
        self._optimizer = _optimizer(self._model.module, job.recipe)
        self._order = _Order()
        self._workers = job.settings.loader_workers
        self._loader: DataLoader[tuple[torch.Tensor, torch.Tensor]] | None = DataLoader(
            _Rows(job.train),
            batch_size=job.recipe.batch,
            sampler=self._order,
            num_workers=self._workers,
            persistent_workers=self._workers > 0,
            generator=torch.Generator(),  # worker seeds must not advance dropout's
        )

    def run_epoch(self, epoch: Epoch) -> EpochRun:
        torch.manual_seed(epoch.draw)
        model = self._model
        model.module.train()
        losses, metric = [], torch.zeros((), dtype=torch.float64, device=model.device)
        for (inputs, targets), rate in zip(self._batches(epoch), epoch.rates, strict=True):
            for group in self._optimizer.param_groups:
                group["lr"] = float(rate)
            self._optimizer.zero_grad(set_to_none=True)
            if self._team is None:
                outputs = model.module(inputs)
                loss = model.loss(outputs, targets)
                loss.backward()
                right = model.metric_sum(outputs.detach(), targets)
            else:
                loss, right = self._together(self._team, inputs, targets)
            self._optimizer.step()
            losses.append(loss.detach())
            metric += right
        if self._team is not None:
            self._team.agree(model.module)
        return EpochRun(
            losses=torch.stack(losses).cpu().numpy(), metric=float(metric) / len(epoch.order)
        )

    def _together(
        self, team: Team, inputs: torch.Tensor, targets: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Compute this process's part of a batch, and combine it with the other processes' parts.

        Returns the loss and the metric sum of the whole batch. The gradients of the parameters are
        then those of the whole batch.
        """
        model, rows = self._model, len(targets)
        inputs, targets = team.part(inputs), team.part(targets)
        loss = right = torch.zeros((), device=model.device)
        if len(targets):
            outputs = model.module(inputs)
            loss = model.loss(outputs, targets) * (len(targets) / rows)
            loss.backward()
            right = model.metric_sum(outputs.detach(), targets)
        team.add_gradients(model.module.parameters())
        return team.added(loss.detach()), team.added(right.double())

    def _batches(self, epoch: Epoch) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """Yield the same batches as `Epoch.batches`, via the DataLoader, on the device."""
        assert self._loader is not None, "closed"
        self._order.rows = epoch.order
        rng = epoch.augmentation_rng()
        for inputs, targets in self._loader:
            if epoch.augmentation:
                changed = augmented(inputs.numpy(), epoch.augmentation, rng)
                inputs = torch.from_numpy(changed)
            yield inputs.to(self._model.device), targets.to(self._model.device)

    def predict(self, inputs: np.ndarray) -> np.ndarray:
        return self._model.predict(inputs)

    def weights(self) -> dict[str, np.ndarray]:
        return self._model.weights()

    def state(self) -> dict[str, np.ndarray]:
        found = {f"model/{name}": array for name, array in self.weights().items()}
        for index, slots in self._optimizer.state_dict()["state"].items():
            for name, value in slots.items():
                if value is not None:
                    found[f"optimizer/{index}/{name}"] = torch.as_tensor(value).cpu().numpy().copy()
        return found

    def restore(self, state: Mapping[str, np.ndarray]) -> None:
        model: dict[str, np.ndarray] = {}
        slots: dict[int, dict[str, torch.Tensor]] = {}
        for name, array in state.items():
            part, _, rest = name.partition("/")
            if part == "model":
                model[rest] = array
            else:
                index, _, slot = rest.partition("/")
                slots.setdefault(int(index), {})[slot] = torch.from_numpy(array.copy())
        self._model.restore(model)
        groups = self._optimizer.state_dict()["param_groups"]
        self._optimizer.load_state_dict({"state": slots, "param_groups": groups})

    def provenance(self) -> dict[str, Any]:
        return {
            **self._model.provenance(),
            "loader_workers": self._workers,
            "optimizer": f"torch.optim.{type(self._optimizer).__name__}",
        }

    def close(self) -> None:
        if self._loader is not None:
            self._loader = None  # ends its worker processes
            self._model.close()


@final
class _Rows(Dataset[tuple[torch.Tensor, torch.Tensor]]):
    def __init__(self, split: Split) -> None:
        self._inputs = torch.from_numpy(np.require(split.inputs, requirements=["C", "W"]))
        self._targets = torch.from_numpy(np.require(split.targets, requirements=["C", "W"]))

    def __len__(self) -> int:
        return len(self._targets)

    def __getitem__(self, row: int) -> tuple[torch.Tensor, torch.Tensor]:
        return self._inputs[row], self._targets[row]


@final
class _Order(Sampler[int]):
    """Sampler that yields `rows`, as set before the loader starts an epoch."""

    def __init__(self) -> None:
        self.rows = np.empty(0, np.int64)

    def __len__(self) -> int:
        return len(self.rows)

    def __iter__(self) -> Iterator[int]:
        return iter(self.rows.tolist())


def _optimizer(module: torch.nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    parameters = module.parameters()
    rate, decay = recipe.learning_rate, recipe.weight_decay
    if recipe.optimizer == "adam":
        return torch.optim.Adam(parameters, lr=rate, weight_decay=decay)
    if recipe.optimizer == "rmsprop":
        return torch.optim.RMSprop(
            parameters, lr=rate, weight_decay=decay, momentum=recipe.momentum
        )
    return torch.optim.SGD(parameters, lr=rate, weight_decay=decay, momentum=recipe.momentum)
