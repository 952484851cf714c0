# SPDX-FileCopyrightText: The bi authors
# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
"""A small model of Qwen3's shape, written as people write them: PyTorch's own layers and functions, nothing of bi."""

import dataclasses

import torch
import torch.nn.functional as F
from torch import nn


@dataclasses.dataclass
class Config:
    vocab: int = 128
    hidden: int = 64
    layers: int = 2
    heads: int = 4
    kv_heads: int = 2
    head_dim: int = 64
    mlp: int = 96
    eps: float = 1e-6
    rope_base: float = 1e6


class RMSNorm(nn.Module):
    """By hand, as in Hugging Face's models: pow, mean, rsqrt."""

    def __init__(self, size, eps):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size))
        self.eps = eps

    def forward(self, x):
        y = x.float()
        y = y * torch.rsqrt(y.pow(2).mean(-1, keepdim=True) + self.eps)
        return self.weight * y.to(x.dtype)


def rotate(x, cos, sin):
    a, b = x.chunk(2, -1)
    return x * cos + torch.cat((-b, a), -1) * sin


class Attention(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.c = c
        self.q = nn.Linear(c.hidden, c.heads * c.head_dim, bias=False)
        self.k = nn.Linear(c.hidden, c.kv_heads * c.head_dim, bias=False)
        self.v = nn.Linear(c.hidden, c.kv_heads * c.head_dim, bias=False)
        self.o = nn.Linear(c.heads * c.head_dim, c.hidden, bias=False)
        self.q_norm = nn.RMSNorm(c.head_dim, c.eps)
        self.k_norm = nn.RMSNorm(c.head_dim, c.eps)

    def forward(self, x, cos, sin, cache):
        batch, tokens, _ = x.shape
        heads = lambda y: y.view(batch, tokens, -1, self.c.head_dim)  # noqa: E731
        q = rotate(self.q_norm(heads(self.q(x))).transpose(1, 2), cos, sin)
        k = rotate(self.k_norm(heads(self.k(x))).transpose(1, 2), cos, sin)
        v = heads(self.v(x)).transpose(1, 2)
        if cache:
            k, v = torch.cat((cache[0], k), 2), torch.cat((cache[1], v), 2)
        out = F.scaled_dot_product_attention(q, k, v, is_causal=tokens > 1, enable_gqa=True)
        return self.o(out.transpose(1, 2).reshape(batch, tokens, -1)), (k, v)


class Layer(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.norm, self.mlp_norm = RMSNorm(c.hidden, c.eps), RMSNorm(c.hidden, c.eps)
        self.attention = Attention(c)
        self.gate = nn.Linear(c.hidden, c.mlp, bias=False)
        self.up = nn.Linear(c.hidden, c.mlp, bias=False)
        self.down = nn.Linear(c.mlp, c.hidden, bias=False)

    def forward(self, x, cos, sin, cache):
        y, cache = self.attention(self.norm(x), cos, sin, cache)
        x = x + y
        y = self.mlp_norm(x)
        return x + self.down(F.silu(self.gate(y)) * self.up(y)), cache


class Qwen3(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.c = c
        self.embedding = nn.Embedding(c.vocab, c.hidden)
        self.layers = nn.ModuleList(Layer(c) for _ in range(c.layers))
        self.norm = RMSNorm(c.hidden, c.eps)
        self.head = nn.Linear(c.hidden, c.vocab, bias=False)

    def forward(self, tokens, caches=None):
        """(logits of the last token, caches): tokens are [batch, n] new ones."""
        begin = caches[0][0].shape[2] if caches else 0
        x = self.embedding(tokens)
        place = torch.arange(begin, begin + tokens.shape[1], device=tokens.device).float()
        step = torch.arange(0, self.c.head_dim, 2, device=tokens.device).float() / self.c.head_dim
        angle = place[:, None] * self.c.rope_base ** -step[None]
        angle = torch.cat((angle, angle), -1)
        cos, sin = angle.cos().to(x.dtype), angle.sin().to(x.dtype)
        new = []
        for i, layer in enumerate(self.layers):
            x, cache = layer(x, cos, sin, caches[i] if caches else None)
            new.append(cache)
        return self.head(self.norm(x[:, -1])), new


def make(c, dtype, device, seed=0):
    """Random weights, the same on every device, of a size that keeps logits far apart and close calls frequent."""
    model = Qwen3(c)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, p in sorted(model.named_parameters()):
            if p.dim() > 1:
                p.copy_(
                    torch.randn(p.shape, generator=generator)
                    * (1.5 * p.shape[-1] ** -0.5 if "embed" not in name else 1)
                )
    return model.to(dtype).to(device).eval()


@torch.no_grad()
def generate(model, prompts, count):
    """(tokens [batch, count], logits [batch, count, vocab]), greedily."""
    tokens, caches, out, logits = prompts, None, [], []
    for _ in range(count):
        row, caches = model(tokens, caches)
        tokens = row.float().argmax(-1, keepdim=True)
        out.append(tokens)
        logits.append(row)
    return torch.cat(out, 1), torch.stack(logits, 1)
