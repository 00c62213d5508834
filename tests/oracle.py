"""oracle.py - random checkpoints of every family with reference logits from transformers.

	python3 tests/oracle.py FOLDER [COUNT [SEED [FAMILY...]]]

Writes FOLDER/FAMILY-N with config.json, model.safetensors and golden.safetensors, to be given to
build/tests/golden or `weft verify`.  Shapes, biases, ties, windows and rotation are drawn at random.
Needs torch and transformers; no test depends on it.
"""
import json, os, random, sys, types
import torch
import transformers
from safetensors.torch import save_file, load_file

R = random.Random()
VOCAB = 160


def flip():
    return R.random() < 0.5


def heads(mqa=True):
    """Query heads, key heads, size of a head."""
    nkv = R.choice([1, 2, 3])
    return nkv * R.choice([1, 2, 3]) if mqa else nkv, nkv, R.choice([8, 12, 16, 20, 24, 32, 40, 64, 80])


def usual(window=False, free_head=True, **more):
    """What the LLaMA-like configs share."""
    nhead, nkv, hdim = heads()
    dim = R.choice([32, 40, 48, 72]) if free_head else nhead * hdim
    c = dict(vocab_size=VOCAB, hidden_size=dim, intermediate_size=R.choice([24, 40, 88]), num_hidden_layers=R.choice([1, 2, 3]),
             num_attention_heads=nhead, num_key_value_heads=nkv, max_position_embeddings=256, bos_token_id=1,
             eos_token_id=2, pad_token_id=0, tie_word_embeddings=flip(), rms_norm_eps=R.choice([1e-5, 1e-6, 1e-3]),
             rope_parameters={"rope_type": "default", "rope_theta": R.choice([1e4, 5e5, 100.0])})
    if free_head:
        c["head_dim"] = hdim
    if window:
        c["sliding_window"] = R.choice([None, 5, 16, 33])
    c.update(more)
    return c


def mixed(c):
    n = c["num_hidden_layers"]
    c["layer_types"] = [R.choice(["full_attention", "sliding_attention"]) for _ in range(n)]
    return c


def yarn(c):
    return dict(c["rope_parameters"], rope_type="yarn", factor=R.choice([2.0, 8.0]), original_max_position_embeddings=32,
                **R.choice([{}, {"beta_fast": 16.0, "beta_slow": 2.0}, {"attention_factor": 1.3}, {"mscale": 1.0, "mscale_all_dim": 0.7}]))


def scaled(c):
    """One of the ways to stretch rotation, where a family leaves it open."""
    kind = R.choice(["default", "linear", "llama3", "yarn", "dynamic"])
    if kind == "linear":
        c["rope_parameters"].update(rope_type="linear", factor=4.0)
    if kind == "llama3":
        c["rope_parameters"].update(rope_type="llama3", factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0,
                                    original_max_position_embeddings=32)
    if kind == "yarn":
        c["rope_parameters"] = yarn(c)
    if kind == "dynamic":
        c["rope_parameters"].update(rope_type="dynamic", factor=R.choice([2.0, 4.0]))
    return c


def llama():
    return transformers.LlamaConfig(**scaled(usual(free_head=flip(), attention_bias=flip(), mlp_bias=flip())))


def mistral():
    return transformers.MistralConfig(**scaled(usual(window=True)))


def moe(**more):
    n = R.choice([3, 4, 9, 17])
    return dict(num_experts_per_tok=R.randint(1, 3), **more), n


def mixtral():
    more, n = moe()
    return transformers.MixtralConfig(**usual(window=True, num_local_experts=n, **more))


def qwen2():
    c = scaled(usual(free_head=False))
    if flip():
        c.update(use_sliding_window=True, sliding_window=20, max_window_layers=R.choice([0, 1]))
    return transformers.Qwen2Config(**c)


def qwen3():
    c = scaled(usual(attention_bias=flip()))
    if flip():
        c.update(use_sliding_window=True, sliding_window=20, max_window_layers=R.choice([0, 1]))
    return transformers.Qwen3Config(**c)


def qwen3_moe():
    more, n = moe(moe_intermediate_size=R.choice([16, 24]), norm_topk_prob=flip())
    c = usual(num_experts=n, attention_bias=flip(), **more)
    if flip() and c["num_hidden_layers"] > 1:
        c["mlp_only_layers"] = [1]
    elif flip():
        c["decoder_sparse_step"] = 2
    return transformers.Qwen3MoeConfig(**c)


def gemma2():
    c = mixed(usual(sliding_window=R.choice([8, 20]), query_pre_attn_scalar=R.choice([8, 24, 144]),
                    attn_logit_softcapping=R.choice([None, 5.0, 50.0]), final_logit_softcapping=R.choice([None, 3.0, 30.0]),
                    hidden_activation="gelu_pytorch_tanh", attention_bias=flip()))
    return transformers.Gemma2Config(**c)


def gemma3():
    c = mixed(usual(sliding_window=R.choice([8, 20]), query_pre_attn_scalar=R.choice([8, 24, 168]),
                    hidden_activation="gelu_pytorch_tanh", attention_bias=flip()))
    full = R.choice([{"rope_type": "default", "rope_theta": 1e6}, {"rope_type": "linear", "factor": 8.0, "rope_theta": 1e5}])
    c["rope_parameters"] = {"full_attention": full, "sliding_attention": {"rope_type": "default", "rope_theta": 1e3}}
    return transformers.Gemma3TextConfig(**c)


def gpt2():
    nhead, _, hdim = heads(False)
    return transformers.GPT2Config(vocab_size=VOCAB, n_embd=nhead * hdim, n_head=nhead, n_layer=2, n_positions=160,
                                   n_inner=R.choice([None, 40]), activation_function=R.choice(["gelu_new", "relu", "gelu"]),
                                   tie_word_embeddings=flip(), bos_token_id=1, eos_token_id=2)


def gpt_neox():
    nhead, _, hdim = heads(False)
    return transformers.GPTNeoXConfig(vocab_size=VOCAB, hidden_size=nhead * hdim, num_attention_heads=nhead,
                                      num_hidden_layers=2, intermediate_size=R.choice([40, 64]), max_position_embeddings=256,
                                      hidden_act=R.choice(["gelu", "gelu_new", "relu"]), use_parallel_residual=flip(),
                                      attention_bias=flip(), tie_word_embeddings=flip(), bos_token_id=1, eos_token_id=2,
                                      rope_parameters={"rope_type": "default", "rope_theta": 1e4,
                                                       "partial_rotary_factor": R.choice([0.25, 0.5, 1.0])})


def opt():
    nhead, _, hdim = heads(False)
    dim = nhead * hdim
    return transformers.OPTConfig(vocab_size=VOCAB, hidden_size=dim, num_attention_heads=nhead, num_hidden_layers=2,
                                  ffn_dim=R.choice([40, 64]), max_position_embeddings=160, do_layer_norm_before=flip(),
                                  word_embed_proj_dim=R.choice([dim, 16]), enable_bias=flip(), bos_token_id=1, eos_token_id=2,
                                  pad_token_id=0, activation_function=R.choice(["relu", "gelu"]))


def falcon():
    nhead, nkv, hdim = heads()
    new = flip()
    multi = flip()
    return transformers.FalconConfig(vocab_size=VOCAB, hidden_size=nhead * hdim, num_attention_heads=nhead,
                                     num_hidden_layers=2, new_decoder_architecture=new, num_kv_heads=nkv if new else None,
                                     multi_query=multi, parallel_attn=flip() or new, bias=flip(), alibi=False,
                                     num_ln_in_parallel_attn=R.choice([None, 1]) if new else None,
                                     ffn_hidden_size=R.choice([40, 64]), bos_token_id=1, eos_token_id=2,
                                     tie_word_embeddings=flip())


def bloom():
    nhead, _, hdim = R.choice([1, 2, 3, 5, 6, 7]), 0, R.choice([8, 16])
    return transformers.BloomConfig(vocab_size=VOCAB, hidden_size=nhead * hdim, n_head=nhead, n_layer=2,
                                    apply_residual_connection_post_layernorm=flip(), bos_token_id=1, eos_token_id=2)


def phi3():
    c = usual(window=True, free_head=False)
    c["rope_parameters"]["partial_rotary_factor"] = R.choice([0.5, 0.75, 1.0])
    hdim = c["hidden_size"] // c["num_attention_heads"]
    if flip():
        n = int(hdim * c["rope_parameters"]["partial_rotary_factor"]) // 2
        c["max_position_embeddings"] = 256
        c["original_max_position_embeddings"] = R.choice([256, 4, 46])
        c["rope_parameters"].update(rope_type="longrope", long_factor=[1.0 + R.random() for _ in range(n)],
                                    short_factor=[1.0 + R.random() / 4 for _ in range(n)],
                                    original_max_position_embeddings=c["original_max_position_embeddings"])
    return transformers.Phi3Config(**c)


def olmo2():
    return transformers.Olmo2Config(**scaled(usual(free_head=False, attention_bias=flip())))


def glm4():
    c = usual(attention_bias=flip())
    c["rope_parameters"]["partial_rotary_factor"] = R.choice([0.5, 0.25, 1.0])
    return transformers.Glm4Config(**c)


def glm():
    c = usual(attention_bias=flip())
    c["rope_parameters"]["partial_rotary_factor"] = 0.5
    return transformers.GlmConfig(**c)


def deepseek_v3():
    groups, keep = R.choice([(1, 1), (2, 1), (4, 2)])
    nhead = R.choice([1, 2, 3])
    c = usual(free_head=False, num_experts_per_tok=R.choice([1, 2, 3]), n_routed_experts=12, n_group=groups, topk_group=keep,
              n_shared_experts=R.choice([1, 2]), moe_intermediate_size=16, first_k_dense_replace=R.choice([0, 1]),
              q_lora_rank=R.choice([None, 24]), kv_lora_rank=R.choice([16, 24]), qk_nope_head_dim=R.choice([8, 24]),
              qk_rope_head_dim=R.choice([4, 16]), v_head_dim=R.choice([8, 20, 32]), norm_topk_prob=flip(),
              routed_scaling_factor=R.choice([1.0, 2.5]), attention_bias=flip(), rope_interleave=flip())
    c.update(num_attention_heads=nhead, num_key_value_heads=nhead, hidden_size=R.choice([40, 64]))
    if flip():
        c["rope_parameters"].update(rope_type="yarn", factor=8.0, original_max_position_embeddings=32, beta_fast=32.0,
                                    beta_slow=1.0, mscale=R.choice([1.0, 0.7]), mscale_all_dim=R.choice([1.0, 0.7]))
    return transformers.DeepseekV3Config(**c)


def deepseek_v2():
    nhead = R.choice([1, 2, 3])
    groups, keep = R.choice([(1, 1), (2, 1), (3, 2)])
    c = usual(free_head=False, num_experts_per_tok=2, n_routed_experts=6, n_shared_experts=1, moe_intermediate_size=16,
              first_k_dense_replace=R.choice([0, 1]), q_lora_rank=R.choice([None, 24]), kv_lora_rank=16, qk_nope_head_dim=8,
              qk_rope_head_dim=8, v_head_dim=16, topk_method=R.choice(["greedy", "group_limited_greedy"]),
              n_group=groups, topk_group=keep, routed_scaling_factor=R.choice([1.0, 2.5]))
    c.update(num_attention_heads=nhead, num_key_value_heads=nhead, hidden_size=48)
    return transformers.DeepseekV2Config(**c)


def gpt_oss():
    c = mixed(usual(sliding_window=R.choice([8, 20]), num_local_experts=R.choice([3, 6]), num_experts_per_tok=R.choice([1, 2, 3]),
                    attention_bias=True))
    c["rope_parameters"] = dict(rope_type="yarn", factor=R.choice([4.0, 32.0]), original_max_position_embeddings=64,
                                rope_theta=150000.0, beta_fast=32.0, beta_slow=1.0, truncate=flip())
    return transformers.GptOssConfig(**c)


def starcoder2():
    c = scaled(usual(window=True, free_head=False, use_bias=flip(), norm_epsilon=1e-5))
    c.pop("rms_norm_eps")
    return transformers.Starcoder2Config(**c)


def stablelm():
    c = usual(free_head=False, use_qkv_bias=flip(), qk_layernorm=flip(), use_parallel_residual=flip(), layer_norm_eps=1e-5)
    c.pop("rms_norm_eps")
    c["rope_parameters"]["partial_rotary_factor"] = R.choice([0.25, 0.5])
    return transformers.StableLmConfig(**c)


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
        self.heads, self.groups = R.choice([(4, 2), (6, 2), (4, 1), (3, 3), (8, 4)])
        self.multi, self.hdim = flip(), R.choice([16, 32, 64])
        self.kv = self.groups if self.multi else self.heads
        self.dim, self.ffn, self.layers = R.choice([32, 48, 72]), R.choice([40, 88]), 2
        self.bias, self.qkv_bias, self.ratio = flip(), flip(), R.choice([1, 1, 16])
        self.p = Named()
        ones, qkv = torch.ones(self.dim), (self.heads + 2 * self.kv) * self.hdim
        self.add("transformer.embedding.word_embeddings", VOCAB, False)
        for i in range(self.layers):
            at = f"transformer.encoder.layers.{i}."
            self.p[at + "input_layernorm.weight"] = torch.nn.Parameter(ones.clone())
            self.p[at + "post_attention_layernorm.weight"] = torch.nn.Parameter(ones.clone())
            self.add(at + "self_attention.query_key_value", qkv, self.bias or self.qkv_bias)
            self.add(at + "self_attention.dense", self.dim, self.bias, self.heads * self.hdim)
            self.add(at + "mlp.dense_h_to_4h", 2 * self.ffn, self.bias)
            self.add(at + "mlp.dense_4h_to_h", self.dim, self.bias, self.ffn)
        self.p["transformer.encoder.final_layernorm.weight"] = torch.nn.Parameter(ones.clone())
        self.add("transformer.output_layer", VOCAB, False)

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

    def save_pretrained(self, folder):
        os.makedirs(folder, exist_ok=True)
        save_file({k: v.detach().to(torch.bfloat16) for k, v in self.p.items()}, folder + "/model.safetensors")
        c = dict(model_type="chatglm", num_layers=self.layers, padded_vocab_size=VOCAB, vocab_size=VOCAB - 7, hidden_size=self.dim,
                 ffn_hidden_size=self.ffn, kv_channels=self.hdim, num_attention_heads=self.heads, seq_length=256, rmsnorm=True,
                 layernorm_epsilon=1e-5, add_bias_linear=self.bias, add_qkv_bias=self.qkv_bias, post_layer_norm=True,
                 multi_query_attention=self.multi, multi_query_group_num=self.groups, torch_dtype="bfloat16", eos_token_id=2)
        if self.ratio != 1:
            c["rope_ratio"] = self.ratio
        json.dump(c, open(folder + "/config.json", "w"))


def chatglm():
    return ChatGLM()


FAMILIES = {f.__name__: f for f in (llama, mistral, mixtral, qwen2, qwen3, qwen3_moe, gemma2, gemma3, gpt2, gpt_neox, opt,
                                    falcon, bloom, phi3, olmo2, glm4, glm, deepseek_v3, deepseek_v2, gpt_oss, starcoder2,
                                    stablelm, chatglm)}


def randomise(model):
    """Every parameter far from its initial value, norms and biases too."""
    with torch.no_grad():
        routers = [(n, b) for n, b in model.named_buffers() if "correction" in n]
        for _, p in list(model.named_parameters()) + routers:
            noise = torch.randn(p.shape)
            fan = p.shape[-1] if p.dim() > 1 else 1
            p.copy_(noise / fan ** 0.5 if p.dim() > 1 else p + 0.2 * noise)
            p.copy_(p.to(torch.bfloat16).float())


def answers(model, out):
    for case, n in (("a", R.randint(1, 30)), ("b", R.randint(60, 110))):
        ids = torch.randint(3, VOCAB, (1, n))
        with torch.no_grad():
            logits = model(ids, use_cache=False).logits[0].float()
            greedy, margin, seq = [], [], ids
            for _ in range(12):
                top = model(seq, use_cache=False).logits[0, -1].float().topk(2)
                greedy.append(top.indices[0].item())
                margin.append((top.values[0] - top.values[1]).item())
                seq = torch.cat([seq, top.indices[:1].view(1, 1)], 1)
        out[case + ".input_ids"] = ids[0].int().contiguous()
        out[case + ".logits"] = logits[-8:].contiguous() if case == "b" else logits.contiguous()
        out[case + ".greedy"] = torch.tensor(greedy, dtype=torch.int32)
        out[case + ".margin"] = torch.tensor(margin)


def write(folder, family):
    model = FAMILIES[family]()
    if family != "chatglm":
        model = transformers.AutoModelForCausalLM.from_config(model, attn_implementation="eager")
    model = model.float().eval()
    randomise(model)
    model.tie_weights()
    expected = {}
    answers(model, expected)
    model.to(torch.bfloat16).save_pretrained(folder)
    save_file(expected, os.path.join(folder, "golden.safetensors"))


def main():
    folder = sys.argv[1]
    count = int(sys.argv[2]) if len(sys.argv) > 2 else 3
    seed = int(sys.argv[3]) if len(sys.argv) > 3 else 1
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
