"""The equations of the refinement (paper, section 3.3, equations 4 to 7).

All is vectorised over samples and prototypes; a per-sample version of the same mathematics stands
in `tests/test_refine.py`. Two points where the authors' released code differs from their equations
follow the equations: rho weighs the prototype in the attention, and both regularisers are part of
the objective.
"""

from collections.abc import Mapping
from typing import Final, Self

import numpy as np
from numpy.typing import NDArray

from pgenrm.errors import MissingExtraError

try:
    import torch
    from torch import Tensor, nn
    from torch.nn.functional import softplus
except ImportError as error:
    raise MissingExtraError("prototypes", "the refinement of prototypes") from error


SETTINGS: Final = ("rho", "lambda_query", "lambda_history")


class PreferenceScorer(nn.Module):
    """Margins of response pairs under prototypes, given past choices.

    For a query q with candidates y+ and y-, a prototype a, and past choices tau:

        o_tau     = tanh(W [q_tau ; y+_tau - y-_tau])
        alpha_tau = softmax_tau(o_tau . q / sqrt(d) + rho * o_tau . a / sqrt(d))
        z         = a + lambda_q W_q q + lambda_s W_s sum_tau alpha_tau o_tau
        margin    = z . (y+ - y-)

    W starts as sqrt(d) [0 I] and W_s as I / sqrt(d), so that the untrained history term compares
    the pair with past ones; W_q starts at zero. A coordinate of a vector of length one is about
    1 / sqrt(d): with sqrt(d) the arguments of tanh are of order one, and training is quicker and
    ends better than from W = [0 I], W_s = I or from small random numbers.
    """

    def __init__(
        self,
        dimension: int,
        *,
        rho: float = 0.5,
        lambda_query: float = 1.0,
        lambda_history: float = 1.0,
    ) -> None:
        """Start untrained, for embeddings of `dimension` numbers."""
        super().__init__()
        identity = torch.eye(dimension)
        self.W = nn.Parameter(
            torch.cat([torch.zeros_like(identity), identity * dimension**0.5], dim=1)
        )
        self.W_q = nn.Parameter(torch.zeros_like(identity))
        self.W_s = nn.Parameter(identity / dimension**0.5)
        self.rho = rho
        self.lambda_query = lambda_query
        self.lambda_history = lambda_history

    def read(self, query: Tensor, difference: Tensor) -> Tensor:
        """Return o_tau [m, d] of past choices: queries [m, d] and y+ - y- [m, d].

        It depends on the choice alone, so a batch reads each of its distinct choices once.
        """
        return torch.tanh(torch.cat([query, difference], dim=1) @ self.W.T)

    def margins(
        self,
        prototypes: Tensor,
        query: Tensor,
        difference: Tensor,
        readings: Tensor,
        history: Tensor,
        shown: Tensor,
    ) -> Tensor:
        """Return the margin [b, k] of every pair under every prototype.

        No tensor here is larger than [b, h, d] or [b, h, k]: W_s is applied to the pair's
        difference, not to the k attended histories.

        Args:
            prototypes: [k, d].
            query: [b, d].
            difference: [b, d], y+ - y-.
            readings: [m, d], what `read` gave for the choices that histories refer to.
            history: int [b, h], rows of `readings`; any valid row where not shown.
            shown: bool [b, h]; a pair without any history has the history term 0.
        """
        seen = readings[history]
        # Both products with o_tau in one: with the query, and with W_s^T (y+ - y-).
        by_query, pull = (seen @ torch.stack([query, difference @ self.W_s], dim=2)).unbind(dim=2)
        by_prototype = (readings @ prototypes.T)[history]
        logits = (by_query[..., None] + self.rho * by_prototype) / query.shape[1] ** 0.5
        hidden = ~shown[..., None]
        # The lowest finite number: with -inf, a history without any choice would give NaN.
        weights = logits.masked_fill(hidden, torch.finfo(logits.dtype).min).softmax(dim=1)
        from_history = torch.einsum("bhk,bh->bk", weights.masked_fill(hidden, 0.0), pull)
        from_query = ((query @ self.W_q.T) * difference).sum(dim=1, keepdim=True)
        return (
            difference @ prototypes.T
            + self.lambda_query * from_query
            + self.lambda_history * from_history
        )

    def arrays(self) -> dict[str, NDArray[np.float32]]:
        """Return weights and settings as arrays, to be saved; `from_arrays` reads them."""
        weights = {name: value.detach().numpy().copy() for name, value in self.named_parameters()}
        settings = {name: np.float32(getattr(self, name)).reshape(1) for name in SETTINGS}
        return weights | settings

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[np.float32]]) -> Self:
        """Rebuild a scorer from `arrays`; a missing one is a KeyError."""
        settings = {name: float(arrays[name][0]) for name in SETTINGS}
        scorer = cls(len(arrays["W_q"]), **settings)
        scorer.load_state_dict(
            {name: torch.tensor(arrays[name]) for name, _ in scorer.named_parameters()}
        )
        return scorer


def objective(
    margins: Tensor,
    assignment: Tensor,
    prototypes: Tensor,
    means: Tensor,
    previous: Tensor,
    *,
    lambda_centre: float,
    lambda_trust: float,
) -> Tensor:
    """Return equation 7, the mean over samples of pair loss, centre and trust terms.

    Args:
        margins: [b, k].
        assignment: int [b], the prototype of every sample.
        prototypes: a, [k, d].
        means: mu, [k, d].
        previous: p, [k, d].
        lambda_centre: weight of ||a - mu||^2.
        lambda_trust: weight of ||a - p||^2.
    """
    pair = softplus(-margins.gather(1, assignment[:, None])).mean()
    centre = (prototypes - means).square().sum(dim=1)[assignment].mean()
    trust = (prototypes - previous).square().sum(dim=1)[assignment].mean()
    return pair + lambda_centre * centre + lambda_trust * trust
