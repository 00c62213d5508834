/* jinja_loop.c - the for statement, assignment to its targets, and the variable `loop`.
 *
 * Items are taken one by one and filtered when taken, as Jinja's generators do; loop.last looks one
 * ahead, loop.length takes all that are left. */
#include "models/text/jinja.h"

struct loop {
	struct iter it;
	const struct node *node;
	struct scope *test_scope;    /* where the filter sees the targets; NULL without a filter */
	struct value ahead;          /* a list of items taken early */
	size_t given_ahead;
	struct value before, current, changed;
	int64_t index, length;       /* index from 0; length -1 while unknown */
};

/* ---- assignment ---- */

static void assign_items(struct vm *vm, struct scope *s, const struct node *target, struct value v)
{
	const struct node *part = target->b;
	struct value item;
	struct iter it;

	if (!iter_open(vm, v, &it))
		return;
	for (; part && iter_next(vm, &it, &item); part = part->next)
		assign(vm, s, part, item);
	if (!vm->failed && (part || iter_next(vm, &it, &item)))
		vm_fail(vm, "expected as many values as names to assign to");
}

void assign(struct vm *vm, struct scope *s, const struct node *target, struct value v)
{
	if (vm->failed)
		return;
	if (target->kind == N_NAME) {
		scope_set(vm, s, target->name, v);
	} else if (target->kind == N_TUPLE) {
		assign_items(vm, s, target, v);
	} else {
		struct value of = eval(vm, s, target->a);
		if (of.kind == J_NAMESPACE)
			dict_set(vm, of, value_text(target->name, strlen(target->name)), v);
		else
			vm_fail(vm, "cannot assign attribute on non-namespace object");
	}
}

/* ---- items ---- */

static bool take(struct vm *vm, struct loop *loop, struct value *item)
{
	const struct node *n = loop->node;

	while (iter_next(vm, &loop->it, item)) {
		if (!n->d)
			return true;
		assign(vm, loop->test_scope, n->a, *item);
		if (op_truth(eval(vm, loop->test_scope, n->d)))
			return !vm->failed;
	}
	return false;
}

static bool look_ahead(struct vm *vm, struct loop *loop)
{
	struct value item;

	if (loop->given_ahead < loop->ahead.list->n)
		return true;
	if (!take(vm, loop, &item))
		return false;
	list_push(vm, loop->ahead, item);
	return !vm->failed;
}

static bool advance(struct vm *vm, struct loop *loop)
{
	struct value item;

	if (loop->given_ahead < loop->ahead.list->n)
		item = loop->ahead.list->v[loop->given_ahead++];
	else if (!take(vm, loop, &item))
		return false;
	loop->before = loop->current;
	loop->current = item;
	loop->index++;
	return true;
}

static int64_t measure(struct vm *vm, struct loop *loop)
{
	struct value item;

	if (loop->length < 0) {
		while (take(vm, loop, &item))
			list_push(vm, loop->ahead, item);
		loop->length = loop->index + 1 + (int64_t)(loop->ahead.list->n - loop->given_ahead);
	}
	return loop->length;
}

/* ---- loop.something ---- */

static struct value cycle(struct vm *vm, const struct call *c)
{
	if (!c->args->n)
		return vm_fail(vm, "no items for cycling given");
	return c->args->v[(size_t)c->self.loop->index % c->args->n];
}

static struct value changed(struct vm *vm, const struct call *c)
{
	struct value now = value_list(vm, J_TUPLE);

	for (size_t i = 0; i < c->args->n && !vm->failed; i++)
		list_push(vm, now, c->args->v[i]);
	if (vm->failed || op_equal(vm, now, c->self.loop->changed))
		return value_bool(false);
	c->self.loop->changed = now;
	return value_bool(true);
}

static const struct builtin methods[] = {
	{"cycle", NULL, cycle}, {"changed", NULL, changed}, {NULL, NULL, NULL}
};

static struct value loop_method(struct vm *vm, struct loop *loop, const char *name)
{
	const struct builtin *fn = builtin_find(methods, name);
	struct bound *method = fn ? vm_alloc(vm, 1, sizeof *method) : NULL;

	if (!method)
		return value_undefined(name);
	*method = (struct bound){{.kind = J_LOOP, .loop = loop}, fn};
	return (struct value){.kind = J_METHOD, .method = method};
}

struct value loop_attr(struct vm *vm, struct loop *loop, const char *name)
{
	static const char *const names[] = {
		"index", "index0", "first", "last", "length", "revindex", "revindex0", "previtem",
		"nextitem", "depth", "depth0"
	};
	size_t i = 0;

	while (i < sizeof names / sizeof *names && strcmp(names[i], name) != 0)
		i++;
	switch (i) {
	case 0: return value_int(loop->index + 1);
	case 1: return value_int(loop->index);
	case 2: return value_bool(loop->index == 0);
	case 3: return value_bool(!look_ahead(vm, loop));
	case 4: return value_int(measure(vm, loop));
	case 5: return value_int(measure(vm, loop) - loop->index);
	case 6: return value_int(measure(vm, loop) - loop->index - 1);
	case 7: return loop->index ? loop->before : value_undefined("previtem");
	case 8: return look_ahead(vm, loop) ? loop->ahead.list->v[loop->given_ahead] :
			value_undefined("nextitem");
	case 9: return value_int(1);
	case 10: return value_int(0);
	default: return loop_method(vm, loop, name);
	}
}

/* ---- the statement ---- */

static struct loop *loop_new(struct vm *vm, struct scope *s, const struct node *n)
{
	struct loop *loop = vm_alloc(vm, 1, sizeof *loop);
	struct value over = eval(vm, s, n->c);

	if (!loop || !iter_open(vm, over, &loop->it))
		return NULL;
	loop->node = n;
	loop->index = loop->length = -1;
	loop->ahead = value_list(vm, J_LIST);
	loop->changed = value_none();
	if (n->d)
		loop->test_scope = scope_new(vm, s);
	return vm->failed ? NULL : loop;
}

/* A fresh scope per item; the old one is used again unless a macro kept it. */
static struct scope *item_scope(struct vm *vm, struct scope *s, struct scope *last)
{
	if (!last || last->captured)
		return scope_new(vm, s);
	last->n = 0;
	return last;
}

static void exec_item(struct vm *vm, struct scope *s, struct loop *loop)
{
	const struct node *n = loop->node;

	assign(vm, s, n->a, loop->current);
	scope_set(vm, s, "loop", (struct value){.kind = J_LOOP, .loop = loop});
	for (n = n->b; n && !vm->failed && vm->flow == RUN; n = n->next)
		exec(vm, s, n);
}

void exec_for(struct vm *vm, struct scope *s, const struct node *n)
{
	struct loop *loop = loop_new(vm, s, n);
	struct scope *inner = NULL;
	bool ended = false;

	while (loop && !vm->failed && advance(vm, loop) && (inner = item_scope(vm, s, inner))) {
		exec_item(vm, inner, loop);
		bool left = vm->flow == BREAK;
		ended |= vm->flow == RUN;
		vm->flow = RUN;
		if (left)
			break;
	}
	/* as in Jinja, else also follows a loop of which no item came to its end */
	if (!loop || ended || vm->failed)
		return;
	inner = scope_new(vm, s);
	for (n = n->e; n && !vm->failed && vm->flow == RUN; n = n->next)
		exec(vm, inner, n);
}
