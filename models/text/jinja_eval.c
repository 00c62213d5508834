/* jinja_eval.c - the interpreter: statements write to the machine's output, expressions give values.
 *
 * Scopes follow Jinja: loops, macros, captures and with-blocks have their own, if has none; what is
 * set in one is gone with it; a name not found in the chain is a function of the engine or undefined. */
#include "models/text/jinja.h"

/* One frame of interpreter deeper; every frame is also a step. */
static bool enter(struct vm *vm, const struct node *n)
{
	vm->line = n->line;
	if (vm->stack++ >= STACK_LIMIT)
		vm_fail(vm, "expressions nested too deep");
	return vm_work(vm, 0);
}

/* ---- scopes ---- */

struct scope *scope_new(struct vm *vm, struct scope *parent)
{
	struct scope *s = vm_alloc(vm, 1, sizeof *s);

	if (s)
		s->parent = parent;
	return s;
}

static struct var *scope_find(struct vm *vm, const struct scope *s, const char *name)
{
	for (size_t i = 0; s && i < s->n && vm_work(vm, STEP_BYTES / 8); i++)
		if (strcmp(s->var[i].name, name) == 0)
			return &s->var[i];
	return NULL;
}

void scope_set(struct vm *vm, struct scope *s, const char *name, struct value v)
{
	struct var *var = scope_find(vm, s, name);

	if (var)
		var->value = v;
	if (var || !s || vm->failed)
		return;
	if (s->n == s->cap) {
		size_t cap = s->cap ? 2 * s->cap : 4;
		struct var *more = vm_alloc(vm, cap, sizeof *more);
		if (!more)
			return;
		if (s->n)
			memcpy(more, s->var, s->n * sizeof *more);
		s->var = more;
		s->cap = cap;
	}
	s->var[s->n++] = (struct var){name, v};
}

static struct value scope_get(struct vm *vm, const struct scope *s, const char *name)
{
	for (; s; s = s->parent) {
		const struct var *var = scope_find(vm, s, name);
		if (var)
			return var->value;
	}
	const struct builtin *fn = builtin_find(jinja_functions, name);
	return fn ? value_function(fn) : value_undefined(name);
}

/* ---- calls ---- */

static void spread(struct vm *vm, struct value of, int op, struct value list, struct value named)
{
	struct value item;
	struct iter it;

	if (op == '*') {
		if (iter_open(vm, of, &it))
			while (iter_next(vm, &it, &item))
				list_push(vm, list, item);
	} else if (of.kind == J_DICT) {
		for (size_t i = 0; i < of.dict->n && !vm->failed; i++)
			dict_set(vm, named, of.dict->at[i].key, of.dict->at[i].value);
	} else {
		vm_fail(vm, "expected a mapping behind **, found %s", value_type(of));
	}
}

static bool eval_args(struct vm *vm, struct scope *s, const struct node *arg,
		const struct value *caller, struct args *args)
{
	struct value list = value_list(vm, J_LIST), named = value_dict(vm, J_DICT);

	for (; arg && !vm->failed; arg = arg->next) {
		if (arg->kind == N_SPREAD)
			spread(vm, eval(vm, s, arg->a), arg->op, list, named);
		else if (arg->kind == N_NAMED)
			dict_set(vm, named, value_text(arg->name, strlen(arg->name)), eval(vm, s, arg->a));
		else
			list_push(vm, list, eval(vm, s, arg));
	}
	if (caller)
		dict_set(vm, named, value_text("caller", 6), *caller);
	if (!vm->failed)
		*args = (struct args){list.list->v, named.dict->at, list.list->n, named.dict->n};
	return !vm->failed;
}

static const struct value *named_arg(struct vm *vm, const struct args *args, const char *name)
{
	for (size_t i = 0; i < args->nnamed; i++)
		if (op_equal(vm, args->named[i].key, value_text(name, strlen(name))))
			return &args->named[i].value;
	return NULL;
}

/* The next name of a parameter list into `name`; whether it must be given into *required. */
static const char *next_param(const char *params, char *name, size_t size, bool *required)
{
	size_t len = strcspn(params, " ");

	*required = len && params[len - 1] == '!';
	snprintf(name, size, "%.*s", (int)(len - *required), params);
	return params + len + (params[len] == ' ');
}

static bool bind(struct vm *vm, const struct builtin *fn, const struct args *args,
		struct value *out)
{
	size_t n = 0, named = 0;
	char name[32];
	bool required;

	for (const char *p = fn->params; *p; n++) {
		p = next_param(p, name, sizeof name, &required);
		const struct value *v = n < args->n ? &args->v[n] : named_arg(vm, args, name);
		named += n >= args->n && v;
		out[n] = v ? *v : (struct value){.kind = J_ABSENT};
		if (!v && required)
			vm_fail(vm, "%s: expected an argument '%s'", fn->name, name);
	}
	if (args->n > n || args->nnamed > named)
		vm_fail(vm, "%s: expected at most %zu arguments, or an unknown name", fn->name, n);
	return !vm->failed;
}

struct value call_builtin(struct vm *vm, const struct builtin *fn, struct value self,
		const struct args *args)
{
	struct call call = {.self = self, .args = args};

	if (vm->failed || (fn->params && !bind(vm, fn, args, call.arg)))
		return value_undefined(NULL);
	return fn->run(vm, &call);
}

static void exec_body(struct vm *vm, struct scope *s, const struct node *body)
{
	for (; body && !vm->failed && vm->flow == RUN; body = body->next)
		exec(vm, s, body);
}

/* What `body` writes, as a string. */
static struct value capture(struct vm *vm, struct scope *s, const struct node *body)
{
	struct text text = {0}, *out = vm->out;

	vm->out = &text;
	exec_body(vm, s, body);
	vm->out = out;
	return text_value(&text);
}

/* Binds a macro's parameters in its scope, defaults in order, each seeing those before it. */
static void bind_macro(struct vm *vm, struct scope *s, const struct node *def,
		const struct args *args)
{
	size_t n = 0, named = 0;

	for (const struct node *param = def->a; param && !vm->failed; param = param->next, n++) {
		const struct value *v = n < args->n ? &args->v[n] : named_arg(vm, args, param->name);
		named += n >= args->n && v;
		struct value absent = v || !param->a ? value_undefined(param->name) : eval(vm, s, param->a);
		scope_set(vm, s, param->name, v ? *v : absent);
	}
	const struct value *caller = named_arg(vm, args, "caller");
	if (caller && named < args->nnamed) {
		scope_set(vm, s, "caller", *caller);
		named++;
	}
	if (args->n > n || args->nnamed > named)
		vm_fail(vm, "macro '%.100s': expected at most %zu arguments, or an unknown name",
				def->name, n);
}

static struct value call_macro(struct vm *vm, const struct macro *macro, const struct args *args)
{
	struct scope *s = scope_new(vm, macro->scope);
	struct value out = value_undefined(NULL);

	if (vm->macros++ >= NEST_LIMIT)
		vm_fail(vm, "macros called more than %d deep", NEST_LIMIT);
	else if (s)
		bind_macro(vm, s, macro->def, args);
	if (!vm->failed)
		out = capture(vm, s, macro->def->b);
	vm->macros--;
	return out;
}

struct value call_value(struct vm *vm, struct value callee, const struct args *args)
{
	if (callee.kind == J_FUNCTION)
		return call_builtin(vm, callee.function, value_none(), args);
	if (callee.kind == J_METHOD)
		return call_builtin(vm, callee.method->fn, callee.method->self, args);
	if (callee.kind == J_MACRO)
		return call_macro(vm, callee.macro, args);
	if (callee.kind == J_UNDEFINED)
		return op_attr(vm, callee, "call");
	return vm_fail(vm, "'%s' object is not callable", value_type(callee));
}

static struct value eval_call(struct vm *vm, struct scope *s, const struct node *n,
		const struct value *caller)
{
	struct value callee = eval(vm, s, n->a);
	struct args args;

	if (!eval_args(vm, s, n->b, caller, &args))
		return value_undefined(NULL);
	vm->line = n->line;
	return call_value(vm, callee, &args);
}

static struct value eval_builtin(struct vm *vm, struct scope *s, const struct node *n)
{
	struct value self = eval(vm, s, n->a);
	struct args args;

	if (!eval_args(vm, s, n->b, NULL, &args))
		return value_undefined(NULL);
	vm->line = n->line;
	if (!n->fn)
		return vm_fail(vm, "no %s named '%.100s'", n->kind == N_TEST ? "test" : "filter", n->name);
	return call_builtin(vm, n->fn, self, &args);
}

/* ---- expressions ---- */

static struct value eval_items(struct vm *vm, struct scope *s, const struct node *n)
{
	struct value list = value_list(vm, n->kind == N_TUPLE ? J_TUPLE : J_LIST);

	for (const struct node *item = n->b; item && !vm->failed; item = item->next)
		list_push(vm, list, eval(vm, s, item));
	return list;
}

static struct value eval_dict(struct vm *vm, struct scope *s, const struct node *n)
{
	struct value dict = value_dict(vm, J_DICT);

	for (const struct node *pair = n->b; pair && !vm->failed; pair = pair->next) {
		struct value key = eval(vm, s, pair->a);
		dict_set(vm, dict, key, eval(vm, s, pair->b));
	}
	return dict;
}

static struct value eval_concat(struct vm *vm, struct scope *s, const struct node *n)
{
	struct text t = {0};

	for (const struct node *item = n->b; item && !vm->failed; item = item->next)
		print_value(vm, &t, eval(vm, s, item));
	return text_value(&t);
}

static struct value eval_compare(struct vm *vm, struct scope *s, const struct node *n)
{
	struct value left = eval(vm, s, n->a), result = value_bool(true);

	for (const struct node *operand = n->b; operand && result.truth;
			operand = operand->next) {
		struct value right = eval(vm, s, operand->a);
		vm->line = n->line;
		if (vm->failed)
			return value_undefined(NULL);
		result = op_compare(vm, operand->op, left, right);
		left = right;
	}
	return result;
}

static struct value eval_slice(struct vm *vm, struct scope *s, const struct node *n)
{
	struct value of = eval(vm, s, n->a);
	struct value start = n->b ? eval(vm, s, n->b) : value_none();
	struct value stop = n->c ? eval(vm, s, n->c) : value_none();
	struct value step = n->d ? eval(vm, s, n->d) : value_none();

	return vm->failed ? of : op_slice(vm, of, start, stop, step);
}

static struct value eval_ternary(struct vm *vm, struct scope *s, const struct node *n)
{
	if (op_truth(eval(vm, s, n->a)))
		return eval(vm, s, n->b);
	return n->c ? eval(vm, s, n->c) : value_undefined(NULL);
}

/* Operators on one or two values; the operands are evaluated whatever the first is. */
static struct value eval_operator(struct vm *vm, struct scope *s, const struct node *n)
{
	struct value a = eval(vm, s, n->a), b = n->b ? eval(vm, s, n->b) : value_none();

	vm->line = n->line;
	if (vm->failed)
		return value_undefined(NULL);
	switch ((enum node_kind)n->kind) {
	case N_ATTR: return op_attr(vm, a, n->name);
	case N_ITEM: return op_item(vm, a, b);
	case N_UNARY: return op_negate(vm, n->op, a);
	case N_NOT: return value_bool(!op_truth(a));
	default: return op_binary(vm, n->op, a, b);
	}
}

static struct value eval_logic(struct vm *vm, struct scope *s, const struct node *n)
{
	struct value left = eval(vm, s, n->a);

	return op_truth(left) == (n->kind == N_AND) ? eval(vm, s, n->b) : left;
}

static struct value eval_node(struct vm *vm, struct scope *s, const struct node *n)
{
	switch ((enum node_kind)n->kind) {
	case N_CONST: return n->value;
	case N_NAME: return scope_get(vm, s, n->name);
	case N_CAPTURED: return scope_get(vm, s, "");
	case N_CALL: return eval_call(vm, s, n, NULL);
	case N_FILTER: case N_TEST: return eval_builtin(vm, s, n);
	case N_LIST: case N_TUPLE: return eval_items(vm, s, n);
	case N_DICT: return eval_dict(vm, s, n);
	case N_CONCAT: return eval_concat(vm, s, n);
	case N_COMPARE: return eval_compare(vm, s, n);
	case N_SLICE: return eval_slice(vm, s, n);
	case N_TERNARY: return eval_ternary(vm, s, n);
	case N_AND: case N_OR: return eval_logic(vm, s, n);
	default: return eval_operator(vm, s, n);
	}
}

struct value eval(struct vm *vm, struct scope *s, const struct node *n)
{
	struct value v = enter(vm, n) ? eval_node(vm, s, n) : value_undefined(NULL);

	vm->stack--;
	return vm->failed ? value_undefined(NULL) : v;
}

/* ---- statements ---- */

static void emit(struct vm *vm, const char *s, size_t len)
{
	if (len > vm->output || vm->out->len > vm->output - len)
		vm_fail(vm, "more than %zu bytes of output", vm->output);
	text_put(vm, vm->out, s, len);
}

static void exec_print(struct vm *vm, struct scope *s, const struct node *n)
{
	struct value v = value_string(vm, eval(vm, s, n->a));

	if (!vm->failed)
		emit(vm, v.s, v.len);
}

static void exec_if(struct vm *vm, struct scope *s, const struct node *branch)
{
	for (; branch && !vm->failed; branch = branch->d) {
		if (!branch->a || op_truth(eval(vm, s, branch->a))) {
			exec_body(vm, s, branch->b);
			return;
		}
	}
}

static void exec_capture(struct vm *vm, struct scope *s, const struct node *n)
{
	struct scope *inner = scope_new(vm, s);
	struct value v = capture(vm, inner, n->b);

	/* the captured text is a variable that no template can name */
	scope_set(vm, inner, "", v);
	v = eval(vm, inner, n->c);
	if (n->a && !vm->failed) {
		assign(vm, s, n->a, v);
	} else if (!vm->failed) {
		v = value_string(vm, v);
		emit(vm, v.s, v.len);
	}
}

static struct value make_macro(struct vm *vm, struct scope *s, const struct node *def)
{
	struct macro *macro = vm_alloc(vm, 1, sizeof *macro);

	if (!macro)
		return value_undefined(NULL);
	for (struct scope *outer = s; outer && !outer->captured; outer = outer->parent)
		outer->captured = true;
	*macro = (struct macro){def, s};
	return (struct value){.kind = J_MACRO, .macro = macro};
}

static void exec_caller(struct vm *vm, struct scope *s, const struct node *n)
{
	struct value caller = make_macro(vm, s, n);
	struct value v = value_string(vm, eval_call(vm, s, n->c, &caller));

	if (!vm->failed)
		emit(vm, v.s, v.len);
}

static void exec_scope(struct vm *vm, struct scope *s, const struct node *n)
{
	struct scope *inner = scope_new(vm, s);

	for (const struct node *set = n->a; set && !vm->failed; set = set->next)
		assign(vm, inner, set->a, eval(vm, s, set->b));
	exec_body(vm, inner, n->b);
}

static void exec_node(struct vm *vm, struct scope *s, const struct node *n)
{
	switch ((enum node_kind)n->kind) {
	case N_TEXT: emit(vm, n->value.s, n->value.len); break;
	case N_PRINT: exec_print(vm, s, n); break;
	case N_IF: exec_if(vm, s, n); break;
	case N_FOR: exec_for(vm, s, n); break;
	case N_SET: assign(vm, s, n->a, eval(vm, s, n->b)); break;
	case N_CAPTURE: exec_capture(vm, s, n); break;
	case N_MACRO: scope_set(vm, s, n->name, make_macro(vm, s, n)); break;
	case N_CALLER: exec_caller(vm, s, n); break;
	case N_SCOPE: exec_scope(vm, s, n); break;
	case N_BREAK: vm->flow = BREAK; break;
	case N_CONTINUE: vm->flow = CONTINUE; break;
	default: vm_fail(vm, "not a statement");
	}
}

void exec(struct vm *vm, struct scope *s, const struct node *n)
{
	if (enter(vm, n))
		exec_node(vm, s, n);
	vm->stack--;
}
