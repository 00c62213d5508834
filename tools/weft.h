/* weft.h - the driver: its commands, the one table of options, and what commands share.
 *
 * Model text alone goes to stdout, and reports a command was asked for; all else to stderr.  Exit
 * codes: 0 done, 1 failed, 2 wrong usage, 130 interrupted.  The environment is read here and in no
 * library code. */
#ifndef WEFT_H
#define WEFT_H

#include "backends/backend.h"
#include "models/model.h"

#include <signal.h>

enum { WEFT_OK = 0, WEFT_FAILED = 1, WEFT_USAGE = 2, WEFT_INTERRUPTED = 130 };

struct options;

/* ---- commands: one row each, in the order help shows them ---------------------------------------- */

#define COMMANDS(C) \
	C(run,        "answer a prompt") \
	C(chat,       "talk with a model") \
	C(bench,      "measure prompt and generation speed, kernel by kernel") \
	C(verify,     "compare with reference outputs") \
	C(perplexity, "how well a model predicts a text") \
	C(tokenize,   "text to token ids") \
	C(plan,       "memory and speed before anything is loaded") \
	C(dump,       "write the graph or plan after any pass") \
	C(explain,    "why each group of operations was fused, or was not") \
	C(devices,    "what this machine can run on") \
	C(completion, "completion script for bash, zsh or fish") \
	C(man,        "the manual page") \
	C(help,       "help on a command")

#define C(name, help) COMMAND_##name,
enum command { COMMANDS(C) NCOMMAND };
#undef C

#define C(name, help) int name##_main(const struct options *);
COMMANDS(C)
#undef C

struct command_row { const char *name, *help; int (*run)(const struct options *); };
extern const struct command_row commands[NCOMMAND + 1];       /* {0} at the end */
int command_find(const char *name);                           /* -1 when unknown */

/* ---- options.c: the table, and what it makes of a command line --------------------------------- */

struct options {
	enum command command;
	const char *const *arg;               /* [narg] what is no option */
	int narg;
	/* model */
	const char *model, *arch, *graph, *wtype;
	int64_t no_mmap, random_weights, seed;
	/* execution */
	const char *backend, *act, *kvtype, *isa, *cache, *skip;
	int64_t threads, ctx, batch, ubatch, page, device, no_graph, sync;
	/* text */
	const char *prompt, *file, *chat_template, *system;
	int64_t predict, conversation, escape, special, ignore_eos;
	/* sampling */
	double temp, top_p, min_p, repeat_penalty, presence_penalty, frequency_penalty;
	int64_t top_k, repeat_last_n;
	/* reports */
	const char *reference, *stage, *format, *output, *gpu, *trace, *preset;
	const char *npp, *ntg, *seqs, *depth;         /* lists: 512,1024 */
	int64_t chunk, chunks, reps, fit, profile, json;
	double tolerance, margin;
	int64_t quiet, verbose, help, version;
	uint64_t given[2];                    /* rows of the table named by the user or the environment */
};

enum option_kind { OPT_TEXT, OPT_WHOLE, OPT_REAL, OPT_SET };

struct option_row {
	const char *name;                     /* after two dashes */
	const char *alias;                    /* llama.cpp's word after one dash: "sys"; NULL none */
	int letter;                           /* 0 none */
	enum option_kind kind;
	size_t field;                         /* offsetof(struct options, ...) */
	const char *arg;                      /* for help; a list of choices when it holds '|' */
	const char *absent;                   /* default, as a user would write it; NULL none */
	double min, max;                      /* of a number; OPT_SET stores min */
	unsigned commands;                    /* bit 1 << COMMAND_... */
	const char *help;
};

extern const struct option_row option_table[];                /* {0} at the end */
const char *option_group(const struct option_row *);          /* title of the group it stands in */
/* 0, or WEFT_USAGE after a message.  argv[0] is the command's name. */
int  options_parse(struct options *, enum command, int argc, char **argv);
bool option_given(const struct options *, const char *name);
/* "512,1024" to numbers; their count, or -1 after a message. */
int  options_list(const struct options *, const char *name, const char *text, int64_t *out, int max);
const char *option_variable(const struct option_row *, char out[64]);  /* WEFT_CTX_SIZE */

/* ---- help.c: what the tables say ------------------------------------------------------------------- */

void help_overview(FILE *);
void help_command(enum command, FILE *);
int  unknown_command(const char *name);               /* says which is near; WEFT_USAGE */

/* ---- report.c: messages, numbers and the terminal ---------------------------------------------------- */

/* "weft run: ..." on stderr; returns WEFT_FAILED, WEFT_USAGE. */
int  failed(const struct options *, const char *fmt, ...) WF_PRINTF(2, 3);
int  misused(const struct options *, const char *fmt, ...) WF_PRINTF(2, 3);
void say(const struct options *, const char *fmt, ...) WF_PRINTF(2, 3);      /* stderr, unless quiet */
void say_more(const struct options *, const char *fmt, ...) WF_PRINTF(2, 3); /* only when verbose */
bool is_plain(FILE *);                                /* no colours: not a terminal, or NO_COLOR */
const char *style(FILE *, const char *codes);         /* escape sequence, "" where is_plain() */
const char *bytes_text(double bytes, char out[32]);   /* 1.50 GiB */
const char *count_text(double n, char out[32]);       /* 134.5 M */
const char *seconds_text(double s, char out[32]);     /* 12.3 us */
const char *opened_text(const struct wf_opened *, char out[160]);     /* " (13.5 GB at 40 GB/s, ...)"; "" for NULL */
double seconds_now(void);
int  cpu_count(void);                                 /* cores this process may use */
int  close_stdout(const struct options *, int code);  /* a report that could not be written has failed */
extern volatile sig_atomic_t interrupted;             /* set by Ctrl-C once catch_interrupt() is on */
extern int interrupt_fd;                              /* readable from Ctrl-C until forget_interrupt(); -1: none */
void catch_interrupt(bool again);                     /* again: every time; else a second one ends the program */
void forget_interrupt(void);

/* ---- folders.c: where this user's files lie ----------------------------------------------------------- */

/* $VARIABLE/name, or below the home; false when there is neither, or no room. */
bool user_path(char *out, size_t cap, const char *variable, const char *below_home, const char *name);
void make_parents(char *path);                             /* its folders, as far as that can be */

/* ---- session.c: from options to a model, a plan and a runner ------------------------------------------ */

struct session {
	const struct options *o;
	wf_error err;
	wf_arena *arena;
	const wf_backend *backend;            /* NULL: none here, plan only */
	wf_model *model;                      /* NULL with --graph alone */
	wf_dtype act, kvtype;                 /* of the graph's values and cache */
	int64_t opened;                       /* tokens of a sequence the graph is for; 0: its share of the context */
	wf_plan *plan;
	wf_runner *runner;
	double open_s, load_s;
};

/* struct wf_sizes: bounds of a step, and tokens of KV over all sequences */

void session_start(struct session *, const struct options *);
const char *session_gpu_arch(const struct options *);  /* --stage emit: what --arch says to write for */
int  session_model(struct session *, int flags);      /* -1 with err set, as all of these */
/* The plan up to `stop_after` (NULL: complete) from the model's builder or --graph. */
int  session_plan(struct session *, const struct wf_sizes *, const char *stop_after);
int  session_runner(struct session *, const struct wf_sizes *, bool profile);
void session_release(struct session *);               /* plan and runner: others may be made */
void session_close(struct session *);
int  session_failed(struct session *);                /* prints err, closes: WEFT_FAILED, or WEFT_USAGE */
int64_t session_ctx(const struct session *);          /* --ctx-size against the model's own */
int64_t session_step(const struct session *);         /* tokens of a step: --batch-size, --ubatch-size */
int64_t session_vocab(const struct session *);        /* width of the logits */

/* ---- dump.c: what dump and explain share ------------------------------------------------------------------- */

struct wf_sizes plan_sizes(const struct session *);    /* of one sequence, as run plans it */
int write_output(struct session *, int (*write)(struct session *, FILE *));   /* to -o, else standard output */

/* ---- gpus.c: devices to forecast for ---------------------------------------------------------------------- */

struct gpu_row { const char *name; double tbyte_s, tflop_s, gib; };
extern const struct gpu_row gpu_table[];              /* {0} at the end */
int gpu_find(wf_error *, const char *name, struct wf_device *);   /* a name, or a memory size: no speeds then */
/* The device to plan for: --gpu, else what the backend says of this machine.  1, 0 none, -1 failed. */
int session_device(struct session *, struct wf_device *);

/* ---- prompt.c: text to ids, by template or raw ---------------------------------------------------------- */

struct tokens { int32_t *id; size_t n, max; };

int  tokens_add(struct tokens *, wf_error *, const int32_t *id, size_t n);
void tokens_free(struct tokens *);
/* What a text of this model begins with (BOS). */
int  prompt_prefix(struct session *, struct tokens *);
/* prefix and text, or the text alone when it begins with the prefix itself */
int  prompt_ids(struct session *, const char *text, size_t len, bool special, struct tokens *);
/* The template to talk by: --chat-template, the files' own, or the one the vocabulary suggests.
 * 1, 0 when there is none, -1 failed. */
int  prompt_template(struct session *, bool guess, wf_template **);
int  prompt_render(struct session *, const wf_template *, const struct wf_message *, int n, struct tokens *);
char *prompt_read(struct session *, size_t *len);      /* -p, -f or stdin; malloc'd */
char *read_stream(FILE *, size_t *len);                /* malloc'd, NUL at its end; NULL out of memory or unreadable */
char *read_path(wf_error *, const char *path, size_t *len);

/* ---- lines.c: what a person types -------------------------------------------------------------------------- */

struct lines {
	struct editline *edit;                /* NULL when standard input is no terminal */
	struct history *history;
	char history_path[512];               /* "": nowhere to keep it */
};

void  lines_open(struct lines *);
void  lines_close(struct lines *);                     /* saves the history */
/* A turn, lines that end in a backslash joined; malloc'd.  NULL at the end; `interrupted` is set when
 * Ctrl-C cleared it. */
char *lines_turn(struct lines *);

/* ---- generate.c: one sequence, token by token -------------------------------------------------------------- */

struct generator {
	struct session *s;
	wf_seq *seq;
	struct tokens text;                      /* tokens of the sequence */
	wf_sampler *sampler;
	const float *logits;                  /* of the last token; NULL before the first step */
	bool ahead;                           /* the device chooses; a step is queued before the last one's choice is read */
	int unread;                           /* steps whose choice was not read */
	bool continues;                       /* the answer goes on in the prompt's text: its first space counts */
	double prompt_s, decode_s;
	int64_t prompt_n, decode_n;
};

struct answer { char *text; size_t len, max; };

enum generate_end { END_STOP, END_LENGTH, END_CONTEXT, END_INTERRUPT, END_FAILED };

int  generator_start(struct generator *, struct session *);
void generator_end(struct generator *);
/* Make the sequence these ids: keeps the common prefix, computes the rest.  0; 1 when the context is
 * too short; -1 failed. */
int  generator_feed(struct generator *, const struct tokens *);
/* Sample up to n tokens (-1: no limit) and stream their text.  *answer, when not NULL, gets the text. */
enum generate_end generator_run(struct generator *, int64_t n, FILE *out, struct answer *);
void generator_report(const struct generator *);      /* timings, on stderr */

#endif
