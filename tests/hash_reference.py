#!/usr/bin/env python3
"""Reference logits of a Llama with weft's hash-made weights, by PyTorch and transformers in float32.

    hash_reference.py CONFIG_DIR OUT.safetensors --type f16|bf16|f32 [--seed N] [--tokens N] [--rows N]
    weft verify -m CONFIG_DIR --random-weights --seed N --wtype TYPE --reference OUT.safetensors

Also printed: the normalised mean square error of transformers itself when it computes in TYPE.

The hash is graph/random.c's: value i is shift + scale * (2^-23 (h >> 40) - 1), h the (i+1)-th output of
splitmix64 seeded with XXH64(canonical name, seed); rounded to TYPE, computed with in float32.
"""
import argparse
import torch
import xxhash
from safetensors.torch import save_file
from transformers import AutoConfig, AutoModelForCausalLM

NAMES = {
    "model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output",
    "input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm",
    "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output", "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up", "mlp.down_proj": "ffn_down",
}


def canonical(name):
    stem = name.removesuffix(".weight")
    if stem in NAMES:
        return NAMES[stem] + ".weight"
    _, _, layer, rest = stem.split(".", 3)
    return f"blk.{layer}.{NAMES[rest]}.weight"


def signed(x):
    return x - (1 << 64) if x >= 1 << 63 else x


def shifted(z, n):
    return (z >> n) & ((1 << (64 - n)) - 1)


def fill(parameter, name, seed, kind):
    """In pieces: integer temporaries of a whole 7B matrix would be large."""
    key = xxhash.xxh64(name.encode(), seed).intdigest()
    norm = parameter.dim() == 1 and name.endswith("norm.weight")
    scale, shift = (1 / 16, 1.0) if norm else (float(torch.tensor(0.02) * torch.tensor(1.7320508)), 0.0)
    flat = parameter.data.view(-1)
    for start in range(0, flat.numel(), 1 << 24):
        n = min(1 << 24, flat.numel() - start)
        i = torch.arange(start + 1, start + 1 + n, dtype=torch.int64, device=flat.device)
        z = i * signed(0x9E3779B97F4A7C15) + signed(key)
        z = (z ^ shifted(z, 30)) * signed(0xBF58476D1CE4E5B9)
        z = (z ^ shifted(z, 27)) * signed(0x94D049BB133111EB)
        z = z ^ shifted(z, 31)
        unit = shifted(z, 40).float() * 2.0**-23 - 1
        flat[start:start + n] = (unit * scale + shift).to(kind).float()


def main():
    p = argparse.ArgumentParser()
    p.add_argument("config")
    p.add_argument("out")
    p.add_argument("--seed", type=int, default=0)
    p.add_argument("--tokens", type=int, default=64)
    p.add_argument("--rows", type=int, default=8)
    p.add_argument("--type", required=True, help="of the weights: what --wtype says to weft")
    a = p.parse_args()
    kind = {"f16": torch.float16, "bf16": torch.bfloat16, "f32": torch.float32}[a.type]
    torch.backends.cuda.matmul.allow_tf32 = False
    device = "cuda" if torch.cuda.is_available() else "cpu"
    config = AutoConfig.from_pretrained(a.config)
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    model = model.to_empty(device=device).eval()
    model.model.rotary_emb = type(model.model.rotary_emb)(config).to(device)
    for name, parameter in model.named_parameters():
        fill(parameter, canonical(name), a.seed, kind)
    ids = (torch.arange(a.tokens, device=device) * 7919 + 13) % config.vocab_size
    with torch.no_grad():
        logits = model(ids[None], logits_to_keep=a.rows).logits[0].float().cpu()
        rounded = model.to(kind)(ids[None], logits_to_keep=a.rows).logits[0].float().cpu()
    best = logits[-1].topk(2).values
    save_file({"a.input_ids": ids.cpu(), "a.logits": logits.contiguous(), "a.greedy": logits[-1].argmax().view(1),
        "a.margin": (best[0] - best[1]).view(1)}, a.out)
    error = (rounded - logits).square().sum() / logits.square().sum()
    print(f"{a.tokens} tokens, {a.rows} rows of logits, deviation {logits.std():.4f}; transformers in {a.type}: NMSE {error:.3e}")


if __name__ == "__main__":
    main()
