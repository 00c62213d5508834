"""oracle.py - random checkpoints of every family with reference logits from transformers.

	python3 tests/oracle.py FOLDER [COUNT [SEED [FAMILY...]]]

Writes FOLDER/FAMILY-N with config.json, model.safetensors and golden.safetensors, to be given to
build/tests/golden or `weft verify`.  Shapes, biases, ties, windows and rotation are drawn at random.
Needs torch and transformers; no test depends on it.
"""
import json, os, random, sys
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


def types(c, period=2):
    n = c["num_hidden_layers"]
    c["layer_types"] = [R.choice(["full_attention", "sliding_attention"]) for _ in range(n)]
    return c


def yarn(c):
    return dict(c["rope_parameters"], rope_type="yarn", factor=R.choice([2.0, 8.0]), original_max_position_embeddings=32,
                **R.choice([{}, {"beta_fast": 16.0, "beta_slow": 2.0}, {"attention_factor": 1.3}, {"mscale": 1.0, "mscale_all_dim": 0.7}]))


def llama():
    c = usual(attention_bias=flip(), mlp_bias=flip())
    kind = R.choice(["default", "linear", "llama3", "yarn"])
    if kind == "linear":
        c["rope_parameters"].update(rope_type="linear", factor=4.0)
    if kind == "llama3":
        c["rope_parameters"].update(rope_type="llama3", factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0,
                                    original_max_position_embeddings=32)
    if kind == "yarn":
        c["rope_parameters"] = yarn(c)
    return transformers.LlamaConfig(**c)


def mistral():
    return transformers.MistralConfig(**usual(window=True))


def moe(**more):
    n = R.choice([3, 4, 9, 17])
    return dict(num_experts_per_tok=R.randint(1, 3), **more), n


def mixtral():
    more, n = moe()
    return transformers.MixtralConfig(**usual(window=True, num_local_experts=n, **more))


def qwen2():
    c = usual(free_head=False)
    if flip():
        c.update(use_sliding_window=True, sliding_window=20, max_window_layers=R.choice([0, 1]))
    return transformers.Qwen2Config(**c)


def qwen3():
    return transformers.Qwen3Config(**usual(attention_bias=flip()))


def qwen3_moe():
    more, n = moe(moe_intermediate_size=R.choice([16, 24]), norm_topk_prob=flip())
    c = usual(num_experts=n, attention_bias=flip(), **more)
    if flip() and c["num_hidden_layers"] > 1:
        c["mlp_only_layers"] = [1]
    return transformers.Qwen3MoeConfig(**c)


def gemma2():
    c = types(usual(sliding_window=R.choice([8, 20]), query_pre_attn_scalar=R.choice([8, 24, 144]),
                    attn_logit_softcapping=R.choice([None, 5.0, 50.0]), final_logit_softcapping=R.choice([None, 3.0, 30.0]),
                    hidden_activation="gelu_pytorch_tanh", attention_bias=flip()))
    return transformers.Gemma2Config(**c)


def gemma3():
    c = types(usual(sliding_window=R.choice([8, 20]), query_pre_attn_scalar=R.choice([8, 24, 168]),
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
        c["original_max_position_embeddings"] = 256 if flip() else 4
        c["rope_parameters"].update(rope_type="longrope", long_factor=[1.0 + R.random() for _ in range(n)],
                                    short_factor=[1.0 + R.random() / 4 for _ in range(n)],
                                    original_max_position_embeddings=c["original_max_position_embeddings"])
    return transformers.Phi3Config(**c)


def olmo2():
    return transformers.Olmo2Config(**usual(free_head=False, attention_bias=flip()))


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
    c = usual(free_head=False, num_experts_per_tok=2, n_routed_experts=6, n_shared_experts=1, moe_intermediate_size=16,
              first_k_dense_replace=1, q_lora_rank=R.choice([None, 24]), kv_lora_rank=16, qk_nope_head_dim=8,
              qk_rope_head_dim=8, v_head_dim=16, topk_method="greedy", routed_scaling_factor=R.choice([1.0, 2.5]))
    c.update(num_attention_heads=nhead, num_key_value_heads=nhead, hidden_size=48)
    return transformers.DeepseekV2Config(**c)


def gpt_oss():
    c = types(usual(sliding_window=R.choice([8, 20]), num_local_experts=R.choice([3, 6]), num_experts_per_tok=R.choice([1, 2, 3]),
                    attention_bias=True))
    c["rope_parameters"] = dict(rope_type="yarn", factor=R.choice([4.0, 32.0]), original_max_position_embeddings=64,
                                rope_theta=150000.0, beta_fast=32.0, beta_slow=1.0, truncate=flip())
    return transformers.GptOssConfig(**c)


def starcoder2():
    c = usual(window=True, free_head=False, use_bias=flip(), norm_epsilon=1e-5)
    c.pop("rms_norm_eps")
    return transformers.Starcoder2Config(**c)


def stablelm():
    c = usual(free_head=False, use_qkv_bias=flip(), qk_layernorm=flip(), use_parallel_residual=flip(), layer_norm_eps=1e-5)
    c.pop("rms_norm_eps")
    c["rope_parameters"]["partial_rotary_factor"] = R.choice([0.25, 0.5])
    return transformers.StableLmConfig(**c)


FAMILIES = {f.__name__: f for f in (llama, mistral, mixtral, qwen2, qwen3, qwen3_moe, gemma2, gemma3, gpt2, gpt_neox, opt,
                                    falcon, bloom, phi3, olmo2, glm4, glm, deepseek_v3, deepseek_v2, gpt_oss, starcoder2,
                                    stablelm)}


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
    config = FAMILIES[family]()
    config._attn_implementation = "eager"
    model = transformers.AutoModelForCausalLM.from_config(config, attn_implementation="eager").float().eval()
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
