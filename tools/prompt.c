/* prompt.c - text to ids: raw, or through a chat template.
 *
 * What a model expects before every text (a start token, or several) is asked of its tokenizer by an
 * empty text; a template that writes them itself is not given them twice. */
#include "tools/weft.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

enum { MAXTEMPLATE = 1 << 20 };

/* ---- ids ---- */

int tokens_add(struct tokens *ids, wf_error *err, const int32_t *id, size_t n)
{
	if (ids->n + n > ids->max) {
		size_t max = (ids->n + n) * 2 + 64;
		int32_t *more = realloc(ids->id, max * sizeof *more);
		if (!more)
			return wf_fail(err, "out of memory");
		ids->id = more;
		ids->max = max;
	}
	if (n)
		memcpy(ids->id + ids->n, id, n * sizeof *id);
	ids->n += n;
	return 0;
}

void tokens_free(struct tokens *ids)
{
	free(ids->id);
	*ids = (struct tokens){0};
}

static int tokenize(struct session *s, const char *text, size_t len, int flags, struct tokens *out)
{
	int32_t *id;
	size_t n;

	if (!s->model->tokenizer)
		return wf_fail(&s->err, "%s has no tokenizer", s->model->path);
	if (wf_tokenize(s->model->tokenizer, &s->err, text, len, flags, &id, &n))
		return -1;
	int result = tokens_add(out, &s->err, id, n);
	free(id);
	return result;
}

int prompt_prefix(struct session *s, struct tokens *out)
{
	size_t before = out->n;

	if (tokenize(s, "", 0, WF_TOK_BOS, out))
		return -1;
	/* some tokenizers also close the text, which would end the answer before it begins */
	if (out->n > before && wf_token_is_eog(s->model->tokenizer, out->id[out->n - 1]) &&
	    out->id[out->n - 1] != wf_token_bos(s->model->tokenizer))
		out->n--;
	return 0;
}

int prompt_ids(struct session *s, const char *text, size_t len, bool special, struct tokens *out)
{
	struct tokens body = {0};
	size_t before = out->n;
	int result = -1;

	if (prompt_prefix(s, out) || tokenize(s, text, len, special ? WF_TOK_SPECIAL : 0, &body))
		goto out;
	size_t n = out->n - before;
	bool twice = n && body.n >= n && !memcmp(body.id, out->id + before, n * sizeof *body.id);
	result = tokens_add(out, &s->err, body.id + (twice ? n : 0), body.n - (twice ? n : 0));
out:
	tokens_free(&body);
	return result;
}

/* ---- templates ---- */

static void no_template(struct session *s, const char *name)
{
	char known[512] = "";

	for (size_t i = 0; wf_template_name(i) && strlen(known) < sizeof known - 32; i++)
		sprintf(known + strlen(known), "%s%s", i ? ", " : "", wf_template_name(i));
	wf_fail(&s->err, "--chat-template: '%s' is neither a file that can be read nor one of %s", name, known);
}

static const char *template_source(struct session *s, bool guess)
{
	const char *name = s->o->chat_template;
	size_t len;

	if (!name && s->model->chat_template)
		return s->model->chat_template;
	if (!name && guess && s->model->tokenizer)
		name = wf_template_guess(s->model->tokenizer);
	if (!name)
		return NULL;
	const char *source = wf_template_builtin(name);
	if (source)
		return source;
	char *text = read_path(&s->err, name, &len);
	if (!text) {
		s->err = (wf_error){0};
		no_template(s, name);
		return NULL;
	}
	source = wf_strdup(s->model->arena, text);
	free(text);
	return source;
}

int prompt_template(struct session *s, bool guess, wf_template **out)
{
	const char *source = template_source(s, guess);

	*out = source ? wf_template_parse(s->model->arena, &s->err, source, strlen(source)) : NULL;
	return *out ? 1 : s->err.set ? -1 : 0;
}

static const char *piece(struct session *s, int32_t id)
{
	size_t len;
	const char *text = id < 0 ? NULL : wf_token_piece(s->model->tokenizer, id, &len);

	return text ? wf_format(s->model->arena, "%.*s", (int)len, text) : "";
}

int prompt_render(struct session *s, const wf_template *t, const struct wf_message *message, int n, struct tokens *out)
{
	const char *bos = piece(s, wf_token_bos(s->model->tokenizer)), *eos = piece(s, s->model->config.eos[0]);
	size_t len;
	char *text = bos && eos ? wf_template_render(t, &s->err, message, n, true, bos, eos, &len) : NULL;

	if (!text)
		return wf_fail(&s->err, "out of memory");
	say_more(s->o, "%s\n", text);
	int result = prompt_ids(s, text, len, true, out);
	free(text);
	return result;
}

/* ---- where the prompt comes from ---- */

char *read_stream(FILE *f, size_t *len)
{
	size_t max = 4096, n = 0, got;
	char *text = malloc(max);

	while (text && (got = fread(text + n, 1, max - n - 1, f)) > 0) {
		n += got;
		if (n + 1 < max)
			continue;
		char *more = max > SIZE_MAX / 2 ? NULL : realloc(text, max *= 2);
		if (!more)
			free(text);
		text = more;
	}
	if (!text || ferror(f)) {
		free(text);
		return NULL;
	}
	text[n] = 0;
	*len = n;
	return text;
}

char *read_path(wf_error *err, const char *path, size_t *len)
{
	FILE *f = strcmp(path, "-") ? fopen(path, "rb") : stdin;
	char *text = f ? read_stream(f, len) : NULL;

	if (!text)
		wf_fail(err, "%s: %s", path, strerror(errno));
	if (f && f != stdin)
		fclose(f);
	return text;
}

/* \n, \t, \r, \\, \", \' in place; other pairs stay as they are. */
static size_t unescape(char *s)
{
	static const char from[] = "ntr\\\"'", to[] = "\n\t\r\\\"'";
	char *out = s, *start = s;

	for (; *s; s++) {
		const char *at = *s == '\\' && s[1] ? strchr(from, s[1]) : NULL;
		*out++ = at ? to[at - from] : *s;
		s += at != NULL;
	}
	*out = 0;
	return (size_t)(out - start);
}

char *prompt_read(struct session *s, size_t *len)
{
	const struct options *o = s->o;

	if (o->prompt && o->file) {
		wf_fail(&s->err, "-p and -f: expected one of them");
		return NULL;
	}
	if (!o->prompt && !o->file && isatty(STDIN_FILENO))
		say(o, "type the text, then Ctrl-D\n");
	if (!o->prompt)
		return read_path(&s->err, o->file ? o->file : "-", len);
	char *text = strdup(o->prompt);
	if (!text) {
		wf_fail(&s->err, "out of memory");
		return NULL;
	}
	*len = o->command == COMMAND_run && o->escape ? unescape(text) : strlen(text);
	return text;
}
