/* jinja_expr.c - expressions to a tree.
 *
 * One function per level of precedence, as the grammar has them: ternary, or, and, not, comparison,
 * + and -, ~, * / // %, **, sign, then postfix and filters, which bind to the signed operand. */
#include "models/text/jinja.h"

static struct node *parse_unary(struct parser *p, bool filters);

static struct node *wrap(struct parser *p, enum node_kind kind, struct node *a)
{
	struct node *n = parse_node(p, kind);

	n->a = a;
	return n;
}

static struct node *pair(struct parser *p, enum node_kind kind, int op, struct node *a,
		struct node *b)
{
	struct node *n = wrap(p, kind, a);

	n->op = op;
	n->b = b;
	return n;
}

static struct node *constant(struct parser *p, struct value value)
{
	struct node *n = parse_node(p, N_CONST);

	n->value = value;
	parse_next(p);
	return n;
}

/* 'a' 'b' is 'ab' */
static struct node *parse_string(struct parser *p)
{
	struct value whole = p->tok.value, more = p->ahead.value;

	while (p->ahead.kind == T_VALUE && more.kind == J_STRING) {
		char *s = wf_alloc(p->arena, (size_t)whole.len + more.len + 1);
		if (!s) {
			parse_fail(p, "out of memory");
			break;
		}
		memcpy(s, whole.s, whole.len);
		memcpy(s + whole.len, more.s, more.len);
		whole = value_text(s, (size_t)whole.len + more.len);
		parse_next(p);
		more = p->ahead.value;
	}
	return constant(p, whole);
}

static struct node *parse_word(struct parser *p)
{
	if (parse_is_word(p, "true") || parse_is_word(p, "True"))
		return constant(p, value_bool(true));
	if (parse_is_word(p, "false") || parse_is_word(p, "False"))
		return constant(p, value_bool(false));
	if (parse_is_word(p, "none") || parse_is_word(p, "None"))
		return constant(p, value_none());
	struct node *n = parse_node(p, N_NAME);
	n->name = parse_name(p);
	return n;
}

static struct node *parse_pair(struct parser *p)
{
	struct node *n = parse_node(p, N_PAIR);

	n->a = parse_expr(p);
	parse_expect(p, ':');
	n->b = parse_expr(p);
	return n;
}

static struct node *parse_items(struct parser *p, enum node_kind kind, int end)
{
	struct node *n = parse_node(p, kind), **tail = &n->b;

	parse_next(p);
	while (!p->failed && !parse_is(p, end)) {
		struct node *item = *tail = kind == N_DICT ? parse_pair(p) : parse_expr(p);
		tail = &item->next;
		if (!parse_take(p, ','))
			break;
	}
	parse_expect(p, end);
	return n;
}

static bool ends_tuple(const struct parser *p)
{
	return p->tok.kind == T_EOF || p->tok.kind == T_TAG_END || p->tok.kind == T_PRINT_END ||
			parse_is(p, ')') ||
		parse_is_word(p, "in");
}

static struct node *parse_parens(struct parser *p)
{
	struct node *n;

	parse_next(p);
	if (parse_is(p, ')'))
		n = parse_node(p, N_TUPLE);
	else
		n = parse_tuple(p, true);
	parse_expect(p, ')');
	return n;
}

static struct node *parse_primary(struct parser *p)
{
	if (p->tok.kind == T_NAME)
		return parse_word(p);
	if (p->tok.kind == T_VALUE)
		return p->tok.value.kind == J_STRING ? parse_string(p) : constant(p, p->tok.value);
	if (parse_is(p, '('))
		return parse_parens(p);
	if (parse_is(p, '['))
		return parse_items(p, N_LIST, ']');
	if (parse_is(p, '{'))
		return parse_items(p, N_DICT, '}');
	parse_fail(p, "expected an expression");
	return parse_node(p, N_CONST);
}

static struct node *parse_argument(struct parser *p)
{
	int op = p->tok.op;

	if (parse_is(p, '*') || parse_is(p, OP2('*', '*'))) {
		parse_next(p);
		return pair(p, N_SPREAD, op, parse_expr(p), NULL);
	}
	if (p->tok.kind != T_NAME || p->ahead.kind != T_OP || p->ahead.op != '=')
		return parse_expr(p);
	struct node *n = parse_node(p, N_NAMED);
	n->name = parse_name(p);
	parse_next(p);
	n->a = parse_expr(p);
	return n;
}

static struct node *parse_arguments(struct parser *p)
{
	struct node *first = NULL, **tail = &first;
	bool named = false;

	parse_expect(p, '(');
	while (!p->failed && !parse_is(p, ')')) {
		struct node *n = *tail = parse_argument(p);
		tail = &n->next;
		if (named && n->kind != N_NAMED && n->kind != N_SPREAD)
			parse_fail(p, "expected positional arguments before named ones");
		named = n->kind == N_NAMED || n->kind == N_SPREAD;
		if (!parse_take(p, ','))
			break;
	}
	parse_expect(p, ')');
	return first;
}

static struct node *parse_attr(struct parser *p, struct node *of)
{
	struct node *n = wrap(p, N_ATTR, of);

	parse_next(p);
	if (p->tok.kind == T_VALUE && p->tok.value.kind == J_INT) {
		n->kind = N_ITEM;
		n->b = constant(p, p->tok.value);
	} else {
		n->name = parse_name(p);
	}
	return n;
}

static struct node *slice_part(struct parser *p)
{
	return parse_is(p, ':') || parse_is(p, ']') ? NULL : parse_expr(p);
}

static struct node *parse_item(struct parser *p, struct node *of)
{
	struct node *n = wrap(p, N_ITEM, of);

	parse_next(p);
	n->b = slice_part(p);
	if (parse_take(p, ':')) {
		n->kind = N_SLICE;
		n->c = slice_part(p);
		if (parse_take(p, ':'))
			n->d = slice_part(p);
	} else if (!n->b) {
		parse_fail(p, "expected an index");
	}
	parse_expect(p, ']');
	return n;
}

static struct node *parse_postfix(struct parser *p, struct node *n)
{
	for (;;) {
		if (parse_is(p, '.'))
			n = parse_attr(p, n);
		else if (parse_is(p, '['))
			n = parse_item(p, n);
		else if (parse_is(p, '('))
			n = pair(p, N_CALL, 0, n, parse_arguments(p));
		else
			return n;
	}
}

/* No name of ours has a dot, but an unknown filter in a branch not taken does no harm. */
static const char *parse_dotted(struct parser *p)
{
	const char *name = parse_name(p);

	while (parse_take(p, '.')) {
		const char *more = parse_name(p);
		if (!p->failed && !(name = wf_format(p->arena, "%s.%s", name, more)))
			parse_fail(p, "out of memory");
	}
	return p->failed ? "" : name;
}

struct node *parse_filter(struct parser *p, struct node *subject)
{
	struct node *n = wrap(p, N_FILTER, subject);

	n->name = parse_dotted(p);
	n->fn = filter_find(n->name);
	if (parse_is(p, '('))
		n->b = parse_arguments(p);
	return n;
}

struct node *parse_filters(struct parser *p, struct node *subject)
{
	while (parse_take(p, '|'))
		subject = parse_filter(p, subject);
	return subject;
}

/* A test's one argument may stand without brackets: is divisibleby 3. */
static bool starts_argument(const struct parser *p)
{
	if (p->tok.kind == T_NAME)
		return !parse_is_word(p, "else") && !parse_is_word(p, "or") && !parse_is_word(p, "and");
	return p->tok.kind == T_VALUE || parse_is(p, '[') || parse_is(p, '{');
}

static struct node *parse_test(struct parser *p, struct node *subject)
{
	struct node *n = wrap(p, N_TEST, subject);

	parse_next(p);
	bool negated = parse_take_word(p, "not");
	n->name = parse_dotted(p);
	n->fn = test_find(n->name);
	if (parse_is(p, '('))
		n->b = parse_arguments(p);
	else if (parse_is_word(p, "is"))
		parse_fail(p, "expected one test, found a chain of is");
	else if (starts_argument(p))
		n->b = parse_postfix(p, parse_primary(p));
	return negated ? wrap(p, N_NOT, n) : n;
}

static struct node *parse_filtered(struct parser *p, struct node *n)
{
	for (;;) {
		if (parse_take(p, '|'))
			n = parse_filter(p, n);
		else if (parse_is_word(p, "is"))
			n = parse_test(p, n);
		else if (parse_is(p, '('))
			n = pair(p, N_CALL, 0, n, parse_arguments(p));
		else
			return n;
	}
}

static struct node *parse_sign(struct parser *p)
{
	struct node *n = parse_node(p, N_UNARY);

	n->op = p->tok.op;
	parse_next(p);
	if (parse_enter(p))
		n->a = parse_unary(p, false);
	parse_leave(p);
	return n;
}

static struct node *parse_unary(struct parser *p, bool filters)
{
	struct node *n = parse_is(p, '-') || parse_is(p, '+') ? parse_sign(p) : parse_primary(p);

	n = parse_postfix(p, n);
	return filters ? parse_filtered(p, n) : n;
}

/* A level of left-associative operators: those of `ops`, between operands of the level above. */
static struct node *parse_level(struct parser *p, const int *ops,
		struct node *(*above)(struct parser *))
{
	struct node *left = above(p);

	for (const int *op = ops; *op;) {
		if (!parse_take(p, *op)) {
			op++;
			continue;
		}
		left = pair(p, N_BINARY, *op, left, NULL);
		left->b = above(p);
		op = ops;
	}
	return left;
}

static struct node *parse_signed(struct parser *p)
{
	return parse_unary(p, true);
}

static struct node *parse_power(struct parser *p)
{
	return parse_level(p, (const int[]){OP2('*', '*'), 0}, parse_signed);
}

static struct node *parse_product(struct parser *p)
{
	return parse_level(p, (const int[]){'*', '/', OP2('/', '/'), '%', 0}, parse_power);
}

static struct node *parse_concat(struct parser *p)
{
	struct node *first = parse_product(p);

	if (!parse_is(p, '~'))
		return first;
	struct node *n = parse_node(p, N_CONCAT), **tail = &first->next;
	n->b = first;
	while (parse_take(p, '~')) {
		struct node *item = *tail = parse_product(p);
		tail = &item->next;
	}
	return n;
}

static struct node *parse_sum(struct parser *p)
{
	return parse_level(p, (const int[]){'+', '-', 0}, parse_concat);
}

static int take_comparison(struct parser *p)
{
	static const int ops[] = {OP2('=', '='), OP2('!', '='), OP2('<', '='), OP2('>', '='), '<', '>'};

	for (size_t i = 0; i < sizeof ops / sizeof *ops; i++)
		if (parse_take(p, ops[i]))
			return ops[i];
	if (parse_take_word(p, "in"))
		return OP_IN;
	if (!parse_is_word(p, "not") || p->ahead.kind != T_NAME || p->ahead.value.len != 2 ||
	    memcmp(p->ahead.value.s, "in", 2))
		return 0;
	parse_next(p);
	parse_next(p);
	return OP_NOT_IN;
}

static struct node *parse_compare(struct parser *p)
{
	struct node *first = parse_sum(p), *n = NULL, **tail = NULL;
	int op;

	while (!p->failed && (op = take_comparison(p))) {
		if (!n) {
			n = wrap(p, N_COMPARE, first);
			tail = &n->b;
		}
		struct node *operand = *tail = pair(p, N_OPERAND, op, NULL, NULL);
		tail = &operand->next;
		operand->a = parse_sum(p);
	}
	return n ? n : first;
}

static struct node *parse_not(struct parser *p)
{
	int nots = 0;

	while (parse_take_word(p, "not"))
		nots++;
	struct node *n = parse_compare(p);
	for (; nots && !p->failed; nots--)
		n = wrap(p, N_NOT, n);
	return n;
}

static struct node *parse_and(struct parser *p)
{
	struct node *left = parse_not(p);

	while (parse_take_word(p, "and")) {
		left = wrap(p, N_AND, left);
		left->b = parse_not(p);
	}
	return left;
}

static struct node *parse_or(struct parser *p)
{
	struct node *left = parse_and(p);

	while (parse_take_word(p, "or")) {
		left = wrap(p, N_OR, left);
		left->b = parse_and(p);
	}
	return left;
}

static struct node *parse_ternary(struct parser *p)
{
	struct node *value = parse_or(p);

	while (parse_take_word(p, "if")) {
		struct node *n = parse_node(p, N_TERNARY);
		n->b = value;
		n->a = parse_or(p);
		if (parse_take_word(p, "else"))
			n->c = parse_expr(p);
		value = n;
	}
	return value;
}

struct node *parse_expr(struct parser *p)
{
	struct node *n = parse_enter(p) ? parse_ternary(p) : parse_node(p, N_CONST);

	parse_leave(p);
	return n;
}

struct node *parse_tuple(struct parser *p, bool ternary)
{
	if (!parse_enter(p)) {
		parse_leave(p);
		return parse_node(p, N_CONST);
	}
	struct node *first = ternary ? parse_ternary(p) : parse_or(p), *n = first;
	if (parse_is(p, ',')) {
		n = parse_node(p, N_TUPLE);
		n->b = first;
		for (struct node **tail = &first->next; parse_take(p, ',') && !ends_tuple(p);) {
			struct node *item = *tail = ternary ? parse_ternary(p) : parse_or(p);
			tail = &item->next;
		}
	}
	parse_leave(p);
	return n;
}

/* ---- what is assigned to ---- */

static struct node *target_part(struct parser *p)
{
	if (parse_take(p, '(')) {
		struct node *n = parse_enter(p) ? parse_target(p) : parse_node(p, N_NAME);
		parse_leave(p);
		parse_expect(p, ')');
		return n;
	}
	struct node *n = parse_word(p);
	if (n->kind != N_NAME)
		parse_fail(p, "expected a name to assign to");
	if (parse_take(p, '.')) {
		n = wrap(p, N_FIELD, n);
		n->name = parse_name(p);
	}
	return n;
}

struct node *parse_target(struct parser *p)
{
	struct node *first = target_part(p);

	if (!parse_is(p, ','))
		return first;
	struct node *n = parse_node(p, N_TUPLE), **tail = &first->next;
	n->b = first;
	while (parse_take(p, ',') &&
			(parse_is(p, '(') || (p->tok.kind == T_NAME && !parse_is_word(p, "in")))) {
		struct node *part = *tail = target_part(p);
		tail = &part->next;
	}
	return n;
}
