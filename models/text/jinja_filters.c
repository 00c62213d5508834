/* jinja_filters.c - filters on single values; those over sequences are in jinja_sequence.c. */
#include "models/text/jinja.h"

#include <math.h>
#include <stdlib.h>

enum { MAXINDENT = 1000 };

/* ---- what builtins do with their arguments ---- */

const struct builtin *builtin_find(const struct builtin *table, const char *name)
{
	for (; table->name; table++)
		if (strcmp(table->name, name) == 0)
			return table;
	return NULL;
}

bool arg_bool(const struct call *c, int i, bool absent)
{
	return c->arg[i].kind == J_ABSENT ? absent : op_truth(c->arg[i]);
}

int64_t arg_int(struct vm *vm, const struct call *c, int i, int64_t absent)
{
	struct value v = c->arg[i];

	if (v.kind == J_ABSENT || v.kind == J_NONE)
		return absent;
	if (v.kind != J_INT && v.kind != J_BOOL)
		vm_fail(vm, "expected an integer, found %s", value_type(v));
	return v.kind == J_BOOL ? v.truth : v.kind == J_INT ? v.i : absent;
}

struct value arg_text(struct vm *vm, const struct call *c, int i, const char *absent)
{
	struct value v = c->arg[i];

	if (v.kind == J_ABSENT)
		return value_text(absent, strlen(absent));
	if (v.kind == J_STRING)
		return v;
	vm_fail(vm, "expected a string, found %s", value_type(v));
	return value_text("", 0);
}

/* ---- text ---- */

static struct value trim(struct vm *vm, const struct call *c)
{
	return string_strip(vm, value_string(vm, c->self), c->arg[0], 3);
}

static struct value upper(struct vm *vm, const struct call *c)
{
	return string_case(vm, value_string(vm, c->self), UPPER);
}

static struct value lower(struct vm *vm, const struct call *c)
{
	return string_case(vm, value_string(vm, c->self), LOWER);
}

static struct value title(struct vm *vm, const struct call *c)
{
	return string_case(vm, value_string(vm, c->self), TITLE_WORDS);
}

static struct value capitalize(struct vm *vm, const struct call *c)
{
	return string_case(vm, value_string(vm, c->self), CAPITALIZE);
}

static struct value string(struct vm *vm, const struct call *c)
{
	return value_string(vm, c->self);
}

static struct value safe(struct vm *vm, const struct call *c)
{
	struct value v = value_string(vm, c->self);

	v.safe = v.kind == J_STRING;
	return v;
}

static struct value escape(struct vm *vm, const struct call *c)
{
	return string_escape(vm, value_string(vm, c->self));
}

static struct value replace(struct vm *vm, const struct call *c)
{
	return string_replace(vm, value_string(vm, c->self), value_string(vm, c->arg[0]),
			value_string(vm, c->arg[1]),
		arg_int(vm, c, 2, -1));
}

static struct value format(struct vm *vm, const struct call *c)
{
	struct value args = value_list(vm, J_TUPLE);

	for (size_t i = 0; i < c->args->n && !vm->failed; i++)
		list_push(vm, args, c->args->v[i]);
	if (c->args->nnamed)
		vm_fail(vm, "format: named arguments are not supported");
	return vm->failed ? args : string_percent(vm, value_string(vm, c->self), args);
}

static struct value indent_unit(struct vm *vm, const struct call *c)
{
	struct text t = {0};

	if (c->arg[0].kind == J_STRING)
		return c->arg[0];
	int64_t width = arg_int(vm, c, 0, 4);
	if (width > MAXINDENT)
		vm_fail(vm, "expected an indent of at most %d", MAXINDENT);
	for (; width > 0 && !vm->failed; width--)
		text_put(vm, &t, " ", 1);
	return text_value(&t);
}

static struct value indent(struct vm *vm, const struct call *c)
{
	struct value unit = indent_unit(vm, c), lines, s = c->self;
	bool first = arg_bool(c, 1, false), blank = arg_bool(c, 2, false);
	struct text t = {0};

	if (s.kind != J_STRING)
		return s.kind == J_UNDEFINED ? op_attr(vm, s, "indent") :
				vm_fail(vm, "indent: expected a string");
	/* as Jinja: a newline is added, so that a last empty line counts as one */
	text_put(vm, &t, s.s, s.len);
	text_put(vm, &t, "\n", 1);
	lines = string_lines(vm, text_value(&t));
	t = (struct text){0};
	for (size_t i = 0; !vm->failed && i < lines.list->n; i++) {
		struct value line = lines.list->v[i];
		if (i)
			text_put(vm, &t, "\n", 1);
		if (i ? blank || line.len : first)
			text_put(vm, &t, unit.s, unit.len);
		text_put(vm, &t, line.s, line.len);
	}
	return text_value(&t);
}

static struct value json_indent(struct vm *vm, const struct call *c)
{
	return c->arg[1].kind == J_ABSENT || c->arg[1].kind == J_NONE ? value_none() :
		indent_unit(vm, &(struct call){.arg = {c->arg[1]}});
}

static const char *separator(struct vm *vm, struct value pair, int i, const char *absent)
{
	if (pair.kind == J_ABSENT || pair.kind == J_NONE)
		return absent;
	if ((pair.kind != J_LIST && pair.kind != J_TUPLE) || pair.list->n != 2 ||
			pair.list->v[i].kind != J_STRING) {
		vm_fail(vm, "tojson: expected two separators");
		return absent;
	}
	char *s = vm_alloc(vm, pair.list->v[i].len + 1u, 1);
	return s ? memcpy(s, pair.list->v[i].s, pair.list->v[i].len) : absent;
}

static struct value tojson(struct vm *vm, const struct call *c)
{
	struct json_style style = {.ascii = arg_bool(c, 0, false), .indent = json_indent(vm, c),
			.sorted = arg_bool(c, 3, false)};
	struct text t = {0};

	style.item = separator(vm, c->arg[2], 0, style.indent.kind == J_STRING ? "," : ", ");
	style.colon = separator(vm, c->arg[2], 1, ": ");
	print_json(vm, &t, c->self, &style, 0);
	return text_value(&t);
}

/* ---- numbers ---- */

/* A whole string as an integer, in Python's notation; false when it is none. */
static bool read_int(struct vm *vm, struct value v, int64_t base, int64_t *out)
{
	struct value s = string_strip(vm, v, value_none(), 3);
	char text[80], *end, *to = text;

	if (!s.len || s.len >= sizeof text || base < 2 || base > 36)
		return false;
	for (uint32_t i = 0; i < s.len; i++) {
		if (s.s[i] == '_' && i && i + 1 < s.len && s.s[i - 1] != '_')
			continue;
		*to++ = s.s[i];
	}
	*to = 0;
	*out = strtoll(text, &end, (int)base);
	if (*end || end == text)
		return false;
	if (*out == INT64_MAX || *out == INT64_MIN)
		vm_fail(vm, "integers are limited to 64 bits");
	return true;
}

static bool read_float(struct vm *vm, struct value v, double *out)
{
	struct value s = string_strip(vm, v, value_none(), 3);
	char text[320], *end;

	/* hexadecimal is C's, not Python's */
	if (!s.len || s.len >= sizeof text || memchr(s.s, 'x', s.len) || memchr(s.s, 'X', s.len) ||
			memchr(s.s, '(', s.len))
		return false;
	memcpy(text, s.s, s.len);
	text[s.len] = 0;
	*out = number_read(text, &end);
	return !*end && end != text;
}

static struct value float_to_int(struct vm *vm, double f, struct value absent)
{
	if (!isfinite(f))
		return absent;
	if (f >= 9223372036854775807.0 || f < -9223372036854775808.0)
		return vm_fail(vm, "integers are limited to 64 bits");
	return value_int((int64_t)f);
}

static struct value to_int(struct vm *vm, const struct call *c)
{
	struct value v = c->self, absent = c->arg[0].kind == J_ABSENT ? value_int(0) : c->arg[0];
	int64_t i;
	double f;

	if (v.kind == J_INT || v.kind == J_BOOL)
		return value_int(v.kind == J_INT ? v.i : v.truth);
	if (v.kind == J_FLOAT)
		return float_to_int(vm, v.f, absent);
	if (v.kind == J_UNDEFINED)
		return op_attr(vm, v, "int");
	if (v.kind != J_STRING)
		return absent;
	if (read_int(vm, v, arg_int(vm, c, 1, 10), &i))
		return value_int(i);
	return read_float(vm, v, &f) ? float_to_int(vm, f, absent) : absent;
}

static struct value to_float(struct vm *vm, const struct call *c)
{
	struct value v = c->self;
	double f;

	if (v.kind == J_UNDEFINED)
		return op_attr(vm, v, "float");
	if (is_number(v))
		return value_float(v.kind == J_FLOAT ? v.f : v.kind == J_INT ? (double)v.i : v.truth);
	if (v.kind == J_STRING && read_float(vm, v, &f))
		return value_float(f);
	return c->arg[0].kind == J_ABSENT ? value_float(0) : c->arg[0];
}

static struct value absolute(struct vm *vm, const struct call *c)
{
	struct value v = c->self;

	if (v.kind == J_FLOAT)
		return value_float(fabs(v.f));
	return is_number(v) && (v.kind == J_BOOL || v.i >= 0) ? op_negate(vm, '+', v) :
			op_negate(vm, '-', v);
}

/* Decimal digits round as Python's round(): to the nearest, and what lies between to the even one. */
static struct value round_common(struct vm *vm, struct value v, int64_t digits)
{
	char text[400];

	if (digits < 0 && v.kind != J_FLOAT)
		return vm_fail(vm, "round: expected digits behind the point");
	if (v.kind != J_FLOAT || !isfinite(v.f))
		return v;
	if (digits >= 0) {
		snprintf(text, sizeof text, "%.*f", (int)digits, v.f);
		return value_float(strtod(text, NULL));
	}
	double unit = pow(10, (double)-digits);
	return value_float(nearbyint(v.f / unit) * unit);
}

static struct value rounded(struct vm *vm, const struct call *c)
{
	int64_t digits = arg_int(vm, c, 0, 0);
	struct value how = arg_text(vm, c, 1, "common"), v = c->self;

	if (!is_number(v) || digits < -18 || digits > 30)
		return v.kind == J_UNDEFINED ? op_attr(vm, v, "round") :
				vm_fail(vm, "round: expected a number");
	if (op_equal(vm, how, value_text("common", 6)))
		return round_common(vm, v.kind == J_BOOL ? value_int(v.truth) : v, digits);
	double unit = pow(10, (double)digits), x = v.kind == J_FLOAT ? v.f :
			v.kind == J_INT ? (double)v.i : v.truth;
	if (op_equal(vm, how, value_text("ceil", 4)))
		return value_float(ceil(x * unit) / unit);
	return op_equal(vm, how, value_text("floor", 5)) ? value_float(floor(x * unit) / unit) :
		vm_fail(vm, "round: expected common, ceil or floor");
}

/* ---- any value ---- */

static struct value or_default(struct vm *vm, const struct call *c)
{
	(void)vm;
	if (c->self.kind != J_UNDEFINED && (!arg_bool(c, 1, false) || op_truth(c->self)))
		return c->self;
	return c->arg[0].kind == J_ABSENT ? value_text("", 0) : c->arg[0];
}

static struct value length(struct vm *vm, const struct call *c)
{
	return value_int(value_length(vm, c->self));
}

static struct value attr(struct vm *vm, const struct call *c)
{
	struct value name = arg_text(vm, c, 0, "");

	/* an attribute only, never an item */
	return c->self.kind == J_DICT ? value_undefined(NULL) : op_item(vm, c->self, name);
}

static const struct builtin filters[] = {
	{"abs", "", absolute},
	{"attr", "name!", attr},
	{"capitalize", "", capitalize},
	{"count", "", length},
	{"d", "default_value boolean", or_default},
	{"default", "default_value boolean", or_default},
	{"e", "", escape},
	{"escape", "", escape},
	{"float", "default", to_float},
	{"format", NULL, format},
	{"indent", "width first blank", indent},
	{"int", "default base", to_int},
	{"length", "", length},
	{"lower", "", lower},
	{"replace", "old! new! count", replace},
	{"round", "precision method", rounded},
	{"safe", "", safe},
	{"string", "", string},
	{"title", "", title},
	{"tojson", "ensure_ascii indent separators sort_keys", tojson},
	{"trim", "chars", trim},
	{"upper", "", upper},
	{NULL, NULL, NULL}
};

const struct builtin *filter_find(const char *name)
{
	const struct builtin *fn = builtin_find(filters, name);

	return fn ? fn : builtin_find(jinja_sequence_filters, name);
}
