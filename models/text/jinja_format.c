/* jinja_format.c - "%s of %d" % args and "{} of {}".format(args), without the exotic parts. */
#include "models/text/jinja.h"

#include <stdlib.h>

enum { MAXWIDTH = 1000, MAXPRECISION = 60 };

/* One conversion: % flags width .precision letter */
struct spec { char flags[6]; int nflags, width, precision; char letter; };

static int64_t whole(struct value v)
{
	return v.kind == J_BOOL ? v.truth : v.kind == J_FLOAT ? (int64_t)v.f : v.i;
}

static double real(struct value v)
{
	return v.kind == J_FLOAT ? v.f : (double)whole(v);
}

static const char *parse_digits(const char *p, const char *end, int *n, int most)
{
	for (*n = 0; p < end && *p >= '0' && *p <= '9'; p++)
		*n = *n * 10 + *p - '0' > most ? most + 1 : *n * 10 + *p - '0';
	return p;
}

static const char *parse_spec(struct vm *vm, const char *p, const char *end, struct spec *spec)
{
	*spec = (struct spec){.precision = -1};
	for (; p < end && *p && strchr("-+ 0#", *p); p++)
		if (spec->nflags < (int)sizeof spec->flags - 1)
			spec->flags[spec->nflags++] = *p;
	p = parse_digits(p, end, &spec->width, MAXWIDTH);
	if (p < end && *p == '.')
		p = parse_digits(p + 1, end, &spec->precision, MAXPRECISION);
	if (p == end || spec->width > MAXWIDTH || spec->precision > MAXPRECISION) {
		vm_fail(vm, "expected a conversion as %%s or %%5.2f");
		return end;
	}
	spec->letter = *p == 'u' ? 'd' : *p;
	return p + 1;
}

static void put_padded(struct vm *vm, struct text *t, const struct spec *spec, struct value v)
{
	size_t len = spec->precision >= 0 ? string_offset(v.s, v.len, (size_t)spec->precision) : v.len;
	size_t n = string_count(v.s, len), pad = n < (size_t)spec->width ? (size_t)spec->width - n : 0;
	bool left = memchr(spec->flags, '-', sizeof spec->flags);

	if (left)
		text_put(vm, t, v.s, len);
	for (; pad; pad--)
		text_put(vm, t, " ", 1);
	if (!left)
		text_put(vm, t, v.s, len);
}

static void put_number(struct vm *vm, struct text *t, const struct spec *spec, struct value v)
{
	char fmt[32], *s = vm_alloc(vm, 1, MAXWIDTH + MAXPRECISION + 340);
	bool integral = strchr("dioxX", spec->letter);
	int n;

	if (!is_number(v) || !s || (integral && v.kind == J_FLOAT && !(v.f > -9e18 && v.f < 9e18))) {
		vm_fail(vm, "%%%c format: a number is required, not %s", spec->letter, value_type(v));
		return;
	}
	if (spec->precision < 0)
		n = snprintf(fmt, sizeof fmt, "%%%s*%s%c", spec->flags, integral ? "ll" : "", spec->letter);
	else
		n = snprintf(fmt, sizeof fmt, "%%%s*.%d%s%c", spec->flags, spec->precision,
				integral ? "ll" : "", spec->letter);
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
	if (integral)
		n = sprintf(s, fmt, spec->width, (long long)whole(v));
	else
		n = sprintf(s, fmt, spec->width, real(v));
#pragma GCC diagnostic pop
	text_put(vm, t, s, n > 0 ? (size_t)n : 0);
}

static void put_spec(struct vm *vm, struct text *t, const struct spec *spec, struct value v)
{
	struct text repr = {0};

	if (spec->letter == 's') {
		put_padded(vm, t, spec, value_string(vm, v));
	} else if (spec->letter == 'r') {
		print_repr(vm, &repr, v);
		put_padded(vm, t, spec, text_value(&repr));
	} else if (spec->letter && strchr("dioxXeEfFgG", spec->letter)) {
		put_number(vm, t, spec, v);
	} else {
		vm_fail(vm, "unsupported format character 0x%02x", (unsigned char)spec->letter);
	}
}

struct value string_percent(struct vm *vm, struct value format, struct value args)
{
	const char *p = format.s, *end = format.s + format.len, *mark;
	size_t used = 0, n = args.kind == J_TUPLE ? args.list->n : 1;
	struct text t = {0};
	struct spec spec;

	for (; (mark = memchr(p, '%', (size_t)(end - p))) && !vm->failed;) {
		text_put(vm, &t, p, (size_t)(mark - p));
		p = parse_spec(vm, mark + 1, end, &spec);
		if (spec.letter == '%') {
			text_put(vm, &t, "%", 1);
			continue;
		}
		if (used == n)
			return vm_fail(vm, "not enough arguments for format string");
		put_spec(vm, &t, &spec, args.kind == J_TUPLE ? args.list->v[used] : args);
		used++;
	}
	text_put(vm, &t, p, (size_t)(end - p));
	if (used < n && args.kind != J_DICT && args.kind != J_LIST)
		return vm_fail(vm, "not all arguments converted during string formatting");
	return text_value(&t);
}

/* What {field} stands for: the next argument, one by number, or one by name. */
static struct value field_value(struct vm *vm, const char *s, size_t len, const struct args *args,
		size_t *next)
{
	char digits[8] = {0};
	size_t i = *next;

	if (len < sizeof digits && string_is_digits(s, len)) {
		memcpy(digits, s, len);
		i = (size_t)atoi(digits);
	} else if (len) {
		for (i = 0; i < args->nnamed; i++)
			if (op_equal(vm, args->named[i].key, value_text(s, len)))
				return args->named[i].value;
		return vm_fail(vm, "no argument for a field of the format string");
	} else {
		++*next;
	}
	if (i >= args->n)
		return vm_fail(vm, "replacement index %zu out of range", i);
	return args->v[i];
}

struct value string_format(struct vm *vm, struct value format, const struct args *args)
{
	const char *p = format.s, *end = format.s + format.len;
	struct text t = {0};
	size_t next = 0;

	for (; p < end && vm_work(vm, 0); p++) {
		if ((*p == '{' || *p == '}') && p + 1 < end && p[1] == *p) {
			p++;
		} else if (*p == '{') {
			const char *close = memchr(p, '}', (size_t)(end - p));
			if (!close)
				return vm_fail(vm, "expected '}' in a format string");
			print_value(vm, &t, field_value(vm, p + 1, (size_t)(close - p - 1), args, &next));
			p = close;
			continue;
		} else if (*p == '}') {
			return vm_fail(vm, "single '}' in a format string");
		}
		text_put(vm, &t, p, 1);
	}
	return text_value(&t);
}
