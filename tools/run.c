/* run.c - answer one prompt: through the model's chat template when it has one, else as it stands. */
#include "tools/weft.h"

#include <string.h>

/* The prompt's ids: the start token alone for an empty one. */
static int raw_ids(struct session *s, const char *text, size_t len, struct tokens *ids)
{
	if (prompt_ids(s, text, len, s->o->special, ids))
		return -1;
	int32_t bos = wf_token_bos(s->model->tokenizer);
	if (!ids->n && bos >= 0)
		return tokens_add(ids, &s->err, &bos, 1);
	return ids->n ? 0 : wf_fail(&s->err, "an empty prompt, and the model has no start token");
}

static int make_ids(struct session *s, struct tokens *ids, bool *continues)
{
	size_t len = 0;
	wf_template *t = NULL;
	char *text = prompt_read(s, &len);
	bool talk = s->o->conversation == 1 || s->o->chat_template || s->o->system;
	int result = text ? 0 : -1;

	if (!result && s->o->conversation != 0 && (talk || len))
		result = prompt_template(s, talk, &t) < 0 ? -1 : 0;
	if (!result && talk && !t)
		result = wf_fail(&s->err, "the model has no chat template (--chat-template NAME chooses one)");
	if (!result && t) {
		struct wf_message message[2] = {{"system", s->o->system}, {"user", text}};
		result = prompt_render(s, t, message + !s->o->system, s->o->system ? 2 : 1, ids);
	} else if (!result) {
		result = raw_ids(s, text, len, ids);
		*continues = len > 0;
	}
	free(text);
	return result;
}

static void report_end(const struct session *s, enum generate_end end)
{
	if (end == END_CONTEXT)
		say(s->o, "the context of %lld tokens is full (-c N for more)\n", (long long)session_ctx(s));
}

static int answer(struct session *s, struct generator *g, const struct tokens *ids)
{
	int result = generator_feed(g, ids);

	if (result > 0)
		return wf_fail(&s->err, "the prompt has %zu tokens, the context %lld (-c N for more)", ids->n,
			(long long)session_ctx(s));
	if (result < 0)
		return -1;
	enum generate_end end = interrupted ? END_INTERRUPT : generator_run(g, s->o->predict, stdout, NULL);
	if (end == END_FAILED)
		return -1;
	putchar('\n');
	fflush(stdout);
	report_end(s, end);
	generator_report(g);
	return end == END_INTERRUPT ? WEFT_INTERRUPTED : WEFT_OK;
}

int run_main(const struct options *o)
{
	struct session s;
	struct tokens ids = {0};
	struct generator g = {0};
	bool continues = false;
	int code = -1;

	session_start(&s, o);
	if (session_model(&s, 0) || make_ids(&s, &ids, &continues))
		goto out;
	struct wf_sizes sizes = plan_sizes(&s);
	if (session_plan(&s, &sizes, NULL) || session_runner(&s, &sizes, false) || generator_start(&g, &s))
		goto out;
	g.continues = continues;
	catch_interrupt(false);
	code = answer(&s, &g, &ids);
out:
	tokens_free(&ids);
	generator_end(&g);
	if (code < 0)
		return session_failed(&s);
	session_close(&s);
	return close_stdout(o, code);
}
