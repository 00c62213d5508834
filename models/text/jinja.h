/* jinja.h - what the files of the template engine share: tokens, tree, values, machine.
 *
 * A bounded subset of Jinja2 as chat templates use it, with the behaviour of the sandbox that
 * transformers renders them in (trim_blocks, lstrip_blocks, loop controls, its tojson).  Templates
 * are hostile: no host access, every loop and copy is counted, every recursion is bounded, all memory
 * of a rendering is one arena.  Errors are sticky: after the first, values are undefined, nothing more
 * is written and every loop ends, so only the outermost caller has to look. */
#ifndef WF_JINJA_H
#define WF_JINJA_H

#include "models/model.h"

#include <string.h>

enum {
	SOURCE_LIMIT = 256 << 10,    /* bytes of a template */
	OUTPUT_LIMIT = 1 << 20,      /* bytes written beyond what the conversation itself holds */
	MEMORY_LIMIT = 64 << 20,     /* bytes of values in one rendering, likewise */
	STEP_LIMIT = 1000000,        /* evaluations, likewise; also one for every STEP_BYTES copied or compared */
	STEP_BYTES = 64,
	NEST_LIMIT = 64,             /* blocks and brackets in the source, macro calls, nested data */
	STACK_LIMIT = 600,           /* interpreter frames: the longest chain of + is nearly this */
	RANGE_LIMIT = 100000,        /* as the sandbox has it */
	MAXPARAM = 5
};

struct vm;
struct node;
struct scope;

/* ---- values ---------------------------------------------------------------------------------- */

enum value_kind {
	J_ABSENT,                    /* a parameter that was not given; never seen by a template */
	J_UNDEFINED, J_NONE, J_BOOL, J_INT, J_FLOAT, J_STRING,
	J_LIST, J_TUPLE, J_RANGE, J_VIEW, J_GENERATOR,      /* all a struct list */
	J_DICT, J_NAMESPACE,                                /* both a struct dict */
	J_LOOP, J_MACRO, J_METHOD, J_FUNCTION
};

struct value {
	uint8_t kind;
	bool safe;                   /* a string that escape or safe has marked */
	uint32_t len;                /* bytes of a string */
	union {
		bool truth;
		int64_t i;
		double f;
		const char *s;           /* UTF-8, len bytes; an undefined value's name, or NULL */
		struct list *list;
		struct dict *dict;
		struct loop *loop;
		const struct macro *macro;
		const struct bound *method;
		const struct builtin *function;
	};
};

struct list {
	struct value *v;
	size_t n, cap;
	size_t taken;                /* a generator gives every item once */
	int64_t range[3];            /* start, stop and step as a range prints them */
	const char *label;           /* of a view: dict_items */
};

struct pair { struct value key, value; };
struct dict { struct pair *at; size_t n, cap; };        /* in order of insertion */
struct bound { struct value self; const struct builtin *fn; };
struct macro { const struct node *def; struct scope *scope; };

struct args {
	struct value *v;             /* [n] by position */
	struct pair *named;          /* [nnamed] by keyword, keys are strings */
	size_t n, nnamed;
};

struct call {
	struct value self, arg[MAXPARAM];
	const struct args *args;     /* all of them, for builtins without a parameter list */
};

/* A filter, test, method or function.  `params` names its parameters, "old! new! count": '!' must be
 * given; NULL takes what comes. */
struct builtin {
	const char *name, *params;
	struct value (*run)(struct vm *, const struct call *);
};

/* ---- the source, the tree ---------------------------------------------------------------------- */

enum token_kind { T_EOF, T_TEXT, T_TAG, T_TAG_END, T_PRINT, T_PRINT_END, T_NAME, T_VALUE, T_OP };

struct token {
	enum token_kind kind;
	int line, op;                /* op: its character, or OP2 of its two */
	struct value value;          /* T_TEXT, T_NAME: the bytes; T_VALUE: the constant */
};

#define OP2(a, b) ((a) << 8 | (b))

struct lexer {
	wf_arena *arena;
	wf_error *err;
	const char *start, *p, *end; /* newlines are "\n" */
	enum token_kind in;          /* T_TEXT, T_TAG or T_PRINT */
	int begin;                   /* what the text just given was followed by */
	int line, nopen;
	char open[NEST_LIMIT];       /* brackets to be closed */
};

enum node_kind {
	/* statements; `next` is the following one */
	N_TEXT,                      /* value */
	N_PRINT,                     /* a */
	N_IF,                        /* a condition or NULL, b body, d the next branch */
	N_FOR,                       /* name/a target, b body, c list, d filter, e else */
	N_SET,                       /* a target, b value */
	N_CAPTURE,                   /* a target or NULL (print it), b body, c filters over N_CAPTURED */
	N_MACRO,                     /* name, a parameters, b body */
	N_CALLER,                    /* a parameters, b body, c the call */
	N_SCOPE,                     /* a assignments, b body */
	N_BREAK, N_CONTINUE,
	/* expressions; `next` is the following operand */
	N_CONST,                     /* value */
	N_NAME, N_CAPTURED,
	N_FIELD,                     /* name.name as a target */
	N_ATTR,                      /* a.name */
	N_ITEM,                      /* a[b] */
	N_SLICE,                     /* a[b:c:d] */
	N_CALL, N_FILTER, N_TEST,    /* a is called or filtered, b arguments */
	N_NAMED,                     /* name=a among arguments and parameters */
	N_SPREAD,                    /* *a or **a among arguments */
	N_LIST, N_TUPLE, N_CONCAT,   /* b items */
	N_DICT,                      /* b of N_PAIR */
	N_PAIR,                      /* a: b */
	N_UNARY, N_BINARY, N_AND, N_OR, N_NOT,
	N_COMPARE,                   /* a, then b of N_OPERAND */
	N_OPERAND,                   /* op a */
	N_TERNARY                    /* b if a else c or NULL */
};

enum { OP_IN = 256, OP_NOT_IN };                        /* beside the characters */

struct node {
	uint8_t kind;
	int line, op;
	struct node *next, *a, *b, *c, *d, *e;
	const char *name;
	const struct builtin *fn;    /* N_FILTER, N_TEST: NULL when there is none of that name */
	struct value value;
};

struct parser {
	struct lexer lex;
	wf_arena *arena;
	wf_error *err;
	struct token tok, ahead;
	int depth, loops;            /* nesting, and loops that break may leave */
	bool failed;
	struct node dummy;           /* what a failed parser hands out */
};

struct wf_template { struct node *body; };

/* jinja_lex.c: source to tokens.  lex_open takes a copy with newlines made "\n". */
int lex_open(struct lexer *, wf_arena *, wf_error *, const char *source, size_t len);
int lex_next(struct lexer *, struct token *);           /* -1 after wf_fail */

/* jinja_parse.c: statements; jinja_expr.c: expressions */
struct node *parse_template(wf_arena *, wf_error *, const char *source, size_t len);
struct node *parse_node(struct parser *, enum node_kind);
void parse_fail(struct parser *, const char *fmt, ...) WF_PRINTF(2, 3);
void parse_next(struct parser *);
bool parse_enter(struct parser *);                      /* one level deeper, until parse_leave */
void parse_leave(struct parser *);
bool parse_is(const struct parser *, int op);
bool parse_take(struct parser *, int op);
void parse_expect(struct parser *, int op);
bool parse_is_word(const struct parser *, const char *);
bool parse_take_word(struct parser *, const char *);
const char *parse_name(struct parser *);
struct node *parse_expr(struct parser *);
struct node *parse_tuple(struct parser *, bool ternary);   /* one expression, or several with commas */
struct node *parse_target(struct parser *);
struct node *parse_filters(struct parser *, struct node *subject);   /* | name(args) ... */
struct node *parse_filter(struct parser *, struct node *subject);    /* name(args) */

/* ---- the machine ------------------------------------------------------------------------------- */

struct text { char *s; size_t len, cap; };

struct scope {
	struct scope *parent;
	struct var { const char *name; struct value value; } *var;
	size_t n, cap;
	bool captured;               /* a macro made in it may outlive it */
};

struct vm {
	wf_arena *arena;
	wf_error *err;
	bool failed;
	size_t memory, output;       /* limits */
	int64_t steps, step_limit;
	int line, stack, macros;
	struct text *out;
	enum { RUN, BREAK, CONTINUE } flow;
};

/* jinja_value.c: memory, construction, iteration */
struct value vm_fail(struct vm *, const char *fmt, ...) WF_PRINTF(2, 3);
bool  vm_work(struct vm *, size_t bytes);               /* counts a step; false when there were too many */
void *vm_alloc(struct vm *, size_t n, size_t bytes);    /* NULL after a failure */
void  text_put(struct vm *, struct text *, const char *s, size_t len);
void  text_puts(struct vm *, struct text *, const char *s);
void  text_printf(struct vm *, struct text *, const char *fmt, ...) WF_PRINTF(3, 4);   /* short */
struct value text_value(const struct text *);
struct value value_undefined(const char *name);
struct value value_none(void);
struct value value_bool(bool);
struct value value_int(int64_t);
struct value value_float(double);
struct value value_text(const char *s, size_t len);     /* keeps the pointer */
struct value value_list(struct vm *, enum value_kind);
struct value value_dict(struct vm *, enum value_kind);
struct value value_function(const struct builtin *);
void  list_push(struct vm *, struct value list, struct value);
void  list_turn(struct value list);                     /* in place */
bool  check_key(struct vm *, struct value key);         /* fails for what Python cannot hash */
void  dict_set(struct vm *, struct value dict, struct value key, struct value);
bool  dict_get(struct vm *, struct value dict, struct value key, struct value *out);
bool  is_list(struct value);                            /* any kind that is a struct list */
bool  is_number(struct value);
const char *value_type(struct value);                   /* as Python names it */

struct iter { struct value over; size_t at; };
bool  iter_open(struct vm *, struct value over, struct iter *);      /* false after a failure */
bool  iter_next(struct vm *, struct iter *, struct value *item);
bool  is_iterable(struct value);
int64_t value_length(struct vm *, struct value);        /* -1 after a failure */

/* jinja_print.c: text from values */
void  print_value(struct vm *, struct text *, struct value);         /* as str() */
void  print_repr(struct vm *, struct text *, struct value);
void  print_float(struct vm *, struct text *, double);
struct value value_string(struct vm *, struct value);                /* as str() */
struct json_style { const char *item, *colon; struct value indent; bool ascii, sorted; };
void  print_json(struct vm *, struct text *, struct value, const struct json_style *, int depth);

/* jinja_ops.c, jinja_item.c: operators */
bool  op_truth(struct value);
bool  op_equal(struct vm *, struct value, struct value);
enum { UNORDERED = 2 };
int   op_order(struct vm *, struct value, struct value);             /* -1, 0, 1 or UNORDERED */
bool  op_in(struct vm *, struct value item, struct value container);
struct value op_compare(struct vm *, int op, struct value, struct value);
struct value op_binary(struct vm *, int op, struct value, struct value);
struct value op_negate(struct vm *, int op, struct value);
struct value op_attr(struct vm *, struct value, const char *name);   /* a.name */
struct value op_item(struct vm *, struct value, struct value index); /* a[index] */
struct value op_slice(struct vm *, struct value, struct value start, struct value stop,
		struct value step);
struct value op_path(struct vm *, struct value, struct value path);  /* a["x.y.0"] as filters have it */

/* jinja_eval.c: the interpreter */
void exec(struct vm *, struct scope *, const struct node *);
struct value eval(struct vm *, struct scope *, const struct node *);
struct value call_value(struct vm *, struct value callee, const struct args *);
struct value call_builtin(struct vm *, const struct builtin *, struct value self,
		const struct args *);
struct scope *scope_new(struct vm *, struct scope *parent);
void scope_set(struct vm *, struct scope *, const char *name, struct value);

/* jinja_loop.c: the for statement and what its body sees of it */
void exec_for(struct vm *, struct scope *, const struct node *);
void assign(struct vm *, struct scope *, const struct node *target, struct value);
struct value loop_attr(struct vm *, struct loop *, const char *name);

/* builtins by name; NULL when there is none */
const struct builtin *builtin_find(const struct builtin *table, const char *name);
const struct builtin *filter_find(const char *name);                 /* jinja_filters.c */
const struct builtin *test_find(const char *name);                   /* jinja_tests.c */
const struct builtin *method_find(struct value, const char *name);   /* jinja_methods.c */
extern const struct builtin jinja_functions[], jinja_sequence_filters[], jinja_string_methods[];
bool arg_bool(const struct call *, int i, bool absent);
int64_t arg_int(struct vm *, const struct call *, int i, int64_t absent);
struct value arg_text(struct vm *, const struct call *, int i, const char *absent);

/* jinja_string.c: Unicode and Python's string functions */
int32_t string_get(const char *s, const char *end, size_t *bytes);     /* an invalid byte b as 0xdc00 + b */
int32_t string_back(const char *start, const char *end, size_t *bytes);/* the character before end */
size_t string_put(char *out, int32_t c);
size_t string_count(const char *s, size_t len);
size_t string_offset(const char *s, size_t len, size_t chars);         /* bytes of so many characters */
bool   string_is_space(int32_t c);
bool   string_is_printable(int32_t c);
bool   string_is_digits(const char *s, size_t len);            /* 0-9, at least one */
enum letter_case { UPPER, LOWER, TITLE, CAPITALIZE, TITLE_WORDS };
struct value string_case(struct vm *, struct value, enum letter_case);
struct value string_strip(struct vm *, struct value, struct value chars, int ends);   /* ends: 1 left, 2 right */
struct value string_replace(struct vm *, struct value, struct value old, struct value new,
		int64_t count);
struct value string_escape(struct vm *, struct value);               /* HTML, marked safe */
struct value string_join(struct vm *, struct value sep, struct value items);
struct value string_lines(struct vm *, struct value);
struct value string_percent(struct vm *, struct value format, struct value args);     /* jinja_format.c */
struct value string_format(struct vm *, struct value format, const struct args *);

#endif
