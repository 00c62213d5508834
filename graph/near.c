/* near.c - the name that was meant: how far apart two spellings are.
 *
 * Damerau, "A technique for computer detection and correction of spelling errors", 1964: a letter
 * changed, added, left out, or two exchanged is one mistake (none twice in one place). */
#include "graph/graph.h"

#include <string.h>
#include <strings.h>

static int min3(int a, int b, int c)
{
	int least = a < b ? a : b;

	return least < c ? least : c;
}

static bool same_letter(const char *a, const char *b)
{
	return !strncasecmp(a, b, 1);
}

int near_distance(const char *a, const char *b)
{
	enum { MOST = 63 };
	int rows[3][MOST + 1], na = (int)strnlen(a, MOST), nb = (int)strnlen(b, MOST);

	for (int j = 0; j <= nb; j++)
		rows[0][j] = j;
	for (int i = 1; i <= na; i++) {
		int *row = rows[i % 3], *above = rows[(i + 2) % 3], *twice = rows[(i + 1) % 3];
		row[0] = i;
		for (int j = 1; j <= nb; j++) {
			row[j] = min3(above[j] + 1, row[j - 1] + 1, above[j - 1] + !same_letter(&a[i - 1], &b[j - 1]));
			if (i > 1 && j > 1 && same_letter(&a[i - 1], &b[j - 2]) && same_letter(&a[i - 2], &b[j - 1]))
				row[j] = min3(row[j], twice[j - 2] + 1, row[j]);
		}
	}
	return rows[na % 3][nb];
}

/* A third of the letters may be wrong: more is another word. */
void near_offer(struct near *near, const char *name)
{
	int distance = near_distance(near->typed, name), most = (int)strnlen(near->typed, 63) / 3;

	if (distance <= (most > 1 ? most : 1) && (!near->name || distance < near->distance)) {
		near->name = name;
		near->distance = distance;
	}
}
