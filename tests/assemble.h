/* assemble.h - binary files written as text, for tests.
 *
 *   'text'  bytes            12b 12w 12i 12q  integers of 1, 2, 4, 8 bytes, little-endian (0x and - too)
 *   <text>  u64 length+bytes 1.5f             f32
 *   12z     zero bytes       32a              zeros up to a multiple
 *
 * Tokens are separated by spaces; text may hold spaces but not its own closing mark. */
#ifndef WF_TEST_ASSEMBLE_H
#define WF_TEST_ASSEMBLE_H

#include <assert.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct bytes { uint8_t *data; size_t n; };

static inline void bytes_put(struct bytes *b, const void *data, size_t n)
{
	b->data = realloc(b->data, b->n + n + 1);
	assert(b->data);
	if (data)
		memcpy(b->data + b->n, data, n);
	else
		memset(b->data + b->n, 0, n);
	b->n += n;
}

static inline const char *assemble_text(struct bytes *b, const char *p, char close, int counted)
{
	const char *end = strchr(p, close);
	uint64_t len;

	assert(end);
	len = (uint64_t)(end - p);
	if (counted)
		bytes_put(b, &len, sizeof len);
	bytes_put(b, p, (size_t)len);
	return end + 1;
}

static inline const char *assemble_number(struct bytes *b, const char *p)
{
	size_t len = strcspn(p, " ");
	char *end;
	uint64_t v = *p == '-' ? (uint64_t)strtoll(p, &end, 0) : strtoull(p, &end, 0);
	float f = strtof(p, NULL);

	switch (p[len - 1]) {
	case 'b': bytes_put(b, &v, 1); break;
	case 'w': bytes_put(b, &v, 2); break;
	case 'i': bytes_put(b, &v, 4); break;
	case 'q': bytes_put(b, &v, 8); break;
	case 'f': bytes_put(b, &f, 4); break;
	case 'z': bytes_put(b, NULL, (size_t)v); break;
	case 'a': bytes_put(b, NULL, (size_t)(-b->n % v)); break;
	default: fprintf(stderr, "assemble: what is \"%.*s\"\n", (int)len, p); abort();
	}
	return p + len;
}

/* The caller frees data. */
static inline struct bytes assemble(const char *text)
{
	struct bytes b = {0};

	bytes_put(&b, "", 0);
	while (*(text += strspn(text, " ")))
		if (*text == '\'')
			text = assemble_text(&b, text + 1, '\'', 0);
		else if (*text == '<')
			text = assemble_text(&b, text + 1, '>', 1);
		else
			text = assemble_number(&b, text);
	return b;
}

/* A whole model: 1 layer, width 4, 2 heads, 4 tokens, f16.  Every tensor fills 32 bytes. */
#define TINY_LLAMA_GGUF \
	"'GGUF' 3i 11q 15q " \
	"<general.architecture> 8i <llama> <llama.context_length> 4i 16i <llama.embedding_length> 4i 4i " \
	"<llama.block_count> 4i 1i <llama.feed_forward_length> 4i 4i <llama.attention.head_count> 4i 2i " \
	"<llama.attention.head_count_kv> 4i 1i <llama.attention.layer_norm_rms_epsilon> 6i 1e-5f " \
	"<llama.rope.freq_base> 6i 1e4f <tokenizer.ggml.model> 8i <llama> " \
	"<tokenizer.ggml.tokens> 9i 8i 4q 5q '<unk>' 3q '<s>' 4q '</s>' <a> " \
	"<tokenizer.ggml.scores> 9i 6i 4q 0f 0f 0f 0f <tokenizer.ggml.token_type> 9i 5i 4q 2i 3i 3i 1i " \
	"<tokenizer.ggml.bos_token_id> 4i 1i <tokenizer.ggml.eos_token_id> 4i 2i " \
	"<token_embd.weight> 2i 4q 4q 1i 0q <blk.0.attn_norm.weight> 1i 4q 0i 32q " \
	"<blk.0.attn_q.weight> 2i 4q 4q 1i 64q <blk.0.attn_k.weight> 2i 4q 2q 1i 96q " \
	"<blk.0.attn_v.weight> 2i 4q 2q 1i 128q <blk.0.attn_output.weight> 2i 4q 4q 1i 160q " \
	"<blk.0.ffn_norm.weight> 1i 4q 0i 192q <blk.0.ffn_gate.weight> 2i 4q 4q 1i 224q " \
	"<blk.0.ffn_up.weight> 2i 4q 4q 1i 256q <blk.0.ffn_down.weight> 2i 4q 4q 1i 288q " \
	"<output_norm.weight> 1i 4q 0i 320q 32a 352z "

/* The same model as a Hugging Face directory has it. */
#define TINY_CONFIG \
	"{\"model_type\":\"llama\",\"hidden_size\":4,\"num_hidden_layers\":1,\"num_attention_heads\":2," \
	"\"num_key_value_heads\":1,\"intermediate_size\":4,\"vocab_size\":4,\"rms_norm_eps\":1e-5," \
	"\"tie_word_embeddings\":true,\"eos_token_id\":[2,3],\"bos_token_id\":1,\"dtype\":\"float16\"," \
	"\"rope_parameters\":{\"rope_type\":\"default\",\"rope_theta\":10000.0}}"

static const struct { const char *name; int rows, cols; } tiny_tensors[] = {
	{"embed_tokens.weight", 4, 4}, {"norm.weight", 4, 0},
	{"layers.0.input_layernorm.weight", 4, 0}, {"layers.0.post_attention_layernorm.weight", 4, 0},
	{"layers.0.self_attn.q_proj.weight", 4, 4}, {"layers.0.self_attn.k_proj.weight", 2, 4},
	{"layers.0.self_attn.v_proj.weight", 2, 4}, {"layers.0.self_attn.o_proj.weight", 4, 4},
	{"layers.0.mlp.gate_proj.weight", 4, 4}, {"layers.0.mlp.up_proj.weight", 4, 4},
	{"layers.0.mlp.down_proj.weight", 4, 4},
};

enum { NTENSOR = sizeof tiny_tensors / sizeof *tiny_tensors };

/* The tensors numbered from..to-1 as a safetensors file. */
static inline struct bytes tiny_shard(const char *prefix, int from, int to)
{
	char json[4096] = "{";
	int at = 0;
	uint64_t n;
	struct bytes b = {0};

	for (int i = from; i < to; i++) {
		int rows = tiny_tensors[i].rows, cols = tiny_tensors[i].cols, size = 2 * rows * (cols ? cols : 1);
		sprintf(json + strlen(json), "%s\"%s%s\":{\"dtype\":\"F16\",\"shape\":[%d", i > from ? "," : "", prefix,
			tiny_tensors[i].name, rows);
		if (cols)
			sprintf(json + strlen(json), ",%d", cols);
		sprintf(json + strlen(json), "],\"data_offsets\":[%d,%d]}", at, at + size);
		at += size;
	}
	strcat(json, "}");
	n = strlen(json);
	bytes_put(&b, &n, 8);
	bytes_put(&b, json, n);
	bytes_put(&b, NULL, (size_t)at);
	return b;
}

/* Three small tensors of which weft computes with two. */
#define TINY_SAFETENSORS \
	"<{\"__metadata__\":{\"format\":\"pt\"},\"a\":{\"dtype\":\"F32\",\"shape\":[2,3],\"data_offsets\":[0,24]}," \
	"\"b\":{\"dtype\":\"BF16\",\"shape\":[],\"data_offsets\":[32,34]}," \
	"\"c\":{\"dtype\":\"I64\",\"shape\":[1],\"data_offsets\":[24,32]}}  > 34z"

#endif
