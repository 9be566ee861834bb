// Stands before the system's own calls (LD_PRELOAD): writes to files below $FAULTS_FOLDER fail with
// EIO once $FAULTS_BYTES bytes have been written there.
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

static long long written;

static int fails(int file, size_t count) {
    char link[64], path[4096];
    const char *folder = getenv("FAULTS_FOLDER"), *limit = getenv("FAULTS_BYTES");
    snprintf(link, sizeof link, "/proc/self/fd/%d", file);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (!folder || !limit || length < 0) return 0;
    path[length] = 0;
    if (strncmp(path, folder, strlen(folder))) return 0;
    if (__atomic_add_fetch(&written, count, __ATOMIC_SEQ_CST) <= atoll(limit)) return 0;
    errno = EIO;
    return 1;
}

#define REAL(name) static __typeof__(&name) real; if (!real) real = dlsym(RTLD_NEXT, #name)

ssize_t write(int file, const void *data, size_t count) {
    REAL(write);
    return fails(file, count) ? -1 : real(file, data, count);
}
ssize_t pwrite(int file, const void *data, size_t count, off_t at) {
    REAL(pwrite);
    return fails(file, count) ? -1 : real(file, data, count, at);
}
ssize_t pwrite64(int file, const void *data, size_t count, off64_t at) {
    REAL(pwrite64);
    return fails(file, count) ? -1 : real(file, data, count, at);
}
ssize_t writev(int file, const struct iovec *parts, int count) {
    REAL(writev);
    size_t total = 0;
    for (int i = 0; i < count; i++) total += parts[i].iov_len;
    return fails(file, total) ? -1 : real(file, parts, count);
}
int fsync(int file) {
    REAL(fsync);
    return fails(file, 0) ? -1 : real(file);
}
