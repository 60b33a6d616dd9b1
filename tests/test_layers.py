"""Norms and MLPs equal torch's and transformers', in values and gradients, on fresh input.

A tolerance is a number of roundings: `close` allows 20 of the wanted tensor's dtype, relative to
its largest number. Sums of some hundred numbers in another order differ by 1 to 5 of them; the
smallest mistake that we know, GELU for its approximation, is 4,000 in float32.
"""

import random
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import GPT2Config, LlamaConfig
from transformers.activations import ACT2FN
from transformers.models.gpt2.modeling_gpt2 import GPT2MLP
from transformers.models.llama.modeling_llama import LlamaMLP, LlamaRMSNorm

from gptbook.layers import ACTIVATIONS, MLP, LayerNorm, RMSNorm, SwiGLU

DTYPES = (torch.float64, torch.float32, torch.bfloat16, torch.float16)


@pytest.fixture
def generator() -> torch.Generator:
    seed = random.SystemRandom().randrange(2**32)
    print(f"torch.Generator().manual_seed({seed})")
    return torch.Generator().manual_seed(seed)


def close(got: Tensor, wanted: Tensor, roundings: float = 20) -> None:
    assert got.shape == wanted.shape
    assert got.dtype == wanted.dtype
    scale = wanted.abs().max().clamp(min=1e-30).item()
    error = (got.double() - wanted.double()).abs().max().item()
    assert error <= roundings * torch.finfo(wanted.dtype).eps * scale


def agree(ours: nn.Module, theirs: Callable[[Tensor], Tensor], x: Tensor) -> None:
    """Same output, same gradient of the input, for a random gradient of the output."""
    a, b = (x.clone().requires_grad_() for _ in range(2))
    y, z = ours(a), theirs(b)
    close(y, z)
    direction = torch.randn_like(z)
    y.backward(direction)
    z.backward(direction)
    assert a.grad is not None
    assert b.grad is not None
    close(a.grad, b.grad)


def randomize(module: nn.Module, generator: torch.Generator) -> None:
    with torch.no_grad():
        for parameter in module.parameters():
            drawn = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
            parameter.copy_(drawn / parameter.shape[-1] ** (0.5 * (parameter.ndim > 1)))


def copy_linear(ours: nn.Linear, weight: Tensor, bias: Tensor | None) -> None:
    with torch.no_grad():
        ours.weight.copy_(weight)
        if bias is not None:
            ours.bias.copy_(bias)


# --- norms ---


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("dtype", DTYPES)
def test_layer_norm_equals_torchs(
    dtype: torch.dtype, bias: bool, generator: torch.Generator
) -> None:
    ours = LayerNorm(48, eps=1e-3, bias=bias).to(dtype)
    theirs = nn.LayerNorm(48, eps=1e-3, bias=bias).to(dtype)
    randomize(ours, generator)
    theirs.load_state_dict(ours.state_dict())
    agree(ours, theirs, (3 * torch.randn(2, 5, 48, generator=generator) + 1).to(dtype))


def test_layer_norm_equals_its_formula(generator: torch.Generator) -> None:
    norm = LayerNorm(48).double()
    randomize(norm, generator)
    x = torch.randn(2, 5, 48, generator=generator, dtype=torch.float64) + 2
    centered = x - x.mean(-1, keepdim=True)
    variance = centered.square().sum(-1, keepdim=True) / 48
    assert norm.bias is not None
    close(norm(x), centered / (variance + 1e-5).sqrt() * norm.weight + norm.bias)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_rms_norm_equals_llamas(dtype: torch.dtype, generator: torch.Generator) -> None:
    ours = RMSNorm(48, eps=1e-3).to(dtype)
    theirs = LlamaRMSNorm(48, eps=1e-3).to(dtype)
    randomize(ours, generator)
    theirs.load_state_dict(ours.state_dict())
    x = torch.randn(2, 5, 48, generator=generator)
    agree(ours, theirs, x.to(dtype))
    agree(ours, theirs, (1e-3 * x).to(dtype))  # here eps decides


def test_rms_norm_in_float64_equals_its_formula(generator: torch.Generator) -> None:
    norm = RMSNorm(48, eps=1e-4).double()
    randomize(norm, generator)
    x = 0.01 * torch.randn(2, 5, 48, generator=generator, dtype=torch.float64)
    agree(norm, lambda v: v / (v.square().mean(-1, keepdim=True) + 1e-4).sqrt() * norm.weight, x)


def test_norms_survive_what_half_precision_cannot_square() -> None:
    signs = torch.tensor([[1.0, -1.0] * 4], dtype=torch.float16)
    assert torch.equal(RMSNorm(8)(300 * signs), signs)
    close(LayerNorm(8).half()(300 * signs), signs)


@pytest.mark.parametrize("norm", [LayerNorm(8), RMSNorm(8)])
def test_zeros_have_finite_gradients(norm: nn.Module) -> None:
    x = torch.zeros(2, 8, requires_grad=True)
    norm(x).sum().backward()
    assert x.grad is not None
    assert x.grad.isfinite().all()


def test_rms_norm_keeps_the_dtype_of_x() -> None:
    """Under autocast queries are bfloat16 and the norm's weight float32: both must leave alike."""
    assert RMSNorm(8)(torch.ones(2, 8, dtype=torch.bfloat16)).dtype == torch.bfloat16


def test_norms_take_any_number_of_axes() -> None:
    for norm in (LayerNorm(8), RMSNorm(8)):
        for shape in ((8,), (3, 8), (2, 3, 4, 5, 8), (2, 0, 8)):
            assert norm(torch.ones(shape)).shape == shape


def test_norms_refuse_a_width_below_one() -> None:
    for make in (LayerNorm, RMSNorm):
        with pytest.raises(ValueError, match="width must be at least 1"):
            make(0)


# --- MLPs ---


@pytest.mark.parametrize(
    ("name", "theirs"), [("relu", "relu"), ("gelu", "gelu"), ("gelu_tanh", "gelu_new")]
)
def test_activations_equal_transformers(name: str, theirs: str, generator: torch.Generator) -> None:
    x = 4 * torch.randn(1000, generator=generator, dtype=torch.float64)
    close(ACTIVATIONS[name](x), ACT2FN[theirs](x), roundings=1000)  # erf and tanh, two ways


def test_the_two_gelus_differ() -> None:
    """So that the tests above can tell them apart: by up to 4.7e-4."""
    x = torch.linspace(-4, 4, 1001)
    gap = (ACTIVATIONS["gelu"](x) - ACTIVATIONS["gelu_tanh"](x)).abs().max().item()
    assert 4.5e-4 < gap < 5e-4


def test_mlp_equals_gpt2s(generator: torch.Generator) -> None:
    config = GPT2Config(n_embd=24, resid_pdrop=0.0)
    theirs, ours = GPT2MLP(96, config), MLP(24, 96)
    randomize(theirs, generator)
    copy_linear(ours.up, theirs.c_fc.weight.T, theirs.c_fc.bias)
    copy_linear(ours.down, theirs.c_proj.weight.T, theirs.c_proj.bias)
    agree(ours, theirs, torch.randn(2, 5, 24, generator=generator))


def test_swiglu_equals_llamas(generator: torch.Generator) -> None:
    config = LlamaConfig(
        hidden_size=24, intermediate_size=40, hidden_act="silu", num_attention_heads=4
    )
    theirs, ours = LlamaMLP(config), SwiGLU(24, 40)
    randomize(theirs, generator)
    both = torch.cat((theirs.gate_proj.weight, theirs.up_proj.weight))
    copy_linear(ours.gate_up, both, None)
    copy_linear(ours.down, theirs.down_proj.weight, None)
    agree(ours, theirs, torch.randn(2, 5, 24, generator=generator))


def test_swiglu_gates_with_its_first_rows() -> None:
    ours = SwiGLU(1, 1)
    copy_linear(ours.gate_up, torch.tensor([[2.0], [5.0]]), None)
    copy_linear(ours.down, torch.tensor([[1.0]]), None)
    x = torch.tensor([[1.0]])
    close(ours(x), functional.silu(torch.tensor([[2.0]])) * 5)


def test_biases_are_optional() -> None:
    assert MLP(4, 8, bias=False).up.bias is None
    assert SwiGLU(4, 8).down.bias is None
    assert SwiGLU(4, 8, bias=True).gate_up.bias is not None


def test_an_unknown_activation_is_named() -> None:
    with pytest.raises(ValueError, match="activation is 'swiglu'; choose one of relu, gelu"):
        MLP(4, 8, "swiglu")
