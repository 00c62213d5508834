/* model.h - model files, text and architectures: from a path to a graph, tokens and a conversation.
 *
 * A family is one file in arch/ and one row in this header; files/ reads Hugging Face directories and
 * GGUF; text/ turns text into ids and back and renders chat templates; engine/ runs sequences.
 * Every file is hostile: sizes by checked arithmetic, every number has a range, errors return. */
#ifndef WF_MODEL_H
#define WF_MODEL_H

#include "graph/graph.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct wf_model wf_model;
typedef struct wf_arch wf_arch;
typedef struct wf_config wf_config;
typedef struct wf_tokenizer wf_tokenizer;
typedef struct wf_template wf_template;
typedef struct gguf gguf;
typedef struct safetensors safetensors;

/* ---- files/map.c: a whole file in memory, read-only, until the arena's owner unmaps it ------- */

struct file_map { const uint8_t *data; size_t bytes; };
int  file_map(wf_error *, const char *path, struct file_map *);     /* mmap; -1 with path and reason */
int  file_copy(wf_error *, const char *path, struct file_map *);    /* read: safe from a file that shrinks later */
void file_unmap(struct file_map *);                                 /* of both */
bool file_exists(const char *path);                                 /* a regular file */
/* A whole small file, NUL-terminated, at most `limit` bytes. */
char *file_read(wf_arena *, wf_error *, const char *path, size_t limit, size_t *bytes);

/* ---- files/names.c: a hash set of strings, and what a message may show of them ------------------ */

struct gguf_str { const char *s; size_t len; };      /* not NUL-terminated */

struct names { struct gguf_str *name; uint32_t *slot; size_t n, mask; uint64_t seed; };
enum { NAMES_SHOW = 96 };

int     names_new(wf_arena *, struct names *, size_t max);          /* -1 when out of memory */
/* Its number, counting from 0; -1 when it was there already.  Keeps s.  At most `max` of them. */
int64_t names_add(struct names *, const char *s, size_t len);
int64_t names_find(const struct names *, const char *s, size_t len);   /* -1 when it is not there */
bool    names_utf8(const char *s, size_t len);
bool    names_plain(const char *s, size_t len);       /* UTF-8, not empty, no control characters */
const char *names_show(char out[NAMES_SHOW], const char *s, size_t len);   /* printable, cut to fit */

/* ---- files/json.c: JSON, token by token and as jansson's values ---------------------------------- */

struct json_scan {
	wf_error *err;
	const char *file;                     /* for messages: "config.json" */
	const char *start, *at, *end;
	char *text;                           /* a string's bytes, unescaped, NUL-terminated; until the next one */
	size_t len, cap;
	double number;
	int64_t integer;                      /* when whole */
	bool whole;                           /* written without fraction or exponent, and fits */
};

void json_open(struct json_scan *, wf_error *, const char *file, const char *text, size_t bytes);
void json_close(struct json_scan *);          /* frees text */
/* The next token: one of {}[]:, or " a string, 0 a number, t f n, and E the end; -1 after wf_fail. */
int  json_next(struct json_scan *);
/* The first token of the next element of a list or object that ends with `close`; 0 when it is over.
 * Begin with *first true. */
int  json_element(struct json_scan *, int close, bool *first);
int  json_expect(struct json_scan *, int token, const char *expected);   /* 0, or -1 after wf_fail */
int  json_fail(const struct json_scan *, const char *expected);   /* with line and column; -1 */
/* A whole document, to be freed with json_decref(); NULL after wf_fail.  Where jansson's own parser
 * stops: integers too large for int64 are doubles.  Duplicate keys are errors, strings may hold NUL. */
struct json_t *json_read(wf_error *, const char *file, const char *text, size_t bytes);

/* ---- files/gguf.c: GGUF v2 and v3 ------------------------------------------------------------ */

enum gguf_type { GGUF_U8, GGUF_I8, GGUF_U16, GGUF_I16, GGUF_U32, GGUF_I32, GGUF_F32, GGUF_BOOL,
	GGUF_STRING, GGUF_ARRAY, GGUF_U64, GGUF_I64, GGUF_F64, GGUF_NTYPE };

struct gguf_array {
	enum gguf_type type;                  /* of the elements */
	size_t n;
	const uint8_t *data;                  /* little-endian elements; NULL for strings */
	const struct gguf_str *str;           /* strings: n of them */
};

gguf *gguf_parse(wf_arena *, wf_error *, const uint8_t *data, size_t bytes);  /* keeps pointers into data */
bool  gguf_has(const gguf *, const char *key);
/* true and *out set when the key is there and its value fits; a wrong type or range is an error */
bool  gguf_int(const gguf *, wf_error *, const char *key, int64_t *out);
bool  gguf_float(const gguf *, wf_error *, const char *key, double *out);
bool  gguf_bool(const gguf *, wf_error *, const char *key, bool *out);
bool  gguf_string(const gguf *, wf_error *, const char *key, struct gguf_str *out);
/* GGUF_NTYPE: of any type */
bool  gguf_array(const gguf *, wf_error *, const char *key, enum gguf_type, struct gguf_array *out);
int   gguf_array_int(const struct gguf_array *, size_t i, int64_t *out);       /* any integer type */
size_t gguf_ntensor(const gguf *);
const char *gguf_tensor(const gguf *, size_t i, struct wf_blob *);             /* its name */
bool  gguf_find(const gguf *, const char *name, struct wf_blob *);             /* dims outermost first */

/* ---- files/safetensors.c ---------------------------------------------------------------------- */

safetensors *safetensors_parse(wf_arena *, wf_error *, const uint8_t *data, size_t bytes);
size_t safetensors_ntensor(const safetensors *);
const char *safetensors_tensor(const safetensors *, size_t i, struct wf_blob *);
bool   safetensors_find(const safetensors *, const char *name, struct wf_blob *);

/* ---- files/config.c: hyper-parameters, from config.json or GGUF metadata ----------------------- */

enum wf_rope_scaling { WF_ROPE_PLAIN, WF_ROPE_LINEAR, WF_ROPE_LLAMA3, WF_ROPE_YARN, WF_ROPE_LONG, WF_ROPE_DYNAMIC };

/* One field per fact, 0 or NULL when the model has none.  Filled by the tables in files/config.c and
 * the family's own rows, each with a range. */
struct wf_config {
	const char *arch;                     /* the family's registry name: "llama" */
	const char *name;                     /* the model's own name, may be NULL */
	bool gguf;                            /* read from GGUF: rows permuted, norms pre-added as GGUF does */
	int64_t vocab, dim, nlayer, nhead, nkv, hdim, vdim, ffn, ctx;
	int64_t opened;                       /* tokens a sequence may reach in graphs made now: the caller's to set; 0: ctx */
	int act;                              /* enum wf_activation */
	double eps;
	bool tied;                            /* the head is the embedding */
	bool untied;                          /* the file says it is not */
	bool qkv_bias, out_bias, mlp_bias;
	/* rope */
	double theta;
	double theta_local, rope_local_factor; /* of the layers with a window, where they have their own; 0 not stretched */
	int64_t rope_dim;                     /* values of a head that are rotated */
	double rope_partial;                  /* their share of a head, where the file says it so; 0 all */
	enum wf_rope_scaling scaling;
	double rope_factor, rope_low, rope_high, rope_orig_ctx, rope_beta_fast, rope_beta_slow;
	double rope_attn_factor, rope_mscale, rope_mscale_all;
	double rope_ratio;                    /* theta is multiplied by it, 0: not */
	bool rope_pairs;                      /* rotates (2i, 2i + 1), else (i, i + n/2) */
	bool rope_truncate;                   /* yarn: its bounds are whole dims */
	const double *rope_long, *rope_short; /* [rope_dim / 2] */
	/* attention */
	int64_t window;                       /* sliding window in tokens, 0 none */
	int64_t window_period;                /* every so many layers one sees everything; 0 all alike */
	const uint8_t *sliding;               /* [nlayer] 1: this layer uses the window; NULL: all do */
	double attn_scale;                    /* 0: 1/sqrt(hdim) */
	double attn_softcap, final_softcap;
	double embed_scale, residual_scale, logit_scale;
	bool alibi, parallel_residual, new_decoder, multi_query, qk_norm, pre_norm, post_norm_residual;
	bool weighted_norm, no_final_norm;    /* opt: layer norms have weights; there is none before the head */
	bool scaled_attn, layer_scaled_attn;  /* by 1/sqrt(hdim) (gpt2 may not); by 1/(layer + 1) as well */
	int64_t parallel_norms;               /* norms of a parallel block, 0 as the family has it */
	int64_t embed_dim;                    /* width of the embedding where it is not dim */
	/* experts */
	int64_t nexpert, nexpert_used, expert_ffn, nexpert_shared, nexpert_group, ngroup_used, first_dense;
	const uint8_t *dense;                 /* [nlayer] 1: a layer without experts; NULL: those before first_dense */
	double expert_scale;
	int64_t expert_gating;                /* GGUF: 1 softmax, 2 sigmoid, 0 not said */
	bool expert_norm, expert_sigmoid;
	double glu_limit, glu_alpha;
	/* latent attention */
	int64_t q_rank, kv_rank, nope_dim;
	/* special tokens as the config states them; -1 none */
	int32_t bos, eos[8], pad;
	int neos;
	wf_dtype dtype;                       /* of most weights */
	bool fixed;                           /* of flags that may have one value only: rows with min = max */
	double own[8];                        /* of a family in a shared object: what its rows put there */
};

enum wf_activation { WF_SILU, WF_GELU, WF_GELU_TANH, WF_RELU, WF_QUICK_GELU, WF_GELU_10, WF_RELU2, WF_RELU6, WF_LEAKY_RELU,
	WF_HARD_SWISH, WF_SIGMOID, WF_TANH, WF_LINEAR };

/* ---- arch/, model.c: families ------------------------------------------------------------------ */

/* Canonical (GGUF) name to file name; numbers (%d: the layer, an expert) in the same order in both.
 * Without an ending a row stands for both .weight and .bias.  The first row whose tensor is there counts. */
struct wf_name { const char *canonical, *hf; };

/* What most decoders call their tensors in Hugging Face files; a family's own rows go before. */
#define WF_USUAL_NAMES \
	{"token_embd",         "model.embed_tokens"}, \
	{"blk.%d.attn_norm",   "model.layers.%d.input_layernorm"}, \
	{"blk.%d.attn_q",      "model.layers.%d.self_attn.q_proj"}, \
	{"blk.%d.attn_k",      "model.layers.%d.self_attn.k_proj"}, \
	{"blk.%d.attn_v",      "model.layers.%d.self_attn.v_proj"}, \
	{"blk.%d.attn_output", "model.layers.%d.self_attn.o_proj"}, \
	{"blk.%d.ffn_norm",    "model.layers.%d.post_attention_layernorm"}, \
	{"blk.%d.ffn_gate",    "model.layers.%d.mlp.gate_proj"}, \
	{"blk.%d.ffn_up",      "model.layers.%d.mlp.up_proj"}, \
	{"blk.%d.ffn_down",    "model.layers.%d.mlp.down_proj"}, \
	{"output_norm",        "model.norm"}, \
	{"output",             "lm_head"}

/* A hyper-parameter: where each layout keeps it and into which field it goes.  A key may be several,
 * separated by spaces: the first that is there counts.  hf: a path of names with dots; "rope." stands
 * for the rope_parameters (of full attention) or rope_scaling object.  gguf: follows "ARCH.".  NULL:
 * that layout has none.  A family's row replaces the common row for the same field. */
struct wf_key {
	const char *hf, *gguf;                /* "sliding_window", "attention.sliding_window" */
	size_t field;                         /* offsetof(wf_config, ...) */
	char type;                            /* 'i' int64, 'f' double, 'b' bool */
	double min, max, absent;              /* range, value when absent (NaN: required) */
};

struct wf_arch {
	int abi;                              /* WF_ABI, in a shared object */
	const char *name;                     /* "llama" */
	const char *const *hf;                /* model_type values, NULL at the end */
	const char *const *gguf;              /* general.architecture values, NULL at the end */
	const struct wf_key *keys;            /* beyond the common ones, {0} at the end */
	const struct wf_name *names;          /* HF tensor names, {0} at the end */
	int act;                              /* enum wf_activation, where the file names none */
	bool loud;                            /* its residual is known to leave f16, whatever type a file is in */
	/* last word over the config once keys are read (derived values, consistency); may be NULL */
	int (*finish)(wf_config *, wf_error *);
	void (*build)(wf_graph *, const wf_config *);
	const wf_op *const *ops;              /* in a shared object: ops it brings, to be registered; NULL at the end */
};

/* Compiled with these structs, whatever the version is called. */
enum { WF_ABI = 1000000 + (int)(sizeof(wf_op) * 1009 + sizeof(wf_tensor) * 211 + sizeof(wf_graph) * 89 +
	sizeof(wf_config) * 23 + sizeof(wf_arch)) };

const wf_arch *wf_arch_find(const char *name);        /* by registry name, model_type or GGUF name */
extern const wf_arch *const wf_archs[];               /* NULL at the end */
/* A row per family: models/arch/ has its file. */
#define WF_ARCHS(ROW) \
	ROW(llama) ROW(bloom) ROW(chatglm) ROW(deepseek2) ROW(falcon) ROW(gemma2) ROW(gemma3) ROW(glm4) ROW(gpt2) ROW(gpt_oss) \
	ROW(gptneox) ROW(olmo2) ROW(opt) ROW(phi3) ROW(qwen2) ROW(qwen3) ROW(qwen3moe) ROW(stablelm) ROW(starcoder2)

#define ROW(name) extern const wf_arch wf_arch_##name;
WF_ARCHS(ROW)
#undef ROW

/* ---- load.c: families that are not in the table -------------------------------------------------- */

int arch_unknown(wf_error *err, const char *where, const char *name);     /* fails, naming the nearest families */
/* A family from a shared object: ./libtoy.so or ./toy.so exports `const wf_arch wf_arch_toy`; its ops are
 * registered, and it stays loaded.  models/example/my_arch.c is the guide. */
const wf_arch *wf_arch_load(wf_error *, const char *so_path);

/* ---- arch/common.c: pieces that many families share -------------------------------------------- */

/* Names are given without their ending .weight or .bias.  bias: there must be one; else there is one
 * if the files have it. */
wf_tensor *wf_linear(wf_graph *, wf_tensor *x, int64_t out, bool bias, const char *fmt, ...) WF_PRINTF(5, 6);
wf_tensor *wf_norm(wf_graph *, const wf_config *, wf_tensor *x, const char *fmt, ...) WF_PRINTF(4, 5);     /* rmsnorm */
wf_tensor *wf_centred_norm(wf_graph *, const wf_config *, wf_tensor *x, const char *fmt, ...) WF_PRINTF(4, 5); /* layernorm */
wf_tensor *wf_activate(wf_graph *, int act, wf_tensor *x);            /* enum wf_activation */
wf_tensor *wf_ones(wf_graph *, int64_t n);                            /* for a norm that has no weights */
wf_tensor *wf_embed(wf_graph *, const wf_config *);                   /* token_embd of the step's tokens */
wf_tensor *wf_positions(wf_graph *);
wf_tensor *wf_wanted(wf_graph *, wf_tensor *x);                       /* the rows whose logits are wanted */
void       wf_logits(wf_graph *, const wf_config *, wf_tensor *x);    /* the head, tied or not, and the output */

struct wf_qkv { wf_tensor *q, *k, *v; };      /* [T, heads, n] */
/* attn_q, attn_k and attn_v, or attn_qkv when the file has it: blocks q, k, v; grouped: a block of
 * them for each key head. */
struct wf_qkv wf_attn_inputs(wf_graph *, const wf_config *, wf_tensor *x, bool bias, bool grouped, int layer);
wf_tensor *wf_rotate(wf_graph *, const wf_config *, wf_tensor *x, wf_tensor *pos);  /* rope as the config says */
int        wf_layer_window(const wf_config *, int layer);             /* tokens, 0 all */
/* Attention over the layer's cache, its heads merged. */
wf_tensor *wf_self_attend(wf_graph *, const wf_config *, struct wf_qkv, wf_tensor *pos, int layer);

/* down(act(gate) * up) of n values, down(act(up)); suffix "" or as in "ffn_up_shexp". */
wf_tensor *wf_gated_ffn(wf_graph *, const wf_config *, wf_tensor *x, int64_t n, bool bias, const char *suffix, int layer);
wf_tensor *wf_plain_ffn(wf_graph *, const wf_config *, wf_tensor *x, bool bias, int layer);
/* NAME.0.weight to NAME.n-1.weight, one after the other along the first dimension. */
wf_tensor *wf_weight_list(wf_graph *, int64_t n, int ndim, const int64_t *dim, const char *fmt, ...) WF_PRINTF(5, 6);
bool       wf_has_experts(const wf_graph *, const wf_config *, int layer);
/* One matrix of every expert, [nexpert * out, in]: stacked in the file, or a tensor each. */
wf_tensor *wf_expert_rows(wf_graph *, const wf_config *, int64_t out, int64_t in, const char *what, int layer);
/* The chosen experts' gated feed-forwards, mixed. */
wf_tensor *wf_expert_ffn(wf_graph *, const wf_config *, wf_tensor *x, wf_tensor *ids, wf_tensor *gates, int layer);

/* ---- files/config.c: the table; config_gguf.c, config_json.c: the two places it reads ------------- */

struct config_source {
	wf_error *err;
	const char *file, *prefix;            /* for messages: "config.json", ""; "gguf", "llama." */
	const void *from;
	/* 1 and *out set (type 'n' number, 'b' boolean, '0' null), 0 when absent, -1 after wf_fail */
	int (*get)(const struct config_source *, const char *key, char *type, double *out);
};

int config_rows(const struct config_source *, const wf_arch *, wf_config *);
int config_finish(wf_arena *, wf_error *, const wf_arch *, wf_config *);   /* derived values, consistency */
int config_eos(wf_config *, wf_error *, const char *where, double id);     /* one more end-of-text token */
int config_generation(wf_config *, wf_error *, const char *json, size_t bytes); /* generation_config.json */

int config_from_gguf(wf_arena *, wf_error *, const gguf *, const wf_arch *, wf_config *);
/* The family is `only`, or the one that model_type names. */
int config_from_json(wf_arena *, wf_error *, const char *json, size_t bytes, const wf_arch *only, wf_config *, const wf_arch **);

/* ---- files/weights.c: the tensors of all files of a model, by canonical name ------------------------ */

struct weights {
	wf_weights find;                      /* first: what the graph sees */
	const struct wf_name *alias;          /* HF names, NULL for GGUF */
	struct names names;                   /* as the files write them */
	struct wf_blob *blob;                 /* [names.n] */
	struct file_map *map;                 /* [nmap] */
	int nmap;
	const gguf *meta;                     /* the (first) GGUF file's metadata, NULL for HF */
	int64_t bytes;                        /* of all tensors */
	wf_dtype dtype;                       /* of most of them; WF_NDTYPE when there are none */
};

/* Open all files; -1 with what was opened left for weights_close().  copy: read, not mapped. */
int  weights_from_gguf(wf_arena *, wf_error *, const char *path, bool copy, struct weights *);
/* 0 with nmap 0 when the directory holds no weights at all */
int  weights_from_dir(wf_arena *, wf_error *, const char *dir, bool copy, const struct wf_name *, struct weights *);
void weights_close(struct weights *);

/* A model on disk: a GGUF file, a Hugging Face directory, or a config.json alone (no weights). */
struct wf_model {
	wf_arena *arena;
	wf_config config;
	const wf_arch *arch;
	const wf_weights *weights;            /* NULL for a bare config.json */
	const wf_tokenizer *tokenizer;        /* NULL when the files hold none */
	const char *chat_template;            /* Jinja source from the files; NULL when none */
	const char *path;
	int64_t weight_bytes;                 /* of all tensors in the files */
	wf_dtype act, kvtype;                 /* of the graphs made from it; the caller's to set, f32 at first */
};

enum {
	WF_OPEN_VOCAB_ONLY = 1,               /* tokenizer and metadata; no architecture needed */
	WF_OPEN_NO_MMAP = 2                   /* read the files: they may shrink while in use (--no-mmap) */
};
wf_model *wf_model_open(wf_error *, const char *path, const wf_arch *arch, int flags);   /* NULL after wf_fail */
void      wf_model_close(wf_model *);
wf_graph *wf_model_graph(const wf_model *, wf_arena *, wf_error *);    /* runs the builder */

/* ---- text/: tokenizers --------------------------------------------------------------------------- */

wf_tokenizer *tokenizer_from_gguf(wf_arena *, wf_error *, const gguf *);
/* tokenizer.json, else tokenizer.model (SentencePiece), with tokenizer_config.json and
 * special_tokens_map.json when there; *out NULL and 0 when the directory has neither. */
int tokenizer_from_dir(wf_arena *, wf_error *, const char *dir, wf_tokenizer **out);
wf_tokenizer *tokenizer_from_json(wf_arena *, wf_error *, const char *json, size_t len, const char *config_json, size_t config_len);
wf_tokenizer *tokenizer_from_spm(wf_arena *, wf_error *, const uint8_t *data, size_t len);
void tokenizer_close(wf_tokenizer *);                 /* what is not in the arena (compiled patterns) */

enum {
	WF_TOK_BOS = 1,                       /* add BOS/EOS as the model's own tokenizer would */
	WF_TOK_SPECIAL = 2                    /* special tokens in the text are parsed (templates); else plain text */
};
/* Ids in a malloc'd array the caller frees.  Any bytes are accepted.  -1 after wf_fail. */
int  wf_tokenize(const wf_tokenizer *, wf_error *, const char *text, size_t len, int flags, int32_t **ids, size_t *n);
int64_t wf_vocab_size(const wf_tokenizer *);
int32_t wf_token_bos(const wf_tokenizer *);           /* -1 none */
bool wf_token_is_eog(const wf_tokenizer *, int32_t id);   /* ends a generation: eos, eot, eom */
int32_t wf_token_find(const wf_tokenizer *, const char *piece);        /* exact piece or special, -1 */
const char *wf_token_piece(const wf_tokenizer *, int32_t id, size_t *len);  /* as the vocabulary writes it; NULL out of range */

/* Streaming decode: never splits a UTF-8 character.  SentencePiece puts a space before a text; the first
 * one is dropped again unless `started` is set, as for text that goes on after other text. */
struct wf_decoder { const wf_tokenizer *tok; char held[8]; int nheld; bool started, special; };
void   wf_decoder_init(struct wf_decoder *, const wf_tokenizer *, bool special);  /* special: show special tokens */
/* Bytes of the next id that are complete characters, appended at buf (cap at least wf_decoder_cap()). */
size_t wf_decoder_push(struct wf_decoder *, int32_t id, char *buf);
size_t wf_decoder_flush(struct wf_decoder *, char *buf);     /* what is held, invalid bytes as U+FFFD */
size_t wf_decoder_cap(const wf_tokenizer *);

/* ---- text/: chat templates ------------------------------------------------------------------------ */

struct wf_message { const char *role, *content; };

/* Compile a Jinja template (a bounded subset: limits on steps, depth and output). */
wf_template *wf_template_parse(wf_arena *, wf_error *, const char *source, size_t len);
const char  *wf_template_builtin(const char *name);   /* "llama2" or "llama-2", "chatml", "zephyr"...: Jinja source, NULL */
const char  *wf_template_name(size_t i);              /* of the built-ins, NULL past the last */
const char  *wf_template_guess(const wf_tokenizer *); /* a built-in's name by the special tokens there are, NULL */
/* The prompt's text, malloc'd; *len without the NUL.  NULL after wf_fail (raise_exception, limits). */
char *wf_template_render(const wf_template *, wf_error *, const struct wf_message *, int n,
		bool generation_prompt, const char *bos, const char *eos, size_t *len);
/* The same with all variables as a JSON object: {"messages": [...], "tools": [...], ...}. */
char *wf_template_render_json(const wf_template *, wf_error *, const char *json, size_t json_len, size_t *len);

/* ---- engine/runner.c: a plan, its KV pages and its executor ------------------------------------------ */

typedef struct wf_runner wf_runner;

struct wf_runner_opt {
	int64_t ctx;                          /* tokens of KV in all, over every sequence */
	int page_tokens;                      /* 0: the backend's choice */
	struct wf_exec_opt exec;
};

/* One sequence's share of a step. */
struct wf_piece {
	wf_seq *seq;
	const int32_t *token;                 /* [n] appended to the sequence */
	int n;
	bool all_rows;                        /* logits of every token, else of the last one */
	bool no_rows;                         /* no logits at all: a prompt's earlier chunks */
	const struct wf_pick *pick;           /* choose a token on the device, for each of its rows; all pieces or none */
};

/* The plan must be complete (placed).  Keeps it; NULL after wf_fail. */
wf_runner *wf_runner_new(wf_error *, wf_plan *, const struct wf_runner_opt *);
void       wf_runner_free(wf_runner *);
wf_slab   *wf_runner_slab(wf_runner *);
wf_exec   *wf_runner_exec(wf_runner *);
/* Run one step.  0; 1 when KV pages are short, nothing changed; -1 after wf_fail.  *logits then holds
 * the wanted rows, piece after piece, [rows, vocab], valid until the next step. */
int        wf_runner_step(wf_runner *, const struct wf_piece *, int npiece, const float **logits, int *nrow);
/* With picks a step leaves *logits NULL and does not wait; its tokens are read here, steps in order, at most
 * WF_AHEAD unread.  A token of the next step may then be ~r: what row r of the step before chose. */
bool       wf_runner_can_pick(const wf_runner *);
const int32_t *wf_runner_picked(wf_runner *);         /* [rows]; NULL after wf_fail */
int64_t    wf_runner_max_tokens(const wf_runner *);   /* in one step, over all pieces */

/* ---- engine/engine.c: continuous batching ------------------------------------------------------------ */

typedef struct wf_engine wf_engine;

/* ---- engine/: sequences and sampling ---------------------------------------------------------------- */

struct wf_sampling {
	double temp, top_p, min_p, repeat_penalty, presence_penalty, frequency_penalty;
	int top_k, repeat_last_n;
	uint64_t seed;
};

#define WF_SAMPLING_DEFAULT {.temp = 0.8, .top_p = 0.95, .min_p = 0.05, .repeat_penalty = 1.0, \
	.top_k = 40, .repeat_last_n = 64, .seed = 0}

typedef struct wf_sampler wf_sampler;
wf_sampler *wf_sampler_new(wf_error *, const struct wf_sampling *, int64_t vocab);
void    wf_sampler_free(wf_sampler *);
void    wf_sampler_accept(wf_sampler *, int32_t id);  /* a token that now stands in the text */
int32_t wf_sampler_pick(wf_sampler *, const float *logits);   /* [vocab]; greedy when temp <= 0 */
/* The same choice for a device to make, counted as made; false when penalties need the tokens first. */
bool    wf_sampler_describe(wf_sampler *, struct wf_pick *);

#ifdef __cplusplus
}
#endif
#endif
