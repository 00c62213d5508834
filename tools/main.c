/* main.c - weft: the command named first, its options, and what it returns. */
#include "tools/weft.h"

#include <locale.h>
#include <string.h>

#ifndef WEFT_VERSION
#define WEFT_VERSION "0.1.0"
#endif

const struct command_row commands[NCOMMAND + 1] = {
#define C(name, help) {#name, help, name##_main},
	COMMANDS(C)
#undef C
	{0}
};

int command_find(const char *name)
{
	for (int i = 0; i < NCOMMAND; i++)
		if (!strcmp(commands[i].name, name))
			return i;
	return -1;
}

static int print_version(void)
{
	puts("weft " WEFT_VERSION);
	return WEFT_OK;
}

static int overview(FILE *f, int code)
{
	help_overview(f);
	return code;
}

int main(int argc, char **argv)
{
	struct options o;

	setlocale(LC_CTYPE, "");
	if (argc < 2)
		return overview(stderr, WEFT_USAGE);
	if (!strcmp(argv[1], "-h") || !strcmp(argv[1], "--help"))
		return overview(stdout, WEFT_OK);
	if (!strcmp(argv[1], "--version"))
		return print_version();
	int command = command_find(argv[1]);
	if (command < 0)
		return unknown_command(argv[1]);
	int code = options_parse(&o, (enum command)command, argc - 1, argv + 1);
	if (code)
		return code;
	if (o.version)
		return print_version();
	if (o.help) {
		help_command(o.command, stdout);
		return WEFT_OK;
	}
	return commands[command].run(&o);
}
