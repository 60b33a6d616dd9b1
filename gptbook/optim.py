# Exported from chapters/06_optimizers.md, chapters/06_training_loop.md. Edit the cells there and
# run `make export`, or edit this file and run `python -m book.tools.export --back`.
"""Optimizers by hand: SGD, Adam, AdamW and Muon, what they decay, and clipping of gradients.

Each is a torch.optim.Optimizer, so that groups, states and schedulers work as they do there, and
each states how close it comes to torch's own.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Iterable, Sequence
from typing import Any, Literal, NamedTuple, get_args

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.adamw import adamw

from gptbook.attention import CausalSelfAttention
from gptbook.layers import LearnedPositions, SwiGLU, TokenEmbedding
from gptbook.train_config import OptimConfig

Parameters = Iterable[Tensor] | Iterable[dict[str, Any]] | Iterable[tuple[str, Tensor]]
"""What an optimizer takes: tensors, or groups of them with settings of their own."""


def check_range(value: float, name: str, low: float, high: float = math.inf) -> None:
    """Raise ValueError unless low <= value < high."""
    if not low <= value < high:
        end = f" and below {high:g}" if high < math.inf else ""
        raise ValueError(f"{name} must be at least {low:g}{end}, got {value!r}")


class ByGroup(Optimizer):
    """An optimizer whose step updates the parameters of each group that have a gradient."""

    @torch.no_grad()
    def step(self) -> None:  # type: ignore[override]  # no closure: no optimizer here needs one
        """Change the parameters once."""
        for group in self.param_groups:
            parameters = [p for p in group["params"] if p.grad is not None]
            if parameters:
                self.update(parameters, [p.grad for p in parameters], group)

    @abstractmethod
    def update(self, parameters: list[Tensor], grads: list[Tensor], group: dict[str, Any]) -> None:
        """Change parameters, given their gradients and the group's settings."""


class SGD(ByGroup):
    """Stochastic gradient descent, with momentum if asked for: equal to torch.optim.SGD's bits.

    Source: Robbins and Monro (1951); momentum: Polyak (1964); nesterov: Sutskever et al. (2013).
    """

    def __init__(
        self,
        params: Parameters,
        lr: float,
        *,
        momentum: float = 0.0,
        nesterov: bool = False,
        weight_decay: float = 0.0,
    ) -> None:
        """Prepare to update params.

        Args:
            params: tensors or groups.
            lr: the learning rate.
            momentum: how much of the last step's direction stays.
            nesterov: look ahead by one step of momentum.
            weight_decay: strength of the L2 penalty, which is added to the gradient.

        Raises:
            ValueError: a setting is out of range, or nesterov has no momentum.
        """
        check_range(lr, "lr", 0.0)
        check_range(momentum, "momentum", 0.0, 1.0)
        check_range(weight_decay, "weight_decay", 0.0)
        if nesterov and momentum == 0:
            raise ValueError("nesterov looks ahead along the momentum, but momentum is 0")
        settings = {"momentum": momentum, "nesterov": nesterov, "weight_decay": weight_decay}
        super().__init__(params, {"lr": lr, **settings})

    def update(self, parameters: list[Tensor], grads: list[Tensor], group: dict[str, Any]) -> None:
        """Change parameters, given their gradients and the group's settings."""
        momentum = group["momentum"]
        for parameter, grad in zip(parameters, grads, strict=True):
            if group["weight_decay"]:
                grad = grad.add(parameter, alpha=group["weight_decay"])
            if momentum:
                state = self.state[parameter]
                if "momentum_buffer" not in state:
                    state["momentum_buffer"] = grad.clone()
                else:
                    state["momentum_buffer"].mul_(momentum).add_(grad)
                direction = state["momentum_buffer"]
                grad = grad.add(direction, alpha=momentum) if group["nesterov"] else direction
            parameter.add_(grad, alpha=-group["lr"])


AdamBackend = Literal["auto", "loop", "foreach", "fused"]
"""How Adam and AdamW compute their step; see `AdamW`."""

FUSED_DEVICES = ("cpu", "cuda", "mps")
"""Devices with a fused AdamW."""


def adam_update(
    parameter: Tensor,
    grad: Tensor,
    state: dict[str, Any],
    group: dict[str, Any],
) -> None:
    """Take one step of Adam for one tensor, in place, and count it in state["step"].

    Source: Kingma and Ba (2015), algorithm 1, in the order of torch's operations.
    """
    beta1, beta2 = group["betas"]
    state["step"] += 1
    step = state["step"].item()
    mean, square = state["exp_avg"], state["exp_avg_sq"]
    mean.lerp_(grad, 1 - beta1)
    square.mul_(beta2).addcmul_(grad, grad, value=1 - beta2)
    root = (square.sqrt() / math.sqrt(1 - beta2**step)).add_(group["eps"])  # eps is not in the root
    parameter.addcdiv_(mean, root, value=-group["lr"] / (1 - beta1**step))


class Adam(ByGroup):
    """Adam (Kingma and Ba 2015): weight_decay, if given, is an L2 penalty in the gradient.

    Equal to torch.optim.Adam(foreach=False)'s bits. Its states can be exchanged with torch's.
    """

    def __init__(
        self,
        params: Parameters,
        lr: float = 1e-3,
        *,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
    ) -> None:
        """Prepare to update params.

        Args:
            params: tensors or groups.
            lr: the learning rate: about how far a number moves in a step.
            betas: how much of the mean of gradients and of that of their squares stays.
            eps: added to the root of the mean square.
            weight_decay: strength of the decay.

        Raises:
            ValueError: a setting is out of range.
        """
        check_range(lr, "lr", 0.0)
        for beta in betas:
            check_range(beta, "each of betas", 0.0, 1.0)
        check_range(eps, "eps", 0.0)
        check_range(weight_decay, "weight_decay", 0.0)
        settings = {"betas": tuple(betas), "eps": eps, "weight_decay": weight_decay}
        super().__init__(params, {"lr": lr, **settings})

    def moments(self, parameter: Tensor) -> dict[str, Any]:
        """Return the state of a parameter; at first, all is zero."""
        state: dict[str, Any] = self.state[parameter]
        if not state:
            state["step"] = torch.tensor(0.0)
            state["exp_avg"] = torch.zeros_like(parameter)
            state["exp_avg_sq"] = torch.zeros_like(parameter)
        return state

    def update(self, parameters: list[Tensor], grads: list[Tensor], group: dict[str, Any]) -> None:
        """Change parameters, given their gradients and the group's settings."""
        for parameter, grad in zip(parameters, grads, strict=True):
            if group["weight_decay"]:
                grad = grad.add(parameter, alpha=group["weight_decay"])
            adam_update(parameter, grad, self.moments(parameter), group)


class AdamW(Adam):
    """Adam with decoupled weight decay: each step first shrinks the weights by lr weight_decay.

    Backend "loop" is the slow twin, equal to torch.optim.AdamW(foreach=False)'s bits. "foreach"
    does the same for all tensors of a group in a few calls, in the same order of operations.
    "fused" is torch's kernel that goes over the numbers once; it rounds in another order, by less
    than 1e-6 of a step. "auto" is fused where the device has it, otherwise foreach. States can be
    exchanged among the backends and with torch's AdamW.

    Source: Loshchilov and Hutter (2019), algorithm 2.
    """

    def __init__(
        self,
        params: Parameters,
        lr: float = 1e-3,
        *,
        betas: tuple[float, float] = (0.9, 0.95),
        eps: float = 1e-8,
        weight_decay: float = 0.1,
        backend: AdamBackend = "auto",
    ) -> None:
        """Prepare to update params. Arguments: `Adam`, and the backend."""
        if backend not in get_args(AdamBackend):
            names = ", ".join(get_args(AdamBackend))
            raise ValueError(f"backend is {backend!r}; choose one of {names}")
        super().__init__(params, lr, betas=betas, eps=eps, weight_decay=weight_decay)
        self.backend = backend

    def update(self, parameters: list[Tensor], grads: list[Tensor], group: dict[str, Any]) -> None:
        """Change parameters, given their gradients and the group's settings."""
        backend: str = self.backend
        if backend == "auto":
            on_device = all(p.device.type in FUSED_DEVICES for p in parameters)
            backend = "fused" if on_device else "foreach"
        match backend:
            case "loop":
                self._loop(parameters, grads, group)
            case "foreach":
                self._foreach(parameters, grads, group)
            case "fused":
                self._fused(parameters, grads, group)

    def _loop(self, parameters: list[Tensor], grads: list[Tensor], group: dict[str, Any]) -> None:
        for parameter, grad in zip(parameters, grads, strict=True):
            parameter.mul_(1 - group["lr"] * group["weight_decay"])
            adam_update(parameter, grad, self.moments(parameter), group)

    def _foreach(
        self, parameters: list[Tensor], grads: list[Tensor], group: dict[str, Any]
    ) -> None:
        states = [self.moments(parameter) for parameter in parameters]
        means = [state["exp_avg"] for state in states]
        squares = [state["exp_avg_sq"] for state in states]
        lr, (beta1, beta2) = group["lr"], group["betas"]
        for state in states:
            state["step"] += 1
        steps = [state["step"].item() for state in states]
        torch._foreach_mul_(parameters, 1 - lr * group["weight_decay"])
        torch._foreach_lerp_(means, grads, 1 - beta1)
        torch._foreach_mul_(squares, beta2)
        torch._foreach_addcmul_(squares, grads, grads, 1 - beta2)
        roots = torch._foreach_sqrt(squares)
        torch._foreach_div_(roots, [math.sqrt(1 - beta2**step) for step in steps])
        torch._foreach_add_(roots, group["eps"])
        rates = [-lr / (1 - beta1**step) for step in steps]
        torch._foreach_addcdiv_(parameters, means, roots, rates)

    def _fused(self, parameters: list[Tensor], grads: list[Tensor], group: dict[str, Any]) -> None:
        states = [self.moments(parameter) for parameter in parameters]
        if parameters[0].device.type != "cpu":  # its kernel counts steps on the device
            for state in states:
                state["step"] = state["step"].to(parameters[0].device)
        beta1, beta2 = group["betas"]
        adamw(
            parameters,
            grads,
            [state["exp_avg"] for state in states],
            [state["exp_avg_sq"] for state in states],
            [],
            [state["step"] for state in states],
            fused=True,
            amsgrad=False,
            beta1=beta1,
            beta2=beta2,
            lr=group["lr"],
            weight_decay=group["weight_decay"],
            eps=group["eps"],
            maximize=False,
        )


class SortedParameters(NamedTuple):
    """A model's parameters by what they are, each with its name. None is in two of them.

    Attributes:
        matrices: what multiplies vectors inside the model.
        tables: embeddings and the matrix of the logits, whose rows belong to tokens or positions.
        vectors: biases, and the factors of norms.
    """

    matrices: list[tuple[str, Tensor]]
    tables: list[tuple[str, Tensor]]
    vectors: list[tuple[str, Tensor]]


def sort_parameters(model: nn.Module) -> SortedParameters:
    """Return the parameters of a model that need a gradient, by what they are.

    Tables are the weights of TokenEmbedding, LearnedPositions and torch's Embedding, and the
    model's `output_weight` if it has one.
    """
    kinds = (TokenEmbedding, LearnedPositions, nn.Embedding)
    tables = {id(module.weight) for module in model.modules() if isinstance(module, kinds)}
    tables.add(id(getattr(model, "output_weight", None)))
    found = SortedParameters([], [], [])
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        if id(parameter) in tables:
            found.tables.append((name, parameter))
        elif parameter.ndim >= 2:
            found.matrices.append((name, parameter))
        else:
            found.vectors.append((name, parameter))
    return found


def decay_groups(
    model: nn.Module, weight_decay: float, *, decay_tables: bool = False
) -> list[dict[str, Any]]:
    """Return two groups for an optimizer: what decays, and what does not (weight_decay 0).

    Matrices decay; biases and norms do not, for nothing grows when they do. Tables decay if
    decay_tables says so: GPT-2's imitators let them, OLMo 2 does not, since the row of a token that
    is not in the batch would shrink all the same.
    """
    found = sort_parameters(model)
    decayed = found.matrices + (found.tables if decay_tables else [])
    kept = found.vectors + ([] if decay_tables else found.tables)
    groups = [(decayed, weight_decay), (kept, 0.0)]
    return [{"params": named, "weight_decay": decay} for named, decay in groups if named]


NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)
"""Coefficients of the polynomial that Jordan et al. (2024) found: it lifts small singular values
fast, and leaves all of them between about 0.7 and 1.2 instead of at 1."""


def orthogonalize(
    matrices: Float[Tensor, "*n R C"], n_steps: int = 5, *, dtype: torch.dtype | None = None
) -> Float[Tensor, "*n R C"]:
    """Return each matrix with its singular values moved close to 1: about U V^T of its U S V^T.

    Computed with Newton and Schulz's iteration, which needs matrix products only.

    Args:
        matrices: one or a stack of them.
        n_steps: iterations.
        dtype: what to compute in; None: bfloat16 on a GPU, where it is faster and exact enough, and
            otherwise that of the matrices.

    Source: Jordan et al. (2024).
    """
    if dtype is None:
        dtype = torch.bfloat16 if matrices.device.type == "cuda" else matrices.dtype
    tall = matrices.shape[-2] > matrices.shape[-1]
    x = (matrices.mT if tall else matrices).to(dtype)
    x = x.reshape(-1, *x.shape[-2:])
    length = torch.linalg.vector_norm(x, dim=(-2, -1), keepdim=True)
    x = x / length.clamp(min=1e-7)  # no singular value is above 1 now
    a, b, c = NEWTON_SCHULZ
    for _ in range(n_steps):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    orthogonal = (x.mT if tall else x).to(matrices.dtype)
    return orthogonal.reshape(matrices.shape)


class Muon(ByGroup):
    """Momentum, orthogonalized: for the matrices inside a model, beside AdamW for all else.

    The step of an (R, C) matrix is multiplied by 0.2 sqrt(max(R, C)), which makes its numbers about
    as large as AdamW's steps are, so that learning rate and decay mean the same (Liu et al. 2025).
    Matrices of one shape are orthogonalized together; backend "loop" takes each alone. Agrees with
    torch.optim.Muon(adjust_lr_fn="match_rms_adamw") up to rounding in the type it computes in.

    Source: Jordan et al. (2024).
    """

    def __init__(
        self,
        params: Parameters,
        lr: float = 1e-3,
        *,
        momentum: float = 0.95,
        weight_decay: float = 0.1,
        n_steps: int = 5,
        dtype: torch.dtype | None = None,
        backend: Literal["auto", "loop"] = "auto",
    ) -> None:
        """Prepare to update params.

        A group may have "split", the numbers of rows of the matrices that each of its parameters
        holds one below the other, as attention's queries, keys and values do.

        Args:
            params: matrices or groups of them.
            lr: the learning rate.
            momentum: how much of the mean of gradients stays.
            weight_decay: strength of the decoupled decay.
            n_steps: iterations of `orthogonalize`.
            dtype: what `orthogonalize` computes in.
            backend: "auto" or "loop".

        Raises:
            ValueError: a setting is out of range, or a parameter is no matrix.
        """
        check_range(lr, "lr", 0.0)
        check_range(momentum, "momentum", 0.0, 1.0)
        check_range(weight_decay, "weight_decay", 0.0)
        if backend not in ("auto", "loop"):
            raise ValueError(f"backend is {backend!r}; choose auto or loop")
        settings = {"momentum": momentum, "weight_decay": weight_decay, "split": None}
        super().__init__(params, {"lr": lr, **settings})
        self.n_steps, self.dtype, self.backend = n_steps, dtype, backend
        for group in self.param_groups:
            for parameter in group["params"]:
                check_matrix(parameter, group["split"])

    def update(self, parameters: list[Tensor], grads: list[Tensor], group: dict[str, Any]) -> None:
        """Change parameters, given their gradients and the group's settings."""
        lr, split = group["lr"], group["split"]
        torch._foreach_mul_(parameters, 1 - lr * group["weight_decay"])
        targets: list[Tensor] = []  # views of the parameters, cut as split says
        directions: list[Tensor] = []
        for parameter, grad in zip(parameters, grads, strict=True):
            state = self.state[parameter]
            if not state:
                state["momentum_buffer"] = torch.zeros_like(parameter)
            mean = state["momentum_buffer"].lerp_(grad, 1 - group["momentum"])
            ahead = grad.lerp(mean, group["momentum"])  # Nesterov: where the momentum will be
            sizes = split or [len(parameter)]
            targets += torch.split(parameter, sizes)
            directions += torch.split(ahead, sizes)
        for target, step in zip(targets, self._orthogonal(directions), strict=True):
            target.add_(step, alpha=-lr * 0.2 * math.sqrt(max(target.shape)))

    def _orthogonal(self, directions: Sequence[Tensor]) -> list[Tensor]:
        if self.backend == "loop":
            return [orthogonalize(d, self.n_steps, dtype=self.dtype) for d in directions]
        by_shape: dict[torch.Size, list[int]] = {}
        for place, direction in enumerate(directions):
            by_shape.setdefault(direction.shape, []).append(place)
        results = list(directions)
        for places in by_shape.values():
            stack = torch.stack([directions[place] for place in places])
            steps = orthogonalize(stack, self.n_steps, dtype=self.dtype)
            for place, step in zip(places, steps, strict=True):
                results[place] = step
        return results


def check_matrix(parameter: Tensor, split: Sequence[int] | None) -> None:
    """Raise ValueError unless a parameter is a matrix whose rows split can cut."""
    if parameter.ndim != 2:
        raise ValueError(
            f"Muon is for matrices, got a parameter of shape {tuple(parameter.shape)}: give it to "
            "AdamW"
        )
    if split is not None and sum(split) != len(parameter):
        raise ValueError(
            f"split is {list(split)}, {sum(split)} rows, but a parameter has {len(parameter)}"
        )


def row_splits(model: nn.Module) -> dict[int, tuple[int, ...]]:
    """Return, by the id of a parameter that is several matrices, the rows of each of them."""
    splits: dict[int, tuple[int, ...]] = {}
    for module in model.modules():
        if isinstance(module, CausalSelfAttention):
            config = module.config
            queries, keys = config.n_head * config.d_head, config.n_kv_head * config.d_head
            splits[id(module.qkv.weight)] = (queries, keys, keys)
        elif isinstance(module, SwiGLU):
            d_ff = len(module.gate_up.weight) // 2
            splits[id(module.gate_up.weight)] = (d_ff, d_ff)
    return splits


def muon_groups(model: nn.Module) -> list[dict[str, Any]]:
    """Return groups of the matrices inside a model for `Muon`, by how their rows are split."""
    splits = row_splits(model)
    groups: dict[tuple[int, ...] | None, list[tuple[str, Tensor]]] = {}
    for name, parameter in sort_parameters(model).matrices:
        groups.setdefault(splits.get(id(parameter)), []).append((name, parameter))
    return [{"params": named, "split": split} for split, named in groups.items()]


def gradient_norm(parameters: Iterable[Tensor]) -> Float[Tensor, ""]:
    """Return the length of all gradients laid end to end, in float32; 0 if there are none."""
    grads = [p.grad for p in parameters if p.grad is not None]
    if not grads:
        return torch.tensor(0.0)
    norm: Tensor = torch.stack(torch._foreach_norm(grads, 2, torch.float32)).norm()
    return norm


def clip_grad_norm(parameters: Iterable[Tensor], max_norm: float) -> Float[Tensor, ""]:
    """Shorten all gradients together so that their norm is at most max_norm; return what it was.

    Gradients that are short enough keep their bits: nothing is ever scaled up. A norm that is inf
    or NaN leaves gradients that are no use either; look at what is returned before a step.

    Args:
        parameters: those whose gradients count.
        max_norm: above 0; inf only measures.

    Raises:
        ValueError: max_norm is not above 0.

    Source: Pascanu, Mikolov and Bengio (2013).
    """
    if not max_norm > 0:
        raise ValueError(f"max_norm must be above 0, got {max_norm!r}: inf never clips")
    parameters = list(parameters)
    norm = gradient_norm(parameters)
    if norm.device.type == "cpu" and norm <= max_norm:  # elsewhere looking would wait
        return norm
    grads = [p.grad for p in parameters if p.grad is not None]
    if grads:
        torch._foreach_mul_(grads, (max_norm / norm).clamp(max=1.0))
    return norm


def make_optimizers(
    model: nn.Module, config: OptimConfig, dtype: torch.dtype | None = None
) -> list[Optimizer]:
    """Return the optimizers of a model: AdamW, and before it Muon if the configuration says so.

    dtype is what Muon orthogonalizes in; see `orthogonalize`.
    """
    betas = (config.beta1, config.beta2)
    settings: dict[str, Any] = {"lr": config.lr, "betas": betas, "eps": config.eps}
    groups = decay_groups(model, config.weight_decay, decay_tables=config.decay_tables)
    if config.name == "adamw":
        return [AdamW(groups, **settings)]
    matrices = {id(parameter) for _, parameter in sort_parameters(model).matrices}
    for group in groups:
        group["params"] = [item for item in group["params"] if id(item[1]) not in matrices]
    muon = Muon(
        muon_groups(model),
        config.muon_lr,
        momentum=config.momentum,
        weight_decay=config.weight_decay,
        dtype=dtype,
    )
    return [muon, AdamW([group for group in groups if group["params"]], **settings)]
