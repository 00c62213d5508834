/* options.c - the one table of options.  Parsing, the environment's mirror (WEFT_CTX_SIZE for
 * --ctx-size), help, shell completion and the manual page all read it.
 *
 * Letters and defaults are llama.cpp's where it has the option. */
#include "tools/weft.h"

#include <errno.h>
#include <float.h>
#include <getopt.h>
#include <math.h>
#include <string.h>

enum { MAXROW = 96 };

#define ON(command) (1u << COMMAND_##command)
#define EXEC  (ON(run) | ON(chat) | ON(bench) | ON(verify) | ON(perplexity))
#define PLANS (EXEC | ON(plan) | ON(dump) | ON(explain))
#define TALK  (ON(run) | ON(chat))
#define ALL   ((1u << NCOMMAND) - 1)
#define FIELD(name) offsetof(struct options, name)
#define BIG 1e15

const struct option_row option_table[] = {
	/* model */
	{"model", NULL, 'm', OPT_TEXT, FIELD(model), "PATH", NULL, 0, 0, PLANS | ON(tokenize),
		"GGUF file, Hugging Face folder, or config.json (for plan, dump and bench)"},
	{"arch", NULL, 0, OPT_TEXT, FIELD(arch), "FILE.so", NULL, 0, 0, PLANS,
		"architecture from a shared object, or one named here; dump --stage emit: GPU to emit for (sm_90a), both as FILE.so,GPU"},
	{"graph", NULL, 0, OPT_TEXT, FIELD(graph), "FILE", NULL, 0, 0, PLANS,
		"use this dump, of any stage, in place of the model's own graph"},
	{"no-mmap", NULL, 0, OPT_SET, FIELD(no_mmap), NULL, NULL, 1, 0, PLANS | ON(tokenize),
		"read the files instead of mapping them"},
	{"random-weights", NULL, 0, OPT_SET, FIELD(random_weights), NULL, NULL, 1, 0, EXEC,
		"make weights from a hash of their names: no file needed"},
	{"wtype", NULL, 0, OPT_TEXT, FIELD(wtype), "TYPE", NULL, 0, 0, PLANS,
		"type of the weights where no file says it (f16, bf16, q4_k, ...)"},
	/* execution */
	{"backend", NULL, 0, OPT_TEXT, FIELD(backend), "cpu|cuda", NULL, 0, 0, PLANS, "where to run, or to plan for"},
	{"threads", NULL, 't', OPT_WHOLE, FIELD(threads), "N", "0", 0, 1024, EXEC, "CPU threads (0: all cores)"},
	{"ctx-size", NULL, 'c', OPT_WHOLE, FIELD(ctx), "N", "4096", 0, 1e9, PLANS & ~(ON(perplexity) | ON(bench)),
		"tokens of context (0: what the model was trained for)"},
	{"ctx-size", NULL, 'c', OPT_WHOLE, FIELD(ctx), "N", "512", 0, 1e9, ON(perplexity), "tokens of a window"},
	{"ctx-size", NULL, 'c', OPT_WHOLE, FIELD(ctx), "N", "0", 0, 1e9, ON(bench),
		"tokens of context a sequence has room for (0: what the test needs)"},
	{"batch-size", NULL, 'b', OPT_WHOLE, FIELD(batch), "N", "2048", 1, 1e6, PLANS & ~(ON(bench) | ON(plan) | ON(verify)),
		"tokens handed over at once"},
	{"ubatch-size", "ub", 0, OPT_WHOLE, FIELD(ubatch), "N", "512", 1, 1e6, PLANS,
		"tokens of one step (at most the batch)"},
	{"batch", NULL, 'b', OPT_TEXT, FIELD(seqs), "N,...", "1", 0, 0, ON(bench) | ON(plan) | ON(verify),
		"sequences at a time; plan and verify take one number"},
	{"act", NULL, 0, OPT_TEXT, FIELD(act), "auto|f32|f16|bf16|q8", NULL, 0, 0, PLANS,
		"type of activations; q8: bytes, faster and less exact (default auto: f16 on a GPU, bf16 "
		"weights are then read as f16 too; verify: f32)"},
	{"cache-type", "ctk", 0, OPT_TEXT, FIELD(kvtype), "f32|f16|bf16", NULL, 0, 0, PLANS,
		"type of cached keys and values (default f16; verify: f32)"},
	{"page", NULL, 0, OPT_WHOLE, FIELD(page), "N", "0", 0, 4096, PLANS, "tokens of a KV page (0: the backend's choice)"},
	{"skip", NULL, 0, OPT_TEXT, FIELD(skip), "PASS,...", NULL, 0, 0, PLANS,
		"leave out passes, or their choices: rewrite, fold, fuse, order, place"},
	{"isa", NULL, 0, OPT_TEXT, FIELD(isa), "avx512|avx2|plain", NULL, 0, 0, EXEC,
		"CPU kernels to use (default: the best this machine runs)"},
	{"cache", NULL, 0, OPT_TEXT, FIELD(cache), "DIR", NULL, 0, 0, EXEC | ON(dump),
		"compiled GPU kernels (default: $XDG_CACHE_HOME/weft)"},
	{"device", NULL, 0, OPT_WHOLE, FIELD(device), "N", "0", 0, 255, EXEC, "which GPU"},
	{"no-graph", NULL, 0, OPT_SET, FIELD(no_graph), NULL, NULL, 1, 0, EXEC, "launch GPU kernels one by one"},
	{"sync", NULL, 0, OPT_SET, FIELD(sync), NULL, NULL, 1, 0, EXEC,
		"and wait after each: a fault then names its kernel"},
	/* text */
	{"prompt", NULL, 'p', OPT_TEXT, FIELD(prompt), "TEXT", NULL, 0, 0, ON(run) | ON(tokenize) | ON(perplexity),
		"the prompt; \"\" begins from the start token alone"},
	{"file", NULL, 'f', OPT_TEXT, FIELD(file), "FILE", NULL, 0, 0, ON(run) | ON(tokenize) | ON(perplexity),
		"read the text from a file (without -p and -f: from standard input)"},
	{"predict", NULL, 'n', OPT_WHOLE, FIELD(predict), "N", "-1", -1, BIG, TALK, "tokens to generate (-1: until the end of the text)"},
	{"no-escape", NULL, 0, OPT_SET, FIELD(escape), NULL, NULL, 0, 0, ON(run), "take \\n, \\t and the like in -p literally"},
	{"escape", NULL, 'e', OPT_SET, FIELD(escape), NULL, "1", 1, 0, ON(run), "\\n, \\t and the like in -p are escapes (default)"},
	{"special", NULL, 0, OPT_SET, FIELD(special), NULL, NULL, 1, 0, TALK | ON(tokenize),
		"show special tokens; tokenize: parse them, and add those the model expects"},
	{"ignore-eos", NULL, 0, OPT_SET, FIELD(ignore_eos), NULL, NULL, 1, 0, TALK, "go on past the end of the text"},
	{"chat-template", NULL, 0, OPT_TEXT, FIELD(chat_template), "NAME|FILE", NULL, 0, 0, TALK,
		"llama2, llama3, chatml, zephyr, ... or a file with Jinja (default: the model's own)"},
	{"system", "sys", 0, OPT_TEXT, FIELD(system), "TEXT", NULL, 0, 0, TALK, "the system message"},
	{"conversation", "cnv", 0, OPT_SET, FIELD(conversation), NULL, "-1", 1, 0, ON(run),
		"put the prompt into the chat template (default when the model has one)"},
	{"no-cnv", "no-cnv", 0, OPT_SET, FIELD(conversation), NULL, NULL, 0, 0, ON(run), "continue the prompt as it stands"},
	/* sampling */
	{"temp", NULL, 0, OPT_REAL, FIELD(temp), "X", "0.8", 0, 100, TALK, "temperature (0: always the likeliest token)"},
	{"top-k", NULL, 0, OPT_WHOLE, FIELD(top_k), "N", "40", 0, 1e9, TALK, "choose among the N likeliest (0: all)"},
	{"top-p", NULL, 0, OPT_REAL, FIELD(top_p), "X", "0.95", 0, 1, TALK, "choose among the likeliest that add up to X (1: all)"},
	{"min-p", NULL, 0, OPT_REAL, FIELD(min_p), "X", "0.05", 0, 1, TALK, "drop what is less likely than X times the likeliest"},
	{"repeat-penalty", NULL, 0, OPT_REAL, FIELD(repeat_penalty), "X", "1", 0.01, 100, TALK, "penalty on tokens seen lately (1: none)"},
	{"repeat-last-n", NULL, 0, OPT_WHOLE, FIELD(repeat_last_n), "N", "64", -1, 1e7, TALK, "how many tokens count as lately (-1: all)"},
	{"presence-penalty", NULL, 0, OPT_REAL, FIELD(presence_penalty), "X", "0", -100, 100, TALK, "subtracted once from what was seen"},
	{"frequency-penalty", NULL, 0, OPT_REAL, FIELD(frequency_penalty), "X", "0", -100, 100, TALK, "subtracted each time it was seen"},
	{"seed", NULL, 's', OPT_WHOLE, FIELD(seed), "N", "-1", -1, 4294967295., EXEC, "of sampling and random weights (-1: another each time)"},
	/* measuring */
	{"n-prompt", NULL, 'p', OPT_TEXT, FIELD(npp), "N,...", "512", 0, 0, ON(bench), "prompt lengths to measure (0: none)"},
	{"n-gen", NULL, 'n', OPT_TEXT, FIELD(ntg), "N,...", "128", 0, 0, ON(bench), "numbers of generated tokens to measure (0: none)"},
	{"n-depth", NULL, 'd', OPT_TEXT, FIELD(depth), "N,...", "0", 0, 0, ON(bench), "tokens of context each test begins behind"},
	{"repetitions", NULL, 'r', OPT_WHOLE, FIELD(reps), "N", "5", 1, 10000, ON(bench), "runs of each test"},
	{"preset", NULL, 0, OPT_TEXT, FIELD(preset), "colossal", NULL, 0, 0, ON(bench),
		"1024 prompt tokens and 128 new, batch 8, 16 and 32, in one figure"},
	{"profile", NULL, 0, OPT_SET, FIELD(profile), NULL, "-1", 1, 0, ON(bench), "print each kernel's time and speed (default)"},
	{"no-profile", NULL, 0, OPT_SET, FIELD(profile), NULL, NULL, 0, 0, ON(bench), "leave that table out"},
	{"trace", NULL, 0, OPT_TEXT, FIELD(trace), "FILE", NULL, 0, 0, ON(bench), "write a mean step as a Chrome/Perfetto trace"},
	{"reference", NULL, 0, OPT_TEXT, FIELD(reference), "FILE", NULL, 0, 0, ON(verify),
		"reference outputs (default: golden.safetensors beside the model)"},
	{"chunk", NULL, 0, OPT_WHOLE, FIELD(chunk), "N", "0", 0, 1e6, ON(verify), "feed prompts N tokens at a time (0: whole)"},
	{"tolerance", NULL, 0, OPT_REAL, FIELD(tolerance), "X", "1e-6", 0, 1, ON(verify), "largest normalised mean square error that passes"},
	{"margin", NULL, 0, OPT_REAL, FIELD(margin), "X", "1e-3", 0, 1e9, ON(verify),
		"where the best logit was less than X ahead, another token is as good"},
	{"chunks", NULL, 0, OPT_WHOLE, FIELD(chunks), "N", "-1", -1, 1e9, ON(perplexity), "windows to measure (-1: all)"},
	/* reports */
	{"stage", "stop-after", 0, OPT_TEXT, FIELD(stage), "build|rewrite|fold|shard|fuse|order|place|emit", "place", 0, 0,
		ON(dump), "the pass to stop after; emit: write kernel sources to -o DIR"},
	{"format", NULL, 0, OPT_TEXT, FIELD(format), "text|dot|json|html", "text", 0, 0, ON(dump), "text can be edited and run again"},
	{"format", NULL, 0, OPT_TEXT, FIELD(format), "md|csv|json", "md", 0, 0, ON(bench), "how to print the results"},
	{"output", NULL, 'o', OPT_TEXT, FIELD(output), "FILE", NULL, 0, 0, ON(dump) | ON(explain), "write here (default: standard output)"},
	{"gpu", NULL, 0, OPT_TEXT, FIELD(gpu), "NAME|SIZE", NULL, 0, 0, ON(plan) | ON(dump) | ON(explain),
		"forecast for a GPU (h200, a100, rtx4090, ...: see weft devices) or for a memory size (24GB)"},
	{"fit", NULL, 0, OPT_SET, FIELD(fit), NULL, NULL, 1, 0, ON(plan),
		"the longest context for the batch, or with -c the largest batch, that fits"},
	{"json", NULL, 0, OPT_SET, FIELD(json), NULL, NULL, 1, 0, ON(plan) | ON(explain) | ON(verify) | ON(bench) | ON(devices) | ON(perplexity),
		"print JSON"},
	/* general */
	{"quiet", NULL, 'q', OPT_SET, FIELD(quiet), NULL, NULL, 1, 0, ALL, "no messages but errors"},
	{"verbose", NULL, 'v', OPT_SET, FIELD(verbose), NULL, NULL, 1, 0, ALL, "more messages"},
	{"help", NULL, 'h', OPT_SET, FIELD(help), NULL, NULL, 1, 0, ALL, "show this help"},
	{"version", NULL, 0, OPT_SET, FIELD(version), NULL, NULL, 1, 0, ALL, "show the version"},
	{0}
};

const char *option_group(const struct option_row *row)
{
	static const struct { const char *first, *title; } groups[] = {
		{"model", "Model"}, {"backend", "Execution"}, {"prompt", "Text"}, {"temp", "Sampling"},
		{"n-prompt", "Measuring"}, {"stage", "Reports"}, {"quiet", "General"}
	};
	const char *title = NULL;

	for (const struct option_row *at = option_table; at <= row; at++)
		for (size_t i = 0; i < sizeof groups / sizeof *groups; i++)
			if (!strcmp(at->name, groups[i].first))
				title = groups[i].title;
	return title;
}

const char *option_variable(const struct option_row *row, char out[64])
{
	int n = snprintf(out, 64, "WEFT_%s", row->name);

	for (int i = 5; i < n && i < 63; i++)
		out[i] = out[i] == '-' ? '_' : (char)(out[i] >= 'a' && out[i] <= 'z' ? out[i] - 32 : out[i]);
	return out;
}

/* ---- one value ---- */

static bool chosen(const char *choices, const char *text)
{
	size_t n = strlen(text);

	for (const char *s = choices; *s; s += strspn(s, "|")) {
		size_t len = strcspn(s, "|");
		if (len == n && !memcmp(s, text, n))
			return true;
		s += len;
	}
	return false;
}

static bool is_choice(const struct option_row *row)
{
	return row->kind == OPT_TEXT && row->arg && strchr(row->arg, '|') && row->arg[0] >= 'a';
}

static int store_number(struct options *o, const struct option_row *row, const char *from, const char *text)
{
	char *end, *field = (char *)o + row->field;
	double v = strtod(text, &end);

	if (end == text || *end || !(v >= row->min && v <= row->max) || (row->kind == OPT_WHOLE && v != floor(v)))
		return misused(o, "%s: expected %s from %g to %g, found '%s'", from,
			row->kind == OPT_WHOLE ? "a whole number" : "a number", row->min, row->max, text);
	if (row->kind == OPT_WHOLE)
		*(int64_t *)(void *)field = (int64_t)v;
	else
		*(double *)(void *)field = v;
	return 0;
}

/* `from` names the option as the user wrote it, or the variable. */
static int store(struct options *o, const struct option_row *row, const char *from, const char *text)
{
	char *field = (char *)o + row->field;

	if (row->kind == OPT_SET) {
		*(int64_t *)(void *)field = (int64_t)row->min;
		return 0;
	}
	if (row->kind != OPT_TEXT)
		return store_number(o, row, from, text);
	if (is_choice(row) && !chosen(row->arg, text))
		return misused(o, "%s: expected one of %s, found '%s'", from, row->arg, text);
	*(const char **)(void *)field = text;
	return 0;
}

/* ---- defaults and the environment ---- */

static void defaults(struct options *o, unsigned command)
{
	for (const struct option_row *row = option_table; row->name; row++) {
		if (!row->absent || !(row->commands & command))
			continue;
		if (row->kind == OPT_SET)
			*(int64_t *)(void *)((char *)o + row->field) = strtoll(row->absent, NULL, 10);
		else
			store(o, row, row->name, row->absent);
	}
}

static void mark(struct options *o, const struct option_row *row)
{
	size_t i = (size_t)(row - option_table);

	o->given[i / 64] |= (uint64_t)1 << i % 64;
}

static bool is_off(const char *text)
{
	return !*text || !strcmp(text, "0") || !strcmp(text, "false") || !strcmp(text, "off") || !strcmp(text, "no");
}

static int environment(struct options *o, unsigned command)
{
	char name[64];

	for (const struct option_row *row = option_table; row->name; row++) {
		if (!(row->commands & command) || !strcmp(row->name, "help") || !strcmp(row->name, "version"))
			continue;
		const char *text = getenv(option_variable(row, name));
		if (!text || (row->kind == OPT_SET && is_off(text)))
			continue;
		if (store(o, row, name, text))
			return WEFT_USAGE;
		mark(o, row);
	}
	return 0;
}

/* ---- the command line ---- */

static int add_long(struct option *list, int n, const char *name, const struct option_row *row)
{
	list[n] = (struct option){name, row->kind == OPT_SET ? no_argument : required_argument, NULL,
		256 + (int)(row - option_table)};
	return n + 1;
}

static void make_lists(unsigned command, struct option *list, char *letters)
{
	int n = 0;

	*letters++ = ':';
	for (const struct option_row *row = option_table; row->name; row++) {
		if (!(row->commands & command))
			continue;
		n = add_long(list, n, row->name, row);
		if (row->alias && strcmp(row->alias, row->name))
			n = add_long(list, n, row->alias, row);
		if (row->letter) {
			*letters++ = (char)row->letter;
			if (row->kind != OPT_SET)
				*letters++ = ':';
		}
	}
	list[n] = (struct option){0};
	*letters = 0;
}

static const struct option_row *row_of(int value, unsigned command)
{
	if (value >= 256)
		return &option_table[value - 256];
	for (const struct option_row *row = option_table; row->name; row++)
		if (row->letter == value && row->commands & command)
			return row;
	return NULL;
}

/* Another command's option: say whose. */
static bool is_anothers(const struct options *o, const char *text, const char *name, size_t len)
{
	for (const struct option_row *row = option_table; row->name; row++)
		if ((strlen(row->name) == len && !memcmp(row->name, name, len)) || (name - text == 1 && len == 1 && row->letter == *name))
			for (int c = 0; c < NCOMMAND; c++)
				if (row->commands & 1u << c) {
					misused(o, "%.*s is an option of %s, not of %s", (int)(name - text + (ptrdiff_t)len), text,
						commands[c].name, commands[o->command].name);
					return true;
				}
	return false;
}

/* The beginning of several options, or no option: say which may have been meant. */
static int unknown(const struct options *o, const char *text)
{
	const char *name = text + strspn(text, "-");
	char typed[64], could[256] = "";
	size_t len = strcspn(name, "=");
	struct near near = {.typed = typed};

	if (is_anothers(o, text, name, len))
		return WEFT_USAGE;
	snprintf(typed, sizeof typed, "%.*s", (int)(len < sizeof typed ? len : sizeof typed - 1), name);
	for (const struct option_row *row = option_table; row->name; row++)
		if (row->commands & 1u << o->command) {
			near_offer(&near, row->name);
			if (len && !strncmp(row->name, typed, len) && strlen(could) < sizeof could - 32)
				sprintf(could + strlen(could), "%s--%s", *could ? ", " : "", row->name);
		}
	if (*could)
		return misused(o, "%s could be %s", text, could);
	if (near.name)
		return misused(o, "unknown option %s; the nearest is --%s", text, near.name);
	return misused(o, "unknown option %s", text);
}

bool option_given(const struct options *o, const char *name)
{
	for (size_t i = 0; option_table[i].name; i++)
		if (!strcmp(option_table[i].name, name) && o->given[i / 64] >> i % 64 & 1)
			return true;
	return false;
}

int options_list(const struct options *o, const char *name, const char *text, int64_t *out, int max)
{
	int n = 0;
	char *end;

	for (const char *s = text; *s; s = *end == ',' ? end + 1 : end) {
		long long v = strtoll(s, &end, 10);
		if (end == s || (*end && *end != ',') || v < 0 || v > 10000000 || n == max) {
			misused(o, "--%s: expected up to %d whole numbers with commas, found '%s'", name, max, text);
			return -1;
		}
		out[n++] = v;
	}
	return n;
}

int options_parse(struct options *o, enum command command, int argc, char **argv)
{
	struct option list[2 * MAXROW];
	char letters[2 * MAXROW];
	unsigned bit = 1u << command;
	int value;

	_Static_assert(sizeof option_table / sizeof *option_table <= MAXROW, "room for every row");
	*o = (struct options){.command = command};
	defaults(o, bit);
	if (environment(o, bit))
		return WEFT_USAGE;
	make_lists(bit, list, letters);
	opterr = 0;
	while ((value = getopt_long_only(argc, argv, letters, list, NULL)) != -1) {
		const char *text = argv[optind - 1];
		if (value == '?')
			return unknown(o, text);
		if (value == ':')
			return misused(o, "%s: expected a value", text);
		const struct option_row *row = row_of(value, bit);
		char name[64];
		snprintf(name, sizeof name, "--%s", row->name);
		if (store(o, row, name, optarg))
			return WEFT_USAGE;
		mark(o, row);
	}
	o->arg = (const char *const *)argv + optind;
	o->narg = argc - optind;
	return 0;
}
