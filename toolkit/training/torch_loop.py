"""The training loop in torch."""

from __future__ import annotations

import time
from typing import final

import numpy as np
import torch
from torch.nn import functional as F

import models
from toolkit.core.progress import Progress
from toolkit.core.specs import ModelSpec
from toolkit.data.base import Split, Splits
from toolkit.training.base import Epoch, Recipe, Trained, Trainer


@final
class TorchTrainer(Trainer):
    """Cross-entropy, with every row in memory as one tensor."""

    def train(self, spec: ModelSpec, splits: Splits, recipe: Recipe, progress: Progress) -> Trained:
        torch.manual_seed(recipe.seed)
        rng = np.random.default_rng(recipe.seed)
        module = models.build(spec)
        optimizer = torch.optim.SGD(
            module.parameters(),
            lr=recipe.learning_rate,
            momentum=recipe.momentum,
            weight_decay=recipe.weight_decay,
        )
        steps = -(-len(splits.train) // recipe.batch)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, recipe.epochs * steps)
        history: list[Epoch] = []
        weights: dict[str, np.ndarray] = {}
        try:
            for epoch in range(recipe.epochs):
                began = time.perf_counter_ns()
                order = torch.from_numpy(rng.permutation(len(splits.train)))
                loss = _run_epoch(module, splits.train, order, recipe.batch, optimizer, schedule)
                took = time.perf_counter_ns() - began
                test_loss, accuracy = evaluate(module, splits.test)
                entry = Epoch(
                    train_ns=took, train_loss=loss, test_loss=test_loss, test_accuracy=accuracy
                )
                # One statement each, so that Ctrl-C cannot part an epoch from its weights by much:
                # weights first, since a history without weights would be a lie.
                weights = {k: v.detach().numpy().copy() for k, v in module.state_dict().items()}
                history.append(entry)
                rate = len(splits.train) / (took / 1e9)
                progress.update(
                    f"train {spec.name}",
                    epoch + 1,
                    recipe.epochs,
                    f"loss {loss:.4f}, test loss {test_loss:.4f}, "
                    f"test accuracy {accuracy:.2%}, {rate:,.0f} samples/s",
                )
        except KeyboardInterrupt:
            if not history:
                raise
            return Trained(weights=weights, history=tuple(history), interrupted=True)
        return Trained(weights=weights, history=tuple(history), interrupted=False)


def _run_epoch(
    module: torch.nn.Module,
    split: Split,
    order: torch.Tensor,
    batch: int,
    optimizer: torch.optim.Optimizer,
    schedule: torch.optim.lr_scheduler.LRScheduler,
) -> float:
    """One pass over the rows in `order`; gives the mean loss over the rows."""
    inputs, targets = torch.from_numpy(split.inputs), torch.from_numpy(split.targets)
    module.train()
    total = 0.0
    for rows in order.split(batch):
        optimizer.zero_grad(set_to_none=True)
        loss = F.cross_entropy(module(inputs[rows]), targets[rows])
        loss.backward()
        optimizer.step()
        schedule.step()
        total += loss.item() * len(rows)
    return total / len(order)


@torch.inference_mode()
def evaluate(module: torch.nn.Module, split: Split, batch: int = 256) -> tuple[float, float]:
    """Mean cross-entropy and top-1 accuracy over a split."""
    module.eval()
    inputs, targets = torch.from_numpy(split.inputs), torch.from_numpy(split.targets)
    logits = torch.cat([module(part) for part in inputs.split(batch)])
    loss = F.cross_entropy(logits, targets).item()
    accuracy = (logits.argmax(1) == targets).float().mean().item()
    return loss, accuracy
