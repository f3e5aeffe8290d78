"""Muon for the matrices of a model, AdamW for all the rest, as one optimiser.

Muon makes every step of a matrix orthogonal (Jordan and others, 2024), with steps as large as
AdamW's (Liu and others, arXiv 2502.16982), so that one learning rate serves both. torch has each of
the two; a trainer takes one optimiser.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

NOT_MUON = ("embed", "lm_head")
"""Parts of names: tables that have a row per token are no linear maps between layers."""


class MuonAdamW(torch.optim.Optimizer):
    """Both optimisers; their parameter groups stand side by side for schedulers to change."""

    def __init__(
        self,
        model: nn.Module,
        *,
        lr: float,
        weight_decay: float,
        betas: tuple[float, float],
        momentum: float,
    ) -> None:
        """Share out what of the model is trained.

        Args:
            model: linear layers' weights go to Muon, all other parameters to AdamW.
            lr: learning rate of both.
            weight_decay: of Muon; AdamW has none here.
            betas: of AdamW.
            momentum: of Muon.

        Raises:
            ValueError: nothing of the model is trained by one of the two.
        """
        trained = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
        is_matrix = [p.ndim == 2 and not any(w in name for w in NOT_MUON) for name, p in trained]
        matrices = [p for (_, p), is_one in zip(trained, is_matrix, strict=True) if is_one]
        others = [p for (_, p), is_one in zip(trained, is_matrix, strict=True) if not is_one]
        self._parts: tuple[torch.optim.Optimizer, ...] = (
            torch.optim.Muon(
                matrices,
                lr=lr,
                weight_decay=weight_decay,
                momentum=momentum,
                adjust_lr_fn="match_rms_adamw",
            ),
            torch.optim.AdamW(others, lr=lr, betas=betas, weight_decay=0.0),
        )
        super().__init__([p for _, p in trained], {"lr": lr})
        self._join()

    def step(self, closure: Callable[[], float] | None = None) -> Any:
        """Make a step with each."""
        loss = None if closure is None else closure()
        for part in self._parts:
            part.step()
        return loss

    def state_dict(self) -> dict[str, Any]:
        """Return the states of both."""
        return {"parts": [part.state_dict() for part in self._parts]}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take the states of both."""
        for part, state in zip(self._parts, state_dict["parts"], strict=True):
            part.load_state_dict(state)
        self._join()

    def _join(self) -> None:
        self.param_groups = [group for part in self._parts for group in part.param_groups]
