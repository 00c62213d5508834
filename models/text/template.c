/* template.c - chat templates: a Jinja source compiled once, a conversation rendered many times.
 *
 * A rendering has an arena of its own that is gone when it returns, so a compiled template can be
 * used from several threads at once.  Limits grow with the conversation, which the caller answers for;
 * what a template adds to it is bounded. */
#include "models/text/jinja.h"

#include <jansson.h>
#include <stdlib.h>

/* templates that look through all messages for each one, or at each character of them, are in use */
enum { INPUT_LIMIT = 256 << 20, MEMORY_PER_BYTE = 8, STEPS_PER_BYTE = 8 };

wf_template *wf_template_parse(wf_arena *arena, wf_error *err, const char *source, size_t len)
{
	struct node *body = parse_template(arena, err, source, len);
	wf_template *t = body ? wf_alloc(arena, sizeof *t) : NULL;

	if (!t) {
		wf_fail(err, "template: out of memory");
		return NULL;
	}
	t->body = body;
	return t;
}

/* A copy for the caller, NUL-terminated; NULL after a failure. */
static char *take_output(struct vm *vm, const struct text *out, size_t *len)
{
	char *s = vm->failed ? NULL : malloc(out->len + 1);

	if (!s) {
		vm_fail(vm, "out of memory for %zu bytes of output", out->len);
		return NULL;
	}
	if (out->len)
		memcpy(s, out->s, out->len);
	s[out->len] = 0;
	*len = out->len;
	return s;
}

/* Renders with the variables that fill() puts into the outermost scope. */
static char *render(const wf_template *t, wf_error *err, size_t input, size_t *len,
		void (*fill)(struct vm *, struct scope *, const void *), const void *arg)
{
	struct text out = {0};
	struct vm vm = {.err = err, .out = &out, .output = OUTPUT_LIMIT + input,
			.memory = MEMORY_LIMIT + MEMORY_PER_BYTE * input,
		.step_limit = STEP_LIMIT + STEPS_PER_BYTE * (int64_t)input};
	char *s = NULL;

	if (input > INPUT_LIMIT)
		wf_fail(err, "template: at most %d bytes of conversation, found %zu", INPUT_LIMIT, input);
	else if (!(vm.arena = wf_arena_new()))
		wf_fail(err, "template: out of memory");
	if (!vm.arena)
		return NULL;
	struct scope *context = scope_new(&vm, NULL);
	if (context)
		fill(&vm, context, arg);
	if (!vm.failed)
		exec(&vm, context, t->body);
	s = take_output(&vm, &out, len);
	wf_arena_free(vm.arena);
	return s;
}

/* ---- roles and contents ---- */

struct conversation {
	const struct wf_message *messages;   /* [n] */
	int n;
	bool prompt;
	const char *bos, *eos;               /* NULL: undefined */
};

static struct value c_string(const char *s)
{
	return s ? value_text(s, strlen(s)) : value_none();
}

static void set_item(struct vm *vm, struct value dict, const char *key, struct value v)
{
	dict_set(vm, dict, c_string(key), v);
}

static void fill_conversation(struct vm *vm, struct scope *s, const void *arg)
{
	const struct conversation *c = arg;
	struct value list = value_list(vm, J_LIST);

	for (int i = 0; i < c->n && !vm->failed; i++) {
		struct value message = value_dict(vm, J_DICT);
		set_item(vm, message, "role", c_string(c->messages[i].role));
		set_item(vm, message, "content", c_string(c->messages[i].content));
		list_push(vm, list, message);
	}
	scope_set(vm, s, "messages", list);
	scope_set(vm, s, "add_generation_prompt", value_bool(c->prompt));
	if (c->bos)
		scope_set(vm, s, "bos_token", c_string(c->bos));
	if (c->eos)
		scope_set(vm, s, "eos_token", c_string(c->eos));
}

static size_t bytes_of(const char *s)
{
	return s ? strlen(s) : 0;
}

char *wf_template_render(const wf_template *t, wf_error *err, const struct wf_message *messages,
		int n, bool generation_prompt, const char *bos, const char *eos, size_t *len)
{
	struct conversation c = {messages, n, generation_prompt, bos, eos};
	size_t input = 0;

	for (int i = 0; i < n; i++)
		input += bytes_of(messages[i].role) + bytes_of(messages[i].content);
	return render(t, err, input, len, fill_conversation, &c);
}

/* ---- any context, from JSON ---- */

static struct value from_json(struct vm *vm, json_t *json, int depth);

static struct value from_object(struct vm *vm, json_t *json, int depth)
{
	struct value dict = value_dict(vm, J_DICT);
	const char *key;
	json_t *item;

	json_object_foreach(json, key, item)
		set_item(vm, dict, key, from_json(vm, item, depth + 1));
	return dict;
}

static struct value from_array(struct vm *vm, json_t *json, int depth)
{
	struct value list = value_list(vm, J_LIST);
	json_t *item;
	size_t i;

	json_array_foreach(json, i, item)
		list_push(vm, list, from_json(vm, item, depth + 1));
	return list;
}

static struct value from_json(struct vm *vm, json_t *json, int depth)
{
	if (vm->failed || depth > NEST_LIMIT)
		return vm_fail(vm, "context nested more than %d deep", NEST_LIMIT);
	switch (json_typeof(json)) {
	case JSON_OBJECT: return from_object(vm, json, depth);
	case JSON_ARRAY: return from_array(vm, json, depth);
	case JSON_STRING: return value_text(json_string_value(json), json_string_length(json));
	case JSON_INTEGER: return value_int(json_integer_value(json));
	case JSON_REAL: return value_float(json_real_value(json));
	case JSON_TRUE: case JSON_FALSE: return value_bool(json_is_true(json));
	default: return value_none();
	}
}

static void fill_json(struct vm *vm, struct scope *s, const void *arg)
{
	json_t *root = (json_t *)arg, *item;
	const char *key;

	json_object_foreach(root, key, item)
		scope_set(vm, s, key, from_json(vm, item, 0));
}

char *wf_template_render_json(const wf_template *t, wf_error *err, const char *json,
		size_t json_len, size_t *len)
{
	json_t *root = json_read(err, "template", json, json_len);
	char *s = NULL;

	if (json_is_object(root))
		s = render(t, err, json_len, len, fill_json, root);
	else
		wf_fail(err, "template: expected a JSON object as context");
	json_decref(root);
	return s;
}
