"""older_exports.py - a checkpoint as other exports write it.

	python3 tests/older_exports.py MODEL_FOLDER OUT_FOLDER KIND

KIND  v4      config.json as transformers 4 wrote it, rotation and layer types spread over older keys
      bare    tensors without their model's prefix, in two files with an index; optional keys left out
      nested  tensors and config inside a model that also sees (gemma3)
      stacked experts as one tensor for gate and up and one for down (transformers 5 in memory)
"""
import json, os, struct, sys


def read(path):
    data = open(path, "rb").read()
    n = struct.unpack("<Q", data[:8])[0]
    header = json.loads(data[8:8 + n])
    header.pop("__metadata__", None)
    return {k: (t["dtype"], t["shape"], data[8 + n + t["data_offsets"][0]:8 + n + t["data_offsets"][1]])
            for k, t in header.items()}


def write(path, tensors):
    header, at = {}, 0
    for name, (dtype, shape, data) in tensors.items():
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [at, at + len(data)]}
        at += len(data)
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as f:
        f.write(struct.pack("<Q", len(text)) + text + b"".join(t[2] for t in tensors.values()))


def as_v4(c):
    """rope_theta beside rope_scaling, no list of layer types where a family's rule gives it."""
    rope = c.pop("rope_parameters", None)
    c["torch_dtype"] = c.pop("dtype", "bfloat16")
    if not rope:
        return c
    if "full_attention" in rope:
        assert rope["sliding_attention"]["rope_type"] == "default", "transformers 4 stretches no layer with a window"
        c["rope_local_base_freq"] = rope["sliding_attention"]["rope_theta"]
        rope = rope["full_attention"]
    rope = dict(rope)
    theta = rope.pop("rope_theta")
    partial = rope.pop("partial_rotary_factor", None)
    if c["model_type"] == "gpt_neox":
        c.update(rotary_emb_base=theta, rotary_pct=partial)
    else:
        c["rope_theta"] = theta
        if partial is not None:
            c["partial_rotary_factor"] = partial
    kind = rope.pop("rope_type")
    c["rope_scaling"] = None if kind == "default" else dict(rope, type=kind)
    period = {"gemma2": 2, "gemma3_text": 6, "gpt_oss": 2}.get(c["model_type"])
    if period and [t == "sliding_attention" for t in c["layer_types"]] == \
            [(l + 1) % period != 0 for l in range(c["num_hidden_layers"])]:
        c.pop("layer_types")
    if "_sliding_window_pattern" in c:
        c["sliding_window_pattern"] = c.pop("_sliding_window_pattern")
    if c["model_type"] == "falcon":
        c.update(model_type="RefinedWebModel", n_layer=c.pop("num_hidden_layers"), n_head=c.pop("num_attention_heads"),
                 n_head_kv=c.pop("num_kv_heads"))
    return c


# What a config may leave out because it follows from the rest or is the family's default.
OPTIONAL = ("head_dim", "pad_token_id", "hidden_act", "activation", "activation_function", "hidden_activation",
            "n_inner", "num_ln_in_parallel_attn", "word_embed_proj_dim", "alibi", "bias")
DEFAULT_TIED = ("bloom", "gpt2", "opt", "falcon", "gemma2", "gemma3_text", "starcoder2")


DEFAULT_HEAD = {"gemma2": 256, "gemma3_text": 256, "qwen3": 128, "glm4": 128, "glm": 128, "gpt_oss": 64}


def as_bare(c):
    head = DEFAULT_HEAD.get(c["model_type"]) or c.get("hidden_size", 0) // c.get("num_attention_heads", c.get("n_head", 1))
    for key in OPTIONAL:
        if key == "head_dim" and c.get(key) != head or key == "hidden_act" and c.get(key) != "silu":
            continue
        if c.get(key) in (None, False) or key in ("head_dim", "pad_token_id", "hidden_act") and c["model_type"] != "gpt_neox":
            c.pop(key, None)
    if c.get("num_key_value_heads") == c.get("num_attention_heads") and c["model_type"] != "gemma3_text":
        c.pop("num_key_value_heads", None)
    if c["model_type"] in DEFAULT_TIED and c.get("tie_word_embeddings"):
        c.pop("tie_word_embeddings")
    return c


def strip(name):
    for prefix in ("model.", "transformer."):
        if name.startswith(prefix):
            return name[len(prefix):]
    return name


def stacked(tensors):
    out, parts = {}, {}
    for name, t in tensors.items():
        if ".experts." not in name:
            out[name.replace("block_sparse_moe", "mlp")] = t
            continue
        base, rest = name.replace("block_sparse_moe", "mlp").split(".experts.")
        number, which, _ = rest.split(".")
        which = {"w1": "gate_proj", "w3": "up_proj", "w2": "down_proj"}.get(which, which)
        parts.setdefault(base, {}).setdefault(int(number), {})[which] = t
    for base, experts in parts.items():
        gate, down = experts[0]["gate_proj"], experts[0]["down_proj"]
        both = b"".join(experts[i][w][2] for i in range(len(experts)) for w in ("gate_proj", "up_proj"))
        out[base + ".experts.gate_up_proj"] = (gate[0], [len(experts), 2 * gate[1][0], gate[1][1]], both)
        out[base + ".experts.down_proj"] = (down[0], [len(experts)] + down[1],
                                            b"".join(experts[i]["down_proj"][2] for i in range(len(experts))))
    return out


def main():
    source, target, kind = sys.argv[1:]
    c = json.load(open(source + "/config.json"))
    tensors = read(source + "/model.safetensors")
    os.makedirs(target, exist_ok=True)
    shards = [tensors]
    if kind == "v4":
        c = as_v4(c)
    elif kind == "bare":
        c = as_bare(c)
        names = sorted(tensors)
        half = len(names) // 2
        shards = [{strip(n): tensors[n] for n in part} for part in (names[:half], names[half:])]
    elif kind == "nested":
        inner = as_v4(c)
        for key in ("architectures", "max_position_embeddings", "tie_word_embeddings"):
            if inner.get(key) is not False:
                inner.pop(key, None)
        c = {"model_type": "gemma3", "text_config": inner, "eos_token_id": [1, 106]}
        shards = [{"language_model." + n: t for n, t in tensors.items()}]
    elif kind == "stacked":
        shards = [stacked(tensors)]
    json.dump(c, open(target + "/config.json", "w"))
    if len(shards) == 1:
        write(target + "/model.safetensors", shards[0])
        return
    where = {}
    for i, shard in enumerate(shards):
        file = f"model-{i + 1:05d}-of-{len(shards):05d}.safetensors"
        write(f"{target}/{file}", shard)
        where.update(dict.fromkeys(shard, file))
    json.dump({"metadata": {}, "weight_map": where}, open(target + "/model.safetensors.index.json", "w"))


if __name__ == "__main__":
    main()
