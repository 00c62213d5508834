/* json.c - fuzz: the JSON reader against jansson's own parser, which it must agree with wherever
 * jansson has no limit of its own. */
#include "models/model.h"

#include <jansson.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);

/* Differences that are meant, beside a NUL, which jansson takes for the end: large integers, NUL in keys, depth, length of numbers. */
static bool meant(const wf_error *err, const json_error_t *theirs)
{
	return strstr(theirs->text, "too big") || strstr(theirs->text, "NUL byte in object key") ||
		strstr(theirs->text, "real number overflow") || strstr(theirs->text, "maximum parsing depth") ||
		strstr(err->text, "nested too deeply") || strstr(err->text, "holds NUL") ||
		strstr(err->text, "out of range");
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
	wf_error err = {0};
	json_error_t why = {0};
	json_t *ours = json_read(&err, "fuzz", (const char *)data, bytes);
	json_t *theirs = json_loadb((const char *)data, bytes,
		JSON_REJECT_DUPLICATES | JSON_ALLOW_NUL | JSON_DECODE_ANY, &why);

	if ((ours == NULL) != err.set)
		abort();
	if (bytes < 300 && !memchr(data, 0, bytes) && (ours == NULL) != (theirs == NULL) && !meant(&err, &why))
		abort();
	if (ours && theirs && !json_equal(ours, theirs))
		abort();
	json_decref(ours);
	json_decref(theirs);
	return 0;
}
