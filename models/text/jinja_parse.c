/* jinja_parse.c - statements to a tree.
 *
 * Recursive descent with one token of look-ahead.  After an error the current token is the end of the
 * source and every new node is one dummy, so the callers above need no checks and all loops end. */
#include "models/text/jinja.h"

static struct node *parse_body(struct parser *p, const char *const *ends);

void parse_fail(struct parser *p, const char *fmt, ...)
{
	char what[256];
	va_list args;

	va_start(args, fmt);
	vsnprintf(what, sizeof what, fmt, args);
	va_end(args);
	if (!p->failed)
		wf_fail(p->err, "template line %d: %s", p->tok.line, what);
	p->failed = true;
	p->tok = p->ahead = (struct token){.kind = T_EOF, .line = p->tok.line};
}

void parse_next(struct parser *p)
{
	if (p->failed)
		return;
	p->tok = p->ahead;
	if (lex_next(&p->lex, &p->ahead) < 0)
		parse_fail(p, "malformed");
}

struct node *parse_node(struct parser *p, enum node_kind kind)
{
	struct node *n = p->failed ? NULL : wf_alloc(p->arena, sizeof *n);

	if (!n) {
		parse_fail(p, "out of memory");
		p->dummy = (struct node){.kind = N_CONST};
		return &p->dummy;
	}
	n->kind = (uint8_t)kind;
	n->line = p->tok.line;
	return n;
}

bool parse_enter(struct parser *p)
{
	if (p->depth++ >= NEST_LIMIT)
		parse_fail(p, "nested more than %d deep", NEST_LIMIT);
	return !p->failed;
}

void parse_leave(struct parser *p)
{
	p->depth--;
}

bool parse_is(const struct parser *p, int op)
{
	return p->tok.kind == T_OP && p->tok.op == op;
}

bool parse_take(struct parser *p, int op)
{
	if (!parse_is(p, op))
		return false;
	parse_next(p);
	return true;
}

void parse_expect(struct parser *p, int op)
{
	if (!parse_take(p, op))
		parse_fail(p, "expected '%c'", op);
}

bool parse_is_word(const struct parser *p, const char *word)
{
	const struct value *v = &p->tok.value;

	return p->tok.kind == T_NAME && v->len == strlen(word) && !memcmp(v->s, word, v->len);
}

bool parse_take_word(struct parser *p, const char *word)
{
	if (!parse_is_word(p, word))
		return false;
	parse_next(p);
	return true;
}

static bool is_word_of(const struct parser *p, const char *const *words)
{
	for (; *words; words++)
		if (parse_is_word(p, *words))
			return true;
	return false;
}

const char *parse_name(struct parser *p)
{
	if (p->tok.kind != T_NAME) {
		parse_fail(p, "expected a name");
		return "";
	}
	char *name = wf_alloc(p->arena, p->tok.value.len + 1);
	if (!name) {
		parse_fail(p, "out of memory");
		return "";
	}
	memcpy(name, p->tok.value.s, p->tok.value.len);
	parse_next(p);
	return name;
}

static void expect_tag_end(struct parser *p)
{
	if (p->tok.kind != T_TAG_END)
		parse_fail(p, "expected %%}");
	parse_next(p);
}

/* The statements up to one of the tags `ends`, whose name is then the current token. */
static struct node *parse_block(struct parser *p, const char *const *ends)
{
	struct node *body = NULL;

	parse_take(p, ':');
	expect_tag_end(p);
	if (parse_enter(p))
		body = parse_body(p, ends);
	parse_leave(p);
	if (p->tok.kind == T_EOF)
		parse_fail(p, "expected %s", ends[0]);
	return body;
}

static struct node *parse_to(struct parser *p, const char *end)
{
	struct node *body = parse_block(p, (const char *const[]){end, NULL});

	parse_next(p);
	return body;
}

static struct node *parse_if(struct parser *p)
{
	static const char *const ends[] = {"endif", "elif", "else", NULL};
	struct node *first = parse_node(p, N_IF);

	for (struct node *branch = first;; branch = branch->d = parse_node(p, N_IF)) {
		parse_next(p);
		branch->a = parse_tuple(p, false);
		branch->b = parse_block(p, ends);
		if (p->failed || !parse_is_word(p, "elif")) {
			if (parse_take_word(p, "endif") || p->failed)
				return first;
			branch = branch->d = parse_node(p, N_IF);
			parse_next(p);
			branch->b = parse_to(p, "endif");
			return first;
		}
	}
}

static struct node *parse_for(struct parser *p)
{
	static const char *const ends[] = {"endfor", "else", NULL};
	struct node *n = parse_node(p, N_FOR);

	parse_next(p);
	n->a = parse_target(p);
	if (!parse_take_word(p, "in"))
		parse_fail(p, "expected in");
	n->c = parse_tuple(p, false);
	if (parse_take_word(p, "if"))
		n->d = parse_expr(p);
	parse_take_word(p, "recursive");        /* only a call of `loop` would need it */
	p->loops++;
	n->b = parse_block(p, ends);
	p->loops--;
	if (parse_take_word(p, "else"))
		n->e = parse_to(p, "endfor");
	else
		parse_next(p);
	return n;
}

static struct node *parse_set(struct parser *p)
{
	struct node *n = parse_node(p, N_SET);

	parse_next(p);
	n->a = parse_target(p);
	if (parse_take(p, '=')) {
		n->b = parse_tuple(p, true);
		return n;
	}
	n->kind = N_CAPTURE;
	n->c = parse_filters(p, parse_node(p, N_CAPTURED));
	n->b = parse_to(p, "endset");
	return n;
}

static struct node *parse_filter_block(struct parser *p)
{
	struct node *n = parse_node(p, N_CAPTURE);

	parse_next(p);
	n->c = parse_filters(p, parse_filter(p, parse_node(p, N_CAPTURED)));
	n->b = parse_to(p, "endfilter");
	return n;
}

/* (a, b=1): a list of N_NAMED, a default in a */
static struct node *parse_parameters(struct parser *p)
{
	struct node *first = NULL, **tail = &first;
	bool defaults = false;

	parse_expect(p, '(');
	while (!p->failed && !parse_is(p, ')')) {
		if (first)
			parse_expect(p, ',');
		struct node *n = *tail = parse_node(p, N_NAMED);
		tail = &n->next;
		n->name = parse_name(p);
		if (parse_take(p, '='))
			n->a = parse_expr(p);
		else if (defaults)
			parse_fail(p, "expected a default for '%.100s', as the parameter before it has",
					n->name);
		defaults = n->a;
	}
	parse_expect(p, ')');
	return first;
}

/* A macro is a function of its own: break does not reach a loop around it. */
static struct node *parse_function_body(struct parser *p, const char *end)
{
	int loops = p->loops;

	p->loops = 0;
	struct node *body = parse_to(p, end);
	p->loops = loops;
	return body;
}

static struct node *parse_macro(struct parser *p)
{
	struct node *n = parse_node(p, N_MACRO);

	parse_next(p);
	n->name = parse_name(p);
	n->a = parse_parameters(p);
	n->b = parse_function_body(p, "endmacro");
	return n;
}

static struct node *parse_call(struct parser *p)
{
	struct node *n = parse_node(p, N_CALLER);

	n->name = "caller";
	parse_next(p);
	if (parse_is(p, '('))
		n->a = parse_parameters(p);
	n->c = parse_expr(p);
	if (n->c->kind != N_CALL)
		parse_fail(p, "expected a call of a macro");
	n->b = parse_function_body(p, "endcall");
	return n;
}

/* with a = 1, b = 2: assignments in a scope of their own; values see the scope around it */
static struct node *parse_with(struct parser *p)
{
	struct node *n = parse_node(p, N_SCOPE), **tail = &n->a;

	parse_next(p);
	while (!p->failed && p->tok.kind != T_TAG_END) {
		if (n->a)
			parse_expect(p, ',');
		struct node *set = *tail = parse_node(p, N_SET);
		tail = &set->next;
		set->a = parse_target(p);
		parse_expect(p, '=');
		set->b = parse_expr(p);
	}
	n->b = parse_to(p, "endwith");
	return n;
}

/* Marks what the model wrote, for training; a scope of its own as transformers compile it. */
static struct node *parse_generation(struct parser *p)
{
	struct node *n = parse_node(p, N_SCOPE);

	parse_next(p);
	n->b = parse_to(p, "endgeneration");
	return n;
}

static struct node *parse_jump(struct parser *p)
{
	struct node *n = parse_node(p, parse_is_word(p, "break") ? N_BREAK : N_CONTINUE);

	if (!p->loops)
		parse_fail(p, "expected a loop around break and continue");
	parse_next(p);
	return n;
}

static struct node *parse_print(struct parser *p)
{
	struct node *n = parse_node(p, N_PRINT);

	parse_next(p);
	struct node *all = n->a = parse_node(p, N_CONCAT), **tail = &all->b;
	do {
		struct node *item = *tail = parse_expr(p);
		tail = &item->next;
	} while (parse_take(p, ','));
	return n;
}

static struct node *parse_statement(struct parser *p)
{
	static const struct { const char *word; struct node *(*parse)(struct parser *); } tags[] = {
		{"if", parse_if}, {"for", parse_for}, {"set", parse_set}, {"macro", parse_macro},
		{"generation", parse_generation}, {"break", parse_jump}, {"continue", parse_jump},
		{"filter", parse_filter_block}, {"call", parse_call}, {"with", parse_with},
		{"print", parse_print},
	};

	for (size_t i = 0; i < sizeof tags / sizeof *tags; i++)
		if (parse_is_word(p, tags[i].word))
			return tags[i].parse(p);
	if (p->tok.kind == T_NAME)
		parse_fail(p, "unsupported tag '%.*s'",
				(int)(p->tok.value.len < 64 ? p->tok.value.len : 64), p->tok.value.s);
	parse_fail(p, "expected a tag's name");
	return &p->dummy;
}

static struct node *parse_text(struct parser *p)
{
	struct node *n = parse_node(p, N_TEXT);

	n->value = p->tok.value;
	parse_next(p);
	return n;
}

static struct node *parse_output(struct parser *p)
{
	struct node *n = parse_node(p, N_PRINT);

	parse_next(p);
	n->a = parse_tuple(p, true);
	if (p->tok.kind != T_PRINT_END)
		parse_fail(p, "expected }}");
	parse_next(p);
	return n;
}

static struct node *parse_body(struct parser *p, const char *const *ends)
{
	struct node *first = NULL, **tail = &first, *n;

	while (!p->failed && p->tok.kind != T_EOF) {
		if (p->tok.kind == T_TEXT) {
			n = parse_text(p);
		} else if (p->tok.kind == T_PRINT) {
			n = parse_output(p);
		} else {
			parse_next(p);
			if (ends && is_word_of(p, ends))
				return first;
			n = parse_statement(p);
			expect_tag_end(p);
		}
		*tail = n;
		tail = &n->next;
	}
	return first;
}

struct node *parse_template(wf_arena *arena, wf_error *err, const char *source, size_t len)
{
	struct parser *p = wf_alloc(arena, sizeof *p);

	if (!p) {
		wf_fail(err, "template: out of memory");
		return NULL;
	}
	p->arena = arena;
	p->err = err;
	p->failed = lex_open(&p->lex, arena, err, source, len) < 0;
	parse_next(p);
	parse_next(p);
	struct node *body = parse_node(p, N_SCOPE);
	body->b = parse_body(p, NULL);
	return p->failed ? NULL : body;
}
