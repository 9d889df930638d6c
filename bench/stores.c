/* What a store costs, without an interpreter in between: the bare mechanism and the loop itself. */
#include <fcntl.h>
#include <linux/types.h>
#include <stddef.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

struct api { __u64 api, features, ioctls; };
struct reg { __u64 start, len, mode, ioctls; };
struct wp { __u64 start, len, mode; };

/* A userfaultfd with WP_ASYNC over [start, start + len), armed; returns its descriptor or -1. */
int bare_arm(void *start, size_t len)
{
	struct api api = { 0xaa, 1 << 15 | 1 << 13 | 1, 0 };
	struct reg reg = { (__u64)start, len, 2, 0 };
	struct wp wp = { (__u64)start, len, 1 };
	int fd = syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK);

	if (fd < 0)
		fd = syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK | 1);
	if (fd < 0 || ioctl(fd, 0xc018aa3f, &api) || ioctl(fd, 0xc020aa00, &reg) ||
	    ioctl(fd, 0xc018aa06, &wp))
		return -1;
	return fd;
}

/* One byte stored to every stride-th page of n; returns nanoseconds a store. */
double store(volatile char *start, size_t n, size_t stride)
{
	struct timespec a, b;
	size_t i;

	clock_gettime(CLOCK_MONOTONIC, &a);
	for (i = 0; i < n; i += stride)
		start[i * 4096]++;
	clock_gettime(CLOCK_MONOTONIC, &b);
	return ((b.tv_sec - a.tv_sec) * 1e9 + (b.tv_nsec - a.tv_nsec)) / (double)((n + stride - 1) / stride);
}
