/* model.c - models: the families there are, and what a path on disk opens to. */
#include "models/model.h"
#include "ops/ops.h"

#include <dirent.h>
#include <jansson.h>
#include <limits.h>
#include <string.h>
#include <sys/stat.h>

enum { MAXJSON = 16 << 20, MAXTEMPLATE = 1 << 20 };

const wf_arch *const wf_archs[] = {
#define ROW(name) &wf_arch_##name,
	WF_ARCHS(ROW)
#undef ROW
	NULL
};

/* ---- families ---- */

static bool listed(const char *const *names, const char *name)
{
	for (; names && *names; names++)
		if (!strcmp(*names, name))
			return true;
	return false;
}

const wf_arch *wf_arch_find(const char *name)
{
	for (const wf_arch *const *a = wf_archs; *a; a++)
		if (!strcmp((*a)->name, name) || listed((*a)->hf, name) || listed((*a)->gguf, name))
			return *a;
	return NULL;
}

/* ---- opening ---- */

struct opened {
	wf_model model;                           /* first: what callers hold */
	struct weights weights;
	bool copy;
};

static int no_memory(wf_error *err)
{
	return wf_fail(err, "out of memory");
}

static void use_weights(struct opened *o)
{
	wf_model *m = &o->model;

	m->weights = &o->weights.find;
	m->weight_bytes = o->weights.bytes;
	if (o->weights.dtype < WF_NDTYPE)
		m->config.dtype = o->weights.dtype;
}

static int open_gguf_config(struct opened *o, wf_error *err)
{
	const gguf *g = o->weights.meta;
	wf_model *m = &o->model;
	struct gguf_str name;
	struct wf_blob head;
	char arch[80];

	if (!m->arch) {
		if (!gguf_string(g, err, "general.architecture", &name))
			return wf_fail(err, "gguf: general.architecture is missing");
		snprintf(arch, sizeof arch, "%.*s", (int)(name.len < 79 ? name.len : 79), name.s);
		if (!(m->arch = wf_arch_find(arch)))
			return arch_unknown(err, "general.architecture", arch);
	}
	if (config_from_gguf(m->arena, err, g, m->arch, &m->config) < 0)
		return -1;
	use_weights(o);
	m->config.tied = m->weights->find(m->weights, "output.weight", &head) < 0;
	return 0;
}

static int open_gguf(struct opened *o, wf_error *err, int flags)
{
	wf_model *m = &o->model;
	struct gguf_str template;

	if (weights_from_gguf(m->arena, err, m->path, o->copy, &o->weights) < 0)
		return -1;
	if (!(flags & WF_OPEN_VOCAB_ONLY) && open_gguf_config(o, err) < 0)
		return -1;
	const gguf *g = o->weights.meta;
	if (gguf_has(g, "tokenizer.ggml.model") && !(m->tokenizer = tokenizer_from_gguf(m->arena, err, g)))
		return -1;
	if (gguf_string(g, err, "tokenizer.chat_template", &template)) {
		if (template.len > MAXTEMPLATE)
			return wf_fail(err, "gguf: tokenizer.chat_template has %zu bytes, expected at most %d",
				template.len, MAXTEMPLATE);
		if (!(m->chat_template = wf_format(m->arena, "%.*s", (int)template.len, template.s)))
			return no_memory(err);
	}
	return err->set ? -1 : 0;
}

/* ---- Hugging Face directories ---- */

/* dir/file when it is there: 1, 0 when not, -1 after wf_fail. */
static int read_optional(wf_model *m, wf_error *err, const char *file, size_t limit, char **text, size_t *bytes)
{
	char path[PATH_MAX];

	if ((size_t)snprintf(path, sizeof path, "%s/%s", m->path, file) >= sizeof path)
		return wf_fail(err, "path too long");
	if (!file_exists(path))
		return 0;
	*text = file_read(m->arena, err, path, limit, bytes);
	return *text ? 1 : -1;
}

/* A template is a string, or a list of {name, template}: the one called default, else the first. */
static const json_t *choose_template(const json_t *v)
{
	const json_t *first = json_object_get(json_array_get(v, 0), "template");

	for (size_t i = 0; i < json_array_size(v); i++) {
		const json_t *item = json_array_get(v, i);
		const char *name = json_string_value(json_object_get(item, "name"));
		if (name && !strcmp(name, "default"))
			return json_object_get(item, "template");
	}
	return json_is_array(v) ? first : v;
}

/* The template inside a JSON file; 1 found. */
static int template_in(wf_model *m, wf_error *err, const char *file)
{
	char *text;
	size_t bytes;
	int found = read_optional(m, err, file, MAXJSON, &text, &bytes);

	if (found <= 0)
		return found;
	json_t *doc = json_read(err, file, text, bytes);
	if (!doc)
		return -1;
	const char *source = json_string_value(choose_template(json_object_get(doc, "chat_template")));
	if (source && strlen(source) > MAXTEMPLATE)
		wf_fail(err, "%s: chat_template has %zu bytes, expected at most %d", file, strlen(source), MAXTEMPLATE);
	else if (source && !(m->chat_template = wf_strdup(m->arena, source)))
		no_memory(err);
	json_decref(doc);
	return err->set ? -1 : source != NULL;
}

static int open_template(wf_model *m, wf_error *err)
{
	char *text;
	int found = read_optional(m, err, "chat_template.jinja", MAXTEMPLATE, &text, NULL);

	if (found > 0)
		m->chat_template = text;
	if (found == 0)
		found = template_in(m, err, "chat_template.json");
	if (found == 0)
		found = template_in(m, err, "tokenizer_config.json");
	return found < 0 ? -1 : 0;
}

static int open_config(wf_model *m, wf_error *err, const char *json, size_t bytes)
{
	const wf_arch *only = m->arch;

	m->arch = NULL;
	return config_from_json(m->arena, err, json, bytes, only, &m->config, &m->arch);
}

static int open_dir_config(struct opened *o, wf_error *err)
{
	wf_model *m = &o->model;
	struct wf_blob head;
	char *text;
	size_t bytes;
	int found = read_optional(m, err, "config.json", MAXJSON, &text, &bytes);

	if (found <= 0)
		return found < 0 ? -1 : wf_fail(err, "a directory without config.json");
	if (open_config(m, err, text, bytes) < 0)
		return -1;
	found = read_optional(m, err, "generation_config.json", MAXJSON, &text, &bytes);
	if (found < 0 || (found > 0 && config_generation(&m->config, err, text, bytes) < 0))
		return -1;
	if (weights_from_dir(m->arena, err, m->path, o->copy, m->arch->names, &o->weights) < 0)
		return -1;
	if (!o->weights.nmap)
		return 0;
	use_weights(o);
	if (m->config.untied && m->weights->find(m->weights, "output.weight", &head) < 0)
		return wf_fail(err, "config.json: tie_word_embeddings is false, but the files hold no output.weight (lm_head)");
	return 0;
}

static int open_dir(struct opened *o, wf_error *err, int flags)
{
	wf_model *m = &o->model;
	wf_tokenizer *tokenizer = NULL;

	if (!(flags & WF_OPEN_VOCAB_ONLY) && open_dir_config(o, err) < 0)
		return -1;
	if (tokenizer_from_dir(m->arena, err, m->path, &tokenizer) < 0)
		return -1;
	m->tokenizer = tokenizer;
	return open_template(m, err);
}

static int open_json(struct opened *o, wf_error *err)
{
	size_t bytes;
	char *text = file_read(o->model.arena, err, o->model.path, MAXJSON, &bytes);

	return text ? open_config(&o->model, err, text, bytes) : -1;
}

/* ---- a path ---- */

static bool ends_in(const char *path, const char *end)
{
	size_t len = strlen(path), n = strlen(end);

	return len >= n && !strcmp(path + len - n, end);
}

static int open_path(struct opened *o, wf_error *err, int flags)
{
	const char *path = o->model.path;
	struct stat st;

	if (stat(path, &st) == 0 && S_ISDIR(st.st_mode))
		return open_dir(o, err, flags);
	if (ends_in(path, ".json"))
		return open_json(o, err);
	if (ends_in(path, ".safetensors"))
		return wf_fail(err, "a safetensors file, expected the directory with its config.json");
	return open_gguf(o, err, flags);
}

/* A message begins with the path it is about. */
static void name_path(wf_error *err, const char *path)
{
	char text[sizeof err->text];

	if (!strncmp(err->text, path, strlen(path)))
		return;
	memcpy(text, err->text, sizeof text);
	snprintf(err->text, sizeof err->text, "%.300s: %.700s", path, text);
}

wf_model *wf_model_open(wf_error *err, const char *path, const wf_arch *arch, int flags)
{
	wf_arena *arena = wf_arena_new();
	struct opened *o = arena ? wf_alloc(arena, sizeof *o) : NULL;

	if (!o) {
		wf_arena_free(arena);
		no_memory(err);
		return NULL;
	}
	o->model = (wf_model){.arena = arena, .arch = arch, .path = wf_strdup(arena, path)};
	o->copy = flags & WF_OPEN_NO_MMAP;
	if (!o->model.path || open_path(o, err, flags) < 0) {
		wf_fail(err, "out of memory");
		name_path(err, path);
		wf_model_close(&o->model);
		return NULL;
	}
	return &o->model;
}

void wf_model_close(wf_model *m)
{
	if (!m)
		return;
	if (m->tokenizer)
		tokenizer_close((wf_tokenizer *)m->tokenizer);
	weights_close(&((struct opened *)m)->weights);
	wf_arena_free(m->arena);
}

/* Weights that were published in f16 say that the residual fits it: then it need not be f32, and prompts are 2 % faster. */
static wf_dtype sum_type(const wf_model *m)
{
	bool fits = m->config.dtype == WF_F16 && !m->config.gguf && !m->arch->loud;

	return m->act == WF_F16 && fits ? WF_F16 : WF_F32;
}

wf_graph *wf_model_graph(const wf_model *m, wf_arena *arena, wf_error *err)
{
	if (!m->arch) {
		wf_fail(err, "%s was opened for its vocabulary only", m->path);
		return NULL;
	}
	wf_graph *g = wf_graph_new(arena, err, wf_ops);
	if (!g)
		return NULL;
	g->name = m->arch->name;
	g->weights = m->weights;
	g->wdtype = m->config.dtype;
	g->act = m->act;
	g->sum = sum_type(m);
	g->kvtype = m->kvtype;
	m->arch->build(g, &m->config);
	return wf_failed(g) ? NULL : g;
}
