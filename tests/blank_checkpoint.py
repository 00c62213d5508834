#!/usr/bin/env python3
"""A checkpoint of a config's shapes whose weights mean nothing: what loading is timed with.

    blank_checkpoint.py CONFIG.json FOLDER [--shard-bytes N]

Names and shapes are transformers' own, the type is the config's.  The bytes are a repeated random block of
half-precision numbers near zero, so that no page of the files is shared or empty.
"""
import argparse
import json
import os
import shutil

import torch
from transformers import AutoConfig, AutoModelForCausalLM

BLOCK = 64 << 20


def plan_shards(state, limit):
    """Names in their order, as lists of at most `limit` bytes each."""
    shards, room = [], 0
    for name, tensor in state.items():
        if tensor.nbytes > room:
            shards.append([])
            room = limit
        shards[-1].append(name)
        room -= tensor.nbytes
    return shards


def write(path, state, names, block):
    header, at = {}, 0
    for name in names:
        tensor = state[name]
        kind = {torch.float16: "F16", torch.bfloat16: "BF16", torch.float32: "F32"}[tensor.dtype]
        header[name] = {"dtype": kind, "shape": list(tensor.shape), "data_offsets": [at, at + tensor.nbytes]}
        at += tensor.nbytes
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as f:
        f.write(len(text).to_bytes(8, "little") + text)
        for start in range(0, at, BLOCK):
            f.write(block[:min(BLOCK, at - start)])


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("config")
    p.add_argument("folder")
    p.add_argument("--shard-bytes", type=int, default=5_000_000_000)
    opt = p.parse_args()
    os.makedirs(opt.folder, exist_ok=True)
    shutil.copy(opt.config, os.path.join(opt.folder, "config.json"))
    config = AutoConfig.from_pretrained(opt.folder)
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config, dtype=getattr(config, "dtype", None) or torch.float16)
    state = model.state_dict()
    for name in getattr(model, "_tied_weights_keys", None) or []:
        if config.tie_word_embeddings:
            state.pop(name, None)
    block = memoryview((torch.randn(BLOCK // 2, generator=torch.Generator().manual_seed(1)) * 0.02).half().numpy()).cast("B")
    shards, index = plan_shards(state, opt.shard_bytes), {}
    for i, names in enumerate(shards):
        file = f"model-{i + 1:05}-of-{len(shards):05}.safetensors"
        write(os.path.join(opt.folder, file), state, names, block)
        index.update(dict.fromkeys(names, file))
    total = sum(t.nbytes for t in state.values())
    with open(os.path.join(opt.folder, "model.safetensors.index.json"), "w") as f:
        json.dump({"metadata": {"total_size": total}, "weight_map": index}, f)
    print(f"{total / 1e9:.2f} GB in {len(shards)} files")


if __name__ == "__main__":
    main()
