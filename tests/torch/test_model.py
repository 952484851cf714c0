# SPDX-FileCopyrightText: The bi authors
# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
"""A model that knows nothing of bi generates the same tokens for a prompt at every batch size in the mode."""

import pytest
import torch
import torch.nn.functional as F

import qwen3
from bi_torch import batch_invariant_mode
from support import assert_same_bytes, same_bytes

SMALL = qwen3.Config()
LARGE = qwen3.Config(vocab=8192, hidden=1024, layers=4, heads=16, kv_heads=8, head_dim=128, mlp=3072)


def prompts_of(config, batch, length, seed=5):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(config.vocab, (batch, length), generator=generator)


def cases(device):
    """(config, prompt length, tokens, batch sizes)"""
    return (SMALL, 9, 6, (1, 2, 3, 5)) if device == "cpu" else (LARGE, 33, 48, (1, 2, 3, 4, 7, 8, 16, 31, 64))


def distinct(model, prompts, count, sizes):
    """The different completions of prompt 0 at these batch sizes, and whether its logits have the same bytes."""
    runs = [qwen3.generate(model, prompts[:n], count) for n in sizes]
    logits = [run[1][0] for run in runs]
    return {tuple(run[0][0].tolist()) for run in runs}, all(same_bytes(x, logits[0]) for x in logits)


@pytest.mark.parametrize("inference", [False, True])
def test_generation(inference, device):
    config, length, count, sizes = cases(device)
    model = qwen3.make(config, torch.bfloat16, device)
    prompts = prompts_of(config, max(sizes), length).to(device)
    with torch.inference_mode(inference), batch_invariant_mode(reference=device == "cpu"):
        completions, same = distinct(model, prompts, count, sizes)
    assert len(completions) == 1 and same
    assert len(set(completions.pop())) > 1, "a model that repeats one token shows nothing"


def test_control(device, monkeypatch):
    """Without the mode the bits follow the batch size: PyTorch's own on a GPU, on the CPU those of a stand-in that
    splits its sums in larger batches, as GPU libraries do."""
    config, length, count, sizes = cases(device)
    model = qwen3.make(config, torch.bfloat16, device)
    if device == "cpu":

        def linear(x, w, bias=None):
            half = w.shape[1] // 2 if x.shape[0] > 2 else 0
            return x[..., :half] @ w[:, :half].T + x[..., half:] @ w[:, half:].T

        monkeypatch.setattr(F, "linear", linear)
    prompts = prompts_of(config, max(sizes), length).to(device)
    completions, same = distinct(model, prompts, count, sizes)
    assert not same
    if device == "cuda":
        assert len(completions) > 1


def test_order_of_the_batch(device):
    config, length, count, sizes = cases(device)
    model = qwen3.make(config, torch.bfloat16, device)
    prompts = prompts_of(config, 4, length).to(device)
    with batch_invariant_mode(reference=device == "cpu"):
        tokens, logits = qwen3.generate(model, prompts, count)
        back_tokens, back_logits = qwen3.generate(model, prompts.flip(0), count)
    assert torch.equal(back_tokens.flip(0), tokens)
    assert_same_bytes(back_logits.flip(0), logits)


def test_decode_and_prefill_agree(device):
    """The logits after a token are the same whether it came as the last of a prompt or was generated."""
    config, length, count, _ = cases(device)
    model = qwen3.make(config, torch.bfloat16, device)
    prompts = prompts_of(config, 2, length).to(device)
    with batch_invariant_mode(reference=device == "cpu"):
        tokens, logits = qwen3.generate(model, prompts, count)
        for n in (1, count - 1):
            with torch.no_grad():
                again, _ = model(torch.cat((prompts, tokens[:, :n]), 1))
            assert_same_bytes(again, logits[:, n])


def test_training_step(device):
    """The gradients of a layer's weights are those of the same products; what has no derivative says so."""
    config = cases(device)[0]
    model = qwen3.make(config, torch.bfloat16, device)
    tokens = prompts_of(config, 1, 4).to(device)
    with batch_invariant_mode(reference=device == "cpu"), pytest.raises(RuntimeError, match="has no derivative"):
        model(tokens)


def test_hugging_face(device):
    transformers = pytest.importorskip("transformers", reason="transformers is not here")
    if not hasattr(transformers, "Qwen3ForCausalLM"):
        pytest.skip("this transformers has no Qwen3")
    shape, length, count, sizes = cases(device)
    config = transformers.Qwen3Config(
        vocab_size=shape.vocab,
        hidden_size=shape.hidden,
        intermediate_size=shape.mlp,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.kv_heads,
        head_dim=shape.head_dim,
        attn_implementation="sdpa",
    )
    torch.manual_seed(0)
    model = transformers.Qwen3ForCausalLM(config).to(torch.bfloat16).to(device).eval()
    prompts = prompts_of(shape, max(sizes), length).to(device)

    def completions():
        out = set()
        for n in sizes:
            tokens = model.generate(prompts[:n], max_new_tokens=count, do_sample=False, pad_token_id=0)
            out.add(tuple(tokens[0, length:].tolist()))
        return len(out)

    with torch.no_grad(), batch_invariant_mode(reference=device == "cpu"):
        assert completions() == 1
    if device == "cuda":
        with torch.no_grad():
            assert completions() > 1
