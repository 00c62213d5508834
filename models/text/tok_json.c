/* tok_json.c - a tokenizer from tokenizer.json, the format of Hugging Face's tokenizers.
 *
 * The vocabulary and the tokens added to it; the steps around the model are tok_parts.c's. */
#include "models/text/text.h"

#include <stdlib.h>
#include <string.h>
#include <jansson.h>

struct load {
	wf_arena *arena;
	wf_error *err;
	wf_tokenizer *tok;
	json_t *root;
};

static bool flag(const json_t *o, const char *key)
{
	return json_is_true(json_object_get(o, key));
}

/* ---- vocabulary ---- */

/* One more than the highest id; ids far beyond the number of tokens would only cost memory. */
static int count_ids(struct load *l, const json_t *vocab, const json_t *added, size_t *n)
{
	size_t count = json_is_array(vocab) ? json_array_size(vocab) : json_object_size(vocab), i;
	const json_t *v;
	const char *key;
	json_int_t most = json_is_array(vocab) ? (json_int_t)count - 1 : -1, id;

	if (json_is_object(vocab))
		json_object_foreach((json_t *)vocab, key, v) {
			if (!json_is_integer(v))
				return wf_fail(l->err, "tokenizer.json: the id of \"%.60s\" is no integer", key);
			most = json_integer_value(v) > most ? json_integer_value(v) : most;
		}
	json_array_foreach(added, i, v) {
		if (!json_is_integer(json_object_get(v, "id")))
			return wf_fail(l->err, "tokenizer.json: added token %zu has no id", i);
		id = json_integer_value(json_object_get(v, "id"));
		most = id > most ? id : most;
	}
	count += json_array_size(added);
	if (most < 0 || most >= MAXTOKENS || (size_t)most > 4 * count + 65536)
		return wf_fail(l->err, "tokenizer.json: highest token id %lld with %zu tokens", (long long)most, count);
	*n = (size_t)most + 1;
	return 0;
}

static int set_token(struct load *l, json_int_t id, const char *text, size_t n, double score, bool bytes)
{
	int type = bytes && vocab_byte(text, n) >= 0 ? TOKEN_BYTE : TOKEN_NORMAL;

	if (id < 0)
		return wf_fail(l->err, "tokenizer.json: token \"%.60s\" has the id %lld", text, (long long)id);
	return vocab_set(l->tok, l->err, (size_t)id, text, n, type, score);
}

static int read_vocab(struct load *l, const json_t *model, const json_t *vocab)
{
	bool bytes = flag(model, "byte_fallback");
	const json_t *v;
	const char *key;
	size_t i;

	if (json_is_object(vocab)) {
		json_object_foreach((json_t *)vocab, key, v)
			if (set_token(l, json_integer_value(v), key, strlen(key), 0, bytes) < 0)
				return -1;
		return 0;
	}
	json_array_foreach(vocab, i, v) {
		const json_t *text = json_array_get(v, 0), *score = json_array_get(v, 1);
		if (!json_is_string(text) || !json_is_number(score))
			return wf_fail(l->err, "tokenizer.json: vocab: expected [text, score] at %zu", i);
		if (set_token(l, (json_int_t)i, json_string_value(text), json_string_length(text),
				json_number_value(score), bytes) < 0)
			return -1;
	}
	return 0;
}

static int read_added_token(struct load *l, const json_t *v)
{
	json_int_t id = json_integer_value(json_object_get(v, "id"));
	const json_t *content = json_object_get(v, "content");
	const char *text = json_string_value(content);
	size_t n = json_string_length(content);

	if (!text || !n || id < 0 || id >= l->tok->n)
		return wf_fail(l->err, "tokenizer.json: added token %lld: expected an id in range and its content", (long long)id);
	struct token *t = &l->tok->token[id];
	if (t->flags & TOKEN_GIVEN) {
		if (t->len != n || memcmp(t->text, text, n) != 0)
			return wf_fail(l->err, "tokenizer.json: id %lld is \"%s\" in the vocabulary and \"%.60s\" in added_tokens",
				(long long)id, t->text, text);
	} else if (vocab_set(l->tok, l->err, (size_t)id, text, n, TOKEN_NORMAL, 0) < 0) {
		return -1;
	}
	t->type = flag(v, "special") ? TOKEN_CONTROL : TOKEN_USER;
	if (flag(v, "lstrip"))
		t->flags |= TOKEN_LSTRIP;
	if (flag(v, "rstrip"))
		t->flags |= TOKEN_RSTRIP;
	if (flag(v, "single_word"))
		t->flags |= TOKEN_ALONE;
	if (flag(v, "normalized"))
		t->flags |= TOKEN_NORMALIZED;
	return 0;
}

/* "left right", or [left, right] since tokens may hold spaces. */
static int read_merge(struct load *l, const json_t *v, uint32_t rank)
{
	const json_t *left = json_array_get(v, 0), *right = json_array_get(v, 1);
	const char *text = json_string_value(v), *space;

	if (text && (space = strchr(text, ' ')))
		return bpe_merge(l->tok, l->err, text, (size_t)(space - text), space + 1,
			json_string_length(v) - (size_t)(space + 1 - text), rank);
	if (!json_is_string(left) || !json_is_string(right) || json_array_size(v) != 2)
		return wf_fail(l->err, "tokenizer.json: merges: expected two tokens at %u", rank);
	return bpe_merge(l->tok, l->err, json_string_value(left), json_string_length(left),
		json_string_value(right), json_string_length(right), rank);
}

static int read_bpe(struct load *l, const json_t *model)
{
	static const char *const refused[] = {"continuing_subword_prefix", "end_of_word_suffix"};
	const json_t *merges = json_object_get(model, "merges"), *v;
	const char *unk = json_string_value(json_object_get(model, "unk_token"));
	size_t i;

	for (i = 0; i < 2; i++)
		if (json_string_length(json_object_get(model, refused[i])))
			return wf_fail(l->err, "tokenizer.json: BPE with %s is not supported", refused[i]);
	if (json_number_value(json_object_get(model, "dropout")) != 0)
		return wf_fail(l->err, "tokenizer.json: BPE with dropout is not supported");
	if (!json_is_array(merges))
		return wf_fail(l->err, "tokenizer.json: model.merges: expected an array");
	if (bpe_merges(l->tok, l->err, json_array_size(merges)) < 0)
		return -1;
	json_array_foreach(merges, i, v)
		if (read_merge(l, v, (uint32_t)i) < 0)
			return -1;
	l->tok->ignore_merges = flag(model, "ignore_merges");
	l->tok->fuse_unknown = flag(model, "fuse_unk");
	l->tok->unk = unk ? wf_token_find(l->tok, unk) : -1;
	l->tok->encode = bpe_encode;
	return 0;
}

static int read_unigram(struct load *l, const json_t *model)
{
	const json_t *unk = json_object_get(model, "unk_id");
	json_int_t id = json_is_integer(unk) ? json_integer_value(unk) : -1;

	if (id >= l->tok->n || id < -1)
		return wf_fail(l->err, "tokenizer.json: unk_id %lld in a vocabulary of %d", (long long)id, l->tok->n);
	l->tok->unk = (int32_t)id;
	l->tok->fuse_unknown = true;
	l->tok->encode = unigram_encode;
	return 0;
}

static int read_model(struct load *l)
{
	const json_t *model = json_object_get(l->root, "model"), *vocab = json_object_get(model, "vocab"), *v;
	const json_t *added = json_object_get(l->root, "added_tokens");
	const char *type = json_string_value(json_object_get(model, "type"));
	bool bpe = !type || strcmp(type, "BPE") == 0;        /* old files do not say */
	size_t n = 0, i;

	if (!json_is_object(model))
		return wf_fail(l->err, "tokenizer.json: model: expected an object");
	if (!bpe && strcmp(type, "Unigram") != 0)
		return wf_fail(l->err, "tokenizer.json: model of type \"%.60s\" is not supported", type);
	if (bpe ? !json_is_object(vocab) : !json_is_array(vocab))
		return wf_fail(l->err, "tokenizer.json: model.vocab: expected an %s", bpe ? "object" : "array");
	if (count_ids(l, vocab, added, &n) < 0 || !(l->tok = vocab_new(l->arena, l->err, n)) ||
			read_vocab(l, model, vocab) < 0)
		return -1;
	json_array_foreach(added, i, v)
		if (read_added_token(l, v) < 0)
			return -1;
	if (vocab_index(l->tok, l->err) < 0)
		return -1;
	return bpe ? read_bpe(l, model) : read_unigram(l, model);
}

static int load(struct load *l, const char *config, size_t config_len)
{
	wf_tokenizer *tok;

	if (read_model(l) < 0 || parts_add(tok = l->tok, l->err, l->root) < 0)
		return -1;
	if (config && tokenizer_config(tok, l->err, config, config_len) < 0)
		return -1;
	if (vocab_finish(tok, l->err) < 0 || (tok->encode == unigram_encode && unigram_setup(tok, l->err) < 0))
		return -1;
	return vocab_special(tok, l->err);
}

wf_tokenizer *tokenizer_from_json(wf_arena *arena, wf_error *err, const char *json, size_t len,
		const char *config_json, size_t config_len)
{
	struct load l = {arena, err, NULL, json_read(err, "tokenizer.json", json, len)};

	if (!json_is_object(l.root)) {
		wf_fail(err, "tokenizer.json: expected an object");
		json_decref(l.root);
		return NULL;
	}
	int rc = load(&l, config_json, config_len);
	json_decref(l.root);
	if (rc == 0)
		return l.tok;
	tokenizer_close(l.tok);
	return NULL;
}
