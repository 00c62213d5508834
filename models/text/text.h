/* text.h - what the tokenizer files share: vocabulary, steps of a pipeline, working text.
 *
 *   text -> cut at special tokens -> normalizer steps -> cut at added tokens that want normal text
 *        -> pre-tokenizer steps: pieces -> the model (merges, scores or unigram): ids
 *
 * Every layout (GGUF, tokenizer.json, tokenizer.model) loads into the same vocabulary, the same steps
 * and one of the models.  A tokenizer is read-only once loaded; all that a call changes is in its
 * struct work, so threads share it. */
#ifndef WF_TEXT_H
#define WF_TEXT_H

#include "models/model.h"

/* ---- utf8.c: growing bytes and ids, UTF-8 that may be broken ----------------------------------- */

struct bytes { char *s; size_t n, cap, most; };      /* malloc'd, at most `most` (0: 2 GB); free(s) */
struct ids { int32_t *v; size_t n, cap; };           /* likewise */

int bytes_add(wf_error *, struct bytes *, const char *s, size_t n);
int bytes_room(wf_error *, struct bytes *, size_t n);                /* for n more */
const char *bytes_find(const char *s, size_t n, const char *what, size_t nwhat);   /* NULL when not there */
int ids_add(wf_error *, struct ids *, int32_t id);
/* Grows *array of `each`-byte elements to hold at least need; cap is updated. */
int array_grow(wf_error *, void *array, size_t *cap, size_t need, size_t each);

/* Bytes of the character at s (n > 0 bytes there) and its code; 0 when they are not valid UTF-8. */
size_t utf8_read(const char *s, size_t n, uint32_t *code);
size_t utf8_write(uint32_t code, char out[4]);       /* a valid code point; bytes written */
size_t utf8_valid(const char *s, size_t n);          /* how many bytes from the front are valid */
size_t utf8_step(const char *s, size_t n);           /* bytes of the character at s, 1 when broken */
bool code_is_space(uint32_t code);                   /* Unicode White_Space */
bool code_is_word(uint32_t code);                    /* a character of a word, as \w */

/* ---- trie.c: which of many strings starts here ---------------------------------------------------- */

struct trie {
	struct edge { uint64_t key; uint32_t node; } *edge;  /* [mask + 1] (node, byte) -> node; 0 empty */
	int32_t *value;                               /* [cap] by node, -1 none */
	uint32_t mask, n, cap;
	bool first[256];                              /* some string starts with this byte */
};

int  trie_add(wf_error *, struct trie *, const char *s, size_t n, int32_t value);
void trie_free(struct trie *);
/* The node one byte on, 0 when there is none. */
uint32_t trie_next(const struct trie *, uint32_t node, uint8_t byte);

/* ---- regex.c: patterns in the syntax of tokenizer.json, run by PCRE2 ----------------------------- */

struct regex;
struct matcher { struct room *room; };               /* {0} to start; one thread's room to match in */
struct regex *regex_new(wf_error *, const char *pattern, size_t len);
void regex_free(struct regex *);
/* The next match at or after `from`: 1 and its place, 0 none, -1 after wf_fail.  text is valid UTF-8. */
int  regex_match(const struct regex *, wf_error *, struct matcher *, const char *text, size_t n,
		size_t from, size_t *start, size_t *end);
void matcher_free(struct matcher *);

/* ---- vocab.c ----------------------------------------------------------------------------------------- */

enum token_type {                                    /* numbered as in GGUF and SentencePiece */
	TOKEN_NORMAL = 1, TOKEN_UNKNOWN, TOKEN_CONTROL, TOKEN_USER, TOKEN_UNUSED, TOKEN_BYTE
};

enum {                                               /* struct token.flags */
	TOKEN_EOG = 1,               /* ends a generation */
	TOKEN_LSTRIP = 2,            /* takes the white space before it, after it */
	TOKEN_RSTRIP = 4,
	TOKEN_ALONE = 8,             /* only as a word of its own */
	TOKEN_NORMALIZED = 16,       /* looked for in normalized text */
	TOKEN_GIVEN = 32             /* the file defines this id */
};

struct token {
	const char *text;            /* as the vocabulary writes it; NUL after it */
	const char *bytes;           /* the text it stands for */
	uint32_t len, nbytes;
	double score;
	uint32_t rank;               /* place among all scores, best first; equal scores share it */
	uint8_t type, flags;
};

enum { MAXTOKENS = 1 << 24, MAXPIECE = 65535 };

wf_tokenizer *vocab_new(wf_arena *, wf_error *, size_t n);
int vocab_set(wf_tokenizer *, wf_error *, size_t id, const char *text, size_t len, int type, double score);
int vocab_index(wf_tokenizer *, wf_error *);         /* vocab_find() works from here on; every token is set */
/* The rest: byte tokens, ranks, ends of generation, decoded bytes (byte_level, escaped are known). */
int vocab_finish(wf_tokenizer *, wf_error *);
int vocab_special(wf_tokenizer *, wf_error *);       /* the tries of special tokens; steps are known */
void vocab_eog(wf_tokenizer *, int32_t id);          /* ends a generation */
int vocab_byte(const char *s, size_t n);             /* "<0x0A>" to 10, -1 for anything else */
int32_t vocab_find(const wf_tokenizer *, const char *s, size_t n);     /* any token, -1 */
int32_t vocab_piece(const wf_tokenizer *, const char *s, size_t n);    /* one that text may become, -1 */
char *vocab_string(wf_tokenizer *, wf_error *, const char *s, size_t n);       /* a copy, NUL after it */

/* ---- steps: normal.c (text to text), pretok.c (text to pieces) ----------------------------------- */

struct span { uint32_t start, end; };

struct work {
	const wf_tokenizer *tok;
	wf_error *err;
	struct ids *out;
	struct bytes text, spare;    /* the text as it stands; the room the next step writes to */
	struct span *span, *cut;     /* its pieces in order; likewise */
	size_t nspan, ncut, span_cap, cut_cap;
	bool first, last;            /* this text starts, ends the whole text */
	struct matcher matcher;
	struct merger *merger;       /* bpe.c's room */
	struct unigram *unigram;     /* unigram.c's */
	bool unknown;                /* the last id stands for unknown text, and more may join it */
};

enum behavior { SPLIT_ISOLATED, SPLIT_REMOVED, SPLIT_PREVIOUS, SPLIT_NEXT, SPLIT_CONTIGUOUS };

struct step {
	int (*run)(struct work *, const struct step *);
	struct regex *regex;         /* owned */
	const char *from, *to;
	size_t nfrom, nto;
	enum behavior behavior;
	bool invert, once;           /* once: only at the start of the whole text */
	int form;                    /* utf8proc options */
	const struct charsmap *charsmap;
};

enum { MAXSTEPS = 24 };
struct steps { struct step step[MAXSTEPS]; int n; };

struct step *steps_add(wf_error *, struct steps *, int (*run)(struct work *, const struct step *));
void steps_free(struct steps *);
int  steps_run(struct work *, const struct steps *);
/* Replaces every piece by what `map` appends to w->spare for it. */
int  work_map(struct work *, const struct step *,
		int (*map)(struct work *, const struct step *, struct span));
int  work_span(struct work *, size_t start, size_t end);   /* a piece, into w->cut; none when empty */
void work_cut(struct work *);                        /* the cut pieces take the place of the old ones */
void work_free(struct work *);

int normal_prefix(struct work *, const struct step *);     /* `to` before the text, once: see there */
int normal_replace(struct work *, const struct step *);    /* from or regex -> to */
int normal_form(struct work *, const struct step *);       /* NFC, NFD, NFKC, NFKD */
int normal_strip(struct work *, const struct step *);      /* white space at the ends: form 1 left, 2 right */
int normal_charsmap(struct work *, const struct step *);
int normal_spaces(struct work *, const struct step *);     /* SentencePiece's: form is the SPACES_ below */
enum { SPACES_PREFIX = 1, SPACES_COLLAPSE = 2, SPACES_ESCAPE = 4 };
struct charsmap *charsmap_new(wf_arena *, wf_error *, const uint8_t *blob, size_t n);

int pretok_split(struct work *, const struct step *);      /* regex */
int pretok_split_text(struct work *, const struct step *); /* from */
int pretok_lead(struct work *, const struct step *);       /* `to` before pieces that lack it */
int pretok_bytes(struct work *, const struct step *);      /* bytes to the characters GPT-2 writes them as */
int pretok_pattern(wf_error *, struct steps *, const char *pattern, size_t len, enum behavior, bool invert);
uint32_t byte_code(uint8_t byte);                          /* the character GPT-2 writes a byte as */
int      byte_of(uint32_t code);                           /* back, -1 */

/* ---- pretok_names.c: tokenizer.ggml.pre ----------------------------------------------------------- */

enum {
	PRE_WHOLE = 1,               /* a piece that is a token is not merged */
	PRE_BOS = 2,                 /* the text begins with BOS unless the file says otherwise */
	PRE_PLAIN = 4,               /* text as it is, spaces escaped: no byte characters */
	PRE_LINES = 8                /* newlines that are a token are not merged */
};

struct pretok {
	const char *names;           /* separated by spaces */
	int flags;
	const char *pattern[7];      /* each cuts what the one before left; NULL at the end */
};

const struct pretok *pretok_named(wf_error *, struct gguf_str name);   /* NULL after wf_fail */
int pretok_steps(wf_error *, struct steps *, const struct pretok *);
const char *pretok_of_arch(struct gguf_str arch);          /* for files without the key; NULL when unclear */
extern const char pretok_gpt2[];                           /* what ByteLevel cuts with */

/* ---- bpe.c, unigram.c: one piece to ids --------------------------------------------------------- */

struct pair { uint32_t rank; int32_t id; };
struct merge { uint64_t key; struct pair pair; };          /* key: left id, right id; 0 empty slot */

int  bpe_merges(wf_tokenizer *, wf_error *, size_t n);      /* room for n merges */
/* Merges that name no token are dropped; the first of two for one pair counts. */
int  bpe_merge(wf_tokenizer *, wf_error *, const char *left, size_t nleft, const char *right, size_t nright,
		uint32_t rank);
int  bpe_encode(struct work *, struct span);
void bpe_free(struct merger *);
int  unigram_setup(wf_tokenizer *, wf_error *);
int  unigram_encode(struct work *, struct span);
void unigram_free(struct unigram *);
int  emit_unknown(struct work *, const char *s, size_t n); /* bytes, else the unknown token, else nothing */

/* ---- the tokenizer ------------------------------------------------------------------------------- */

enum { MAXAFFIX = 8 };

struct wf_tokenizer {
	wf_arena *arena;
	struct token *token;                  /* [n] */
	int32_t n;
	struct slot { uint32_t tag; int32_t id; } *slot;   /* [mask + 1] text -> id, -1 empty */
	uint32_t mask, longest;               /* bytes of the longest piece */
	int32_t byte[256], chr[512];          /* byte tokens; tokens of one character; -1 */
	struct trie raw, normal;              /* special tokens: in the text, in normalized text */
	struct steps normalize, pretok;
	int (*encode)(struct work *, struct span);
	/* bpe */
	struct merge *merge;                  /* [merge_mask + 1]; NULL: pairs join by score */
	uint32_t merge_mask, nrank;
	bool ignore_merges;                   /* a piece of text that is a token is not merged */
	bool whole_lines;                     /* the same, for pieces of newlines only */
	bool unused;                          /* some pieces only lead to longer ones */
	bool cut_spaces;                      /* no token holds a space marker after anything else */
	/* unigram */
	struct trie pieces;                   /* by text; tokens that text may become */
	double unknown_score;
	/* unknown text */
	int32_t unk;                          /* -1 none */
	bool byte_fallback, fuse_unknown;
	/* from tokenizer.model: scores add up in float, text after a control token starts as the whole text
	 * does, user tokens are looked for in normal text and kept as they are on the way there */
	bool sentencepiece;
	struct trie keep;
	/* decoding */
	bool byte_level, escaped, drop_space; /* escaped: U+2581 is a space; drop_space: the first one */
	size_t most_bytes;
	/* what WF_TOK_BOS adds */
	int32_t before[MAXAFFIX], after[MAXAFFIX];
	int nbefore, nafter;
	int32_t bos, eos;
	char *pool; size_t pool_left;         /* room for strings */
};

/* ---- tok_parts.c, tok_spm.c, tok_dir.c ------------------------------------------------------------------------- */

struct json_t;
int parts_add(wf_tokenizer *, wf_error *, const struct json_t *root);  /* the steps of a tokenizer.json */
wf_tokenizer *tokenizer_spm(wf_arena *, wf_error *, const uint8_t *data, size_t len, const char *config, size_t config_len);
/* What tokenizer_config.json (or special_tokens_map.json) says about beginnings and ends. */
int tokenizer_config(wf_tokenizer *, wf_error *, const char *json, size_t len);

#endif
