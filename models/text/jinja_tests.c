/* jinja_tests.c - what stands behind `is`. */
#include "models/text/jinja.h"

#include <utf8proc.h>

/* A test that looks at the value's kind alone. */
#define KIND(name, holds) \
	static struct value name(struct vm *vm, const struct call *c) \
	{ \
		struct value v = c->self; \
		(void)vm; \
		return value_bool(holds); \
	}

KIND(defined, v.kind != J_UNDEFINED)
KIND(undefined, v.kind == J_UNDEFINED)
KIND(none, v.kind == J_NONE)
KIND(boolean, v.kind == J_BOOL)
KIND(is_true, v.kind == J_BOOL && v.truth)
KIND(is_false, v.kind == J_BOOL && !v.truth)
KIND(integer, v.kind == J_INT)
KIND(floating, v.kind == J_FLOAT)
KIND(number, is_number(v))
KIND(string, v.kind == J_STRING)
KIND(mapping, v.kind == J_DICT)
/* what has a length and indices: an undefined value too, as in Jinja */
KIND(sequence, is_iterable(v) && v.kind != J_GENERATOR && v.kind != J_VIEW)
KIND(iterable, is_iterable(v))
KIND(callable, v.kind >= J_MACRO || v.kind == J_UNDEFINED)
KIND(escaped, v.kind == J_STRING && v.safe)

static struct value remainder_is(struct vm *vm, struct value v, struct value by, int64_t wanted)
{
	struct value rest = op_binary(vm, '%', v, by);

	return value_bool(!vm->failed && op_equal(vm, rest, value_int(wanted)));
}

static struct value odd(struct vm *vm, const struct call *c)
{
	return remainder_is(vm, c->self, value_int(2), 1);
}

static struct value even(struct vm *vm, const struct call *c)
{
	return remainder_is(vm, c->self, value_int(2), 0);
}

static struct value divisibleby(struct vm *vm, const struct call *c)
{
	return remainder_is(vm, c->self, c->arg[0], 0);
}

static struct value equal(struct vm *vm, const struct call *c)
{
	return op_compare(vm, OP2('=', '='), c->self, c->arg[0]);
}

static struct value unequal(struct vm *vm, const struct call *c)
{
	return op_compare(vm, OP2('!', '='), c->self, c->arg[0]);
}

static struct value less(struct vm *vm, const struct call *c)
{
	return op_compare(vm, '<', c->self, c->arg[0]);
}

static struct value at_most(struct vm *vm, const struct call *c)
{
	return op_compare(vm, OP2('<', '='), c->self, c->arg[0]);
}

static struct value greater(struct vm *vm, const struct call *c)
{
	return op_compare(vm, '>', c->self, c->arg[0]);
}

static struct value at_least(struct vm *vm, const struct call *c)
{
	return op_compare(vm, OP2('>', '='), c->self, c->arg[0]);
}

static struct value in(struct vm *vm, const struct call *c)
{
	return op_compare(vm, OP_IN, c->self, c->arg[0]);
}

/* the same object: the same pointer, or for small values the same value */
static struct value sameas(struct vm *vm, const struct call *c)
{
	struct value a = c->self, b = c->arg[0];

	if (a.kind != b.kind)
		return value_bool(false);
	return value_bool(a.kind < J_LIST ? op_equal(vm, a, b) : a.list == b.list);
}

static bool has_case(struct vm *vm, struct value v, bool upper)
{
	struct value s = value_string(vm, v);
	bool any = false;
	size_t n;

	if (!vm_work(vm, s.len))
		return false;
	for (const char *p = s.s, *end = p + s.len; p < end; p += n) {
		utf8proc_category_t category = utf8proc_category(string_get(p, end, &n));
		if (category == UTF8PROC_CATEGORY_LT ||
				category == (upper ? UTF8PROC_CATEGORY_LL : UTF8PROC_CATEGORY_LU))
			return false;
		any = any || category == (upper ? UTF8PROC_CATEGORY_LU : UTF8PROC_CATEGORY_LL);
	}
	return any;
}

static struct value lower(struct vm *vm, const struct call *c)
{
	return value_bool(has_case(vm, c->self, false));
}

static struct value upper(struct vm *vm, const struct call *c)
{
	return value_bool(has_case(vm, c->self, true));
}

static struct value exists(struct value name, const struct builtin *(*find)(const char *))
{
	char text[32] = {0};

	if (name.kind == J_STRING && name.len < sizeof text)
		memcpy(text, name.s, name.len);
	return value_bool(find(text));
}

static struct value filter(struct vm *vm, const struct call *c)
{
	(void)vm;
	return exists(c->self, filter_find);
}

static struct value test(struct vm *vm, const struct call *c)
{
	(void)vm;
	return exists(c->self, test_find);
}

static const struct builtin tests[] = {
	{"defined", "", defined}, {"undefined", "", undefined}, {"none", "", none},
	{"boolean", "", boolean},
	{"true", "", is_true}, {"false", "", is_false}, {"integer", "", integer},
	{"float", "", floating},
	{"number", "", number}, {"string", "", string}, {"mapping", "", mapping},
	{"sequence", "", sequence},
	{"iterable", "", iterable}, {"callable", "", callable}, {"escaped", "", escaped},
	{"odd", "", odd},
	{"even", "", even}, {"divisibleby", "num!", divisibleby}, {"in", "seq!", in},
	{"sameas", "other!", sameas},
	{"lower", "", lower}, {"upper", "", upper}, {"filter", "", filter}, {"test", "", test},
	{"eq", "b!", equal}, {"equalto", "b!", equal}, {"==", "b!", equal}, {"ne", "b!", unequal},
	{"!=", "b!", unequal},
	{"lt", "b!", less}, {"lessthan", "b!", less}, {"<", "b!", less}, {"le", "b!", at_most},
	{"<=", "b!", at_most},
	{"gt", "b!", greater}, {"greaterthan", "b!", greater}, {">", "b!", greater},
	{"ge", "b!", at_least},
	{">=", "b!", at_least}, {NULL, NULL, NULL}
};

const struct builtin *test_find(const char *name)
{
	return builtin_find(tests, name);
}
