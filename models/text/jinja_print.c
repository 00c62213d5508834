/* jinja_print.c - text from values, to the byte as Python's str(), repr() and json.dumps() give it. */
#include "models/text/jinja.h"

#include <math.h>
#include <stdlib.h>

/* The shortest digits that read back as the same number, and the power of ten of the first. */
static int shortest(double x, char *digits)
{
	char s[40];
	int n = 0;

	for (int precision = 0; precision < 17; precision++) {
		snprintf(s, sizeof s, "%.*e", precision, x);
		if (strtod(s, NULL) == x)
			break;
	}
	char *e = strchr(s, 'e');
	for (const char *p = s; p < e; p++)
		if (*p >= '0' && *p <= '9')
			digits[n++] = *p;
	digits[n] = 0;
	return atoi(e + 1);
}

void print_float(struct vm *vm, struct text *t, double x)
{
	char digits[24], out[64];

	if (!isfinite(x)) {
		text_puts(vm, t, isnan(x) ? "nan" : x < 0 ? "-inf" : "inf");
		return;
	}
	if (signbit(x))
		text_puts(vm, t, "-");
	int power = shortest(fabs(x), digits), n = (int)strlen(digits);
	if (power < -4 || power >= 16)
		snprintf(out, sizeof out, "%c%s%se%c%02d", digits[0], n > 1 ? "." : "", digits + 1,
			power < 0 ? '-' : '+', abs(power));
	else if (power < 0)
		snprintf(out, sizeof out, "0.%.*s%s", -power - 1, "0000", digits);
	else if (power + 1 >= n)
		snprintf(out, sizeof out, "%s%.*s.0", digits, power + 1 - n, "0000000000000000");
	else
		snprintf(out, sizeof out, "%.*s.%s", power + 1, digits, digits + power + 1);
	text_puts(vm, t, out);
}

/* ---- repr ---- */

static void print_escaped(struct vm *vm, struct text *t, int32_t c, const char *s, size_t n,
		char quote)
{
	static const char plain[] = "\n\r\t\\", letters[] = "nrt\\";
	const char *at = c < 128 && c ? strchr(plain, (int)c) : NULL;

	if (at)
		text_printf(vm, t, "\\%c", letters[at - plain]);
	else if (c == quote)
		text_printf(vm, t, "\\%c", quote);
	else if (string_is_printable(c))
		text_put(vm, t, s, n);
	else
		text_printf(vm, t, c < 0x100 ? "\\x%02x" : c < 0x10000 ? "\\u%04x" : "\\U%08x",
				(unsigned)c);
}

static void repr_string(struct vm *vm, struct text *t, struct value v)
{
	const char *p = v.s, *end = v.s + v.len;
	char quote = memchr(p, '\'', v.len) && !memchr(p, '"', v.len) ? '"' : '\'';

	if (v.safe)
		text_puts(vm, t, "Markup(");
	text_put(vm, t, &quote, 1);
	while (p < end && !vm->failed) {
		size_t n;
		int32_t c = string_get(p, end, &n);
		print_escaped(vm, t, c, p, n, quote);
		p += n;
	}
	text_put(vm, t, &quote, 1);
	if (v.safe)
		text_puts(vm, t, ")");
}

static void repr_at(struct vm *vm, struct text *t, struct value v, int depth);

static void repr_items(struct vm *vm, struct text *t, const struct list *list, const char *ends,
		int depth)
{
	text_put(vm, t, ends, 1);
	for (size_t i = 0; i < list->n && !vm->failed; i++) {
		if (i)
			text_puts(vm, t, ", ");
		repr_at(vm, t, list->v[i], depth + 1);
	}
	if (*ends == '(' && list->n == 1)
		text_puts(vm, t, ",");
	text_put(vm, t, ends + 1, 1);
}

static void repr_dict(struct vm *vm, struct text *t, const struct dict *dict, int depth)
{
	text_puts(vm, t, "{");
	for (size_t i = 0; i < dict->n && !vm->failed; i++) {
		if (i)
			text_puts(vm, t, ", ");
		repr_at(vm, t, dict->at[i].key, depth + 1);
		text_puts(vm, t, ": ");
		repr_at(vm, t, dict->at[i].value, depth + 1);
	}
	text_puts(vm, t, "}");
}

static void repr_range(struct vm *vm, struct text *t, const int64_t *r)
{
	text_printf(vm, t, "range(%lld, %lld", (long long)r[0], (long long)r[1]);
	if (r[2] != 1)
		text_printf(vm, t, ", %lld", (long long)r[2]);
	text_puts(vm, t, ")");
}

static void repr_list(struct vm *vm, struct text *t, struct value v, int depth)
{
	if (v.kind == J_RANGE) {
		repr_range(vm, t, v.list->range);
	} else if (v.kind == J_GENERATOR) {
		text_puts(vm, t, "<generator>");
	} else if (v.kind == J_VIEW) {
		text_printf(vm, t, "%s(", v.list->label);
		repr_items(vm, t, v.list, "[]", depth);
		text_puts(vm, t, ")");
	} else {
		repr_items(vm, t, v.list, v.kind == J_TUPLE ? "()" : "[]", depth);
	}
}

static void repr_scalar(struct vm *vm, struct text *t, struct value v)
{
	if (v.kind == J_BOOL)
		text_puts(vm, t, v.truth ? "True" : "False");
	else if (v.kind == J_INT)
		text_printf(vm, t, "%lld", (long long)v.i);
	else if (v.kind == J_FLOAT)
		print_float(vm, t, v.f);
	else
		text_puts(vm, t, v.kind == J_NONE ? "None" : "Undefined");
}

static void repr_at(struct vm *vm, struct text *t, struct value v, int depth)
{
	if (depth > NEST_LIMIT) {
		vm_fail(vm, "values nested more than %d deep", NEST_LIMIT);
	} else if (v.kind < J_STRING) {
		repr_scalar(vm, t, v);
	} else if (v.kind == J_STRING) {
		repr_string(vm, t, v);
	} else if (is_list(v)) {
		repr_list(vm, t, v, depth);
	} else if (v.kind == J_DICT) {
		repr_dict(vm, t, v.dict, depth);
	} else if (v.kind == J_NAMESPACE) {
		text_puts(vm, t, "<Namespace ");
		repr_dict(vm, t, v.dict, depth);
		text_puts(vm, t, ">");
	} else if (v.kind == J_LOOP) {
		text_printf(vm, t, "<LoopContext %lld/%lld>", (long long)loop_attr(vm, v.loop, "index").i,
			(long long)loop_attr(vm, v.loop, "length").i);
	} else if (v.kind == J_MACRO) {
		text_printf(vm, t, "<Macro '%.200s'>", v.macro->def->name);
	} else {
		text_printf(vm, t, "<%s>", value_type(v));
	}
}

void print_repr(struct vm *vm, struct text *t, struct value v)
{
	repr_at(vm, t, v, 0);
}

void print_value(struct vm *vm, struct text *t, struct value v)
{
	if (v.kind == J_STRING)
		text_put(vm, t, v.s, v.len);
	else if (v.kind != J_UNDEFINED)
		repr_at(vm, t, v, 0);
}

struct value value_string(struct vm *vm, struct value v)
{
	struct text t = {0};

	if (v.kind == J_STRING)
		return v;
	print_value(vm, &t, v);
	return text_value(&t);
}

/* ---- JSON ---- */

static void json_escaped(struct vm *vm, struct text *t, int32_t c, const char *s, size_t n,
		bool ascii)
{
	static const char plain[] = "\"\\\n\r\t\f\b", letters[] = "\"\\nrtfb";
	const char *at = c < 128 && c ? strchr(plain, (int)c) : NULL;

	if (at)
		text_printf(vm, t, "\\%c", letters[at - plain]);
	else if (c >= 0x10000 && ascii)
		text_printf(vm, t, "\\u%04x\\u%04x", 0xd7c0u + ((unsigned)c >> 10),
				0xdc00u | ((unsigned)c & 0x3ff));
	else if (c < ' ' || (c > 126 && ascii))
		text_printf(vm, t, "\\u%04x", (unsigned)c);
	else
		text_put(vm, t, s, n);
}

static void json_string(struct vm *vm, struct text *t, struct value v, bool ascii)
{
	const char *p = v.s, *end = v.s + v.len, *run = p;

	text_puts(vm, t, "\"");
	while (p < end && !vm->failed) {
		size_t n;
		int32_t c = string_get(p, end, &n);
		if (c < ' ' || c == '"' || c == '\\' || (ascii && c > 126)) {
			text_put(vm, t, run, (size_t)(p - run));
			json_escaped(vm, t, c, p, n, ascii);
			run = p + n;
		}
		p += n;
	}
	text_put(vm, t, run, (size_t)(end - run));
	text_puts(vm, t, "\"");
}

static void json_scalar(struct vm *vm, struct text *t, struct value v)
{
	if (v.kind == J_NONE)
		text_puts(vm, t, "null");
	else if (v.kind == J_BOOL)
		text_puts(vm, t, v.truth ? "true" : "false");
	else if (v.kind == J_FLOAT && !isfinite(v.f))
		text_puts(vm, t, isnan(v.f) ? "NaN" : v.f < 0 ? "-Infinity" : "Infinity");
	else
		repr_scalar(vm, t, v);
}

static void json_newline(struct vm *vm, struct text *t, const struct json_style *style, int depth)
{
	if (style->indent.kind != J_STRING)
		return;
	text_puts(vm, t, "\n");
	for (int i = 0; i < depth; i++)
		text_put(vm, t, style->indent.s, style->indent.len);
}

static void json_key(struct vm *vm, struct text *t, struct value key,
		const struct json_style *style)
{
	if (key.kind == J_STRING) {
		json_string(vm, t, key, style->ascii);
	} else if (key.kind >= J_NONE && key.kind <= J_FLOAT) {
		text_puts(vm, t, "\"");
		json_scalar(vm, t, key);
		text_puts(vm, t, "\"");
	} else {
		vm_fail(vm, "a key of type %s cannot be written as JSON", value_type(key));
	}
}

static void json_list(struct vm *vm, struct text *t, const struct list *list,
		const struct json_style *style, int depth)
{
	text_puts(vm, t, "[");
	for (size_t i = 0; i < list->n && !vm->failed; i++) {
		if (i)
			text_puts(vm, t, style->item);
		json_newline(vm, t, style, depth + 1);
		print_json(vm, t, list->v[i], style, depth + 1);
	}
	if (list->n)
		json_newline(vm, t, style, depth);
	text_puts(vm, t, "]");
}

/* The pairs by key: insertion into a copy, stable. */
static struct pair *sorted_pairs(struct vm *vm, const struct dict *dict)
{
	struct pair *at = vm_alloc(vm, dict->n, sizeof *at);

	for (size_t i = 0; at && i < dict->n && !vm->failed; i++) {
		size_t j = i;
		while (j > 0 && vm_work(vm, 0) && op_order(vm, dict->at[i].key, at[j - 1].key) == -1) {
			at[j] = at[j - 1];
			j--;
		}
		at[j] = dict->at[i];
	}
	return vm->failed ? NULL : at;
}

static void json_dict(struct vm *vm, struct text *t, const struct dict *dict,
		const struct json_style *style, int depth)
{
	const struct pair *at = style->sorted ? sorted_pairs(vm, dict) : dict->at;

	text_puts(vm, t, "{");
	for (size_t i = 0; i < dict->n && !vm->failed; i++) {
		if (i)
			text_puts(vm, t, style->item);
		json_newline(vm, t, style, depth + 1);
		json_key(vm, t, at[i].key, style);
		text_puts(vm, t, style->colon);
		print_json(vm, t, at[i].value, style, depth + 1);
	}
	if (dict->n)
		json_newline(vm, t, style, depth);
	text_puts(vm, t, "}");
}

void print_json(struct vm *vm, struct text *t, struct value v, const struct json_style *style,
		int depth)
{
	if (depth > NEST_LIMIT)
		vm_fail(vm, "values nested more than %d deep", NEST_LIMIT);
	else if (v.kind == J_STRING)
		json_string(vm, t, v, style->ascii);
	else if (v.kind >= J_NONE && v.kind < J_STRING)
		json_scalar(vm, t, v);
	else if (v.kind == J_LIST || v.kind == J_TUPLE)
		json_list(vm, t, v.list, style, depth);
	else if (v.kind == J_DICT)
		json_dict(vm, t, v.dict, style, depth);
	else
		vm_fail(vm, "a value of type %s cannot be written as JSON", value_type(v));
}
