/* jinja_item.c - parts of values: attributes, items, slices.
 *
 * a.name looks for a method first, then an item; a["name"] the other way round; what is not there is
 * undefined, and so is an item of what has none.  Only a part of undefined is an error. */
#include "models/text/jinja.h"

#include <stdlib.h>

static struct value fail_undefined(struct vm *vm, struct value v)
{
	return vm_fail(vm, v.s ? "'%s' is undefined" : "a value is undefined", v.s);
}

static bool find_method(struct vm *vm, struct value of, const char *name, struct value *out)
{
	const struct builtin *fn = method_find(of, name);
	struct bound *method = fn ? vm_alloc(vm, 1, sizeof *method) : NULL;

	if (!method)
		return false;
	*method = (struct bound){of, fn};
	*out = (struct value){.kind = J_METHOD, .method = method};
	return true;
}

static bool find_index(struct vm *vm, struct value of, int64_t i, struct value *out)
{
	int64_t n;

	if (of.kind != J_STRING && (!is_list(of) || of.kind == J_VIEW || of.kind == J_GENERATOR))
		return false;
	n = value_length(vm, of);
	if (i < 0)
		i += n;
	if (i < 0 || i >= n || !vm_work(vm, of.kind == J_STRING ? of.len : 0))
		return false;
	if (of.kind != J_STRING) {
		*out = of.list->v[i];
		return true;
	}
	size_t at = string_offset(of.s, of.len, (size_t)i), len;
	string_get(of.s + at, of.s + of.len, &len);
	*out = value_text(of.s + at, len);
	return true;
}

static bool find_item(struct vm *vm, struct value of, struct value index, struct value *out)
{
	if (of.kind == J_DICT)
		return index.kind != J_LIST && index.kind != J_DICT && dict_get(vm, of, index, out);
	if (index.kind == J_INT || index.kind == J_BOOL)
		return find_index(vm, of, index.kind == J_INT ? index.i : index.truth, out);
	return false;
}

struct value op_attr(struct vm *vm, struct value of, const char *name)
{
	struct value out, key = value_text(name, strlen(name));

	if (of.kind == J_UNDEFINED)
		return fail_undefined(vm, of);
	if (of.kind == J_LOOP)
		return loop_attr(vm, of.loop, name);
	if (of.kind == J_MACRO && strcmp(name, "name") == 0)
		return value_text(of.macro->def->name, strlen(of.macro->def->name));
	if (of.kind == J_NAMESPACE)
		return dict_get(vm, of, key, &out) ? out : value_undefined(name);
	if (find_method(vm, of, name, &out) || find_item(vm, of, key, &out))
		return out;
	return value_undefined(name);
}

/* A string value as a C string; NULL when it holds a NUL, which no name does. */
static const char *name_of(struct vm *vm, struct value v)
{
	char *s = v.kind == J_STRING && !memchr(v.s, 0, v.len) ? vm_alloc(vm, v.len + 1u, 1) : NULL;

	return s ? memcpy(s, v.s, v.len) : NULL;
}

static const char *index_name(struct vm *vm, int64_t i)
{
	char *s = vm_alloc(vm, 1, 24);

	if (s)
		snprintf(s, 24, "[%lld]", (long long)i);
	return s;
}

struct value op_item(struct vm *vm, struct value of, struct value index)
{
	struct value out;
	const char *name;

	if (of.kind == J_UNDEFINED)
		return fail_undefined(vm, of);
	if (of.kind != J_NAMESPACE && find_item(vm, of, index, &out))
		return out;
	if (index.kind == J_INT)
		return value_undefined(index_name(vm, index.i));
	if (index.kind != J_STRING || !(name = name_of(vm, index)))
		return value_undefined(NULL);
	return of.kind == J_DICT && !method_find(of, name) ? value_undefined(name) :
			op_attr(vm, of, name);
}

static struct value path_part(struct vm *vm, struct value of, const char *s, size_t len)
{
	char digits[20];

	if (len >= sizeof digits || !string_is_digits(s, len))
		return op_item(vm, of, value_text(s, len));
	memcpy(digits, s, len);
	digits[len] = 0;
	return op_item(vm, of, value_int(strtoll(digits, NULL, 10)));
}

struct value op_path(struct vm *vm, struct value of, struct value path)
{
	if (path.kind != J_STRING)
		return path.kind == J_ABSENT || path.kind == J_NONE ? of : op_item(vm, of, path);
	const char *s = path.s, *end = s + path.len, *dot;
	for (; (dot = memchr(s, '.', (size_t)(end - s))) && !vm->failed; s = dot + 1)
		of = path_part(vm, of, s, (size_t)(dot - s));
	return path_part(vm, of, s, (size_t)(end - s));
}

/* ---- slices ---- */

static int64_t clamp(int64_t i, int64_t low, int64_t high)
{
	return i < low ? low : i > high ? high : i;
}

/* A bound of a slice over n items: from the end when negative, the default when none. */
static int64_t slice_bound(struct vm *vm, struct value v, int64_t n, int64_t step, int64_t absent)
{
	if (v.kind == J_NONE)
		return absent;
	if (v.kind != J_INT && v.kind != J_BOOL) {
		vm_fail(vm, "slice indices must be integers or None, not %s", value_type(v));
		return 0;
	}
	int64_t i = v.kind == J_BOOL ? v.truth : v.i;
	if (i < 0)
		i = i < -n ? -1 : i + n;
	else
		i = clamp(i, 0, n);
	return step < 0 ? clamp(i, -1, n - 1) : clamp(i, 0, n);
}

static struct value slice_characters(struct vm *vm, struct value of, int64_t start, int64_t stop,
		int64_t step)
{
	struct text t = {0};

	if (step == 1) {
		size_t from = string_offset(of.s, of.len, (size_t)start);
		size_t chars = stop > start ? (size_t)(stop - start) : 0;
		size_t len = string_offset(of.s + from, of.len - from, chars);
		return vm_work(vm, of.len) ? value_text(of.s + from, len) : value_undefined(NULL);
	}
	struct value characters = value_list(vm, J_LIST), c;
	struct iter it;
	if (!iter_open(vm, of, &it))
		return value_undefined(NULL);
	while (iter_next(vm, &it, &c))
		list_push(vm, characters, c);
	for (int64_t i = start; (step > 0 ? i < stop : i > stop) && !vm->failed; i += step)
		text_put(vm, &t, characters.list->v[i].s, characters.list->v[i].len);
	return text_value(&t);
}

static struct value slice_list(struct vm *vm, struct value of, int64_t start, int64_t stop,
		int64_t step)
{
	struct value out = value_list(vm, (enum value_kind)of.kind);

	for (int64_t i = start; (step > 0 ? i < stop : i > stop) && !vm->failed; i += step)
		list_push(vm, out, of.list->v[i]);
	if (of.kind == J_RANGE && !vm->failed) {
		uint64_t first = (uint64_t)of.list->range[0], by = (uint64_t)of.list->range[2];  /* may wrap: only printed */
		out.list->range[0] = (int64_t)(first + (uint64_t)start * by);
		out.list->range[1] = (int64_t)(first + (uint64_t)stop * by);
		out.list->range[2] = (int64_t)((uint64_t)step * by);
	}
	return out;
}

struct value op_slice(struct vm *vm, struct value of, struct value start, struct value stop,
		struct value step)
{
	int64_t by = step.kind == J_NONE ? 1 : step.i;

	if (of.kind == J_UNDEFINED)
		return fail_undefined(vm, of);
	if (of.kind != J_STRING && of.kind != J_LIST && of.kind != J_TUPLE && of.kind != J_RANGE)
		return vm_fail(vm, "'%s' object cannot be sliced", value_type(of));
	if ((step.kind != J_NONE && step.kind != J_INT) || by == 0)
		return vm_fail(vm, "expected a slice step other than zero");
	int64_t n = value_length(vm, of);
	/* a step past the whole length takes one item, whatever its size */
	by = clamp(by, -n - 1, n + 1);
	int64_t from = slice_bound(vm, start, n, by, by < 0 ? n - 1 : 0);
	int64_t to = slice_bound(vm, stop, n, by, by < 0 ? -1 : n);
	if (vm->failed)
		return value_undefined(NULL);
	return of.kind == J_STRING ? slice_characters(vm, of, from, to, by) :
			slice_list(vm, of, from, to, by);
}
