/* jinja_sequence.c - filters over sequences.
 *
 * Those that are generators in Jinja give generators here too: their items once, no length, no index,
 * true even when empty.  They are worked out at once, so an error in one shows even if unused. */
#include "models/text/jinja.h"

static struct value to_list(struct vm *vm, struct value of, enum value_kind kind)
{
	struct value out = value_list(vm, kind), item;
	struct iter it;

	if (iter_open(vm, of, &it))
		while (iter_next(vm, &it, &item))
			list_push(vm, out, item);
	return out;
}

static struct value list(struct vm *vm, const struct call *c)
{
	return to_list(vm, c->self, J_LIST);
}

static struct value first(struct vm *vm, const struct call *c)
{
	struct value item;
	struct iter it;

	return iter_open(vm, c->self, &it) && iter_next(vm, &it, &item) ? item :
			value_undefined("first of nothing");
}

static struct value last(struct vm *vm, const struct call *c)
{
	struct value of = c->self;

	if (of.kind == J_GENERATOR)
		return vm_fail(vm, "last: a generator cannot be reversed");
	of = to_list(vm, of, J_LIST);
	if (vm->failed || !of.list->n)
		return value_undefined("last of nothing");
	return of.list->v[of.list->n - 1];
}

static struct value reverse(struct vm *vm, const struct call *c)
{
	struct value of = c->self;

	if (of.kind == J_STRING)
		return op_slice(vm, of, value_none(), value_none(), value_int(-1));
	of = to_list(vm, of, of.kind == J_GENERATOR ? J_LIST : J_GENERATOR);
	if (!vm->failed)
		list_turn(of);
	return of;
}

static struct value join(struct vm *vm, const struct call *c)
{
	struct value sep = c->arg[0].kind == J_ABSENT ? value_text("", 0) : value_string(vm, c->arg[0]);
	struct value items = c->self, item;
	struct iter it;

	if (c->arg[1].kind != J_ABSENT && c->arg[1].kind != J_NONE) {
		items = value_list(vm, J_LIST);
		if (iter_open(vm, c->self, &it))
			while (iter_next(vm, &it, &item))
				list_push(vm, items, op_path(vm, item, c->arg[1]));
	}
	return vm->failed ? items : string_join(vm, sep, items);
}

static struct value items(struct vm *vm, const struct call *c)
{
	struct value out = value_list(vm, J_GENERATOR);

	if (c->self.kind != J_DICT && c->self.kind != J_UNDEFINED)
		return vm_fail(vm, "items: expected a mapping, found %s", value_type(c->self));
	for (size_t i = 0; c->self.kind == J_DICT && i < c->self.dict->n && !vm->failed; i++) {
		struct value pair = value_list(vm, J_TUPLE);
		if (vm->failed)
			break;
		list_push(vm, pair, c->self.dict->at[i].key);
		list_push(vm, pair, c->self.dict->at[i].value);
		list_push(vm, out, pair);
	}
	return out;
}

/* ---- order ---- */

struct sorted { struct value key, item; };

/* Merges the sorted halves of a[0..n); equal keys keep their order, also when reversed. */
static void merge(struct vm *vm, struct sorted *a, struct sorted *spare, size_t n, bool down)
{
	size_t half = n / 2, i = 0, j = half, k = 0;

	if (n < 2)
		return;
	merge(vm, a, spare, half, down);
	merge(vm, a + half, spare, n - half, down);
	while (i < half && j < n && !vm->failed)
		spare[k++] = op_order(vm, a[j].key, a[i].key) == (down ? 1 : -1) ? a[j++] : a[i++];
	while (i < half)
		spare[k++] = a[i++];
	memcpy(a, spare, k * sizeof *a);
}

/* The items of `of` by the keys that key() finds. */
static struct value sorted(struct vm *vm, struct value of, const struct call *c, bool down,
		struct value (*key)(struct vm *, struct value, const struct call *))
{
	struct value all = to_list(vm, of, J_LIST);
	size_t n = vm->failed ? 0 : all.list->n;
	struct sorted *a = vm_alloc(vm, n, sizeof *a), *spare = vm_alloc(vm, n, sizeof *spare);

	for (size_t i = 0; i < n && !vm->failed; i++)
		a[i] = (struct sorted){key(vm, all.list->v[i], c), all.list->v[i]};
	if (!vm->failed)
		merge(vm, a, spare, n, down);
	for (size_t i = 0; i < n && !vm->failed; i++)
		all.list->v[i] = a[i].item;
	return all;
}

static struct value fold_case(struct vm *vm, struct value v, bool sensitive)
{
	return v.kind == J_STRING && !sensitive ? string_case(vm, v, LOWER) : v;
}

static void push_key(struct vm *vm, struct value keys, struct value item, struct value path, bool cased)
{
	struct value key = fold_case(vm, op_path(vm, item, path), cased);

	if (!vm->failed)
		list_push(vm, keys, key);
}

/* "age,name" is a list of keys, each a path */
static struct value sort_key(struct vm *vm, struct value item, const struct call *c)
{
	struct value path = c->arg[2], keys = value_list(vm, J_LIST);
	bool sensitive = arg_bool(c, 1, false);

	if (path.kind == J_STRING) {
		const char *s = path.s, *end = s + path.len, *comma;
		for (; !vm->failed && (comma = memchr(s, ',', (size_t)(end - s))); s = comma + 1)
			push_key(vm, keys, item, value_text(s, (size_t)(comma - s)), sensitive);
		path = value_text(s, (size_t)(end - s));
	}
	push_key(vm, keys, item, path, sensitive);
	return keys;
}

static struct value sort(struct vm *vm, const struct call *c)
{
	return sorted(vm, c->self, c, arg_bool(c, 0, false), sort_key);
}

static struct value dictsort_key(struct vm *vm, struct value pair, const struct call *c)
{
	bool by_value = c->arg[1].kind == J_STRING && c->arg[1].len == 5;

	return fold_case(vm, pair.list->v[by_value], arg_bool(c, 0, false));
}

static struct value dictsort(struct vm *vm, const struct call *c)
{
	struct value by = arg_text(vm, c, 1, "key");

	if (!op_equal(vm, by, value_text("key", 3)) && !op_equal(vm, by, value_text("value", 5)))
		return vm_fail(vm, "dictsort: expected to sort by key or value");
	if (c->self.kind != J_DICT)
		return vm_fail(vm, "dictsort: expected a mapping, found %s", value_type(c->self));
	return sorted(vm, items(vm, c), c, arg_bool(c, 2, false), dictsort_key);
}

static struct value extreme(struct vm *vm, const struct call *c, int wanted)
{
	struct value item, best = value_undefined("extreme of nothing"), key, best_key = best;
	bool any = false;
	struct iter it;

	if (!iter_open(vm, c->self, &it))
		return best;
	for (; iter_next(vm, &it, &item); any = true) {
		key = fold_case(vm, op_path(vm, item, c->arg[1]), arg_bool(c, 0, false));
		if (any && op_order(vm, key, best_key) != wanted)
			continue;
		best = item;
		best_key = key;
	}
	return best;
}

static struct value least(struct vm *vm, const struct call *c)
{
	return extreme(vm, c, -1);
}

static struct value greatest(struct vm *vm, const struct call *c)
{
	return extreme(vm, c, 1);
}

static struct value sum(struct vm *vm, const struct call *c)
{
	struct value total = c->arg[1].kind == J_ABSENT ? value_int(0) : c->arg[1], item;
	struct iter it;

	if (iter_open(vm, c->self, &it))
		while (iter_next(vm, &it, &item))
			total = op_binary(vm, '+', total, op_path(vm, item, c->arg[0]));
	return total;
}

static struct value unique(struct vm *vm, const struct call *c)
{
	struct value out = value_list(vm, J_GENERATOR), seen = value_dict(vm, J_DICT), item, had;
	struct iter it;

	if (!iter_open(vm, c->self, &it))
		return out;
	while (iter_next(vm, &it, &item)) {
		struct value key = fold_case(vm, op_path(vm, item, c->arg[1]), arg_bool(c, 0, false));
		if (vm->failed || dict_get(vm, seen, key, &had))
			continue;
		dict_set(vm, seen, key, value_none());
		list_push(vm, out, item);
	}
	return out;
}

/* ---- map, select, reject: of what is false, nothing, even if it cannot be walked ---- */

static const struct builtin *named(struct vm *vm, struct value name,
		const struct builtin *(*find)(const char *))
{
	char text[32] = {0};

	if (name.kind == J_STRING && name.len < sizeof text)
		memcpy(text, name.s, name.len);
	const struct builtin *fn = find(text);
	if (!fn)
		vm_fail(vm, "no filter or test named '%s'", text);
	return fn;
}

static struct args behind(const struct args *args, size_t n)
{
	return (struct args){n ? args->v + n : args->v, args->named, args->n - n, args->nnamed};
}

static struct value named_value(struct vm *vm, const struct args *args, const char *name)
{
	for (size_t i = 0; i < args->nnamed; i++)
		if (op_equal(vm, args->named[i].key, value_text(name, strlen(name))))
			return args->named[i].value;
	return (struct value){.kind = J_ABSENT};
}

static struct value map_attribute(struct vm *vm, const struct call *c, struct value path)
{
	struct value out = value_list(vm, J_GENERATOR), item;
	struct value absent = named_value(vm, c->args, "default");
	struct iter it;

	if (!op_truth(c->self) || !iter_open(vm, c->self, &it))
		return out;
	while (iter_next(vm, &it, &item)) {
		item = op_path(vm, item, path);
		list_push(vm, out, item.kind == J_UNDEFINED && absent.kind != J_ABSENT ? absent : item);
	}
	return out;
}

static struct value map(struct vm *vm, const struct call *c)
{
	struct value out = value_list(vm, J_GENERATOR), item;
	struct value path = named_value(vm, c->args, "attribute");
	struct iter it;

	if (!c->args->n)
		return path.kind == J_ABSENT ? vm_fail(vm, "map: expected a filter or attribute=") :
				map_attribute(vm, c, path);
	const struct builtin *fn = named(vm, c->args->v[0], filter_find);
	struct args args = behind(c->args, 1);
	if (fn && op_truth(c->self) && iter_open(vm, c->self, &it))
		while (iter_next(vm, &it, &item))
			list_push(vm, out, call_builtin(vm, fn, item, &args));
	return out;
}

/* The items for which a test holds, or does not; the test sees an attribute of them, or themselves. */
static struct value choose(struct vm *vm, const struct call *c, bool by_attribute, bool wanted)
{
	struct value out = value_list(vm, J_GENERATOR), item;
	const struct builtin *fn = NULL;
	struct iter it;

	if (c->args->n < by_attribute)
		return vm_fail(vm, "expected the name of an attribute");
	struct args args = behind(c->args, by_attribute);
	if (args.n) {
		fn = named(vm, args.v[0], test_find);
		args = behind(&args, 1);
	}
	if (vm->failed || !op_truth(c->self) || !iter_open(vm, c->self, &it))
		return out;
	while (iter_next(vm, &it, &item)) {
		struct value seen = by_attribute ? op_path(vm, item, c->args->v[0]) : item;
		if (op_truth(fn ? call_builtin(vm, fn, seen, &args) : seen) == wanted)
			list_push(vm, out, item);
	}
	return out;
}

static struct value select_items(struct vm *vm, const struct call *c)
{
	return choose(vm, c, false, true);
}

static struct value reject(struct vm *vm, const struct call *c)
{
	return choose(vm, c, false, false);
}

static struct value selectattr(struct vm *vm, const struct call *c)
{
	return choose(vm, c, true, true);
}

static struct value rejectattr(struct vm *vm, const struct call *c)
{
	return choose(vm, c, true, false);
}

const struct builtin jinja_sequence_filters[] = {
	{"dictsort", "case_sensitive by reverse", dictsort},
	{"first", "", first},
	{"items", "", items},
	{"join", "d attribute", join},
	{"last", "", last},
	{"list", "", list},
	{"map", NULL, map},
	{"max", "case_sensitive attribute", greatest},
	{"min", "case_sensitive attribute", least},
	{"reject", NULL, reject},
	{"rejectattr", NULL, rejectattr},
	{"reverse", "", reverse},
	{"select", NULL, select_items},
	{"selectattr", NULL, selectattr},
	{"sort", "reverse case_sensitive attribute", sort},
	{"sum", "attribute start", sum},
	{"unique", "case_sensitive attribute", unique},
	{NULL, NULL, NULL}
};
