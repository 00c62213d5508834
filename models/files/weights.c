/* weights.c - the tensors of all files of a model, by canonical name.
 *
 * A model is one file or several (GGUF splits, safetensors shards); one table holds the tensors of
 * all.  The graph asks by GGUF name.  For Hugging Face files the family's table turns that into their
 * name, and since exports differ in what they put before it ("model.", "transformer.", nothing), the
 * usual prefixes are tried.
 *
 * File names come from the path that was given or are plain names beside it, never paths from a file. */
#include "models/model.h"

#include <dirent.h>
#include <jansson.h>
#include <limits.h>
#include <string.h>

enum { MAXFILES = 4096, MAXINDEX = 64 << 20 };

/* ---- the table ---- */

static int no_memory(wf_error *err)
{
	return wf_fail(err, "out of memory");
}

/* Two equal names in one family's files would leave to chance which is used. */
static int add(struct weights *w, wf_error *err, const char *name, const struct wf_blob *b)
{
	char show[NAMES_SHOW];
	int64_t i = names_add(&w->names, name, strlen(name));

	if (i < 0)
		return wf_fail(err, "tensor %s is in two files", names_show(show, name, strlen(name)));
	w->blob[i] = *b;
	w->bytes += (int64_t)b->bytes;            /* at most the files' sizes */
	return 0;
}

static void count_dtypes(struct weights *w)
{
	size_t bytes[WF_NDTYPE] = {0}, most = 0;

	w->dtype = WF_NDTYPE;
	for (size_t i = 0; i < w->names.n; i++)
		if (w->blob[i].dtype < WF_NDTYPE)
			bytes[w->blob[i].dtype] += w->blob[i].bytes;
	for (wf_dtype t = 0; t < WF_NDTYPE; t++)
		if (bytes[t] > most) {
			most = bytes[t];
			w->dtype = t;
		}
}

static int make_table(struct weights *w, wf_arena *arena, wf_error *err, size_t n)
{
	w->blob = wf_alloc_n(arena, n, sizeof *w->blob);
	return w->blob && names_new(arena, &w->names, n) == 0 ? 0 : no_memory(err);
}

static int make_maps(struct weights *w, wf_arena *arena, wf_error *err, size_t n)
{
	w->map = wf_alloc_n(arena, n, sizeof *w->map);
	return w->map ? 0 : no_memory(err);
}

static int open_file(struct weights *w, wf_error *err, const char *path, bool copy)
{
	int rc = copy ? file_copy(err, path, &w->map[w->nmap]) : file_map(err, path, &w->map[w->nmap]);

	w->nmap += rc == 0;
	return rc;
}

/* Which of several files a message is about. */
static int in_file(wf_error *err, const char *file)
{
	char text[sizeof err->text];

	memcpy(text, err->text, sizeof text);
	snprintf(err->text, sizeof err->text, "%s: %.900s", file, text);
	return -1;
}

void weights_close(struct weights *w)
{
	while (w->nmap > 0)
		file_unmap(&w->map[--w->nmap]);
}

/* ---- lookup ---- */

static bool find_exact(const struct weights *w, const char *name, struct wf_blob *out)
{
	int64_t i = names_find(&w->names, name, strlen(name));

	if (i >= 0)
		*out = w->blob[i];
	return i >= 0;
}

/* Match name against a canonical pattern; the numbers at its %d in number[].  What is left of the
 * name, nothing or .weight or .bias; NULL when it does not fit. */
static const char *match(const char *pattern, const char *name, int number[4])
{
	int n = 0;

	while (*pattern) {
		if (strncmp(pattern, "%d", 2)) {
			if (*pattern++ != *name++)
				return NULL;
			continue;
		}
		size_t digits = strspn(name, "0123456789");
		if (digits < 1 || digits > 6 || n == 4)
			return NULL;
		number[n] = 0;
		for (size_t i = 0; i < digits; i++)
			number[n] = 10 * number[n] + (name[i] - '0');
		n++;
		name += digits;
		pattern += 2;
	}
	return !*name || !strcmp(name, ".weight") || !strcmp(name, ".bias") ? name : NULL;
}

static void expand(const char *pattern, const int number[4], const char *end, char *out, size_t cap)
{
	size_t at = 0;

	for (int n = 0; *pattern && at + 16 < cap; )
		if (!strncmp(pattern, "%d", 2) && n < 4) {
			at += (size_t)snprintf(out + at, cap - at, "%d", number[n++]);
			pattern += 2;
		} else {
			out[at++] = *pattern++;
		}
	snprintf(out + at, cap - at, "%s", end);
}

static bool find_prefixed(const struct weights *w, const char *name, struct wf_blob *out)
{
	static const char *const prefixes[] = {
		"", "model.", "transformer.", "language_model.", "language_model.model.", "model.language_model.",
	};
	char full[320];

	if (find_exact(w, name, out))
		return true;
	for (int i = 1; i <= 2; i++)
		if (!strncmp(name, prefixes[i], strlen(prefixes[i]))) {
			name += strlen(prefixes[i]);
			break;
		}
	for (size_t i = 0; i < sizeof prefixes / sizeof *prefixes; i++) {
		snprintf(full, sizeof full, "%s%s", prefixes[i], name);
		if (find_exact(w, full, out))
			return true;
	}
	return false;
}

static int find(const wf_weights *base, const char *name, struct wf_blob *out)
{
	const struct weights *w = (const struct weights *)base;
	const char *end;
	char hf[256];
	int number[4] = {0};

	if (!w->alias)
		return find_exact(w, name, out) ? 0 : -1;
	for (const struct wf_name *row = w->alias; row->canonical; row++)
		if ((end = match(row->canonical, name, number))) {
			expand(row->hf, number, end, hf, sizeof hf);
			if (find_prefixed(w, hf, out))
				return 0;
		}
	return -1;
}

/* ---- GGUF ---- */

/* The place of "00001-of-00003.gguf" at the end of a path; NULL when it does not end so. */
static const char *split_suffix(const char *path, int *part, int *of)
{
	static const char form[] = "-00001-of-00003.gguf";
	size_t len = strlen(path), n = sizeof form - 1;

	if (len < n || sscanf(path + len - n, "-%5d-of-%5d", part, of) != 2)
		return NULL;
	char again[48];
	snprintf(again, sizeof again, "-%05d-of-%05d.gguf", *part, *of);
	return strcmp(again, path + len - n) ? NULL : path + len - n + 1;
}

static int split_number(const gguf *g, wf_error *err, const char *key, int64_t absent, int64_t *out)
{
	*out = absent;
	gguf_int(g, err, key, out);
	return err->set ? -1 : 0;
}

/* How many files the model has, by its first; -1 when this is not the first. */
static int count_parts(const gguf *g, wf_error *err, const char *path)
{
	int part, of;
	int64_t no, count;
	const char *suffix = split_suffix(path, &part, &of);

	if (split_number(g, err, "split.no", 0, &no) < 0 || split_number(g, err, "split.count", 1, &count) < 0)
		return -1;
	if (count <= 1)
		return 1;
	if (no != 0)
		return wf_fail(err, "part %lld of a model in %lld files, expected the first", (long long)no + 1,
			(long long)count);
	if (count > MAXFILES || !suffix || part != 1 || of != count)
		return wf_fail(err, "a model in %lld files, expected this one to be called NAME-00001-of-%05lld.gguf",
			(long long)count, (long long)count);
	return (int)count;
}

static int open_part(struct weights *w, wf_arena *arena, wf_error *err, const char *path, bool copy, const gguf **out)
{
	if (open_file(w, err, path, copy) < 0)
		return -1;
	*out = gguf_parse(arena, err, w->map[w->nmap - 1].data, w->map[w->nmap - 1].bytes);
	return *out ? 0 : in_file(err, path);
}

static int check_part(const gguf *g, wf_error *err, const char *path, int want, int n)
{
	int64_t no, count;

	if (split_number(g, err, "split.no", -1, &no) < 0 || split_number(g, err, "split.count", -1, &count) < 0)
		return in_file(err, path);
	if (no != want || count != n)
		return wf_fail(err, "%s: its metadata says part %lld of %lld, expected %d of %d", path,
			(long long)no + 1, (long long)count, want + 1, n);
	return 0;
}

/* The files after the first, which stays mapped where it is. */
static int open_parts(struct weights *w, wf_arena *arena, wf_error *err, const char *path, bool copy,
		const gguf **part, int n)
{
	struct file_map *first = w->map;
	int stem = (int)(strlen(path) - strlen("00001-of-00003.gguf"));

	if (!(w->map = wf_alloc_n(arena, (size_t)n, sizeof *w->map))) {
		w->map = first;
		return no_memory(err);
	}
	w->map[0] = *first;
	for (int i = 1; i < n; i++) {
		const char *other = wf_format(arena, "%.*s%05d-of-%05d.gguf", stem, path, i + 1, n);
		if (!other)
			return no_memory(err);
		if (open_part(w, arena, err, other, copy, &part[i]) < 0 || check_part(part[i], err, other, i, n) < 0)
			return -1;
	}
	return 0;
}

static int merge(struct weights *w, wf_arena *arena, wf_error *err, const gguf *const *part, int n)
{
	struct wf_blob b;
	size_t total = 0;
	int64_t want;

	for (int i = 0; i < n; i++)
		total += gguf_ntensor(part[i]);
	if (split_number(part[0], err, "split.tensors.count", (int64_t)total, &want) < 0)
		return -1;
	if (n > 1 && want != (int64_t)total)
		return wf_fail(err, "%zu tensors in %d files, expected %lld", total, n, (long long)want);
	if (make_table(w, arena, err, total) < 0)
		return -1;
	for (int i = 0; i < n; i++)
		for (size_t k = 0; k < gguf_ntensor(part[i]); k++) {
			const char *name = gguf_tensor(part[i], k, &b);
			if (add(w, err, name, &b) < 0)
				return -1;
		}
	count_dtypes(w);
	return 0;
}

int weights_from_gguf(wf_arena *arena, wf_error *err, const char *path, bool copy, struct weights *w)
{
	const gguf **part, *first;

	*w = (struct weights){.find = {find}, .dtype = WF_NDTYPE};
	if (make_maps(w, arena, err, 1) < 0 || open_part(w, arena, err, path, copy, &first) < 0)
		return -1;
	w->meta = first;
	int n = count_parts(first, err, path);
	if (n < 0)
		return -1;
	part = wf_alloc_n(arena, (size_t)n, sizeof *part);
	if (!part)
		return no_memory(err);
	part[0] = first;
	if (n > 1 && open_parts(w, arena, err, path, copy, part, n) < 0)
		return -1;
	return merge(w, arena, err, part, n);
}

/* ---- Hugging Face directories ---- */

/* Opens dir/file once and adds what is in it. */
static int open_shard(struct weights *w, wf_arena *arena, wf_error *err, const char *dir, const char *file,
		bool copy, safetensors **out)
{
	char path[PATH_MAX];

	if ((size_t)snprintf(path, sizeof path, "%s/%s", dir, file) >= sizeof path)
		return wf_fail(err, "path too long");
	if (open_file(w, err, path, copy) < 0)
		return -1;
	const struct file_map *map = &w->map[w->nmap - 1];
	*out = safetensors_parse(arena, err, map->data, map->bytes);
	return *out ? 0 : in_file(err, file);
}

static int add_shard(struct weights *w, wf_error *err, const safetensors *shard)
{
	struct wf_blob b;

	for (size_t i = 0; i < safetensors_ntensor(shard); i++) {
		const char *name = safetensors_tensor(shard, i, &b);
		if (add(w, err, name, &b) < 0)
			return -1;
	}
	return 0;
}

static int open_single(struct weights *w, wf_arena *arena, wf_error *err, const char *dir, bool copy)
{
	safetensors *shard;

	if (make_maps(w, arena, err, 1) < 0 ||
	    open_shard(w, arena, err, dir, "model.safetensors", copy, &shard) < 0 ||
	    make_table(w, arena, err, safetensors_ntensor(shard)) < 0)
		return -1;
	return add_shard(w, err, shard);
}

static bool is_base_name(const char *s)
{
	size_t len = strlen(s);

	return len > 12 && len < 256 && names_plain(s, len) && !strchr(s, '/') && s[0] != '.' &&
		!strcmp(s + len - 12, ".safetensors");
}

static int open_shards(struct weights *w, wf_arena *arena, wf_error *err, const char *dir, bool copy,
		const struct names *files, safetensors **shard)
{
	size_t total = 0;

	if (make_maps(w, arena, err, files->n) < 0)
		return -1;
	for (size_t i = 0; i < files->n; i++) {
		if (open_shard(w, arena, err, dir, files->name[i].s, copy, &shard[i]) < 0)
			return -1;
		total += safetensors_ntensor(shard[i]);
	}
	if (make_table(w, arena, err, total) < 0)
		return -1;
	for (size_t i = 0; i < files->n; i++)
		if (add_shard(w, err, shard[i]) < 0)
			return -1;
	return 0;
}

/* The distinct files of the map. */
static int list_files(const json_t *map, wf_arena *arena, wf_error *err, struct names *files)
{
	const char *tensor, *file;
	json_t *value;
	char show[NAMES_SHOW];

	if (!json_is_object(map) || json_object_size(map) == 0)
		return wf_fail(err, "model.safetensors.index.json: weight_map is missing or empty");
	if (names_new(arena, files, MAXFILES) < 0)
		return no_memory(err);
	json_object_foreach((json_t *)map, tensor, value) {
		file = json_string_value(value);
		if (!file || !is_base_name(file))
			return wf_fail(err, "model.safetensors.index.json: \"%s\" is no plain name of a "
				".safetensors file", file ? names_show(show, file, strlen(file)) : "(not a string)");
		if (names_find(files, file, strlen(file)) >= 0)
			continue;
		if (files->n == MAXFILES)
			return wf_fail(err, "model.safetensors.index.json: more than %d files", MAXFILES);
		char *copy = wf_strdup(arena, file);
		if (!copy)
			return no_memory(err);
		names_add(files, copy, strlen(copy));
	}
	return 0;
}

static int check_index(const json_t *map, wf_error *err, const struct names *files, safetensors *const *shard)
{
	const char *tensor;
	json_t *value;
	struct wf_blob b;
	char show[NAMES_SHOW];

	json_object_foreach((json_t *)map, tensor, value) {
		const char *file = json_string_value(value);
		if (!safetensors_find(shard[names_find(files, file, strlen(file))], tensor, &b))
			return wf_fail(err, "model.safetensors.index.json: tensor %s is not in %s",
				names_show(show, tensor, strlen(tensor)), file);
	}
	return 0;
}

static int open_mapped(struct weights *w, wf_arena *arena, wf_error *err, const char *dir, bool copy,
		const json_t *map)
{
	struct names files;

	if (list_files(map, arena, err, &files) < 0)
		return -1;
	safetensors **shard = wf_alloc_n(arena, files.n, sizeof *shard);
	if (!shard)
		return no_memory(err);
	if (open_shards(w, arena, err, dir, copy, &files, shard) < 0)
		return -1;
	return check_index(map, err, &files, shard);
}

static int open_index(struct weights *w, wf_arena *arena, wf_error *err, const char *dir, bool copy, const char *path)
{
	size_t bytes;
	char *text = file_read(arena, err, path, MAXINDEX, &bytes);
	json_t *doc = text ? json_read(err, "model.safetensors.index.json", text, bytes) : NULL;

	if (!doc)
		return -1;
	int rc = open_mapped(w, arena, err, dir, copy, json_object_get(doc, "weight_map"));
	json_decref(doc);
	return rc;
}

/* No weights under the names we know: fine, unless they are there in a form we do not read. */
static int check_foreign(wf_error *err, const char *dir)
{
	static const char *const ends[] = {".safetensors", ".bin", ".pth", ".pt", ".gguf", ".msgpack", ".h5"};
	char show[NAMES_SHOW];
	DIR *d = opendir(dir);
	int rc = 0;

	for (struct dirent *e; d && rc == 0 && (e = readdir(d)); )
		for (size_t i = 0; i < sizeof ends / sizeof *ends && rc == 0; i++) {
			size_t len = strlen(e->d_name), n = strlen(ends[i]);
			if (len > n && !strcmp(e->d_name + len - n, ends[i]))
				rc = wf_fail(err, "found %s, but neither model.safetensors nor "
					"model.safetensors.index.json%s", names_show(show, e->d_name, len),
					i == 4 ? ": give the .gguf file itself" :
					i == 0 ? "" : ": convert the weights to safetensors");
		}
	if (d)
		closedir(d);
	return rc;
}

int weights_from_dir(wf_arena *arena, wf_error *err, const char *dir, bool copy, const struct wf_name *alias,
		struct weights *w)
{
	static const struct wf_name none[] = {{NULL, NULL}};
	char index[PATH_MAX], single[PATH_MAX];
	int rc;

	*w = (struct weights){.find = {find}, .alias = alias ? alias : none, .dtype = WF_NDTYPE};
	if ((size_t)snprintf(index, sizeof index, "%s/model.safetensors.index.json", dir) >= sizeof index)
		return wf_fail(err, "path too long");
	snprintf(single, sizeof single, "%.*s/model.safetensors", (int)strlen(dir), dir);
	if (file_exists(single))
		rc = open_single(w, arena, err, dir, copy);
	else if (file_exists(index))
		rc = open_index(w, arena, err, dir, copy, index);
	else
		return check_foreign(err, dir);
	if (rc == 0)
		count_dtypes(w);
	return rc;
}
