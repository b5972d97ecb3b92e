/* Faults of a machine, for the processes that this library is loaded into.
 *
 * A disk that is full, or whose sync fails, for the files below one folder:
 * FAULT_FOLDER  the folder
 * FAULT_SWITCH  path of the switches: while SWITCH.full exists, writes fail with ENOSPC;
 *               while SWITCH.sync exists, syncs fail with EIO
 *
 * A clock that is off; the monotonic one is not:
 * FAULT_CLOCK   path of a file that says by how many seconds
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/time.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

static int is_on(const char *which) {
    char path[PATH_MAX];
    const char *prefix = getenv("FAULT_SWITCH");
    if (prefix == NULL) return 0;
    snprintf(path, sizeof path, "%s.%s", prefix, which);
    return access(path, F_OK) == 0;
}

static int is_meant(int fd) {
    char link[64], path[PATH_MAX];
    const char *folder = getenv("FAULT_FOLDER");
    if (folder == NULL) return 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t size = readlink(link, path, sizeof path - 1);
    if (size < 0) return 0;
    path[size] = 0;
    return strncmp(path, folder, strlen(folder)) == 0;
}

static int fails(int fd, const char *which, int error) {
    int before = errno;
    int failing = is_on(which) && is_meant(fd);
    errno = failing ? error : before;
    return failing;
}

#define WRITES(name, type, parameters, arguments)                       \
    type name parameters {                                              \
        static type (*real) parameters;                                 \
        if (real == NULL) real = (type(*) parameters)dlsym(RTLD_NEXT, #name); \
        return fails(fd, "full", ENOSPC) ? -1 : real arguments;         \
    }
#define SYNCS(name)                                                     \
    int name(int fd) {                                                  \
        static int (*real)(int);                                        \
        if (real == NULL) real = (int (*)(int))dlsym(RTLD_NEXT, #name); \
        return fails(fd, "sync", EIO) ? -1 : real(fd);                  \
    }

WRITES(write, ssize_t, (int fd, const void *data, size_t size), (fd, data, size))
WRITES(pwrite, ssize_t, (int fd, const void *data, size_t size, off_t at), (fd, data, size, at))
WRITES(pwrite64, ssize_t, (int fd, const void *data, size_t size, off64_t at), (fd, data, size, at))
WRITES(writev, ssize_t, (int fd, const struct iovec *data, int count), (fd, data, count))
SYNCS(fsync)
SYNCS(fdatasync)

static int real_time(clockid_t clock, struct timespec *now) {
    static int (*real)(clockid_t, struct timespec *);
    if (real == NULL) real = (int (*)(clockid_t, struct timespec *))dlsym(RTLD_NEXT, "clock_gettime");
    return real(clock, now);
}

/* How many seconds the clock is off, looked up twenty times a second at most. */
static long clock_offset(void) {
    static long offset, looked = -1; /* twentieths of a second */
    struct timespec now;
    real_time(CLOCK_MONOTONIC, &now);
    long moment = now.tv_sec * 20 + now.tv_nsec / 50000000;
    const char *path = getenv("FAULT_CLOCK");
    if (path != NULL && moment != looked) {
        int before = errno;
        char text[32] = "";
        int fd = open(path, O_RDONLY | O_CLOEXEC);
        if (fd >= 0) {
            if (read(fd, text, sizeof text - 1) > 0) offset = strtol(text, NULL, 10);
            close(fd);
        }
        looked = moment;
        errno = before;
    }
    return offset;
}

int clock_gettime(clockid_t clock, struct timespec *now) {
    int result = real_time(clock, now);
    if (result == 0 && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE)) now->tv_sec += clock_offset();
    return result;
}

int gettimeofday(struct timeval *restrict now, void *restrict zone) {
    struct timespec precise;
    (void)zone;
    int result = clock_gettime(CLOCK_REALTIME, &precise);
    if (result == 0) {
        now->tv_sec = precise.tv_sec;
        now->tv_usec = precise.tv_nsec / 1000;
    }
    return result;
}

time_t time(time_t *result) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (result != NULL) *result = now.tv_sec;
    return now.tv_sec;
}
