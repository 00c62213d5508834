/* lines.c - what a person types: editing and history on a terminal, plain lines from a pipe.
 *
 * Ctrl-C clears the line.  The wait for a key is a wait for interrupt_fd too, so none is lost between a
 * look at `interrupted` and the wait, whichever thread the signal came to. */
#include "tools/weft.h"

#include <errno.h>
#include <histedit.h>
#include <poll.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <wchar.h>

enum { MAXHISTORY = 1000 };

static const char *prompt_now = "> ";

static char *show_prompt(EditLine *edit)
{
	(void)edit;
	return (char *)(uintptr_t)prompt_now;
}

/* 1 with a byte, 0 at the end, -1 with errno: EINTR after Ctrl-C. */
static int next_byte(char *byte)
{
	struct pollfd in[] = {{.fd = STDIN_FILENO, .events = POLLIN}, {.fd = interrupt_fd, .events = POLLIN}};

	while (!interrupted && poll(in, 2, -1) < 0)
		if (errno != EINTR)
			return -1;
	if (interrupted || in[1].revents) {
		interrupted = 1;
		errno = EINTR;
		return -1;
	}
	return (int)read(STDIN_FILENO, byte, 1);
}

/* A character for libedit: 1, 0 at the end, -1 to give the line up. */
static int next_key(EditLine *edit, wchar_t *key)
{
	mbstate_t state = {0};
	char byte;

	(void)edit;
	for (;;) {
		int got = next_byte(&byte);
		if (got <= 0)
			return got;
		size_t n = mbrtowc(key, &byte, 1, &state);
		if (n <= 1)
			return 1;
		if (n == (size_t)-1)
			state = (mbstate_t){0};   /* no character of this locale: left out */
	}
}

void lines_open(struct lines *l)
{
	HistEvent event;

	if (!isatty(STDIN_FILENO))
		return;
	l->edit = el_init("weft", stdin, stderr, stderr);
	l->history = history_init();
	if (!l->edit)
		return;
	el_set(l->edit, EL_PROMPT, show_prompt);
	el_set(l->edit, EL_EDITOR, "emacs");
	el_set(l->edit, EL_GETCFN, next_key);
	if (user_path(l->history_path, sizeof l->history_path, "XDG_STATE_HOME", ".local/state", "weft/history"))
		make_parents(l->history_path);
	else
		l->history_path[0] = 0;
	if (l->history) {
		history(l->history, &event, H_SETSIZE, MAXHISTORY);
		history(l->history, &event, H_SETUNIQUE, 1);
		history(l->history, &event, H_LOAD, l->history_path);
		el_set(l->edit, EL_HIST, history, l->history);
	}
	el_source(l->edit, NULL);
}

void lines_close(struct lines *l)
{
	HistEvent event;
	mode_t mask = umask(077);

	if (l->history && l->history_path[0])
		history(l->history, &event, H_SAVE, l->history_path);
	umask(mask);
	if (l->history)
		history_end(l->history);
	if (l->edit)
		el_end(l->edit);
	*l = (struct lines){0};
}

static void remember(struct lines *l, const char *line)
{
	HistEvent event;

	if (l->history && line[strspn(line, " \n")])
		history(l->history, &event, H_ENTER, line);
}

/* One physical line, malloc'd without its newline.  NULL at the end; "" with `interrupted` set when
 * Ctrl-C cleared it. */
static char *read_line(struct lines *l, const char *prompt)
{
	char *line = NULL;
	size_t cap = 0;
	int n = 0;

	prompt_now = prompt;
	if (!l->edit) {
		n = (int)getline(&line, &cap, stdin);
		if (n < 0) {
			free(line);
			return NULL;
		}
	} else {
		const char *got = el_gets(l->edit, &n);
		if (!got || n <= 0)
			return n < 0 && interrupted ? strdup("") : NULL;
		remember(l, got);
		line = strdup(got);
	}
	if (line)
		line[strcspn(line, "\r\n")] = 0;
	return line;
}

char *lines_turn(struct lines *l)
{
	char *turn = read_line(l, "> ");

	for (size_t len; turn && (len = strlen(turn)) && turn[len - 1] == '\\' && !interrupted; ) {
		char *more = read_line(l, ". "), *both;
		if (!more)
			break;
		turn[len - 1] = '\n';
		both = realloc(turn, len + strlen(more) + 1);
		if (both)
			strcpy(both + len, more);
		else
			free(turn);
		free(more);
		turn = both;
	}
	return turn;
}
