// SPDX-License-Identifier: MIT OR Apache-2.0
// Test points in TAP (testanything.org), as each comes.
#include "proof.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int points, failed;

void check_at(bool holds, const char *claim, const char *format, ...)
{
	va_list arguments;

	points++;
	failed += !holds;
	printf("%s %d - %s\n# ", holds ? "ok" : "not ok", points, claim);
	va_start(arguments, format);
	vprintf(format, arguments);
	va_end(arguments);
	printf("\n");
	fflush(stdout);
}

void note(const char *format, ...)
{
	va_list arguments;

	printf("# ");
	va_start(arguments, format);
	vprintf(format, arguments);
	va_end(arguments);
	printf("\n");
	fflush(stdout);
}

void bail_out(const char *what)
{
	printf("Bail out! %s: %s\n", what, strerror(errno));
	exit(2);
}

int finish(void)
{
	printf("1..%d\n", points);
	if (failed)
		note("%d of %d failed", failed, points);
	return failed ? 1 : 0;
}
