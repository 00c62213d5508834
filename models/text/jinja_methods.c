/* jinja_methods.c - methods of strings, lists and dicts, and the functions every template can call. */
#include "models/text/jinja.h"

#include <time.h>
#include <utf8proc.h>

/* ---- strings: case and ends ---- */

static struct value strip(struct vm *vm, const struct call *c)
{
	return string_strip(vm, c->self, c->arg[0], 3);
}

static struct value lstrip(struct vm *vm, const struct call *c)
{
	return string_strip(vm, c->self, c->arg[0], 1);
}

static struct value rstrip(struct vm *vm, const struct call *c)
{
	return string_strip(vm, c->self, c->arg[0], 2);
}

static struct value upper(struct vm *vm, const struct call *c)
{
	return string_case(vm, c->self, UPPER);
}

static struct value lower(struct vm *vm, const struct call *c)
{
	return string_case(vm, c->self, LOWER);
}

static struct value title(struct vm *vm, const struct call *c)
{
	return string_case(vm, c->self, TITLE);
}

static struct value capitalize(struct vm *vm, const struct call *c)
{
	return string_case(vm, c->self, CAPITALIZE);
}

static bool has_end(struct value s, struct value part, bool end)
{
	return part.len <= s.len && !memcmp(end ? s.s + s.len - part.len : s.s, part.s, part.len);
}

static struct value has_ends(struct vm *vm, const struct call *c, bool end)
{
	struct value part = c->arg[0];

	if (part.kind != J_TUPLE) {
		part = arg_text(vm, c, 0, "");
		return value_bool(vm_work(vm, part.len) && has_end(c->self, part, end));
	}
	for (size_t i = 0; i < part.list->n && vm_work(vm, 0); i++)
		if (part.list->v[i].kind == J_STRING && has_end(c->self, part.list->v[i], end))
			return value_bool(true);
	return value_bool(false);
}

static struct value startswith(struct vm *vm, const struct call *c)
{
	return has_ends(vm, c, false);
}

static struct value endswith(struct vm *vm, const struct call *c)
{
	return has_ends(vm, c, true);
}

static struct value removeprefix(struct vm *vm, const struct call *c)
{
	struct value part = arg_text(vm, c, 0, ""), s = c->self;

	return has_end(s, part, false) ? value_text(s.s + part.len, s.len - part.len) : s;
}

static struct value removesuffix(struct vm *vm, const struct call *c)
{
	struct value part = arg_text(vm, c, 0, ""), s = c->self;

	return has_end(s, part, true) ? value_text(s.s, s.len - part.len) : s;
}

/* ---- strings: searching ---- */

/* Where `part` last begins in s, or NULL. */
static const char *find_last(struct vm *vm, const char *s, size_t len, struct value part)
{
	for (size_t at = part.len <= len ? len - part.len + 1 : 0; at-- > 0 && vm_work(vm, part.len);)
		if (memcmp(s + at, part.s, part.len) == 0)
			return s + at;
	return NULL;
}

static struct value position(struct vm *vm, struct value s, const char *at)
{
	return value_int(at && vm_work(vm, s.len) ? (int64_t)string_count(s.s, (size_t)(at - s.s)) :
			-1);
}

static struct value find(struct vm *vm, const struct call *c)
{
	struct value part = arg_text(vm, c, 0, "");

	return position(vm, c->self,
			vm_work(vm, c->self.len) ? memmem(c->self.s, c->self.len, part.s, part.len) : NULL);
}

static struct value rfind(struct vm *vm, const struct call *c)
{
	return position(vm, c->self, find_last(vm, c->self.s, c->self.len, arg_text(vm, c, 0, "")));
}

static struct value count(struct vm *vm, const struct call *c)
{
	struct value part = arg_text(vm, c, 0, "");
	const char *p = c->self.s, *end = p + c->self.len;
	int64_t n = 0;

	if (!part.len)
		return value_int(value_length(vm, c->self) + 1);
	for (; vm_work(vm, 0) && (p = memmem(p, (size_t)(end - p), part.s, part.len)); p += part.len)
		n++;
	return value_int(n);
}

static struct value replace(struct vm *vm, const struct call *c)
{
	struct value old = arg_text(vm, c, 0, ""), new = arg_text(vm, c, 1, "");

	return vm->failed ? old : string_replace(vm, c->self, old, new, arg_int(vm, c, 2, -1));
}

/* ---- strings: splitting ---- */

static const char *skip(const char *p, const char *end, bool space)
{
	size_t n;

	while (p < end && string_is_space(string_get(p, end, &n)) == space)
		p += n;
	return p;
}

static const char *skip_back(const char *start, const char *p, bool space)
{
	size_t n;

	while (p > start && string_is_space(string_back(start, p, &n)) == space)
		p -= n;
	return p;
}

static void split_space(struct vm *vm, struct value out, const char *p, const char *end,
		int64_t limit)
{
	while ((p = skip(p, end, true)) < end && !vm->failed) {
		const char *word = limit-- == 0 ? end : skip(p, end, false);
		list_push(vm, out, value_text(p, (size_t)(word - p)));
		p = word;
	}
}

static void rsplit_space(struct vm *vm, struct value out, const char *start, const char *p,
		int64_t limit)
{
	while ((p = skip_back(start, p, true)) > start && !vm->failed) {
		const char *word = limit-- == 0 ? start : skip_back(start, p, false);
		list_push(vm, out, value_text(word, (size_t)(p - word)));
		p = word;
	}
}

static void split_at(struct vm *vm, struct value out, const char *p, const char *end,
		struct value sep, int64_t limit)
{
	const char *at;

	for (; limit != 0 && vm_work(vm, 0) &&
			(at = memmem(p, (size_t)(end - p), sep.s, sep.len)); limit--) {
		list_push(vm, out, value_text(p, (size_t)(at - p)));
		p = at + sep.len;
	}
	list_push(vm, out, value_text(p, (size_t)(end - p)));
}

static void rsplit_at(struct vm *vm, struct value out, const char *start, const char *p,
		struct value sep, int64_t limit)
{
	const char *at;

	for (; limit != 0 && (at = find_last(vm, start, (size_t)(p - start), sep)); limit--) {
		list_push(vm, out, value_text(at + sep.len, (size_t)(p - at - sep.len)));
		p = at;
	}
	list_push(vm, out, value_text(start, (size_t)(p - start)));
}

static struct value split_any(struct vm *vm, const struct call *c, bool right)
{
	struct value sep = c->arg[0], out = value_list(vm, J_LIST);
	const char *s = c->self.s, *end = s + c->self.len;
	bool space = sep.kind == J_ABSENT || sep.kind == J_NONE;
	int64_t limit = arg_int(vm, c, 1, -1);

	if (!space && (sep.kind != J_STRING || !sep.len))
		vm_fail(vm, "split: expected a separator of one character at least");
	if (vm->failed || !vm_work(vm, c->self.len))
		return out;
	limit = limit < 0 ? INT64_MAX : limit;
	if (space)
		(right ? rsplit_space : split_space)(vm, out, s, end, limit);
	else
		(right ? rsplit_at : split_at)(vm, out, s, end, sep, limit);
	if (right && !vm->failed)
		list_turn(out);
	return out;
}

static struct value split(struct vm *vm, const struct call *c)
{
	return split_any(vm, c, false);
}

static struct value rsplit(struct vm *vm, const struct call *c)
{
	return split_any(vm, c, true);
}

static struct value splitlines(struct vm *vm, const struct call *c)
{
	return string_lines(vm, c->self);
}

static struct value join(struct vm *vm, const struct call *c)
{
	struct value items = c->arg[0];

	for (size_t i = 0; is_list(items) && i < items.list->n && !vm->failed; i++)
		if (items.list->v[i].kind != J_STRING)
			vm_fail(vm, "join: expected strings, found %s", value_type(items.list->v[i]));
	return items.kind == J_UNDEFINED ? value_text("", 0) : string_join(vm, c->self, items);
}

static struct value format(struct vm *vm, const struct call *c)
{
	return string_format(vm, c->self, c->args);
}

/* ---- strings: what they are made of ---- */

static bool is_letter(int32_t c)
{
	utf8proc_category_t category = utf8proc_category(c);

	return category >= UTF8PROC_CATEGORY_LU && category <= UTF8PROC_CATEGORY_LO;
}

static bool is_digit(int32_t c)
{
	return utf8proc_category(c) == UTF8PROC_CATEGORY_ND;
}

static bool is_letter_or_digit(int32_t c)
{
	return is_letter(c) || is_digit(c);
}

static struct value all(struct vm *vm, struct value s, bool (*is)(int32_t))
{
	size_t n;

	if (!s.len || !vm_work(vm, s.len))
		return value_bool(false);
	for (const char *p = s.s, *end = p + s.len; p < end; p += n)
		if (!is(string_get(p, end, &n)))
			return value_bool(false);
	return value_bool(true);
}

static struct value isalpha_(struct vm *vm, const struct call *c)
{
	return all(vm, c->self, is_letter);
}

static struct value isdigit_(struct vm *vm, const struct call *c)
{
	return all(vm, c->self, is_digit);
}

static struct value isalnum_(struct vm *vm, const struct call *c)
{
	return all(vm, c->self, is_letter_or_digit);
}

static struct value isspace_(struct vm *vm, const struct call *c)
{
	return all(vm, c->self, string_is_space);
}

static struct value isupper_(struct vm *vm, const struct call *c)
{
	return call_builtin(vm, test_find("upper"), c->self, &(struct args){0});
}

static struct value islower_(struct vm *vm, const struct call *c)
{
	return call_builtin(vm, test_find("lower"), c->self, &(struct args){0});
}

static const struct builtin string_methods[] = {
	{"strip", "chars", strip}, {"lstrip", "chars", lstrip}, {"rstrip", "chars", rstrip},
	{"upper", "", upper}, {"lower", "", lower}, {"title", "", title},
	{"capitalize", "", capitalize},
	{"startswith", "prefix!", startswith}, {"endswith", "suffix!", endswith},
	{"removeprefix", "prefix!", removeprefix}, {"removesuffix", "suffix!", removesuffix},
	{"find", "sub!", find}, {"rfind", "sub!", rfind}, {"count", "sub!", count},
	{"replace", "old! new! count", replace},
	{"split", "sep maxsplit", split}, {"rsplit", "sep maxsplit", rsplit},
	{"splitlines", "", splitlines},
	{"join", "iterable!", join}, {"format", NULL, format},
	{"isalpha", "", isalpha_}, {"isdigit", "", isdigit_}, {"isalnum", "", isalnum_},
	{"isspace", "", isspace_},
	{"isupper", "", isupper_}, {"islower", "", islower_}, {NULL, NULL, NULL}
};

/* ---- dicts and lists ---- */

enum { KEYS = 1, VALUES = 2 };

static struct value view(struct vm *vm, const struct call *c, const char *label, int what)
{
	struct value out = value_list(vm, J_VIEW);

	for (size_t i = 0; i < c->self.dict->n && !vm->failed; i++) {
		struct pair at = c->self.dict->at[i];
		struct value item = what == KEYS ? at.key : at.value;
		if (what == (KEYS | VALUES)) {
			item = value_list(vm, J_TUPLE);
			if (vm->failed)
				break;
			list_push(vm, item, at.key);
			list_push(vm, item, at.value);
		}
		list_push(vm, out, item);
	}
	if (!vm->failed)
		out.list->label = label;
	return out;
}

static struct value items(struct vm *vm, const struct call *c)
{
	return view(vm, c, "dict_items", KEYS | VALUES);
}

static struct value keys(struct vm *vm, const struct call *c)
{
	return view(vm, c, "dict_keys", KEYS);
}

static struct value values(struct vm *vm, const struct call *c)
{
	return view(vm, c, "dict_values", VALUES);
}

static struct value get(struct vm *vm, const struct call *c)
{
	struct value v;

	if (dict_get(vm, c->self, c->arg[0], &v))
		return v;
	return c->arg[1].kind == J_ABSENT ? value_none() : c->arg[1];
}

static const struct builtin dict_methods[] = {
	{"items", "", items}, {"keys", "", keys}, {"values", "", values}, {"get", "key! default", get},
	{NULL, NULL, NULL}
};

/* the one change to a value that templates in use make, though transformers' sandbox refuses it */
static struct value append(struct vm *vm, const struct call *c)
{
	list_push(vm, c->self, c->arg[0]);
	return value_none();
}

static struct value list_count(struct vm *vm, const struct call *c)
{
	int64_t n = 0;

	for (size_t i = 0; i < c->self.list->n && !vm->failed; i++)
		n += op_equal(vm, c->self.list->v[i], c->arg[0]);
	return value_int(n);
}

static struct value list_index(struct vm *vm, const struct call *c)
{
	for (size_t i = 0; i < c->self.list->n && !vm->failed; i++)
		if (op_equal(vm, c->self.list->v[i], c->arg[0]))
			return value_int((int64_t)i);
	return vm_fail(vm, "index: the value is not in the list");
}

static const struct builtin list_methods[] = {
	{"count", "value!", list_count}, {"index", "value!", list_index}, {"append", "object!", append},
	{NULL, NULL, NULL}
};

const struct builtin *method_find(struct value of, const char *name)
{
	if (of.kind == J_STRING)
		return builtin_find(string_methods, name);
	if (of.kind == J_DICT)
		return builtin_find(dict_methods, name);
	if (of.kind == J_LIST)
		return builtin_find(list_methods, name);
	return of.kind == J_TUPLE && strcmp(name, "append") != 0 ? builtin_find(list_methods, name) :
			NULL;
}

/* ---- functions ---- */

static struct value range(struct vm *vm, const struct call *c)
{
	bool one = c->arg[1].kind == J_ABSENT;
	int64_t start = one ? 0 : arg_int(vm, c, 0, 0), stop = arg_int(vm, c, one ? 0 : 1, 0),
			step = arg_int(vm, c, 2, 1);
	struct value out = value_list(vm, J_RANGE);

	if (c->arg[0].kind == J_UNDEFINED)
		return op_attr(vm, c->arg[0], "range");
	if (!step)
		return vm_fail(vm, "range: expected a step other than zero");
	if (vm->failed)
		return out;
	memcpy(out.list->range, (int64_t[]){start, stop, step}, sizeof out.list->range);
	for (int64_t i = start; (step > 0 ? i < stop : i > stop) && !vm->failed;) {
		if (out.list->n == RANGE_LIMIT)
			return vm_fail(vm, "range: more than %d items", RANGE_LIMIT);
		list_push(vm, out, value_int(i));
		if (__builtin_add_overflow(i, step, &i))
			break;
	}
	return out;
}

/* dict(a=1), dict({...}, a=1), dict([(k, v), ...]) */
static struct value make_dict(struct vm *vm, const struct call *c, enum value_kind kind)
{
	struct value out = value_dict(vm, kind), pair;
	struct iter it;

	if (vm->failed || c->args->n > 1)
		return vm_fail(vm, "expected at most one positional argument");
	if (c->args->n && c->args->v[0].kind == J_DICT) {
		for (size_t i = 0; i < c->args->v[0].dict->n && !vm->failed; i++)
			dict_set(vm, out, c->args->v[0].dict->at[i].key, c->args->v[0].dict->at[i].value);
	} else if (c->args->n && iter_open(vm, c->args->v[0], &it)) {
		while (iter_next(vm, &it, &pair)) {
			if ((pair.kind != J_TUPLE && pair.kind != J_LIST) || pair.list->n != 2)
				return vm_fail(vm, "dict: expected pairs");
			dict_set(vm, out, pair.list->v[0], pair.list->v[1]);
		}
	}
	for (size_t i = 0; i < c->args->nnamed && !vm->failed; i++)
		dict_set(vm, out, c->args->named[i].key, c->args->named[i].value);
	return out;
}

static struct value dict(struct vm *vm, const struct call *c)
{
	return make_dict(vm, c, J_DICT);
}

static struct value namespace(struct vm *vm, const struct call *c)
{
	return make_dict(vm, c, J_NAMESPACE);
}

static struct value raise_exception(struct vm *vm, const struct call *c)
{
	struct value s = value_string(vm, c->arg[0]);

	return vm_fail(vm, "%.*s", (int)(s.len < 400 ? s.len : 400), s.s);
}

/* Only %X and %-X: a width in the format could ask for any amount of text. */
static bool is_plain_time_format(struct value s)
{
	for (uint32_t i = 0; i < s.len; i++) {
		if (s.s[i] != '%')
			continue;
		i += i + 1 < s.len && s.s[i + 1] == '-' ? 2 : 1;
		if (i >= s.len || !((s.s[i] | 32) >= 'a' && (s.s[i] | 32) <= 'z') || s.s[i] == 'E' ||
				s.s[i] == 'O')
			if (i >= s.len || s.s[i] != '%')
				return false;
	}
	return !memchr(s.s, 0, s.len);
}

static struct value strftime_now(struct vm *vm, const struct call *c)
{
	struct value s = arg_text(vm, c, 0, "");
	char format[256] = {0}, out[1024];
	time_t now = time(NULL);
	struct tm tm;

	if (s.len >= sizeof format || !is_plain_time_format(s) || !localtime_r(&now, &tm))
		return vm_fail(vm, "strftime_now: expected a short format as %%Y-%%m-%%d");
	memcpy(format, s.s, s.len);
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
	size_t n = strftime(out, sizeof out, format, &tm);
#pragma GCC diagnostic pop
	struct text t = {0};
	text_put(vm, &t, out, n);
	return text_value(&t);
}

const struct builtin jinja_functions[] = {
	{"range", "start! stop step", range}, {"dict", NULL, dict}, {"namespace", NULL, namespace},
	{"raise_exception", "message!", raise_exception}, {"strftime_now", "format!", strftime_now},
	{NULL, NULL, NULL}
};
