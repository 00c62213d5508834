/* completion.c - completion scripts for bash, zsh and fish, from the tables of commands and options. */
#include "tools/weft.h"

#include <string.h>

static bool is_path(const struct option_row *row)
{
	return row->arg && (strstr(row->arg, "FILE") || !strcmp(row->arg, "PATH") || !strcmp(row->arg, "DIR"));
}

static bool is_choices(const struct option_row *row)
{
	return row->arg && !is_path(row) && strchr(row->arg, '|') && row->arg[0] >= 'a';
}

static void print_choices(const char *s)
{
	for (; *s; s++)
		putchar(*s == '|' ? ' ' : *s);
}

/* ---- bash ---- */

/* "run:--ctx-size|run:-c)": what a value follows, for one command. */
static void bash_values(enum command c)
{
	for (const struct option_row *row = option_table; row->name; row++) {
		if (!(row->commands & 1u << c) || row->kind == OPT_SET)
			continue;
		printf("\t\t%s:--%s", commands[c].name, row->name);
		if (row->letter)
			printf("|%s:-%c", commands[c].name, row->letter);
		fputs(") ", stdout);
		if (is_choices(row)) {
			fputs("COMPREPLY=($(compgen -W \"", stdout);
			print_choices(row->arg);
			fputs("\" -- \"$cur\"))", stdout);
		} else {
			fputs(is_path(row) ? "COMPREPLY=($(compgen -f -- \"$cur\"))" : "COMPREPLY=()", stdout);
		}
		fputs("; return;;\n", stdout);
	}
}

static void bash_words(enum command c)
{
	printf("\t%s) words=\"", commands[c].name);
	for (const struct option_row *row = option_table; row->name; row++)
		if (row->commands & 1u << c)
			printf("--%s ", row->name);
	if (c == COMMAND_completion)
		fputs("bash zsh fish ", stdout);
	for (int i = 0; c == COMMAND_help && i < NCOMMAND; i++)
		printf("%s ", commands[i].name);
	fputs("\";;\n", stdout);
}

static void complete_bash(void)
{
	fputs("# bash completion for weft\n_weft() {\n\tlocal cur=${COMP_WORDS[COMP_CWORD]} "
		"prev=${COMP_WORDS[COMP_CWORD-1]} words\n\tif [ \"$COMP_CWORD\" -eq 1 ]; then\n\t\tCOMPREPLY=($(compgen -W \"", stdout);
	for (int c = 0; c < NCOMMAND; c++)
		printf("%s ", commands[c].name);
	fputs("\" -- \"$cur\")); return\n\tfi\n\tcase \"${COMP_WORDS[1]}:$prev\" in\n", stdout);
	for (int c = 0; c < NCOMMAND; c++)
		bash_values((enum command)c);
	fputs("\tesac\n\tcase \"${COMP_WORDS[1]}\" in\n", stdout);
	for (int c = 0; c < NCOMMAND; c++)
		bash_words((enum command)c);
	fputs("\tesac\n\tCOMPREPLY=($(compgen -W \"$words\" -- \"$cur\"))\n"
		"\t[ ${#COMPREPLY[@]} -gt 0 ] || COMPREPLY=($(compgen -f -- \"$cur\"))\n}\n"
		"complete -o filenames -F _weft weft\n", stdout);
}

/* ---- zsh ---- */

/* In single quotes; brackets and colons would end a zsh spec. */
static void zsh_text(const char *s)
{
	for (; *s; s++)
		if (*s == '\'')
			fputs("'\\''", stdout);
		else if (strchr("[]:\\", *s))
			printf("\\%c", *s);
		else
			putchar(*s);
}

static void zsh_option(const struct option_row *row)
{
	if (row->letter)
		printf("\t\t'(-%c --%s)'{-%c,--%s}'[", row->letter, row->name, row->letter, row->name);
	else
		printf("\t\t'--%s[", row->name);
	zsh_text(row->help);
	putchar(']');
	if (row->kind != OPT_SET) {
		putchar(':');
		zsh_text(row->arg);
		putchar(':');
		if (is_choices(row)) {
			putchar('(');
			print_choices(row->arg);
			putchar(')');
		} else if (is_path(row)) {
			fputs("_files", stdout);
		}
	}
	fputs("' \\\n", stdout);
}

static void complete_zsh(void)
{
	fputs("#compdef weft\n_weft() {\n\tlocal -a commands\n\tcommands=(\n", stdout);
	for (int c = 0; c < NCOMMAND; c++)
		printf("\t\t'%s:%s'\n", commands[c].name, commands[c].help);
	fputs("\t)\n\tif (( CURRENT == 2 )); then _describe command commands; return; fi\n"
		"\tlocal cmd=$words[2]\n\tshift words; (( CURRENT-- ))\n\tcase $cmd in\n", stdout);
	for (int c = 0; c < NCOMMAND; c++) {
		printf("\t%s) _arguments \\\n", commands[c].name);
		for (const struct option_row *row = option_table; row->name; row++)
			if (row->commands & 1u << c)
				zsh_option(row);
		fputs(c == COMMAND_completion ? "\t\t'1:shell:(bash zsh fish)' ;;\n" : "\t\t'*:file:_files' ;;\n", stdout);
	}
	/* in a folder of $fpath the file is the function; elsewhere it is sourced */
	fputs("\tesac\n}\nif [[ $funcstack[1] == _weft ]]; then _weft \"$@\"; else compdef _weft weft; fi\n", stdout);
}

/* ---- fish ---- */

static void fish_option(const struct option_row *row, enum command c)
{
	printf("complete -c weft -n '__fish_seen_subcommand_from %s' -l %s", commands[c].name, row->name);
	if (row->letter)
		printf(" -s %c", row->letter);
	if (row->kind != OPT_SET)
		fputs(is_path(row) ? " -rF" : " -x", stdout);
	if (is_choices(row)) {
		fputs(" -a '", stdout);
		print_choices(row->arg);
		putchar('\'');
	}
	fputs(" -d '", stdout);
	for (const char *s = row->help; *s; s++)
		fputs(*s == '\'' || *s == '\\' ? (char[]){'\\', *s, 0} : (char[]){*s, 0}, stdout);
	fputs("'\n", stdout);
}

static void complete_fish(void)
{
	fputs("# fish completion for weft\n", stdout);
	for (int c = 0; c < NCOMMAND; c++)
		printf("complete -c weft -f -n __fish_use_subcommand -a %s -d '%s'\n", commands[c].name, commands[c].help);
	for (int c = 0; c < NCOMMAND; c++)
		for (const struct option_row *row = option_table; row->name; row++)
			if (row->commands & 1u << c)
				fish_option(row, (enum command)c);
	fputs("complete -c weft -f -n '__fish_seen_subcommand_from completion' -a 'bash zsh fish'\n", stdout);
}

int completion_main(const struct options *o)
{
	static const struct { const char *shell; void (*print)(void); } shells[] = {
		{"bash", complete_bash}, {"zsh", complete_zsh}, {"fish", complete_fish}
	};

	for (size_t i = 0; o->narg == 1 && i < 3; i++)
		if (!strcmp(shells[i].shell, o->arg[0])) {
			shells[i].print();
			return close_stdout(o, WEFT_OK);
		}
	return misused(o, "expected one of bash, zsh, fish");
}
