/* help.c - what the tables of commands and options say: help and the manual page. */
#include "tools/weft.h"

#include <string.h>

enum { INDENT = 32, WIDTH = 100 };

struct command_text { const char *usage, *about; };

static const struct command_text texts[NCOMMAND] = {
	[COMMAND_run] = {"-m PATH [-p TEXT | -f FILE]",
		"Prints what the model answers to a prompt, and nothing else, on standard output. A model with a chat "
		"template is asked through it; --no-cnv continues the text as it stands. Ctrl-C stops the answer."},
	[COMMAND_chat] = {"-m PATH",
		"A conversation with line editing and history. Ctrl-C stops an answer, Ctrl-D ends the program. "
		"A line ending in \\ goes on; /reset starts anew, /exit leaves."},
	[COMMAND_bench] = {"-m PATH [-p N,...] [-n N,...] [-b N,...]",
		"Tokens per second of reading prompts (pp) and of generating (tg), mean and deviation over repetitions, "
		"then each kernel's time, GB/s, GFLOP/s and share of a step."},
	[COMMAND_verify] = {"-m DIR [--reference FILE]",
		"Compares logits and greedy tokens with a reference. For each case X the file holds X.input_ids, X.logits "
		"(of every position or of the last ones), X.greedy and X.margin. Ends with 0 only when all agree."},
	[COMMAND_perplexity] = {"-m PATH -f FILE",
		"Perplexity of a text, over windows of which the second half counts."},
	[COMMAND_tokenize] = {"-m PATH < TEXT",
		"Prints the token ids of a text on one line."},
	[COMMAND_plan] = {"MODEL [--gpu NAME] [-b N] [-c N]",
		"The memory of a run and a forecast of its speed, from config.json or a model file, on a machine with or "
		"without a GPU. Forecasts are rooflines: the most a device could do at its own rates."},
	[COMMAND_dump] = {"-m PATH [--stage PASS] [--format text|dot|json|html]",
		"Writes the graph or plan after a pass. A text dump can be edited and run: weft run --graph FILE."},
	[COMMAND_explain] = {"-m PATH",
		"Each fused group: its members, the rule that joined them, bytes saved, time forecast; and each edge that "
		"was not fused, with what stood in the way."},
	[COMMAND_devices] = {"", "The processors found, the libraries missing and what that costs, and the GPUs known to plan."},
	[COMMAND_completion] = {"bash|zsh|fish", "Prints a completion script. For bash: source <(weft completion bash)."},
	[COMMAND_man] = {"", "Prints the manual page: weft man | man -l -"},
	[COMMAND_help] = {"[COMMAND]", "Shows the commands, or one command's options."},
};

/* ---- help ---- */

/* Words of s from column `at`, broken before WIDTH and indented. */
static void wrap(FILE *f, const char *s, int at, int indent)
{
	for (bool first = true; *s; first = false) {
		int n = (int)strcspn(s, " ");
		if (!first && at + 1 + n > WIDTH)
			at = indent + fprintf(f, "\n%*s", indent, "") - indent - 1;
		else if (!first)
			at += fprintf(f, " ");
		at += fprintf(f, "%.*s", n, s);
		s += n + (s[n] != 0);
	}
	fputc('\n', f);
}

static int spelled(const struct option_row *row, char *out, size_t cap)
{
	char letter[8] = "";

	if (row->letter)
		snprintf(letter, sizeof letter, "-%c, ", row->letter);
	else if (row->alias && strlen(row->alias) <= 3)
		snprintf(letter, sizeof letter, "-%s, ", row->alias);
	return snprintf(out, cap, "%s--%s%s%s", letter, row->name, row->arg ? " " : "", row->arg ? row->arg : "");
}

static bool shows_default(const struct option_row *row)
{
	char said[32];

	snprintf(said, sizeof said, "(%s:", row->absent ? row->absent : "");
	return row->absent && row->kind != OPT_SET && !strstr(row->help, "default") && !strstr(row->help, said);
}

static void print_option(const struct option_row *row, FILE *f)
{
	char left[160], text[256];
	int n = spelled(row, left, sizeof left);

	snprintf(text, sizeof text, shows_default(row) ? "%s (default %s)" : "%s", row->help, row->absent);
	fprintf(f, "  %s%s%s", style(f, "36"), left, style(f, "0"));
	if (n + 2 >= INDENT - 1)
		fprintf(f, "\n%*s", INDENT, "");
	else
		fprintf(f, "%*s", INDENT - 2 - n, "");
	wrap(f, text, INDENT, INDENT);
}

void help_command(enum command c, FILE *f)
{
	const char *group = "";

	fprintf(f, "%sUsage:%s weft %s %s [options]\n\n", style(f, "1"), style(f, "0"), commands[c].name, texts[c].usage);
	wrap(f, texts[c].about, 0, 0);
	for (const struct option_row *row = option_table; row->name; row++) {
		if (!(row->commands & 1u << c))
			continue;
		if (strcmp(group, option_group(row))) {
			group = option_group(row);
			fprintf(f, "\n%s%s%s\n", style(f, "1"), group, style(f, "0"));
		}
		print_option(row, f);
	}
	fputs("\nEvery option can be set in the environment: --ctx-size as WEFT_CTX_SIZE.\n", f);
}

void help_overview(FILE *f)
{
	fprintf(f, "weft: a graph compiler and executor for language models\n\n%sUsage:%s weft COMMAND [options]\n\n",
		style(f, "1"), style(f, "0"));
	for (int c = 0; c < NCOMMAND; c++)
		fprintf(f, "  %s%-12s%s%s\n", style(f, "36"), commands[c].name, style(f, "0"), commands[c].help);
	fputs("\n  weft run -m model.gguf -p \"Why is the sky blue?\"\n"
		"  weft help COMMAND shows a command's options.\n", f);
}

int unknown_command(const char *name)
{
	struct near near = {.typed = name};

	for (int c = 0; c < NCOMMAND; c++)
		near_offer(&near, commands[c].name);
	fprintf(stderr, *name == '-' ? "weft: expected a command before %s" : "weft: unknown command '%s'", name);
	if (near.name && *name != '-')
		fprintf(stderr, "; the nearest is '%s'", near.name);
	fputs(". 'weft help' lists them.\n", stderr);
	return WEFT_USAGE;
}

int help_main(const struct options *o)
{
	if (!o->narg) {
		help_overview(stdout);
		return close_stdout(o, WEFT_OK);
	}
	int c = command_find(o->arg[0]);
	if (c < 0)
		return unknown_command(o->arg[0]);
	help_command((enum command)c, stdout);
	return close_stdout(o, WEFT_OK);
}

/* ---- the manual page ---- */

/* troff text: a dash is a minus, a leading dot or quote is no request. */
static void troff(const char *s)
{
	if (*s == '.' || *s == '\'')
		fputs("\\&", stdout);
	for (; *s; s++)
		if (*s == '-')
			fputs("\\-", stdout);
		else if (*s == '\\')
			fputs("\\e", stdout);
		else
			putchar(*s);
}

static void troff_option(const struct option_row *row)
{
	char left[160], name[64];

	spelled(row, left, sizeof left);
	fputs(".TP\n.B ", stdout);
	troff(left);
	putchar('\n');
	troff(row->help);
	if (shows_default(row))
		printf(" (default %s)", row->absent);
	fputs(". ", stdout);
	if (strcmp(row->name, "help") && strcmp(row->name, "version"))
		printf("[\\fB%s\\fR] ", option_variable(row, name));
	if (row->commands != (1u << NCOMMAND) - 1) {
		fputs("\\fI", stdout);
		for (int c = 0, n = 0; c < NCOMMAND; c++)
			if (row->commands & 1u << c)
				printf("%s%s", n++ ? ", " : "", commands[c].name);
		fputs("\\fR", stdout);
	}
	putchar('\n');
}

int man_main(const struct options *o)
{
	const char *group = "";

	fputs(".TH WEFT 1\n.SH NAME\nweft \\- a graph compiler and executor for language models\n"
		".SH SYNOPSIS\n.B weft\n.I command\n[options]\n.SH COMMANDS\n", stdout);
	for (int c = 0; c < NCOMMAND; c++) {
		printf(".TP\n.B weft %s ", commands[c].name);
		troff(texts[c].usage);
		putchar('\n');
		troff(texts[c].about);
		putchar('\n');
	}
	fputs(".SH OPTIONS\nEach names the commands that take it and the environment variable that sets it.\n", stdout);
	for (const struct option_row *row = option_table; row->name; row++) {
		if (strcmp(group, option_group(row)))
			printf(".SS %s\n", group = option_group(row));
		troff_option(row);
	}
	fputs(".SH EXIT STATUS\n.TP\n0\ndone\n.TP\n1\nfailed, or verification found a difference\n.TP\n2\nwrong usage\n"
		".TP\n130\ninterrupted\n.SH ENVIRONMENT\nBeside the variables above, \\fBNO_COLOR\\fR turns colours off, and "
		"\\fBXDG_CACHE_HOME\\fR and \\fBXDG_STATE_HOME\\fR say where compiled kernels and the chat history are kept.\n",
		stdout);
	return close_stdout(o, WEFT_OK);
}
