/* template.c - fuzz: a chat template's source, and behind a NUL the JSON it is rendered with.  What is
 * accepted is rendered over a conversation as well; every answer is a text or a message, never both. */
#include "models/model.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);

static const char context[] = "{\"messages\": [{\"role\": \"system\", \"content\": \"Be brief.\\n\"},"
	"{\"role\": \"user\", \"content\": \" Gr\\u00fc\\u00dfe, <b> 'x' \"},"
	"{\"role\": \"assistant\", \"content\": null, \"tool_calls\": [{\"function\": {\"name\": \"f\","
	"\"arguments\": {\"a\": [1, 2.5, true, null], \"b\": {\"c\": \"d\"}}}}]},"
	"{\"role\": \"user\", \"content\": [{\"type\": \"text\", \"text\": \"look\"}, {\"type\": \"image\"}]}],"
	"\"tools\": [{\"name\": \"f\", \"n\": 3, \"x\": -0.5}], \"s\": \"a,b c\", \"n\": 7, \"l\": [3, 1, 2], \"t\": true}";

static void check(char *text, size_t len, const wf_error *err)
{
	if (!text != err->set || (text && strlen(text) > len))
		abort();
	free(text);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
	static const struct wf_message messages[] = {{"system", "Be brief.\n"},
			{"user", " h\xc3\xa9 \xff "}, {"assistant", NULL}, {NULL, ""}};
	const uint8_t *nul = memchr(data, 0, bytes);
	size_t source = nul ? (size_t)(nul - data) : bytes, len = 0;
	wf_arena *arena = wf_arena_new();
	wf_error err = {0};
	wf_template *t = wf_template_parse(arena, &err, (const char *)data, source);

	if (!t != err.set)
		abort();
	if (t) {
		check(wf_template_render(t, &err, messages, 4, bytes & 1, "<s>", bytes & 2 ? "</s>" : NULL,
				&len), len, &err);
		err.set = false;
		if (nul)
			check(wf_template_render_json(t, &err, (const char *)nul + 1, bytes - source - 1, &len),
					len, &err);
		else
			check(wf_template_render_json(t, &err, context, sizeof context - 1, &len), len, &err);
	}
	wf_arena_free(arena);
	return 0;
}
