/* render.c - renders templates for tests/templates.py: one JSON object {"template", "context"} a line
 * on stdin, one {"text"} or {"error"} a line on stdout.  {"builtin": NAME} asks for a source. */
#include "models/model.h"

#include <jansson.h>
#include <stdlib.h>
#include <string.h>

static json_t *render(const char *source, size_t source_len, const char *context)
{
	wf_error err = {0};
	wf_arena *arena = wf_arena_new();
	wf_template *t = arena ? wf_template_parse(arena, &err, source, source_len) : NULL;
	size_t len;
	char *text = t ? wf_template_render_json(t, &err, context, strlen(context), &len) : NULL;
	json_t *result = text ? json_pack("{s:o}", "text", json_stringn_nocheck(text, len)) :
		json_pack("{s:s}", "error", err.set ? err.text : "no message");

	free(text);
	wf_arena_free(arena);
	return result;
}

static json_t *respond(const json_t *request)
{
	json_t *source = json_object_get(request, "template"),
			*name = json_object_get(request, "builtin");
	const char *builtin = name ? wf_template_builtin(json_string_value(name)) : NULL;
	char *context = json_dumps(json_object_get(request, "context"), JSON_COMPACT);
	json_t *result = NULL;

	if (builtin)
		result = json_pack("{s:s}", "text", builtin);
	else if (json_is_string(source) && context)
		result = render(json_string_value(source), json_string_length(source), context);
	free(context);
	return result;
}

static int answer(const char *line)
{
	json_error_t why;
	json_t *request = json_loads(line, JSON_ALLOW_NUL, &why);
	json_t *result = request ? respond(request) : NULL;
	char *text = result ? json_dumps(result, JSON_COMPACT) : NULL;
	int rc = text ? puts(text) : -1;

	free(text);
	json_decref(result);
	json_decref(request);
	return rc < 0 ? -1 : 0;
}

int main(void)
{
	char *line = NULL;
	size_t cap = 0;
	int rc = 0;

	while (!rc && getline(&line, &cap, stdin) > 0)
		rc = answer(line);
	free(line);
	return rc ? 1 : 0;
}
