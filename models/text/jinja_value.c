/* jinja_value.c - memory, values, and walking over them.
 *
 * Values are small structs passed by copy; what they point at lies in the rendering's arena and never
 * changes, but for namespaces and list.append.  When memory or steps run out the constructors give
 * undefined and the mutators do nothing. */
#include "models/text/jinja.h"

struct value vm_fail(struct vm *vm, const char *fmt, ...)
{
	char what[512];
	va_list args;

	va_start(args, fmt);
	vsnprintf(what, sizeof what, fmt, args);
	va_end(args);
	if (!vm->failed)
		wf_fail(vm->err, "template line %d: %s", vm->line, what);
	vm->failed = true;
	return value_undefined(NULL);
}

bool vm_work(struct vm *vm, size_t bytes)
{
	if (vm->failed)
		return false;
	vm->steps += 1 + (int64_t)(bytes / STEP_BYTES);
	if (vm->steps > vm->step_limit)
		vm_fail(vm, "more than %lld steps", (long long)vm->step_limit);
	return !vm->failed;
}

void *vm_alloc(struct vm *vm, size_t n, size_t bytes)
{
	size_t total;

	if (vm->failed)
		return NULL;
	if (__builtin_mul_overflow(n, bytes, &total) || total > vm->memory ||
	    wf_arena_bytes(vm->arena) > vm->memory - total) {
		vm_fail(vm, "more than %zu bytes of memory", vm->memory);
		return NULL;
	}
	void *p = wf_alloc(vm->arena, total);
	if (!p)
		vm_fail(vm, "out of memory for %zu bytes", total);
	return p;
}

/* The array at *at grown to hold more than n; false after a failure. */
static bool grow(struct vm *vm, void *at, size_t n, size_t *cap, size_t bytes)
{
	if (n < *cap)
		return !vm->failed;
	size_t more = *cap < 4 ? 4 : 2 * *cap;
	void *old, *p = vm_alloc(vm, more, bytes);
	if (!p)
		return false;
	memcpy(&old, at, sizeof old);
	if (n)
		memcpy(p, old, n * bytes);
	memcpy(at, &p, sizeof p);
	*cap = more;
	return true;
}

/* ---- text being built ---- */

void text_put(struct vm *vm, struct text *t, const char *s, size_t len)
{
	if (!len || !vm_work(vm, len))
		return;
	if (len > t->cap - t->len) {
		size_t cap = t->len + len > 2 * t->cap ? t->len + len : 2 * t->cap;
		char *p = vm_alloc(vm, cap, 1);
		if (!p)
			return;
		if (t->len)
			memcpy(p, t->s, t->len);
		t->s = p;
		t->cap = cap;
	}
	memcpy(t->s + t->len, s, len);
	t->len += len;
}

void text_puts(struct vm *vm, struct text *t, const char *s)
{
	text_put(vm, t, s, strlen(s));
}

void text_printf(struct vm *vm, struct text *t, const char *fmt, ...)
{
	char s[400];
	va_list args;

	va_start(args, fmt);
	int n = vsnprintf(s, sizeof s, fmt, args);
	va_end(args);
	if (n > 0)
		text_put(vm, t, s, (size_t)n < sizeof s ? (size_t)n : sizeof s - 1);
}

struct value text_value(const struct text *t)
{
	return value_text(t->s, t->len);
}

/* ---- construction ---- */

struct value value_undefined(const char *name)
{
	return (struct value){.kind = J_UNDEFINED, .s = name};
}

struct value value_none(void)
{
	return (struct value){.kind = J_NONE};
}

struct value value_bool(bool truth)
{
	return (struct value){.kind = J_BOOL, .truth = truth};
}

struct value value_int(int64_t i)
{
	return (struct value){.kind = J_INT, .i = i};
}

struct value value_float(double f)
{
	return (struct value){.kind = J_FLOAT, .f = f};
}

struct value value_text(const char *s, size_t len)
{
	return (struct value){.kind = J_STRING, .len = (uint32_t)len, .s = len ? s : ""};
}

struct value value_list(struct vm *vm, enum value_kind kind)
{
	struct list *list = vm_alloc(vm, 1, sizeof *list);

	return list ? (struct value){.kind = (uint8_t)kind, .list = list} : value_undefined(NULL);
}

struct value value_dict(struct vm *vm, enum value_kind kind)
{
	struct dict *dict = vm_alloc(vm, 1, sizeof *dict);

	return dict ? (struct value){.kind = (uint8_t)kind, .dict = dict} : value_undefined(NULL);
}

struct value value_function(const struct builtin *fn)
{
	return (struct value){.kind = J_FUNCTION, .function = fn};
}

void list_push(struct vm *vm, struct value to, struct value v)
{
	struct list *list = to.list;

	if (vm->failed || !vm_work(vm, 0) || !grow(vm, &list->v, list->n, &list->cap, sizeof v))
		return;
	list->v[list->n++] = v;
}

void list_turn(struct value of)
{
	struct list *list = of.list;

	for (size_t i = 0; i < list->n / 2; i++) {
		struct value v = list->v[i];
		list->v[i] = list->v[list->n - 1 - i];
		list->v[list->n - 1 - i] = v;
	}
}

static struct value *dict_find(struct vm *vm, const struct dict *dict, struct value key)
{
	for (size_t i = 0; i < dict->n && vm_work(vm, 0); i++)
		if (op_equal(vm, dict->at[i].key, key))
			return &dict->at[i].value;
	return NULL;
}

static bool is_hashable(struct vm *vm, struct value key, int depth)
{
	if (key.kind == J_LIST || key.kind == J_DICT || depth > NEST_LIMIT)
		return false;
	for (size_t i = 0; key.kind == J_TUPLE && i < key.list->n && vm_work(vm, 0); i++)
		if (!is_hashable(vm, key.list->v[i], depth + 1))
			return false;
	return true;
}

bool check_key(struct vm *vm, struct value key)
{
	if (!is_hashable(vm, key, 0))
		vm_fail(vm, "unhashable type: '%s'", value_type(key));
	return !vm->failed;
}

void dict_set(struct vm *vm, struct value to, struct value key, struct value v)
{
	struct dict *dict = to.dict;

	if (vm->failed || !check_key(vm, key))
		return;
	struct value *old = dict_find(vm, dict, key);
	if (old)
		*old = v;
	else if (!vm->failed && grow(vm, &dict->at, dict->n, &dict->cap, sizeof *dict->at))
		dict->at[dict->n++] = (struct pair){key, v};
}

bool dict_get(struct vm *vm, struct value of, struct value key, struct value *out)
{
	struct value *v = vm->failed ? NULL : dict_find(vm, of.dict, key);

	if (v)
		*out = *v;
	return v;
}

/* ---- kinds ---- */

bool is_list(struct value v)
{
	return v.kind >= J_LIST && v.kind <= J_GENERATOR;
}

bool is_number(struct value v)
{
	return v.kind == J_BOOL || v.kind == J_INT || v.kind == J_FLOAT;
}

const char *value_type(struct value v)
{
	static const char *const names[] = {
		"absent", "Undefined", "NoneType", "bool", "int", "float", "str", "list", "tuple", "range",
		"dict view", "generator", "dict", "Namespace", "LoopContext", "Macro", "method", "function"
	};

	return names[v.kind];
}

/* ---- walking ---- */

bool is_iterable(struct value v)
{
	return v.kind == J_UNDEFINED || v.kind == J_STRING || v.kind == J_DICT || is_list(v);
}

bool iter_open(struct vm *vm, struct value over, struct iter *it)
{
	*it = (struct iter){.over = over};
	if (!vm->failed && !is_iterable(over))
		vm_fail(vm, "'%s' object is not iterable", value_type(over));
	return !vm->failed;
}

static bool next_character(struct iter *it, struct value *item)
{
	const char *s = it->over.s + it->at, *end = it->over.s + it->over.len;
	size_t n;

	if (s >= end)
		return false;
	string_get(s, end, &n);
	*item = value_text(s, n);
	it->at += n;
	return true;
}

bool iter_next(struct vm *vm, struct iter *it, struct value *item)
{
	struct value over = it->over;

	if (!vm_work(vm, 0) || over.kind == J_UNDEFINED)
		return false;
	if (over.kind == J_STRING)
		return next_character(it, item);
	if (over.kind == J_DICT) {
		if (it->at >= over.dict->n)
			return false;
		*item = over.dict->at[it->at++].key;
		return true;
	}
	size_t *at = over.kind == J_GENERATOR ? &over.list->taken : &it->at;
	if (*at >= over.list->n)
		return false;
	*item = over.list->v[(*at)++];
	return true;
}

int64_t value_length(struct vm *vm, struct value v)
{
	if (v.kind == J_UNDEFINED)
		return 0;
	if (v.kind == J_STRING)
		return vm_work(vm, v.len) ? (int64_t)string_count(v.s, v.len) : -1;
	if (v.kind == J_DICT)
		return (int64_t)v.dict->n;
	if (is_list(v) && v.kind != J_GENERATOR)
		return (int64_t)v.list->n;
	vm_fail(vm, "object of type '%s' has no len()", value_type(v));
	return -1;
}
