/* chat.c - a conversation: each turn renders the whole of it, and only what is new is computed.
 *
 * Ctrl-C stops an answer, or clears the line; Ctrl-D and /exit end the program. */
#include "tools/weft.h"

#include <string.h>
#include <unistd.h>

struct chat {
	struct session *s;
	struct generator g;
	wf_template *template;
	struct wf_message *message;           /* [n], contents malloc'd */
	int n, max;
	struct lines lines;
};

/* ---- turns ---- */

/* Owns text from here on. */
static int add_message(struct chat *c, const char *role, char *text)
{
	if (text && c->n == c->max) {
		int max = c->max * 2 + 8;
		struct wf_message *more = realloc(c->message, max * sizeof *more);
		if (more) {
			c->message = more;
			c->max = max;
		}
	}
	if (!text || c->n == c->max) {
		free(text);
		return wf_fail(&c->s->err, "out of memory");
	}
	c->message[c->n++] = (struct wf_message){role, text};
	return 0;
}

static void drop_messages(struct chat *c, int from)
{
	while (c->n > from)
		free((char *)(uintptr_t)c->message[--c->n].content);
}

static int begin(struct chat *c)
{
	drop_messages(c, 0);
	return c->s->o->system ? add_message(c, "system", strdup(c->s->o->system)) : 0;
}

static int feed(struct chat *c)
{
	struct tokens ids = {0};
	int result = prompt_render(c->s, c->template, c->message, c->n, &ids);

	if (!result)
		result = generator_feed(&c->g, &ids);
	tokens_free(&ids);
	return result;
}

/* Owns text.  A turn that does not fit is forgotten. */
static int turn(struct chat *c, char *text)
{
	struct answer answer = {0};
	int before = c->n;

	if (add_message(c, "user", text))
		return -1;
	int result = feed(c);
	if (result) {
		drop_messages(c, before);
		if (result > 0)
			say(c->s->o, "The conversation does not fit %lld tokens any more: /reset starts anew, -c N gives more.\n",
				(long long)session_ctx(c->s));
		return result < 0 ? -1 : 0;
	}
	enum generate_end end = interrupted ? END_INTERRUPT : generator_run(&c->g, c->s->o->predict, stdout, &answer);
	putchar('\n');
	fflush(stdout);
	if (end == END_CONTEXT)
		say(c->s->o, "(the context is full)\n");
	if (c->s->o->verbose)
		generator_report(&c->g);
	if (end == END_FAILED) {
		free(answer.text);
		return -1;
	}
	return add_message(c, "assistant", answer.text ? answer.text : strdup(""));
}

/* 1: leave. */
static int command(struct chat *c, const char *line)
{
	if (!strcmp(line, "/exit") || !strcmp(line, "/quit") || !strcmp(line, "/bye"))
		return 1;
	if (!strcmp(line, "/reset"))
		return begin(c) ? -1 : 0;
	say(c->s->o, "/reset starts anew, /exit leaves; Ctrl-C stops an answer; a line that ends in \\ goes on\n");
	return 0;
}

static int talk(struct chat *c)
{
	int result = begin(c);

	while (!result) {
		forget_interrupt();
		char *line = lines_turn(&c->lines);
		if (!line)
			break;
		if (interrupted || !line[strspn(line, " \t")]) {
			if (interrupted)
				say(c->s->o, "\n(Ctrl-D or /exit leaves)\n");
			free(line);
		} else if (line[0] == '/') {
			result = command(c, line);
			free(line);
		} else {
			result = turn(c, line);
		}
	}
	return result < 0 ? -1 : 0;
}

static int open_chat(struct chat *c)
{
	struct session *s = c->s;

	if (session_model(s, 0))
		return -1;
	int found = prompt_template(s, true, &c->template);
	if (found <= 0)
		return wf_fail(&s->err, "the model has no chat template (--chat-template NAME chooses one)");
	struct wf_sizes sizes = plan_sizes(s);
	return session_plan(s, &sizes, NULL) || session_runner(s, &sizes, false) || generator_start(&c->g, s) ? -1 : 0;
}

int chat_main(const struct options *o)
{
	struct session s;
	struct chat c = {.s = &s};

	session_start(&s, o);
	int result = open_chat(&c);
	if (!result) {
		if (isatty(STDIN_FILENO))
			say(o, "%s%s%s  /reset starts anew, /exit leaves\n", style(stderr, "1"),
				s.model->config.name ? s.model->config.name : s.model->path, style(stderr, "0"));
		lines_open(&c.lines);
		catch_interrupt(true);
		result = talk(&c);
		lines_close(&c.lines);
	}
	drop_messages(&c, 0);
	free(c.message);
	generator_end(&c.g);
	if (result)
		return session_failed(&s);
	session_close(&s);
	return close_stdout(o, WEFT_OK);
}
