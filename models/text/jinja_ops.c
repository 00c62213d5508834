/* jinja_ops.c - truth, comparison and arithmetic as Python has them, with 64-bit integers.
 *
 * Booleans are the integers 0 and 1; an undefined value equals another and fails in all else. */
#include "models/text/jinja.h"

#include <math.h>

bool op_truth(struct value v)
{
	switch ((enum value_kind)v.kind) {
	case J_ABSENT: case J_UNDEFINED: case J_NONE: return false;
	case J_BOOL: return v.truth;
	case J_INT: return v.i;
	case J_FLOAT: return v.f != 0;
	case J_STRING: return v.len;
	case J_LIST: case J_TUPLE: case J_RANGE: case J_VIEW: return v.list->n;
	case J_DICT: return v.dict->n;
	default: return true;
	}
}

static int64_t as_int(struct value v)
{
	return v.kind == J_BOOL ? v.truth : v.i;
}

static double as_float(struct value v)
{
	return v.kind == J_FLOAT ? v.f : (double)as_int(v);
}

/* ---- comparison ---- */

static bool equal_at(struct vm *vm, struct value a, struct value b, int depth);

static bool equal_lists(struct vm *vm, const struct list *a, const struct list *b, int depth)
{
	if (a == b)
		return true;
	if (a->n != b->n)
		return false;
	for (size_t i = 0; i < a->n; i++)
		if (!equal_at(vm, a->v[i], b->v[i], depth + 1))
			return false;
	return true;
}

static bool equal_dicts(struct vm *vm, struct value a, struct value b, int depth)
{
	struct value v;

	if (a.dict->n != b.dict->n)
		return false;
	for (size_t i = 0; i < a.dict->n; i++)
		if (!dict_get(vm, b, a.dict->at[i].key, &v) ||
				!equal_at(vm, a.dict->at[i].value, v, depth + 1))
			return false;
	return true;
}

static bool equal_numbers(struct value a, struct value b)
{
	if (a.kind == J_FLOAT || b.kind == J_FLOAT)
		return as_float(a) == as_float(b);
	return as_int(a) == as_int(b);
}

static bool equal_at(struct vm *vm, struct value a, struct value b, int depth)
{
	if (depth > NEST_LIMIT)
		vm_fail(vm, "values nested more than %d deep", NEST_LIMIT);
	if (!vm_work(vm, a.kind == J_STRING ? a.len : 0))
		return false;
	if (is_number(a) && is_number(b))
		return equal_numbers(a, b);
	if (a.kind != b.kind)
		return false;
	if (a.kind == J_STRING)
		return a.len == b.len && !memcmp(a.s, b.s, a.len);
	if (a.kind == J_LIST || a.kind == J_TUPLE || a.kind == J_RANGE)
		return equal_lists(vm, a.list, b.list, depth);
	if (a.kind == J_DICT)
		return equal_dicts(vm, a, b, depth);
	return a.kind == J_UNDEFINED || a.kind == J_NONE || a.s == b.s;
}

bool op_equal(struct vm *vm, struct value a, struct value b)
{
	return equal_at(vm, a, b, 0);
}

static int sign(int64_t a, int64_t b)
{
	return (a > b) - (a < b);
}

static int order_strings(struct value a, struct value b)
{
	int c = memcmp(a.s, b.s, a.len < b.len ? a.len : b.len);

	return c ? sign(c, 0) : sign(a.len, b.len);
}

static int order_numbers(struct value a, struct value b)
{
	if (a.kind != J_FLOAT && b.kind != J_FLOAT)
		return sign(as_int(a), as_int(b));
	double x = as_float(a), y = as_float(b);
	return isnan(x) || isnan(y) ? UNORDERED : (x > y) - (x < y);
}

static int order_at(struct vm *vm, struct value a, struct value b, int depth)
{
	if (depth > NEST_LIMIT)
		vm_fail(vm, "values nested more than %d deep", NEST_LIMIT);
	if (!vm_work(vm, a.kind == J_STRING ? a.len : 0))
		return UNORDERED;
	if (is_number(a) && is_number(b))
		return order_numbers(a, b);
	if (a.kind == J_STRING && b.kind == J_STRING)
		return order_strings(a, b);
	if (a.kind == b.kind && (a.kind == J_LIST || a.kind == J_TUPLE)) {
		for (size_t i = 0; i < a.list->n && i < b.list->n; i++)
			if (!equal_at(vm, a.list->v[i], b.list->v[i], depth + 1))
				return order_at(vm, a.list->v[i], b.list->v[i], depth + 1);
		return sign((int64_t)a.list->n, (int64_t)b.list->n);
	}
	if (a.kind == J_UNDEFINED || b.kind == J_UNDEFINED)
		op_attr(vm, a.kind == J_UNDEFINED ? a : b, "order");
	else
		vm_fail(vm, "'%s' and '%s' have no order", value_type(a), value_type(b));
	return UNORDERED;
}

int op_order(struct vm *vm, struct value a, struct value b)
{
	return order_at(vm, a, b, 0);
}

static bool in_string(struct vm *vm, struct value item, struct value s)
{
	if (item.kind != J_STRING) {
		vm_fail(vm, "'in <string>' requires string as left operand, not %s", value_type(item));
		return false;
	}
	return vm_work(vm, s.len) && memmem(s.s, s.len, item.s, item.len);
}

bool op_in(struct vm *vm, struct value item, struct value container)
{
	struct value v;
	struct iter it;

	if (container.kind == J_STRING)
		return in_string(vm, item, container);
	if (container.kind == J_DICT)
		return check_key(vm, item) && dict_get(vm, container, item, &v);
	if (!iter_open(vm, container, &it))
		return false;
	while (iter_next(vm, &it, &v))
		if (op_equal(vm, v, item))
			return true;
	return false;
}

struct value op_compare(struct vm *vm, int op, struct value a, struct value b)
{
	if (op == OP2('=', '='))
		return value_bool(op_equal(vm, a, b));
	if (op == OP2('!', '='))
		return value_bool(!op_equal(vm, a, b));
	if (op == OP_IN || op == OP_NOT_IN)
		return value_bool(op_in(vm, a, b) == (op == OP_IN));
	int order = op_order(vm, a, b);
	if (op == '<' || op == OP2('<', '='))
		return value_bool(order == -1 || (order == 0 && op != '<'));
	return value_bool(order == 1 || (order == 0 && op != '>'));
}

/* ---- arithmetic ---- */

static struct value overflow(struct vm *vm)
{
	return vm_fail(vm, "integers are limited to 64 bits");
}

static struct value power(struct vm *vm, int64_t base, int64_t exponent)
{
	int64_t result = 1;

	if (exponent < 0)
		return base ? value_float(pow((double)base, (double)exponent)) :
				vm_fail(vm, "division by zero");
	if (base == 0 || base == 1 || base == -1)
		return value_int(!exponent ? 1 : base < 0 && exponent % 2 == 0 ? 1 : base);
	for (; exponent; exponent--)
		if (__builtin_mul_overflow(result, base, &result))
			return overflow(vm);
	return value_int(result);
}

/* Python rounds a quotient down; the remainder has the divisor's sign. */
static struct value divide_int(struct vm *vm, int op, int64_t a, int64_t b)
{
	if (b == 0)
		return vm_fail(vm, "division by zero");
	if (op == '/')
		return value_float((double)a / (double)b);
	if (b == -1)
		return op == '%' ? value_int(0) : a == INT64_MIN ? overflow(vm) : value_int(-a);
	int64_t quotient = a / b, rest = a % b;
	if (rest && (rest < 0) != (b < 0)) {
		quotient--;
		rest += b;
	}
	return value_int(op == '%' ? rest : quotient);
}

static struct value divide_float(struct vm *vm, int op, double a, double b)
{
	if (b == 0)
		return vm_fail(vm, "division by zero");
	if (op == '/')
		return value_float(a / b);
	double rest = fmod(a, b), quotient = (a - rest) / b;
	if (rest != 0 && (rest < 0) != (b < 0)) {
		rest += b;
		quotient -= 1;
	}
	if (op == '%')
		return value_float(rest != 0 ? rest : copysign(0, b));
	if (quotient == 0)
		return value_float(copysign(0, a / b));
	double down = floor(quotient);
	return value_float(quotient - down > 0.5 ? down + 1 : down);
}

static struct value int_binary(struct vm *vm, int op, int64_t a, int64_t b)
{
	int64_t out;
	bool over;

	if (op == '+')
		over = __builtin_add_overflow(a, b, &out);
	else if (op == '-')
		over = __builtin_sub_overflow(a, b, &out);
	else if (op == '*')
		over = __builtin_mul_overflow(a, b, &out);
	else
		return op == OP2('*', '*') ? power(vm, a, b) : divide_int(vm, op, a, b);
	return over ? overflow(vm) : value_int(out);
}

static struct value float_binary(struct vm *vm, int op, double a, double b)
{
	if (op == '+')
		return value_float(a + b);
	if (op == '-')
		return value_float(a - b);
	if (op == '*')
		return value_float(a * b);
	if (op != OP2('*', '*'))
		return divide_float(vm, op, a, b);
	return a == 0 && b < 0 ? vm_fail(vm, "division by zero") : value_float(pow(a, b));
}

/* Beside a string marked safe an unmarked one is escaped, as markupsafe has it. */
static struct value add_strings(struct vm *vm, struct value a, struct value b)
{
	struct text t = {0};
	bool safe = a.safe || b.safe;

	if (safe && !a.safe)
		a = string_escape(vm, a);
	if (safe && !b.safe)
		b = string_escape(vm, b);
	text_put(vm, &t, a.s, a.len);
	text_put(vm, &t, b.s, b.len);
	struct value sum = text_value(&t);
	sum.safe = safe;
	return sum;
}

static struct value add_lists(struct vm *vm, struct value a, struct value b)
{
	struct value sum = value_list(vm, (enum value_kind)a.kind);

	for (size_t i = 0; i < a.list->n && !vm->failed; i++)
		list_push(vm, sum, a.list->v[i]);
	for (size_t i = 0; i < b.list->n && !vm->failed; i++)
		list_push(vm, sum, b.list->v[i]);
	return sum;
}

static struct value repeat(struct vm *vm, struct value v, int64_t times)
{
	struct text t = {0};

	if (v.kind == J_STRING) {
		for (; times > 0 && v.len && !vm->failed; times--)
			text_put(vm, &t, v.s, v.len);
		return text_value(&t);
	}
	struct value out = value_list(vm, (enum value_kind)v.kind);
	for (; times > 0 && v.list->n && !vm->failed; times--)
		for (size_t i = 0; i < v.list->n && !vm->failed; i++)
			list_push(vm, out, v.list->v[i]);
	return out;
}

static bool is_whole(struct value v)
{
	return v.kind == J_INT || v.kind == J_BOOL;
}

static bool is_sequence(struct value v)
{
	return v.kind == J_STRING || v.kind == J_LIST || v.kind == J_TUPLE;
}

static struct value unsupported(struct vm *vm, int op, struct value a, struct value b)
{
	char name[3] = {(char)(op > 255 ? op >> 8 : op), (char)(op > 255 ? op & 255 : 0)};

	if (a.kind == J_UNDEFINED || b.kind == J_UNDEFINED)
		return op_attr(vm, a.kind == J_UNDEFINED ? a : b, name);
	return vm_fail(vm, "unsupported operands of %s: '%s' and '%s'", name, value_type(a),
			value_type(b));
}

struct value op_binary(struct vm *vm, int op, struct value a, struct value b)
{
	if (vm->failed)
		return value_undefined(NULL);
	if (is_whole(a) && is_whole(b))
		return int_binary(vm, op, as_int(a), as_int(b));
	if (is_number(a) && is_number(b))
		return float_binary(vm, op, as_float(a), as_float(b));
	if (op == '+' && a.kind == J_STRING && b.kind == J_STRING)
		return add_strings(vm, a, b);
	if (op == '+' && a.kind == b.kind && is_sequence(a))
		return add_lists(vm, a, b);
	if (op == '*' && is_sequence(a) && is_whole(b))
		return repeat(vm, a, as_int(b));
	if (op == '*' && is_whole(a) && is_sequence(b))
		return repeat(vm, b, as_int(a));
	if (op == '%' && a.kind == J_STRING)
		return string_percent(vm, a, b);
	return unsupported(vm, op, a, b);
}

struct value op_negate(struct vm *vm, int op, struct value v)
{
	if (v.kind == J_UNDEFINED)
		return op_attr(vm, v, op == '-' ? "-" : "+");
	if (!is_number(v))
		return vm_fail(vm, "unsupported operand of %c: '%s'", op, value_type(v));
	if (v.kind == J_FLOAT)
		return value_float(op == '-' ? -v.f : v.f);
	if (op == '-' && as_int(v) == INT64_MIN)
		return overflow(vm);
	return value_int(op == '-' ? -as_int(v) : as_int(v));
}
