/* tok_dir.c - a tokenizer from a Hugging Face directory.
 *
 * tokenizer.json says everything about text; tokenizer_config.json and special_tokens_map.json say which
 * tokens begin and end one.  Older directories have only SentencePiece's tokenizer.model, whose
 * special tokens beyond its own stand in tokenizer_config.json. */
#include "models/text/text.h"

#include <stdlib.h>
#include <string.h>
#include <jansson.h>

enum { LIMIT = 256 << 20, CONFIG_LIMIT = 16 << 20 };

/* "bos_token": "<s>" or {"content": "<s>"}: its id, -1 when there is none. */
static int32_t named(const wf_tokenizer *tok, const json_t *config, const char *key)
{
	const json_t *v = json_object_get(config, key);
	const char *text = json_string_value(json_is_object(v) ? json_object_get(v, "content") : v);

	return text ? wf_token_find(tok, text) : -1;
}

static void apply_flag(const json_t *flag, int32_t *list, int *n, int32_t id)
{
	if (json_is_true(flag) && *n == 0 && id >= 0)
		list[(*n)++] = id;
	if (json_is_false(flag) && *n == 1 && list[0] == id)
		*n = 0;
}

static void apply(wf_tokenizer *tok, const json_t *config)
{
	int32_t bos = named(tok, config, "bos_token"), eos = named(tok, config, "eos_token");

	if (bos >= 0)
		tok->bos = bos;
	if (eos >= 0)
		tok->eos = eos;
	vocab_eog(tok, eos);
	apply_flag(json_object_get(config, "add_bos_token"), tok->before, &tok->nbefore, tok->bos);
	apply_flag(json_object_get(config, "add_eos_token"), tok->after, &tok->nafter, tok->eos);
}

int tokenizer_config(wf_tokenizer *tok, wf_error *err, const char *json, size_t len)
{
	json_t *config = json_read(err, "tokenizer_config.json", json, len);

	if (!json_is_object(config)) {
		json_decref(config);
		return wf_fail(err, "tokenizer_config.json: expected an object");
	}
	apply(tok, config);
	json_decref(config);
	return 0;
}

/* A file of the directory: *text stays NULL when it is not there. */
static int read_file(wf_arena *arena, wf_error *err, const char *dir, const char *name, size_t limit,
		char **text, size_t *bytes)
{
	char *path = wf_format(arena, "%s/%s", dir, name);

	*text = NULL;
	*bytes = 0;
	if (!path)
		return wf_fail(err, "tokenizer: out of memory");
	if (!file_exists(path))
		return 0;
	return (*text = file_read(arena, err, path, limit, bytes)) ? 0 : -1;
}

int tokenizer_from_dir(wf_arena *arena, wf_error *err, const char *dir, wf_tokenizer **out)
{
	char *json, *model, *config, *map;
	size_t njson, nmodel, nconfig, nmap;
	wf_tokenizer *tok = NULL;

	*out = NULL;
	if (read_file(arena, err, dir, "tokenizer.json", LIMIT, &json, &njson) < 0 ||
			read_file(arena, err, dir, "tokenizer.model", LIMIT, &model, &nmodel) < 0 ||
			read_file(arena, err, dir, "tokenizer_config.json", CONFIG_LIMIT, &config, &nconfig) < 0 ||
			read_file(arena, err, dir, "special_tokens_map.json", CONFIG_LIMIT, &map, &nmap) < 0)
		return -1;
	if (!json && !model)
		return 0;
	tok = json ? tokenizer_from_json(arena, err, json, njson, config, nconfig) :
		tokenizer_spm(arena, err, (const uint8_t *)model, nmodel, config, nconfig);
	if (tok && map && (tok->bos < 0 || tok->eos < 0) && tokenizer_config(tok, err, map, nmap) < 0) {
		tokenizer_close(tok);
		tok = NULL;
	}
	*out = tok;
	return tok ? 0 : -1;
}
