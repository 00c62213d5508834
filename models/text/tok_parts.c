/* tok_parts.c - the pipeline of a tokenizer.json: normalizer, pre_tokenizer, post_processor, decoder.
 *
 * Each part has a type, and each type a row in a table here that adds steps.  A type without a row is an
 * error that names it: a pipeline with a part left out gives wrong ids that look right. */
#include "models/text/text.h"

#include <string.h>
#include <jansson.h>
#include <utf8proc.h>

static const char marker[] = "\xE2\x96\x81";         /* U+2581, a space inside the vocabulary */

struct load {
	wf_tokenizer *tok;
	wf_error *err;
	bool decoder;                /* the file says how to decode */
};

struct part { const char *type; int (*add)(struct load *, const json_t *); };

enum { MAXDEPTH = 6 };

/* ---- reading ---- */

static bool flag(const json_t *o, const char *key, bool absent)
{
	const json_t *v = json_object_get(o, key);

	return json_is_boolean(v) ? json_is_true(v) : absent;
}

static bool has(const json_t *o, const char *key)
{
	const json_t *v = json_object_get(o, key);

	return v && !json_is_null(v);
}

/* A string in the tokenizer's memory. */
static int string(struct load *l, const json_t *v, const char *what, const char **s, size_t *n)
{
	if (!json_is_string(v))
		return wf_fail(l->err, "tokenizer.json: %s: expected a string", what);
	*n = json_string_length(v);
	return (*s = vocab_string(l->tok, l->err, json_string_value(v), *n)) ? 0 : -1;
}

static const char *type_of(const json_t *part)
{
	const char *type = json_string_value(json_object_get(part, "type"));

	return type ? type : "";
}

static int add_part(struct load *l, const struct part *table, const json_t *part, const char *where, int depth)
{
	static const char *const lists[] = {"normalizers", "pretokenizers", "processors", "decoders"};
	const json_t *list = NULL, *each;
	size_t i;

	if (!part || json_is_null(part))
		return 0;
	if (strcmp(type_of(part), "Sequence") == 0) {
		for (i = 0; i < 4 && !list; i++)
			list = json_object_get(part, lists[i]);
		if (!json_is_array(list) || depth == MAXDEPTH)
			return wf_fail(l->err, "tokenizer.json: %s: a Sequence without a list, or too deep", where);
		json_array_foreach(list, i, each)
			if (add_part(l, table, each, where, depth + 1) < 0)
				return -1;
		return 0;
	}
	for (; table->type; table++)
		if (strcmp(table->type, type_of(part)) == 0)
			return table->add(l, part);
	return wf_fail(l->err, "tokenizer.json: %s of type \"%.80s\" is not supported", where, type_of(part));
}

static int nothing(struct load *l, const json_t *part)
{
	(void)l;
	(void)part;
	return 0;
}

static struct step *add_step(struct load *l, struct steps *steps, int (*run)(struct work *, const struct step *))
{
	return steps_add(l->err, steps, run);
}

/* ---- normalizer ---- */

static int add_form(struct load *l, int form)
{
	struct step *step = add_step(l, &l->tok->normalize, normal_form);

	if (step)
		step->form = form | UTF8PROC_STABLE;
	return step ? 0 : -1;
}

static int norm_nfc(struct load *l, const json_t *p) { (void)p; return add_form(l, UTF8PROC_COMPOSE); }
static int norm_nfd(struct load *l, const json_t *p) { (void)p; return add_form(l, UTF8PROC_DECOMPOSE); }
static int norm_nfkc(struct load *l, const json_t *p) { (void)p; return add_form(l, UTF8PROC_COMPOSE | UTF8PROC_COMPAT); }
static int norm_nfkd(struct load *l, const json_t *p) { (void)p; return add_form(l, UTF8PROC_DECOMPOSE | UTF8PROC_COMPAT); }

static int norm_prepend(struct load *l, const json_t *part)
{
	struct step *step = add_step(l, &l->tok->normalize, normal_prefix);

	return step ? string(l, json_object_get(part, "prepend"), "Prepend.prepend", &step->to, &step->nto) : -1;
}

static int norm_replace(struct load *l, const json_t *part)
{
	const json_t *pattern = json_object_get(part, "pattern"), *regex = json_object_get(pattern, "Regex");
	struct step *step = add_step(l, &l->tok->normalize, normal_replace);

	if (!step || string(l, json_object_get(part, "content"), "Replace.content", &step->to, &step->nto) < 0)
		return -1;
	if (json_is_string(regex)) {
		step->regex = regex_new(l->err, json_string_value(regex), json_string_length(regex));
		return step->regex ? 0 : -1;
	}
	if (string(l, json_object_get(pattern, "String"), "Replace.pattern", &step->from, &step->nfrom) < 0)
		return -1;
	return step->nfrom ? 0 : wf_fail(l->err, "tokenizer.json: Replace: an empty pattern");
}

static int norm_strip(struct load *l, const json_t *part)
{
	struct step *step = add_step(l, &l->tok->normalize, normal_strip);

	if (step)
		step->form = flag(part, "strip_left", true) | flag(part, "strip_right", true) << 1;
	return step ? 0 : -1;
}

static int norm_bytes(struct load *l, const json_t *part)
{
	(void)part;
	return add_step(l, &l->tok->normalize, pretok_bytes) ? 0 : -1;
}

static int sextet(char c)
{
	return c >= 'A' && c <= 'Z' ? c - 'A' : c >= 'a' && c <= 'z' ? c - 'a' + 26 :
		c >= '0' && c <= '9' ? c - '0' + 52 : c == '+' ? 62 : c == '/' ? 63 : -1;
}

static size_t from_base64(const char *s, size_t n, uint8_t *out)
{
	uint32_t bits = 0, nbits = 0;
	size_t wrote = 0;

	for (size_t i = 0; i < n && sextet(s[i]) >= 0; i++) {
		bits = bits << 6 | (uint32_t)sextet(s[i]);
		if ((nbits += 6) >= 8)
			out[wrote++] = (uint8_t)(bits >> (nbits -= 8));
	}
	return wrote;
}

static int norm_precompiled(struct load *l, const json_t *part)
{
	struct step *step = add_step(l, &l->tok->normalize, normal_charsmap);
	const char *text;
	size_t n;

	if (!step || string(l, json_object_get(part, "precompiled_charsmap"), "precompiled_charsmap", &text, &n) < 0)
		return -1;
	uint8_t *blob = wf_alloc(l->tok->arena, n + 1);
	if (!blob)
		return wf_fail(l->err, "tokenizer.json: out of memory");
	step->charsmap = charsmap_new(l->tok->arena, l->err, blob, from_base64(text, n, blob));
	return step->charsmap ? 0 : -1;
}

static const struct part normalizers[] = {
	{"NFC", norm_nfc}, {"NFD", norm_nfd}, {"NFKC", norm_nfkc}, {"NFKD", norm_nfkd},
	{"Prepend", norm_prepend}, {"Replace", norm_replace}, {"Strip", norm_strip},
	{"ByteLevel", norm_bytes}, {"Precompiled", norm_precompiled}, {NULL, NULL}
};

/* ---- pre-tokenizer ---- */

static int behavior(struct load *l, const json_t *part, enum behavior *b)
{
	static const char *const names[] = {"Isolated", "Removed", "MergedWithPrevious", "MergedWithNext", "Contiguous"};
	const char *name = json_string_value(json_object_get(part, "behavior"));

	for (int i = 0; name && i < 5; i++)
		if (strcmp(name, names[i]) == 0) {
			*b = (enum behavior)i;
			return 0;
		}
	return wf_fail(l->err, "tokenizer.json: %s: unknown behavior \"%.60s\"", type_of(part), name ? name : "");
}

static int add_pattern(struct load *l, const char *pattern, enum behavior b, bool invert)
{
	return pretok_pattern(l->err, &l->tok->pretok, pattern, strlen(pattern), b, invert);
}

static struct step *add_split_text(struct load *l, enum behavior b, bool invert)
{
	struct step *step = add_step(l, &l->tok->pretok, pretok_split_text);

	if (step) {
		step->behavior = b;
		step->invert = invert;
	}
	return step;
}

static int pre_split(struct load *l, const json_t *part)
{
	const json_t *pattern = json_object_get(part, "pattern"), *regex = json_object_get(pattern, "Regex");
	bool invert = flag(part, "invert", false);
	enum behavior b;
	struct step *step;

	if (behavior(l, part, &b) < 0)
		return -1;
	if (json_is_string(regex))
		return pretok_pattern(l->err, &l->tok->pretok, json_string_value(regex), json_string_length(regex), b, invert);
	if (!(step = add_split_text(l, b, invert)) ||
			string(l, json_object_get(pattern, "String"), "Split.pattern", &step->from, &step->nfrom) < 0)
		return -1;
	return step->nfrom ? 0 : wf_fail(l->err, "tokenizer.json: Split: an empty pattern");
}

static int pre_bytes(struct load *l, const json_t *part)
{
	if (flag(part, "add_prefix_space", true)) {
		struct step *step = add_step(l, &l->tok->pretok, pretok_lead);
		if (!step)
			return -1;
		step->to = " ";
		step->nto = 1;
	}
	if (flag(part, "use_regex", true) && add_pattern(l, pretok_gpt2, SPLIT_ISOLATED, false) < 0)
		return -1;
	return add_step(l, &l->tok->pretok, pretok_bytes) ? 0 : -1;
}

static int pre_digits(struct load *l, const json_t *part)
{
	bool each = flag(part, "individual_digits", false);

	return add_pattern(l, "\\p{N}", each ? SPLIT_ISOLATED : SPLIT_CONTIGUOUS, false);
}

static int pre_punctuation(struct load *l, const json_t *part)
{
	enum behavior b = SPLIT_ISOLATED;

	if (has(part, "behavior") && behavior(l, part, &b) < 0)
		return -1;
	return add_pattern(l, "[\\p{P}$+<=>^`|~]", b, false);
}

static int pre_whitespace(struct load *l, const json_t *part)
{
	(void)part;
	return add_pattern(l, "\\w+|[^\\w\\s]+", SPLIT_REMOVED, true);
}

static int pre_whitespace_split(struct load *l, const json_t *part)
{
	(void)part;
	return add_pattern(l, "\\s", SPLIT_REMOVED, false);
}

static int pre_delimiter(struct load *l, const json_t *part)
{
	struct step *step = add_split_text(l, SPLIT_REMOVED, false);

	return step ? string(l, json_object_get(part, "delimiter"), "delimiter", &step->from, &step->nfrom) : -1;
}

/* "always", "first" or "never" put a marker before the text; older files have a boolean. */
static int scheme(struct load *l, const json_t *part, bool *lead, bool *once)
{
	const json_t *v = json_object_get(part, "prepend_scheme");
	const char *name = json_string_value(v);

	*lead = flag(part, "add_prefix_space", true);
	*once = false;
	if (!v)
		return 0;
	if (!name || (strcmp(name, "always") && strcmp(name, "first") && strcmp(name, "never")))
		return wf_fail(l->err, "tokenizer.json: Metaspace: unknown prepend_scheme");
	*lead = strcmp(name, "never") != 0;
	*once = strcmp(name, "first") == 0;
	return 0;
}

static int pre_metaspace(struct load *l, const json_t *part)
{
	struct step *replace = add_step(l, &l->tok->pretok, normal_replace), *step;
	bool lead, once;

	if (!replace || scheme(l, part, &lead, &once) < 0 ||
			string(l, json_object_get(part, "replacement"), "Metaspace.replacement", &replace->to, &replace->nto) < 0)
		return -1;
	if (!replace->nto)
		return wf_fail(l->err, "tokenizer.json: Metaspace: an empty replacement");
	replace->from = " ";
	replace->nfrom = 1;
	if (lead) {
		if (!(step = add_step(l, &l->tok->pretok, pretok_lead)))
			return -1;
		step->to = replace->to;
		step->nto = replace->nto;
		step->once = once;
	}
	if (!flag(part, "split", true))
		return 0;
	if (!(step = add_split_text(l, SPLIT_NEXT, false)))
		return -1;
	step->from = replace->to;
	step->nfrom = replace->nto;
	return 0;
}

static const struct part pretokenizers[] = {
	{"Split", pre_split}, {"ByteLevel", pre_bytes}, {"Digits", pre_digits}, {"Punctuation", pre_punctuation},
	{"Metaspace", pre_metaspace}, {"Whitespace", pre_whitespace}, {"WhitespaceSplit", pre_whitespace_split},
	{"CharDelimiterSplit", pre_delimiter}, {NULL, NULL}
};

/* ---- post-processor: what goes before and after ---- */

static int add_affix(struct load *l, int32_t *list, int *n, const json_t *id)
{
	json_int_t value = json_integer_value(id);

	if (!json_is_integer(id) || value < 0 || value >= l->tok->n)
		return wf_fail(l->err, "tokenizer.json: post_processor: a token id out of range");
	if (*n == MAXAFFIX)
		return wf_fail(l->err, "tokenizer.json: post_processor: more than %d tokens on one side", MAXAFFIX);
	list[(*n)++] = (int32_t)value;
	return 0;
}

static int post_template(struct load *l, const json_t *part)
{
	const json_t *tokens = json_object_get(part, "special_tokens"), *item, *id;
	wf_tokenizer *tok = l->tok;
	bool after = false;
	size_t i, j;

	json_array_foreach(json_object_get(part, "single"), i, item) {
		if (has(item, "Sequence")) {
			after = true;
			continue;
		}
		const char *name = json_string_value(json_object_get(json_object_get(item, "SpecialToken"), "id"));
		const json_t *ids = name ? json_object_get(json_object_get(tokens, name), "ids") : NULL;
		if (!json_is_array(ids))
			return wf_fail(l->err, "tokenizer.json: TemplateProcessing: \"%.60s\" has no ids", name ? name : "");
		json_array_foreach(ids, j, id)
			if (add_affix(l, after ? tok->after : tok->before, after ? &tok->nafter : &tok->nbefore, id) < 0)
				return -1;
	}
	return 0;
}

static int post_pair(struct load *l, const json_t *part)
{
	wf_tokenizer *tok = l->tok;

	if (add_affix(l, tok->before, &tok->nbefore, json_array_get(json_object_get(part, "cls"), 1)) < 0)
		return -1;
	return add_affix(l, tok->after, &tok->nafter, json_array_get(json_object_get(part, "sep"), 1));
}

static const struct part processors[] = {
	{"TemplateProcessing", post_template}, {"ByteLevel", nothing}, {"RobertaProcessing", post_pair},
	{"BertProcessing", post_pair}, {NULL, NULL}
};

/* ---- decoder ---- */

static int dec_bytes(struct load *l, const json_t *part)
{
	(void)part;
	l->decoder = l->tok->byte_level = true;
	return 0;
}

static int dec_metaspace(struct load *l, const json_t *part)
{
	const char *to = json_string_value(json_object_get(part, "replacement"));
	bool once;

	if (!to || strcmp(to, marker) != 0)
		return wf_fail(l->err, "tokenizer.json: decoder Metaspace: expected the replacement \"%s\"", marker);
	l->decoder = l->tok->escaped = true;
	return scheme(l, part, &l->tok->drop_space, &once);
}

static int dec_replace(struct load *l, const json_t *part)
{
	const char *from = json_string_value(json_object_get(json_object_get(part, "pattern"), "String"));
	const char *to = json_string_value(json_object_get(part, "content"));

	if (!from || !to || strcmp(from, marker) != 0 || strcmp(to, " ") != 0)
		return wf_fail(l->err, "tokenizer.json: decoder Replace: expected \"%s\" by a space", marker);
	l->decoder = l->tok->escaped = true;
	return 0;
}

static int dec_strip(struct load *l, const json_t *part)
{
	const char *what = json_string_value(json_object_get(part, "content"));
	json_int_t start = json_integer_value(json_object_get(part, "start"));

	if (!what || strcmp(what, " ") != 0 || start < 0 || start > 1 || json_integer_value(json_object_get(part, "stop")))
		return wf_fail(l->err, "tokenizer.json: decoder Strip: expected one space at the start");
	l->tok->drop_space = start == 1;
	return 0;
}

static const struct part decoders[] = {
	{"ByteLevel", dec_bytes}, {"Metaspace", dec_metaspace}, {"Replace", dec_replace}, {"Strip", dec_strip},
	{"ByteFallback", nothing}, {"Fuse", nothing}, {NULL, NULL}
};

/* ---- together ---- */

static bool uses_bytes(const struct steps *s)
{
	for (int i = 0; i < s->n; i++)
		if (s->step[i].run == pretok_bytes)
			return true;
	return false;
}

int parts_add(wf_tokenizer *tok, wf_error *err, const json_t *root)
{
	static const struct { const char *key; const struct part *table; } parts[] = {
		{"normalizer", normalizers}, {"pre_tokenizer", pretokenizers},
		{"post_processor", processors}, {"decoder", decoders},
	};
	struct load l = {tok, err, false};

	for (size_t i = 0; i < sizeof parts / sizeof *parts; i++)
		if (add_part(&l, parts[i].table, json_object_get(root, parts[i].key), parts[i].key, 0) < 0)
			return -1;
	if (!l.decoder) {
		tok->byte_level = uses_bytes(&tok->pretok) || uses_bytes(&tok->normalize);
		tok->escaped = !tok->byte_level;
	}
	if (tok->nbefore)
		tok->bos = tok->before[0];
	return 0;
}
