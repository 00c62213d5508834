#!/usr/bin/env python3
"""weft beside transformers on the same machine, minutes apart: the seed workload with random weights.

    bench_peers.py CONFIG.json... [--weft ./weft] [--device cuda] [--batch 8,16,32] [--prompt 1024] [--new 128] [--reps 3] [--alone]

1024 prompt tokens, 128 new ones, greedy; tokens per second = batch x new / wall time of prompt and generation.
transformers runs eagerly, in a process of its own, with the same config and type.  The floor counts weights
and keys read once and every multiplication, nothing overlapped: on an H200 4.54 TB/s and 760 TFLOP/s.  What was measured elsewhere, for the same work on an H200: transformers
compiled 1738 tok/s for Llama-2-7B at batch 32; ik_llama.cpp 651 / 852 / 871 at batch 8 / 16 / 32.
"""
import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time

READ, FLOPS = 4.54e12, 760e12


def last_words(done):
    lines = done.stderr.strip().splitlines()
    return lines[-1] if lines else f"it ended with status {done.returncode}"


def weft_rates(opt, config):
    command = [opt.weft, "bench", "-m", config, "--random-weights", "--no-profile", "--json", "-r", str(opt.reps),
               "--backend", "cuda" if opt.device == "cuda" else "cpu"]
    if (opt.prompt, opt.new, opt.batches) == (1024, 128, [8, 16, 32]):
        command += ["--preset", "colossal"]
    else:
        return weft_apart(opt, command)
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        return {}, last_words(done)
    return {t["batch"]: t["tok_s"] for t in json.loads(done.stdout)["tests"]}, None


def weft_apart(opt, command):
    """Prompt and generation measured one after the other, for sizes that are no preset."""
    rates = {}
    for b in opt.batches:
        sizes = ["-b", str(b), "-p", str(opt.prompt), "-n", str(opt.new), "-d", "0"]
        done = subprocess.run(command + sizes, capture_output=True, text=True)
        if done.returncode:
            return {}, last_words(done)
        seconds = sum(b * (t["prompt"] + t["generated"]) / t["tok_s"] for t in json.loads(done.stdout)["tests"])
        rates[b] = b * opt.new / seconds
    return rates, None


def peer(opt, config):
    """In a child: rates of transformers by batch, as JSON."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    with tempfile.TemporaryDirectory() as dir:
        shutil.copy(config, os.path.join(dir, "config.json"))
        c = AutoConfig.from_pretrained(dir)
    torch.manual_seed(0)
    kind = getattr(c, "dtype", None) or getattr(c, "torch_dtype", None) or torch.float16
    with torch.device(opt.device):
        model = AutoModelForCausalLM.from_config(c, dtype=kind).eval()
    vocab = (getattr(c, "text_config", None) or c).vocab_size
    rates = {}
    for b in opt.batches:
        ids = torch.randint(3, vocab, (b, opt.prompt), device=opt.device)
        times = []
        for i in range(opt.reps + 1):
            new = opt.new if i else 8
            start = time.time()
            with torch.inference_mode():
                model.generate(ids, attention_mask=torch.ones_like(ids), do_sample=False, min_new_tokens=new,
                               max_new_tokens=new, pad_token_id=0, eos_token_id=None)
            if opt.device == "cuda":
                torch.cuda.synchronize()
            times.append(time.time() - start)
        rates[b] = b * opt.new / sorted(times[1:])[(len(times) - 1) // 2]
    print(json.dumps({"rates": rates, "parameters": sum(p.numel() for p in model.parameters())}))


def peer_rates(opt, config):
    child = [sys.executable, os.path.abspath(__file__), config, "--child", "--device", opt.device, "--batch", opt.batch,
             "--prompt", str(opt.prompt), "--new", str(opt.new), "--reps", str(opt.reps)]
    done = subprocess.run(child, capture_output=True, text=True)
    if done.returncode:
        return {}, last_words(done)
    return {int(b): r for b, r in json.loads(done.stdout.splitlines()[-1])["rates"].items()}, None


def experts_of(c):
    """Bytes of all experts (three matrices in 16 bits, in every layer), and the share of them that a token is given to."""
    n = c.get("num_local_experts", c.get("num_experts", 0))
    width = c.get("moe_intermediate_size", c.get("intermediate_size", 0))
    return (6 * c["num_hidden_layers"] * n * width * c["hidden_size"], c["num_experts_per_tok"] / n) if n else (0, 0)


def floors(opt, config):
    """Weights once a step, keys once a token, every weight a multiplication and an addition for each prompt token.

    Of n experts a token is given to k, any k equally likely: a step of b tokens reads n (1 - (1 - k/n)^b) of them, and
    a prompt multiplies each token by k."""
    command = [opt.weft, "plan", "-m", config, "--gpu", "h200", "--json"]
    done = subprocess.run(command, capture_output=True, text=True)
    with open(config) as f:
        c = json.load(f)
    if done.returncode or "n_routed_experts" in c:       # layers without experts, and experts of all tokens
        return {}
    plan = json.loads(done.stdout)
    table = c.get("vocab_size", c.get("padded_vocab_size", 0)) * c.get("hidden_size", c.get("n_embed", 0))
    tied = c.get("tie_word_embeddings", c.get("model_type") == "bloom")
    experts, share = experts_of(c)
    dense = sum(w["bytes"] for w in plan["memory"]["weights"]) - (0 if tied else 2 * table) - experts
    result = {}
    for b in opt.batches:
        context = opt.prompt + opt.new / 2
        read = dense + experts * (1 - (1 - share) ** b) + b * context * plan["memory"]["kv_token"]
        prompt = b * opt.prompt * (dense + experts * share) / FLOPS
        result[b] = b * opt.new / (prompt + (opt.new - 1) * read / READ)
    return result


def number(x):
    return f"{x:.0f}" if x else "-"


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("config", nargs="+")
    p.add_argument("--weft", default="./weft")
    p.add_argument("--device", default="cuda")
    p.add_argument("--batch", default="8,16,32")
    p.add_argument("--prompt", type=int, default=1024)
    p.add_argument("--new", type=int, default=128)
    p.add_argument("--reps", type=int, default=3)
    p.add_argument("--alone", action="store_true", help="without transformers: weft and the floor")
    p.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    opt = p.parse_args()
    opt.batches = [int(b) for b in opt.batch.split(",")]
    if opt.child:
        return peer(opt, opt.config[0])
    heads = "".join(f" {'weft':>6} {'transf.':>7} {'times':>5} {'floor':>6} |" for _ in opt.batches)
    print(f"| {'tok/s at batch':<16} |" + "".join(f"{b:^29}|" for b in opt.batches))
    print(f"| {'':<16} |{heads}")
    print(f"|{'-' * 18}|" + f"{'-' * 29}|" * len(opt.batches))
    for config in opt.config:
        ours, ours_why = weft_rates(opt, config)
        theirs, why = ({}, None) if opt.alone else peer_rates(opt, config)
        floor = floors(opt, config)
        row = ""
        for b in opt.batches:
            a, t, f = ours.get(b), theirs.get(b), floor.get(b)
            times = f"{a / t:.2f}" if a and t else "-"
            row += f" {number(a):>6} {number(t):>7} {times:>5} {number(f):>6} |"
        print(f"| {os.path.basename(config).removesuffix('.json'):<16} |{row}", flush=True)
        for name, reason in (("weft", ours_why), ("transformers", why)):
            if reason:
                print(f"  {name}: {reason}")


if __name__ == "__main__":
    main()
