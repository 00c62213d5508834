"""gguf_families.py - a Hugging Face checkpoint as GGUF, by the conversions documented for each family.

	python3 tests/gguf_families.py MODEL_FOLDER OUT.gguf [old]

Names come from the gguf package's own tables, so they are checked independently of ours.  old: the
layout of earlier converters where there are two (experts one by one, keys and values in one matrix).
"""
import json, struct, sys
import numpy as np
import gguf

ARCH = {"llama": "llama", "mistral": "llama", "mixtral": "llama", "bloom": "bloom", "chatglm": "chatglm", "glm": "chatglm",
        "glm4": "glm4", "qwen2": "qwen2", "qwen3": "qwen3", "qwen3_moe": "qwen3moe", "gemma2": "gemma2",
        "gemma3_text": "gemma3", "gpt2": "gpt2", "gpt_neox": "gptneox", "falcon": "falcon", "phi3": "phi3",
        "olmo2": "olmo2", "deepseek_v3": "deepseek2", "deepseek_v2": "deepseek2", "gpt_oss": "gpt-oss",
        "starcoder2": "starcoder2", "stablelm": "stablelm"}


def load(path):
    """Tensors as float32; bfloat16 is all that the checkpoints hold."""
    data = open(path, "rb").read()
    n = struct.unpack("<Q", data[:8])[0]
    out = {}
    for name, t in json.loads(data[8:8 + n]).items():
        if name != "__metadata__":
            assert t["dtype"] == "BF16", t
            a, b = t["data_offsets"]
            raw = np.frombuffer(data[8 + n + a:8 + n + b], np.uint16)
            out[name] = (raw.astype(np.uint32) << 16).view(np.float32).reshape(t["shape"])
    return out


class Config:
    """config.json with the names of every family."""
    def __init__(self, folder):
        self.c = json.load(open(folder + "/config.json"))
        self.type = self.c["model_type"]
        self.arch = ARCH[self.type]
        self.layers = self("num_hidden_layers", "n_layer", "num_layers")
        self.dim = self("hidden_size", "n_embd")
        self.heads = self("num_attention_heads", "n_head")
        self.kv = self("multi_query_group_num", "num_key_value_heads", "num_kv_heads") or self.heads
        if self.type == "falcon" and not self.c["new_decoder_architecture"]:
            self.kv = 1 if self.c["multi_query"] else self.heads
        self.hdim = self("head_dim", "kv_channels") or self.dim // self.heads
        rope = self.c.get("rope_parameters") or {}
        self.rope = rope.get("full_attention", rope)

    def __call__(self, *names):
        return next((self.c[n] for n in names if self.c.get(n) is not None), None)


# ---- tensors ----

def permute(w, heads):
    """Rows of a head from halves to pairs."""
    return w.reshape(heads, 2, w.shape[0] // heads // 2, *w.shape[1:]).swapaxes(1, 2).reshape(w.shape)


def blocks(c, w, heads, kv):
    """Fused rows, stored by key head, as [q | k | v]."""
    w = w.reshape(kv, heads // kv + 2, c.hdim, *w.shape[1:])
    rows = lambda part: part.reshape(-1, *w.shape[3:])
    return np.concatenate([rows(w[:, :-2]), rows(w[:, -2]), rows(w[:, -1])])


def change(c, name, w):
    """One tensor as its family's converter leaves it: [(name, values)]."""
    if c.arch == "llama" and ".self_attn.q_proj." in name:
        w = permute(w, c.heads)
    elif c.arch == "llama" and ".self_attn.k_proj." in name:
        w = permute(w, c.kv)
    elif c.arch in ("bloom", "gptneox", "falcon") and "query_key_value" in name:
        w = blocks(c, w, c.heads, c.kv)
    elif c.arch in ("gemma2", "gemma3") and name.endswith("norm.weight"):
        w = w + 1
    elif c.arch == "gpt2" and name.endswith((".c_attn.weight", ".c_proj.weight", ".c_fc.weight")):
        w = w.T
    elif c.arch == "deepseek2" and name.endswith("kv_b_proj.weight") and not OLD:
        w = w.reshape(c.heads, c("qk_nope_head_dim") + c("v_head_dim"), -1)
        k, v = w[:, :c("qk_nope_head_dim")], w[:, c("qk_nope_head_dim"):]
        return [(name.replace("kv_b", "k_b"), k.swapaxes(1, 2)), (name.replace("kv_b", "v_b"), v)]
    elif name.endswith("e_score_correction_bias"):
        name = name.replace("e_score_correction_bias", "e_score_correction.bias")
    elif c.arch == "gpt-oss" and "experts.gate_up_proj" in name:
        end = ".bias" if name.endswith("_bias") else ".weight"
        w = w if end == ".bias" else w.swapaxes(1, 2)
        base = name.split("gate_up_proj")[0]
        return [(base + "gate_proj" + end, w[:, ::2]), (base + "up_proj" + end, w[:, 1::2])]
    elif c.arch == "gpt-oss" and "experts.down_proj" in name:
        return [(name.replace("_bias", "") + (".bias" if name.endswith("_bias") else ".weight"),
                 w if name.endswith("_bias") else w.swapaxes(1, 2))]
    elif c.arch == "gpt-oss" and name.endswith("sinks"):
        name += ".weight"
    return [(name, w)]


def stack(tensors):
    """Experts and per-head norms, a tensor each, as one."""
    out, lists = {}, {}
    for name, w in tensors.items():
        part = next((p for p in (".experts.", ".norms.") if p in name), None)
        number = name.split(part)[1].split(".")[0] if part else ""
        if not number.isdigit():
            out[name] = w
            continue
        whole = name.replace(part + number, part[:-1] if part == ".experts." else "", 1)
        lists.setdefault(whole, {})[int(number)] = w
    for name, w in lists.items():
        out[name] = np.stack([w[i] for i in range(len(w))])
    return out


def llama3_factors(c):
    r, n = c.rope, c.hdim
    freqs = 1.0 / r["rope_theta"] ** (np.arange(0, n, 2, dtype=np.float32) / n)
    out = []
    for wave in 2 * np.pi / freqs:
        low, high = (r["original_max_position_embeddings"] / r[k] for k in ("low_freq_factor", "high_freq_factor"))
        smooth = (r["original_max_position_embeddings"] / wave - r["low_freq_factor"]) / (r["high_freq_factor"] - r["low_freq_factor"])
        out.append(1 if wave < high else r["factor"] if wave > low else 1 / ((1 - smooth) / r["factor"] + smooth))
    return np.array(out, dtype=np.float32)


def old_expert_name(name):
    """blk.0.ffn_gate_exps of Mixtral's first converter: one by one."""
    for ours, theirs in (("w1", "ffn_gate"), ("w2", "ffn_down"), ("w3", "ffn_up")):
        if name.endswith(f".{ours}.weight") and ".experts." in name:
            layer, expert = name.split(".")[2], name.split(".experts.")[1].split(".")[0]
            return f"blk.{layer}.{theirs}.{expert}.weight"
    return None


def write_tensors(w, c, tensors):
    arch = next(a for a, n in gguf.MODEL_ARCH_NAMES.items() if n == c.arch)
    names = gguf.get_tensor_name_map(arch, c.layers)
    if c.rope.get("rope_type") == "llama3":
        w.add_tensor("rope_freqs.weight", llama3_factors(c))
    if c.rope.get("rope_type") == "longrope":
        for which in ("long", "short"):
            w.add_tensor(f"rope_factors_{which}.weight", np.array(c.rope[which + "_factor"], dtype=np.float32))
    if c.arch == "bloom":
        tensors["lm_head.weight"] = tensors["transformer.word_embeddings.weight"]
    for hf, values in tensors.items():
        for name, v in change(c, hf, values):
            known = (names.get_name(n, try_suffixes=(".weight", ".bias")) for n in (name, name.removeprefix("transformer.")))
            full = OLD and old_expert_name(name) or next((k for k in known if k), None)
            assert full, f"{name} has no GGUF name in {c.arch}"
            v = np.ascontiguousarray(v, dtype=np.float32)
            if v.ndim == 1 or c.arch in ("gemma2", "gemma3"):
                w.add_tensor(full, v)
            else:
                half = (v.view(np.uint32) >> 16).astype(np.uint16)
                w.add_tensor(full, half.view(np.uint8), raw_dtype=gguf.GGMLQuantizationType.BF16)


# ---- metadata ----

def write_rope(w, c):
    r = c.rope
    partial = r.get("partial_rotary_factor") or c("partial_rotary_factor", "rotary_pct") or (0.5 if c.arch == "chatglm" else 1)
    if c.arch == "deepseek2":
        w.add_rope_dimension_count(c("qk_rope_head_dim"))
    elif c.arch not in ("bloom", "gpt2"):
        w.add_rope_dimension_count(int(c.hdim * partial))
    if c.arch not in ("bloom", "gpt2"):
        w.add_rope_freq_base(r.get("rope_theta", 10000.0) * (c("rope_ratio") or 1))
    local = (c.c.get("rope_parameters") or {}).get("sliding_attention")
    if local and local["rope_theta"] != 10000:
        w.add_rope_freq_base_swa(local["rope_theta"])
    kind = r.get("rope_type", "default")
    if kind in ("linear", "yarn"):
        w.add_rope_scaling_type(gguf.RopeScalingType(kind))
        w.add_rope_scaling_factor(r["factor"])
    if kind == "yarn":
        w.add_rope_scaling_orig_ctx_len(r["original_max_position_embeddings"])
        if c.arch == "deepseek2" and r.get("mscale_all_dim"):
            w.add_rope_scaling_yarn_log_mul(0.1 * r["mscale_all_dim"])
    if kind == "longrope":
        orig, now = c("original_max_position_embeddings"), c("max_position_embeddings")
        w.add_rope_scaling_orig_ctx_len(orig)
        scale = now / orig
        w.add_rope_scaling_attn_factors(1.0 if scale <= 1 else float(np.sqrt(1 + np.log(scale) / np.log(orig))))


def write_experts(w, c):
    n = c("num_local_experts", "num_experts", "n_routed_experts")
    if not n:
        return
    w.add_expert_count(n)
    w.add_expert_used_count(c("num_experts_per_tok"))
    if c("moe_intermediate_size") or c.arch == "gpt-oss":
        w.add_expert_feed_forward_length(c("moe_intermediate_size") or c("intermediate_size"))
    if c.arch == "deepseek2":
        w.add_expert_shared_count(c("n_shared_experts"))
        w.add_expert_weights_scale(c("routed_scaling_factor"))
        w.add_expert_weights_norm(bool(c("norm_topk_prob")))
        w.add_leading_dense_block_count(c("first_k_dense_replace"))
        sigmoid = c.type == "deepseek_v3"
        w.add_expert_gating_func(gguf.ExpertGatingFuncType.SIGMOID if sigmoid else gguf.ExpertGatingFuncType.SOFTMAX)
        if c("n_group") and c("topk_method") != "greedy":
            w.add_expert_group_count(c("n_group"))
            w.add_expert_group_used_count(c("topk_group"))


def write_heads(w, c):
    w.add_head_count(c.heads)
    if c.arch == "deepseek2":
        rank, full = c("kv_lora_rank"), c("qk_nope_head_dim") + c("qk_rope_head_dim")
        if c("q_lora_rank"):
            w.add_q_lora_rank(c("q_lora_rank"))
        w.add_kv_lora_rank(rank)
        w.add_head_count_kv(c.heads if OLD else 1)
        w.add_key_length(full if OLD else rank + c("qk_rope_head_dim"))
        w.add_value_length(c("v_head_dim") if OLD else rank)
        if not OLD:
            w.add_key_length_mla(full)
            w.add_value_length_mla(c("v_head_dim"))
        return
    w.add_head_count_kv(c.kv)
    if c.hdim != c.dim // c.heads or c.arch in ("gemma2", "gemma3"):
        w.add_key_length(c.hdim)
        w.add_value_length(c.hdim)


def write_metadata(w, c):
    w.add_context_length(c("max_position_embeddings", "n_positions", "seq_length") or 512)
    w.add_embedding_length(c.dim)
    w.add_block_count(c.layers)
    w.add_feed_forward_length(c("intermediate_size", "ffn_hidden_size", "n_inner") or 4 * c.dim)
    w.add_vocab_size(c("padded_vocab_size", "vocab_size"))
    write_heads(w, c)
    eps = c("rms_norm_eps", "layernorm_epsilon", "layer_norm_epsilon", "layer_norm_eps", "norm_epsilon")
    centred = c.arch in ("bloom", "gpt2", "gptneox", "falcon", "starcoder2", "stablelm")
    (w.add_layer_norm_eps if centred else w.add_layer_norm_rms_eps)(eps)
    write_rope(w, c)
    write_experts(w, c)
    if c("sliding_window") and c("use_sliding_window") is not False:
        w.add_sliding_window(c("sliding_window"))
    types = c("layer_types") or []
    if "sliding_attention" in types and [t == "sliding_attention" for t in types] != default_pattern(c):
        w.add_sliding_window_pattern([t == "sliding_attention" for t in types])
    if c("attn_logit_softcapping"):
        w.add_attn_logit_softcapping(c("attn_logit_softcapping"))
    if c("final_logit_softcapping"):
        w.add_final_logit_softcapping(c("final_logit_softcapping"))
    if c.arch in ("gptneox", "stablelm"):
        w.add_parallel_residual(bool(c("use_parallel_residual")))


def default_pattern(c):
    """What the architecture's name alone stands for."""
    period = {"gemma2": 2, "gemma3": 6, "gpt-oss": 2}.get(c.arch)
    return [(l + 1) % period != 0 for l in range(c.layers)] if period else None


ACTIVATION = {"gpt2": "gelu_new", "gptneox": "gelu", "falcon": "gelu", "starcoder2": "gelu_pytorch_tanh", "gemma2": "gelu_pytorch_tanh",
              "gemma3": "gelu_pytorch_tanh"}


def unsaid(c):
    """What this model has and GGUF has no key for: readers take what the family's released models have."""
    act = c("hidden_activation", "hidden_act", "activation_function", "activation")
    rope = c.rope
    wrong = {
        "activation": c.arch != "bloom" and act not in (None, ACTIVATION.get(c.arch, "silu")),
        "query_pre_attn_scalar": c("query_pre_attn_scalar") not in (None, c.hdim),
        "no soft cap": c.arch == "gemma2" and not (c("attn_logit_softcapping") and c("final_logit_softcapping")),
        "an own head": c.arch in ("gemma2", "gemma3") and not c("tie_word_embeddings"),
        "norm_topk_prob": c.arch == "qwen3moe" and not c("norm_topk_prob"),
        "dense layers": bool(c("mlp_only_layers")) or (c("decoder_sparse_step") or 1) > 1,
        "rope_interleave": c("rope_interleave") is False,
        "two mscales": rope.get("mscale") != rope.get("mscale_all_dim"),
        "dynamic rope": rope.get("rope_type") == "dynamic",
        "rope's own keys": c.arch != "gpt-oss" and rope.get("rope_type") == "yarn" and c.arch != "deepseek2",
        "llama3 rope": rope.get("rope_type") == "llama3" and c.arch != "llama",
        "truncate": rope.get("truncate") is True,
        "windows of later layers": bool(c("use_sliding_window")),
        "one after the other": c.arch == "falcon" and not (c("parallel_attn") or c("new_decoder_architecture")),
        "biases by position": c("alibi") is True and c.arch == "falcon",
        "how attention is scaled": c("scale_attn_weights") is False or c("scale_attn_by_inverse_layer_idx") is True,
        "norms before or after": c("apply_residual_connection_post_layernorm") is True,
        "keys by head": c("multi_query_attention") is False,
        "linear biases": c.arch == "chatglm" and c("add_bias_linear") is True,
    }
    return [k for k, v in wrong.items() if v]


def main():
    c = Config(sys.argv[1])
    if unsaid(c):
        print("GGUF cannot say: " + ", ".join(unsaid(c)))
        sys.exit(3)
    tensors = load(sys.argv[1] + "/model.safetensors")
    w = gguf.GGUFWriter(sys.argv[2], c.arch)
    write_metadata(w, c)
    write_tensors(w, c, tensors if OLD and c.arch == "llama" else stack(tensors))
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.write_tensors_to_file()
    w.close()


OLD = len(sys.argv) > 3
if __name__ == "__main__":
    main()
