#!/usr/bin/env python3
"""The reference's own error in 16 bits: transformers in bf16 and f16 against golden f32 logits, NMSE per case.

    reference_error.py GOLDEN_DIR...

A golden directory holds a checkpoint and golden.safetensors (see `weft help verify`).  What transformers loses by
rounding is the measure for what `weft verify --act bf16` may lose; tests/check-cuda.sh takes its bounds from here.
Needs torch, transformers and safetensors; models that this transformers cannot load are named.
"""
import sys
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM


def error(model, ids, expected):
    with torch.no_grad():
        found = model(ids.view(1, -1).long()).logits[0].float()[-expected.shape[0]:]
    return float(((found - expected) ** 2).sum() / (expected**2).sum())


def report(directory):
    golden = load_file(f"{directory}/golden.safetensors")
    cases = sorted(name.removesuffix(".logits") for name in golden if name.endswith(".logits"))
    for kind in (torch.bfloat16, torch.float16):
        model = AutoModelForCausalLM.from_pretrained(directory, dtype=kind, attn_implementation="eager").eval()
        for case in cases:
            expected = golden[f"{case}.logits"].float()
            expected = expected.view(-1, expected.shape[-1])
            print(f"{directory} {str(kind).removeprefix('torch.')} {case} NMSE "
                f"{error(model, golden[f'{case}.input_ids'], expected):.2e}", flush=True)


def main():
    if len(sys.argv) < 2 or sys.argv[1].startswith("-"):
        sys.exit(__doc__)
    failed = False
    for directory in sys.argv[1:]:
        try:
            report(directory)
        except (OSError, ValueError, KeyError) as problem:
            failed = True
            print(f"{directory}: {str(problem).splitlines()[0]}", file=sys.stderr)
    sys.exit(failed)


main()
