// SPDX-License-Identifier: MIT OR Apache-2.0
// The host's side of guest memory: userfaultfd, and which pages are there.
#include "proof.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

int resident(void *page)
{
	unsigned char in_core = 0;

	return mincore(page, PAGE, &in_core) ? -errno : in_core & 1;
}

int userfaultfd_on(void *memory, size_t size, uint64_t mode)
{
	struct uffdio_api api = { .api = UFFD_API };
	struct uffdio_register range = { .range = { (uintptr_t)memory, size }, .mode = mode };
	int fd = syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK);

	if (fd < 0)
		bail_out("userfaultfd");
	if (ioctl(fd, UFFDIO_API, &api))
		bail_out("UFFDIO_API");
	if (ioctl(fd, UFFDIO_REGISTER, &range))
		bail_out("UFFDIO_REGISTER");
	return fd;
}

bool userfaultfd_event(int fd, int ms, struct uffd_msg *event)
{
	struct pollfd wait = { .fd = fd, .events = POLLIN };
	struct uffd_msg unused;

	if (poll(&wait, 1, ms) != 1)
		return false;
	return read(fd, event ? event : &unused, sizeof(unused)) == sizeof(unused);
}

int userfaultfd_copy(int fd, void *page, uint32_t pattern)
{
	uint32_t source[PAGE / sizeof(uint32_t)] __attribute__((aligned(4096)));
	struct uffdio_copy copy = { .dst = (uintptr_t)page, .src = (uintptr_t)source, .len = PAGE };

	for (unsigned i = 0; i < PAGE / sizeof(uint32_t); i++)
		source[i] = pattern;
	return ioctl(fd, UFFDIO_COPY, &copy);
}

static void *serve(void *argument)
{
	struct server *server = argument;
	struct uffd_msg event;

	if (userfaultfd_event(server->fd, 5000, &event)) {
		server->served++;
		userfaultfd_copy(server->fd, (void *)(uintptr_t)(event.arg.pagefault.address & ~(PAGE - 1)), server->pattern);
	}
	return NULL;
}

void server_start(struct server *server)
{
	if ((errno = pthread_create(&server->thread, NULL, serve, server)))
		bail_out("pthread_create");
}

void server_join(struct server *server)
{
	pthread_join(server->thread, NULL);
}
