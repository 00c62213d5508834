/* page.c - the text of one generated source page, and the pointers its kernel is given.
 *
 * A page reads top down: #defines by name, struct args, the members' scalar functions, hooks, and the
 * #include of a skeleton.  Only numbers and our own words enter it, never a name from a model file.
 * What goes wrong is kept and told once, by page_done(). */
#include "backends/cuda/cuda.h"

#include <ctype.h>
#include <math.h>
#include <string.h>

void page_open(struct page *p, wf_arena *arena, const wf_plan *plan, const wf_kernel *kernel)
{
	*p = (struct page){.arena = arena, .plan = plan, .kernel = kernel};
}

static void grow(struct page_text *t, wf_arena *arena, size_t need, bool *failed)
{
	size_t max = t->max ? t->max * 2 : 4096;

	while (max < need)
		max *= 2;
	char *text = wf_alloc(arena, max);
	if (!text) {
		*failed = true;
		return;
	}
	if (t->n)
		memcpy(text, t->text, t->n);
	t->text = text;
	t->max = max;
}

static void append(struct page *p, struct page_text *t, const char *s, size_t n)
{
	if (t->n + n + 1 > t->max)
		grow(t, p->arena, t->n + n + 1, &p->failed);
	if (p->failed)
		return;
	memcpy(t->text + t->n, s, n);
	t->n += n;
	t->text[t->n] = 0;
}

static void append_format(struct page *p, struct page_text *t, const char *fmt, va_list ap)
{
	char line[2048];
	int n = vsnprintf(line, sizeof line, fmt, ap);

	if (n < 0 || n >= (int)sizeof line)
		p->failed = true;
	else
		append(p, t, line, (size_t)n);
}

void page_define(struct page *p, const char *name, const char *fmt, ...)
{
	va_list ap;
	char head[64];

	snprintf(head, sizeof head, "#define %-12s ", name);
	append(p, &p->defines, head, strlen(head));
	va_start(ap, fmt);
	append_format(p, &p->defines, fmt, ap);
	va_end(ap);
	append(p, &p->defines, "\n", 1);
}

void page_add(struct page *p, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	append_format(p, &p->body, fmt, ap);
	va_end(ap);
}

/* A C literal that is the double's float; never an integer. */
const char *page_number(struct page *p, double v)
{
	char s[NUMBER_TEXT];

	if (isinf(v))
		return v > 0 ? "__int_as_float(0x7f800000)" : "__int_as_float(0xff800000)";
	number_write(s, 9, v);
	if (!strpbrk(s, ".e"))
		strcat(s, ".0");
	strcat(s, "f");
	const char *kept = wf_strdup(p->arena, s);
	p->failed |= !kept;
	return kept ? kept : "0";
}

const char *page_format(struct page *p, const char *fmt, ...)
{
	char s[512];
	va_list ap;

	va_start(ap, fmt);
	int n = vsnprintf(s, sizeof s, fmt, ap);
	va_end(ap);
	const char *kept = n < (int)sizeof s ? wf_strdup(p->arena, s) : NULL;
	p->failed |= !kept;
	return kept ? kept : "";
}

/* ---- an op's own text, with its attributes as numbers --------------------------------------------- */

static bool is_word(char c)
{
	return isalnum((unsigned char)c) || c == '_';
}

static const char *attribute(struct page *p, const wf_tensor *t, const char *word, size_t n)
{
	struct wf_attr_info info;
	char lower[32];

	for (int k = 0; n < sizeof lower && !wf_attr_info(t->op, k, &info); k++) {
		for (size_t i = 0; i < n; i++)
			lower[i] = (char)tolower((unsigned char)word[i]);
		if (info.len == n && !memcmp(info.name, lower, n) && isupper((unsigned char)word[0]))
			return page_number(p, t->attr[k]);
	}
	return NULL;
}

static const char *renamed(const struct page_word *words, const char *word, size_t n)
{
	for (; words && words->from; words++)
		if (strlen(words->from) == n && !memcmp(words->from, word, n))
			return words->to;
	return NULL;
}

static bool same_text(const wf_tensor *a, const wf_tensor *b)
{
	return a->op == b->op && !memcmp(a->attr, b->attr, sizeof a->attr);
}

static int first_like(const wf_kernel *k, const wf_tensor *t)
{
	int i = 0;

	while (i < k->nnode && !same_text(k->node[i], t))
		i++;
	return i;
}

const char *page_function(struct page *p, const wf_tensor *t)
{
	const wf_kernel *k = p->kernel;
	int n = 1;

	for (int i = 0; i < first_like(k, t); i++)
		n += k->node[i]->op == t->op && first_like(k, k->node[i]) == i;
	return n == 1 ? t->op->name : page_format(p, "%s_%d", t->op->name, n);
}

/* Once per text: attributes make texts of one op differ. */
static bool is_new(struct page *p, const char *text, size_t n)
{
	return !p->body.n || !memmem(p->body.text, p->body.n, text, n);
}

void page_op(struct page *p, const wf_tensor *t, const struct page_word *words)
{
	struct page_text out = {0};
	const char *s = t->op->cuda;

	if (!s) {
		p->failed = true;
		return;
	}
	while (*s) {
		size_t n = 0;
		while (is_word(s[n]))
			n++;
		const char *other = n ? renamed(words, s, n) : NULL;
		if (n && !other)
			other = attribute(p, t, s, n);
		if (!other && t->op->kind == WF_MAP && n == strlen(t->op->name) && !memcmp(s, t->op->name, n))
			other = page_function(p, t);
		if (other)
			append(p, &out, other, strlen(other));
		else
			append(p, &out, s, n ? n : 1);
		s += n ? n : 1;
	}
	if (!p->failed && is_new(p, out.text, out.n))
		append(p, &p->body, out.text, out.n);
}

/* ---- pointers ------------------------------------------------------------------------------------------ */

/* Outputs leave in f32, whatever the activations are. */
const char *page_type(const struct page *p, const wf_tensor *t)
{
	if (!t->constant && t->op != &wf_op_input && graph_is_output(p->plan->g, plan_storage(p->plan, t)))
		return "float";
	return page_own_type(t);
}

const char *page_own_type(const wf_tensor *t)
{
	switch (t->dtype) {
	case WF_F32: return "float";
	case WF_F16: return "half";
	case WF_I32: return "int";
	default:     return wf_dtypes[t->dtype].name;
	}
}

enum { NOWHERE = -(1 << 30) };

static int place_of(const wf_kernel *k, const wf_tensor *t)
{
	for (int i = 0; i < k->nin; i++)
		if (k->in[i] == t)
			return i;
	for (int i = 0; i < k->nnode; i++)
		if (k->node[i] == t)
			return -1 - i;
	return NOWHERE;
}

const wf_tensor *page_arg_tensor(const wf_kernel *k, const struct page_arg *arg)
{
	return arg->place >= 0 ? k->in[arg->place] : k->node[-1 - arg->place];
}

const char *page_pointer(struct page *p, enum page_source from, const wf_tensor *t, const char *type, const char *name)
{
	int place = t ? place_of(p->kernel, t) : 0;

	for (int i = 0; i < p->narg; i++)
		if (p->arg[i].from == from && (!t || p->arg[i].place == place))
			return p->arg[i].name;
	if (p->narg == PAGE_MAXARG || place == NOWHERE) {
		p->failed = true;
		return "x";
	}
	struct page_arg *arg = &p->arg[p->narg++];
	*arg = (struct page_arg){.from = from, .place = place};
	snprintf(arg->type, sizeof arg->type, "%s", type);
	snprintf(arg->name, sizeof arg->name, "%s", name);
	return arg->name;
}

/* A value read or written whole, typed as it is stored. */
const char *page_value(struct page *p, const wf_tensor *t)
{
	bool inside = false;

	for (int i = 0; i < p->kernel->nnode; i++)
		inside |= p->kernel->node[i] == t;
	return page_pointer(p, t->constant ? PAGE_CONSTANT : PAGE_VALUE, t,
		page_format(p, "%s%s *", inside ? "" : "const ", page_type(p, t)),
		page_format(p, "%s%d", inside ? "y" : t->constant ? "c" : "x", p->narg));
}

/* Rows of this step. */
void page_count(struct page *p, const wf_tensor *anchor)
{
	int64_t n = anchor->dim[0];

	if (n >= 0) {
		page_add(p, "__device__ inline int count(const args &) { return %lld; }\n\n", (long long)n);
		return;
	}
	page_pointer(p, PAGE_TABLE, NULL, "const struct table *", "table");
	page_add(p, "__device__ inline int count(const args &p) { return p.table->%s; }\n\n",
		n == WF_T ? "ntoken" : n == WF_S ? "nseq" : "nrow");
}

/* ---- the cache -------------------------------------------------------------------------------------------- */

/* key_of(p, token, head) and value_of(): where a cache node puts this step's tokens. */
void page_cache(struct page *p, const wf_tensor *cache)
{
	long long nkv = cache->dim[1], kdim = wf_last(cache->in[0]), vdim = wf_last(cache->in[1]);
	const char *type = page_type(p, cache);

	page_pointer(p, PAGE_TABLE, NULL, "const struct table *", "table");
	page_pointer(p, PAGE_KV, cache, "long long", "layer");
	for (int v = 0; v < 2; v++) {
		page_add(p, "__device__ inline %s *%s_of(const args &p, int token, int head)\n{\n", type, v ? "value" : "key");
		page_add(p, "\tconst struct table::table_pages &kv = p.table->kv[%d];\n", page_class(p->plan, cache));
		page_add(p, "\tint pos = p.table->pos[token], at = pos %% PAGE_TOKENS;\n");
		page_add(p, "\tint page = kv.page[p.table->seq[token] * kv.stride + pos / PAGE_TOKENS];\n");
		page_add(p, "\treturn (%s *)(kv.base + page * kv.bytes + p.layer) + ", type);
		if (v)
			page_add(p, "%lld * PAGE_TOKENS + ", nkv * kdim);
		page_add(p, "((size_t)head * PAGE_TOKENS + at) * %lld;\n}\n\n", v ? vdim : kdim);
	}
}

int page_class(const wf_plan *plan, const wf_tensor *cache)
{
	for (int c = 0; c < plan->nkvclass; c++)
		if (kv_fits(&plan->kvclass[c], cache))
			return c;
	return -1;
}

/* ---- the whole --------------------------------------------------------------------------------------------- */

const char *page_done(struct page *p, wf_error *err, const char *title, const char *skeleton)
{
	struct page_text all = {0};
	char line[256];

	snprintf(line, sizeof line, "/* %s */\n", title);
	append(p, &all, line, strlen(line));
	if (p->defines.n)
		append(p, &all, p->defines.text, p->defines.n);
	snprintf(line, sizeof line, "#define HOOKS\n#include \"common.cuh\"\n#include \"dequant.cuh\"\n#include \"table.cuh\"\n\nstruct args {\n");
	append(p, &all, line, strlen(line));
	for (int i = 0; i < p->narg; i++) {
		size_t n = strlen(p->arg[i].type);
		snprintf(line, sizeof line, "\t%s%s%s;\n", p->arg[i].type, n && p->arg[i].type[n - 1] == '*' ? "" : " ",
			p->arg[i].name);
		append(p, &all, line, strlen(line));
	}
	append(p, &all, "};\n\n", 4);
	if (p->body.n)
		append(p, &all, p->body.text, p->body.n);
	snprintf(line, sizeof line, "\n#include \"%s\"\n", skeleton);
	append(p, &all, line, strlen(line));
	if (p->tail)
		append(p, &all, p->tail, strlen(p->tail));
	if (p->failed) {
		wf_fail(err, "emit: kernel %d does not fit a page", p->kernel->id);
		return NULL;
	}
	return all.text;
}
