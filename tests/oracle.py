"""oracle.py - random checkpoints of every family with reference logits from transformers.

	python3 tests/oracle.py FOLDER [COUNT [SEED [FAMILY...]]]

Writes FOLDER/FAMILY-N with config.json, model.safetensors and golden.safetensors, to be given to
build/tests/golden or `weft verify`.  Shapes, biases, ties, windows, rotation
and the weights' type are drawn at random.  transformers 4 draws what it knows, written as it writes.
Needs torch and transformers; no test depends on it.
"""
import json, os, random, sys, types
import torch
import transformers
from safetensors.torch import save_file, load_file

R = random.Random()
V4 = transformers.__version__.startswith("4.")

GATES = ["silu"] * 16 + ["swish", "gelu", "gelu_new", "gelu_fast", "gelu_pytorch_tanh", "gelu_python", "gelu_accurate",
         "quick_gelu", "relu", "relu2", "relu6", "gelu_10", "sigmoid", "tanh", "leaky_relu", "hardswish", "linear"]


def flip():
    return R.random() < 0.5


def vocab():
    return R.choice([97, 131, 160, 257, 320])


def heads(even=True, few=True):
    """Query heads, key heads (few: fewer than queries'), size of a head (even: it is to be rotated)."""
    nkv = R.choice([1, 1, 2, 3, 5, 8])
    nhead = nkv * R.choice([1, 1, 2, 3, 4, 7, 12]) if few else R.choice([1, 2, 3, 5, 8, 12])
    sizes = [2, 4, 6, 8, 10, 12, 16, 18, 20, 24, 32, 40, 64, 80, 96, 128, 192, 256] + ([] if even else [1, 5, 7, 15, 33])
    return nhead, nkv if few else nhead, R.choice([n for n in sizes if n * nhead <= 1024])


def width(nhead):
    """Of a model whose heads have a size of their own: a multiple of their number, which transformers asks for."""
    return nhead * R.choice([n for n in (1, 3, 5, 8, 11, 16, 40) if 7 <= n * nhead <= 160])


def usual(window=False, free_head=True, **more):
    """What the LLaMA-like configs share."""
    nhead, nkv, hdim = heads()
    dim = width(nhead) if free_head else nhead * hdim
    c = dict(vocab_size=vocab(), hidden_size=dim, intermediate_size=R.choice([1, 24, 37, 40, 88, 129]),
             num_hidden_layers=R.choice([1, 2, 3, 5]), num_attention_heads=nhead, num_key_value_heads=nkv,
             max_position_embeddings=512, bos_token_id=1, eos_token_id=2, pad_token_id=0, tie_word_embeddings=flip(),
             rms_norm_eps=R.choice([1e-5, 1e-6, 1e-12, 1e-3, 0.1]), hidden_act=R.choice(GATES),
             rope_parameters={"rope_type": "default", "rope_theta": R.choice([1e4, 5e5, 100.0, 1e7])})
    if free_head:
        c["head_dim"] = hdim
    if window:
        c["sliding_window"] = R.choice([None, 1, 2, 5, 16, 33, 127, 1000])
    c.update(more)
    return c


def mixed(c):
    """A window of any size on some of the layers, or all, or none."""
    c["sliding_window"] = R.choice([1, 3, 8, 20, 64, 129, 600])
    c["layer_types"] = [R.choice(["full_attention", "sliding_attention"]) for _ in range(c["num_hidden_layers"])]
    return c


def yarn(rope):
    rope.update(rope_type="yarn", factor=R.choice([1.0, 2.0, 8.0]), original_max_position_embeddings=R.choice([4, 32, 256]),
                **R.choice([{}, {"beta_fast": 16.0, "beta_slow": 2.0}, {"attention_factor": 1.3}, {"truncate": False},
                            {"mscale": 1.0, "mscale_all_dim": 0.7}]))


def stretch(rope, kinds=("default", "linear", "llama3", "yarn")):
    """One of the ways to stretch rotation, where a family leaves it open."""
    kind = R.choice(kinds)
    if kind == "linear":
        rope.update(rope_type="linear", factor=R.choice([1.0, 2.5, 4.0]))
    if kind == "llama3":
        rope.update(rope_type="llama3", factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0,
                    original_max_position_embeddings=R.choice([32, 128]))
    if kind == "yarn":
        yarn(rope)
    if kind == "dynamic":
        rope.update(rope_type="dynamic", factor=R.choice([2.0, 4.0]))


def scaled(c):
    """Stretched in any way; the dynamic one begins within the longer prompts."""
    stretch(c["rope_parameters"], ("default", "linear", "llama3", "yarn", "dynamic"))
    if c["rope_parameters"]["rope_type"] == "dynamic":
        c["max_position_embeddings"] = R.choice([48, 512])
    return c


def partial(c, *shares):
    """A share of every head turns: an odd number of values has one more turn with them, where that is defined."""
    hdim = c.get("head_dim") or c["hidden_size"] // c["num_attention_heads"]
    odd = not V4 and c["rope_parameters"]["rope_type"] != "yarn"
    good = [s for s in shares if int(hdim * s) > 0 and (odd or int(hdim * s) % 2 == 0)]
    c["rope_parameters"]["partial_rotary_factor"] = R.choice(good or [1.0])
    return c


def config(name, **c):
    """A config class's instance; transformers 4 has rotation spread over older keys.  Some keep the tokens of the
    large models they are named for, which they have no rows for."""
    if R.random() < 0.2:
        c.pop("bos_token_id", None)
        c.pop("eos_token_id", None)
    if V4 and "rope_parameters" in c:
        rope = c.pop("rope_parameters")
        if "full_attention" in rope:
            c["rope_local_base_freq"] = rope["sliding_attention"]["rope_theta"]
            rope = rope["full_attention"]
        rope = dict(rope)
        share, theta = rope.pop("partial_rotary_factor", None), rope.pop("rope_theta")
        c.update({"rotary_emb_base": theta} if name == "GPTNeoX" else {"rope_theta": theta})
        if share is not None:
            c["rotary_pct" if name == "GPTNeoX" else "partial_rotary_factor"] = share
        kind = rope.pop("rope_type")
        key = "type" if name in ("Phi3", "Olmo2") else "rope_type"
        c["rope_scaling"] = None if kind == "default" else {**rope, key: kind}
    return getattr(transformers, name + "Config")(**c)


def llama():
    return config("Llama", **scaled(usual(free_head=flip(), attention_bias=flip(), mlp_bias=flip())))


def mistral():
    return config("Mistral", **scaled(usual(window=True)))


def moe(**more):
    """How many experts, and what says it of the rest."""
    n = R.choice([1, 3, 4, 9, 17, 64])
    return n, dict(num_experts_per_tok=min(n, R.choice([1, 2, 3, 8])), **more)


def mixtral():
    n, more = moe()
    return config("Mixtral", **usual(window=True, num_local_experts=n, **more))


def windows_from(c):
    """Qwen's spelling: from some layer on."""
    if flip():
        c.update(use_sliding_window=True, sliding_window=R.choice([1, 7, 20, 130]), max_window_layers=R.choice([0, 1, 2, 28]))
    return c


def qwen2():
    return config("Qwen2", **windows_from(scaled(usual(free_head=False))))


def qwen3():
    return config("Qwen3", **windows_from(scaled(usual(attention_bias=flip()))))


def qwen3_moe():
    n, more = moe(moe_intermediate_size=R.choice([1, 16, 37]), norm_topk_prob=flip())
    c = windows_from(usual(num_experts=n, attention_bias=flip(), **more))
    if flip() and c["num_hidden_layers"] > 1:
        c["mlp_only_layers"] = R.choice([[1], [0], list(range(c["num_hidden_layers"]))])
    elif flip():
        c["decoder_sparse_step"] = R.choice([2, 3])
    return config("Qwen3Moe", **c)


def gemma(name, **more):
    c = mixed(usual(query_pre_attn_scalar=R.choice([1, 8, 24, 144, 168]), hidden_activation=R.choice(GATES), attention_bias=flip(),
                    attn_logit_softcapping=R.choice([None, 5.0, 50.0]), final_logit_softcapping=R.choice([None, 3.0, 30.0])))
    c.pop("hidden_act")
    c.update(more)
    return config(name, **c)


def gemma2():
    return gemma("Gemma2")


def gemma3():
    full, sliding = {"rope_type": "default", "rope_theta": 1e5}, {"rope_type": "default", "rope_theta": 1e3}
    stretch(full)
    full.pop("truncate", None)              # which transformers does not find behind a layer's type
    if flip() and not V4:
        stretch(sliding, ("default", "linear"))
    return gemma("Gemma3Text", rope_parameters={"full_attention": full, "sliding_attention": sliding})


def gpt2():
    nhead, _, hdim = heads(even=False, few=False)
    return config("GPT2", vocab_size=vocab(), n_embd=nhead * hdim, n_head=nhead, n_layer=R.choice([1, 2, 4]), n_positions=400,
                  n_inner=R.choice([None, 40, 37]), activation_function=R.choice(GATES), tie_word_embeddings=flip(),
                  scale_attn_weights=R.random() < 0.8, scale_attn_by_inverse_layer_idx=R.random() < 0.2,
                  reorder_and_upcast_attn=flip(), bos_token_id=1, eos_token_id=2)


def gpt_neox():
    nhead, _, hdim = heads(few=False)
    return config("GPTNeoX", **partial(scaled(dict(
        vocab_size=vocab(), hidden_size=nhead * hdim, num_attention_heads=nhead, num_hidden_layers=2,
        intermediate_size=R.choice([40, 64, 37]), max_position_embeddings=512, hidden_act=R.choice(GATES),
        use_parallel_residual=flip(), attention_bias=flip(), tie_word_embeddings=flip(), bos_token_id=1, eos_token_id=2,
        rope_parameters={"rope_type": "default", "rope_theta": 1e4})), 0.25, 0.5, 1.0))


def opt():
    nhead, _, hdim = heads(even=False, few=False)
    dim = nhead * hdim
    return config("OPT", vocab_size=vocab(), hidden_size=dim, num_attention_heads=nhead, num_hidden_layers=2,
                  ffn_dim=R.choice([40, 64, 37]), max_position_embeddings=400, do_layer_norm_before=flip(),
                  word_embed_proj_dim=R.choice([dim, 16, 33]), enable_bias=flip(), layer_norm_elementwise_affine=R.random() < 0.8,
                  _remove_final_layer_norm=flip(), bos_token_id=1, eos_token_id=2, pad_token_id=0,
                  tie_word_embeddings=flip(), activation_function=R.choice(GATES))


def falcon():
    nhead, nkv, hdim = heads()
    new, alibi = flip(), R.random() < 0.3
    c = dict(vocab_size=vocab(), hidden_size=nhead * hdim, num_attention_heads=nhead, num_hidden_layers=2,
             new_decoder_architecture=new, num_kv_heads=nkv if new else None, multi_query=flip(), parallel_attn=flip() or new,
             bias=flip(), alibi=alibi, num_ln_in_parallel_attn=R.choice([None, 1, 2]) if new else None,
             ffn_hidden_size=R.choice([40, 64, 37]), bos_token_id=1, eos_token_id=2, tie_word_embeddings=flip(),
             activation=R.choice(GATES), max_position_embeddings=512,
             rope_parameters={"rope_type": "default", "rope_theta": R.choice([1e4, 5e5])})
    return config("Falcon", **(c if alibi else scaled(c)))


def bloom():
    nhead, hdim = R.choice([(1, 16), (2, 8), (3, 16), (5, 7), (6, 33), (7, 8), (12, 64), (16, 5), (24, 20), (112, 4)])
    return config("Bloom", vocab_size=vocab(), hidden_size=nhead * hdim, n_head=nhead, n_layer=R.choice([1, 2, 4]),
                  apply_residual_connection_post_layernorm=flip(), tie_word_embeddings=flip(), bos_token_id=1, eos_token_id=2)


def phi3():
    c = partial(usual(window=True, free_head=False), 0.5, 0.75, 1.0)
    hdim, share = c["hidden_size"] // c["num_attention_heads"], c["rope_parameters"]["partial_rotary_factor"]
    n = int(hdim * share) // 2
    if int(hdim * share) % 2 == 0 and flip():
        c["original_max_position_embeddings"] = R.choice([512, 2, 46])
        c["rope_parameters"].update(rope_type="longrope", long_factor=[1.0 + R.random() for _ in range(n)],
                                    short_factor=[1.0 + R.random() / 4 for _ in range(n)],
                                    original_max_position_embeddings=c["original_max_position_embeddings"])
        if V4:
            c["rope_parameters"].pop("original_max_position_embeddings")
    return config("Phi3", **c)


def olmo2():
    return config("Olmo2", **scaled(usual(free_head=False, attention_bias=flip())))


def glm4():
    return config("Glm4", **partial(usual(attention_bias=flip()), 0.25, 0.5, 1.0))


def glm():
    return config("Glm", **partial(usual(attention_bias=flip()), 0.5))


def latent(name, **more):
    """What both DeepSeeks share."""
    nhead = R.choice([1, 2, 3, 5, 16])
    n, groups, keep = R.choice([(12, 1, 1), (12, 2, 1), (12, 4, 2), (64, 8, 4), (10, 5, 4)])
    c = usual(free_head=False, num_experts_per_tok=min(R.choice([1, 2, 3, 8]), n // groups * keep), n_routed_experts=n,
              n_group=groups, topk_group=keep, n_shared_experts=R.choice([1, 2, 3]), moe_intermediate_size=R.choice([16, 13]),
              first_k_dense_replace=R.choice([0, 0, 1, 2]), q_lora_rank=R.choice([None, 24, 9]),
              kv_lora_rank=R.choice([16, 24, 11]), qk_nope_head_dim=R.choice([7, 8, 24, 128]),
              qk_rope_head_dim=R.choice([2, 4, 16, 64]), v_head_dim=R.choice([5, 8, 20, 32, 128]), norm_topk_prob=flip(),
              routed_scaling_factor=R.choice([1.0, 2.5, 16.0]), attention_bias=flip())
    c.update(num_attention_heads=nhead, num_key_value_heads=nhead, hidden_size=width(nhead))
    if flip():
        c["rope_parameters"].update(rope_type="yarn", factor=R.choice([1.0, 8.0, 40.0]), original_max_position_embeddings=32,
                                    beta_fast=32.0, beta_slow=1.0,
                                    **R.choice([{}, dict(mscale=R.choice([1.0, 0.7]), mscale_all_dim=R.choice([1.0, 0.7]))]))
    c.update(more)
    return config(name, **c)


def deepseek_v3():
    return latent("DeepseekV3", rope_interleave=flip())


def deepseek_v2():
    # which turns pairs in place: every row is even
    return latent("DeepseekV2", topk_method=R.choice(["greedy", "group_limited_greedy"]), mlp_bias=flip() and not V4,
                  kv_lora_rank=R.choice([16, 24]), qk_nope_head_dim=R.choice([6, 8, 24, 128]))


def gpt_oss():
    n, more = moe()
    c = mixed(usual(num_local_experts=n, attention_bias=flip(), **more))
    stretch(c["rope_parameters"], ("default", "linear", "yarn", "yarn"))
    return config("GptOss", **c)


def starcoder2():
    c = scaled(usual(window=True, free_head=False, use_bias=flip(), norm_epsilon=R.choice([1e-5, 1e-3])))
    c.pop("rms_norm_eps")
    return config("Starcoder2", **c)


def stablelm():
    c = scaled(usual(free_head=False, use_qkv_bias=flip(), qk_layernorm=flip(), use_parallel_residual=flip(), layer_norm_eps=1e-5))
    c.pop("rms_norm_eps")
    return config("StableLm", **partial(c, 0.25, 0.5, 1.0))


class Named(torch.nn.ParameterDict):
    """Parameters under names with dots, which torch keeps for itself."""
    def _key_to_attr(self, key):
        return key.replace(".", "/")

    def _attr_to_key(self, attr):
        return attr.replace("/", ".")


class ChatGLM(torch.nn.Module):
    """ChatGLM2 and 3 from their papers and weights' names: transformers ships no code for them."""
    def __init__(self):
        super().__init__()
        self.heads, self.groups = R.choice([(4, 2), (6, 2), (4, 1), (3, 3), (8, 4), (12, 1), (14, 2)])
        self.multi, self.hdim, self.vocab = flip(), R.choice([4, 12, 16, 32, 64, 128]), vocab()
        self.kv = self.groups if self.multi else self.heads
        self.dim, self.ffn, self.layers = R.choice([31, 48, 72]), R.choice([37, 88]), R.choice([1, 2, 3])
        self.bias, self.qkv_bias, self.ratio = flip(), flip(), R.choice([1, 1, 16])
        self.p = Named()
        ones, qkv = torch.ones(self.dim), (self.heads + 2 * self.kv) * self.hdim
        self.add("transformer.embedding.word_embeddings", self.vocab, False)
        for i in range(self.layers):
            at = f"transformer.encoder.layers.{i}."
            self.p[at + "input_layernorm.weight"] = torch.nn.Parameter(ones.clone())
            self.p[at + "post_attention_layernorm.weight"] = torch.nn.Parameter(ones.clone())
            self.add(at + "self_attention.query_key_value", qkv, self.bias or self.qkv_bias)
            self.add(at + "self_attention.dense", self.dim, self.bias, self.heads * self.hdim)
            self.add(at + "mlp.dense_h_to_4h", 2 * self.ffn, self.bias)
            self.add(at + "mlp.dense_4h_to_h", self.dim, self.bias, self.ffn)
        self.p["transformer.encoder.final_layernorm.weight"] = torch.nn.Parameter(ones.clone())
        self.add("transformer.output_layer", self.vocab, False)

    def add(self, name, rows, bias, cols=None):
        self.p[name + ".weight"] = torch.nn.Parameter(torch.zeros(rows, cols or self.dim))
        if bias:
            self.p[name + ".bias"] = torch.nn.Parameter(torch.zeros(rows))

    def tie_weights(self):
        pass

    def linear(self, x, name):
        bias = name + ".bias"
        return torch.nn.functional.linear(x, self.p[name + ".weight"], self.p[bias] if bias in self.p else None)

    def norm(self, x, name):
        return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-5) * self.p[name + ".weight"]

    def rotate(self, x):
        """Neighbouring pairs of a head's first half: x is [heads, T, hdim]."""
        n = self.hdim // 2
        freqs = 1.0 / (10000.0 * self.ratio) ** (torch.arange(0, n, 2).float() / n)
        angle = torch.outer(torch.arange(x.shape[1]).float(), freqs)
        a, b = x[..., :n:2], x[..., 1:n:2]
        turned = torch.stack([a * angle.cos() - b * angle.sin(), b * angle.cos() + a * angle.sin()], -1).flatten(-2)
        return torch.cat([turned, x[..., n:]], -1)

    def attention(self, x, at):
        T, nq, nk = x.shape[0], self.heads * self.hdim, self.kv * self.hdim
        mixed = self.linear(x, at + "self_attention.query_key_value")
        if self.multi:
            q, k, v = mixed.split([nq, nk, nk], -1)
        else:
            q, k, v = mixed.view(T, self.heads, 3, self.hdim).unbind(2)
        q, k, v = (t.reshape(T, -1, self.hdim).transpose(0, 1) for t in (q, k, v))
        k, v = (t.repeat_interleave(self.heads // self.kv, 0) for t in (self.rotate(k), v))
        scores = self.rotate(q) @ k.transpose(1, 2) / self.hdim ** 0.5
        scores = scores.masked_fill(torch.ones(T, T).triu(1).bool(), float("-inf")).softmax(-1)
        return self.linear((scores @ v).transpose(0, 1).reshape(T, nq), at + "self_attention.dense")

    def forward(self, ids, use_cache=False):
        x = self.p["transformer.embedding.word_embeddings.weight"][ids[0]]
        for i in range(self.layers):
            at = f"transformer.encoder.layers.{i}."
            x = x + self.attention(self.norm(x, at + "input_layernorm"), at)
            gate, up = self.linear(self.norm(x, at + "post_attention_layernorm"), at + "mlp.dense_h_to_4h").chunk(2, -1)
            x = x + self.linear(torch.nn.functional.silu(gate) * up, at + "mlp.dense_4h_to_h")
        logits = self.linear(self.norm(x, "transformer.encoder.final_layernorm"), "transformer.output_layer")
        return types.SimpleNamespace(logits=logits[None])

    def save_pretrained(self, folder, **unused):
        os.makedirs(folder, exist_ok=True)
        save_file({k: v.detach() for k, v in self.p.items()}, folder + "/model.safetensors")
        c = dict(model_type="chatglm", num_layers=self.layers, padded_vocab_size=self.vocab, vocab_size=self.vocab - 7,
                 hidden_size=self.dim, ffn_hidden_size=self.ffn, kv_channels=self.hdim, num_attention_heads=self.heads, seq_length=256, rmsnorm=True,
                 layernorm_epsilon=1e-5, add_bias_linear=self.bias, add_qkv_bias=self.qkv_bias, post_layer_norm=True,
                 multi_query_attention=self.multi, multi_query_group_num=self.groups, eos_token_id=2)
        if self.ratio != 1:
            c["rope_ratio"] = self.ratio
        json.dump(c, open(folder + "/config.json", "w"))


def chatglm():
    return ChatGLM()


FAMILIES = {f.__name__: f for f in (llama, mistral, mixtral, qwen2, qwen3, qwen3_moe, gemma2, gemma3, gpt2, gpt_neox, opt,
                                    falcon, bloom, phi3, olmo2, glm4, glm, deepseek_v3, deepseek_v2, gpt_oss, starcoder2,
                                    stablelm, chatglm)}


def randomise(model, dtype):
    """Every parameter far from its initial value, norms and biases too, and a number of the type it is kept as."""
    with torch.no_grad():
        routers = [(n, b) for n, b in model.named_buffers() if "correction" in n]
        for _, p in list(model.named_parameters()) + routers:
            noise = torch.randn(p.shape)
            fan = p.shape[-1] if p.dim() > 1 else 1
            p.copy_(noise / fan ** 0.5 if p.dim() > 1 else p + 0.2 * noise)
            p.copy_(p.to(dtype).float())


def changes(model, n):
    """How many tokens a text of n may grow by with the same frequencies."""
    c = getattr(model, "config", None)
    rope = c and (getattr(c, "rope_parameters", None) or getattr(c, "rope_scaling", None)) or {}
    if rope.get("rope_type") == "dynamic":
        return max(c.max_position_embeddings - n, 0)
    if rope.get("rope_type") == "longrope" and n <= c.original_max_position_embeddings:
        return c.original_max_position_embeddings - n
    return 12


def answers(model, size, out):
    for case, n in (("a", R.randint(1, 30)), ("b", R.randint(60, 110)), ("c", R.choice([0, 0, 200, 330]))):
        if not n:
            continue
        ids = torch.randint(3, size, (1, n))
        with torch.no_grad():
            logits = model(ids, use_cache=False).logits[0].float()
            greedy, margin, seq = [], [], ids
            for _ in range(min(12 if n < 200 else 4, changes(model, n))):
                top = model(seq, use_cache=False).logits[0, -1].float().topk(2)
                greedy.append(top.indices[0].item())
                margin.append((top.values[0] - top.values[1]).item())
                seq = torch.cat([seq, top.indices[:1].view(1, 1)], 1)
        out[case + ".input_ids"] = ids[0].int().contiguous()
        out[case + ".logits"] = logits.contiguous() if case == "a" else logits[-8:].contiguous()
        out[case + ".greedy"] = torch.tensor(greedy, dtype=torch.int32)
        out[case + ".margin"] = torch.tensor(margin)


def write(folder, family):
    model, dtype = FAMILIES[family](), R.choice([torch.bfloat16, torch.bfloat16, torch.float16, torch.float32])
    if family != "chatglm":
        # Falcon's plain attention adds its biases twice, which is not what was trained
        attention = "sdpa" if getattr(model, "alibi", False) else "eager"
        experts = {} if V4 else {"experts_implementation": "eager"}
        model = transformers.AutoModelForCausalLM.from_config(model, attn_implementation=attention, **experts)
    model = model.float().eval()
    randomise(model, dtype)
    model.tie_weights()
    expected = {}
    answers(model, model.vocab if family == "chatglm" else model.config.vocab_size, expected)
    model.to(dtype).save_pretrained(folder, max_shard_size=R.choice(["20KB", "1GB"]))
    save_file(expected, os.path.join(folder, "golden.safetensors"))


def main():
    folder = sys.argv[1]
    count = int(sys.argv[2]) if len(sys.argv) > 2 else 3
    seed = int(sys.argv[3]) if len(sys.argv) > 3 else 1
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    for family in sys.argv[4:] or FAMILIES:
        for i in range(count):
            R.seed(f"{family} {seed} {i}")
            torch.manual_seed(R.randrange(1 << 30))
            where = os.path.join(folder, f"{family}-{i}")
            try:
                write(where, family)
            except Exception as e:      # a draw that transformers itself refuses
                print(f"{where}: {type(e).__name__}: {e}"[:300])


if __name__ == "__main__":
    main()
