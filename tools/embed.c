/* embed.c - build tool: write text files as one C table, so nothing is read from disk at run time. */
#include <stdio.h>
#include <string.h>

static int emit(const char *path)
{
	FILE *f = fopen(path, "r");
	const char *base = strrchr(path, '/');
	int c;

	if (!f) {
		perror(path);
		return 1;
	}
	printf("{\"%s\",\n\"", base ? base + 1 : path);
	while ((c = getc(f)) != EOF) {
		if (c == '\n')
			fputs("\\n\"\n\"", stdout);
		else if (c == '"' || c == '\\')
			printf("\\%c", c);
		else if (c == '\t')
			fputs("\\t", stdout);
		else
			putchar(c);
	}
	puts("\"},");
	return fclose(f);
}

int main(int argc, char **argv)
{
	puts("#include \"backends/backend.h\"\nconst struct embedded wf_embedded[] = {");
	for (int i = 1; i < argc; i++)
		if (emit(argv[i]))
			return 1;
	puts("{0, 0}};");
	return 0;
}
