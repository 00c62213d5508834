/* number.c - numbers as text, with a point even where the host program's locale has a comma. */
#include "graph/graph.h"
#include <locale.h>

/* glibc's "C" is a constant: nothing is allocated. */
static locale_t enter(locale_t *was)
{
	locale_t c = newlocale(LC_ALL_MASK, "C", (locale_t)0);

	*was = uselocale(c);
	return c;
}

static void leave(locale_t c, locale_t was)
{
	uselocale(was);
	if (c)
		freelocale(c);
}

double number_read(const char *s, char **end)
{
	locale_t was, c = enter(&was);
	double v = strtod(s, end);

	leave(c, was);
	return v;
}

void number_write(char s[NUMBER_TEXT], int digits, double v)
{
	locale_t was, c = enter(&was);

	snprintf(s, NUMBER_TEXT, "%.*g", digits, v);
	leave(c, was);
}
