/* Logs what a program asks of its database files, so that a power cut can be replayed. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static int out = -1;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

static ssize_t (*real_write)(int, const void *, size_t);

__attribute__((constructor)) static void begin(void) {
    const char *path = getenv("POWER_CUT_LOG");
    real_write = dlsym(RTLD_NEXT, "write");
    if (path) out = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
}

static void say(const char *what, const char *name, long long at, size_t size, const void *data) {
    char head[1200];
    if (out < 0) return;
    int length = snprintf(head, sizeof head, "%s\t%s\t%lld\t%zu\n", what, name, at, data ? size : (size_t)0);
    pthread_mutex_lock(&lock);
    real_write(out, head, length);
    if (data && size) real_write(out, data, size);
    pthread_mutex_unlock(&lock);
}

static const char *name_of(int fd, char *name) {
    char link[64];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, name, 1000);
    if (length < 0) return NULL;
    name[length] = 0;
    return strstr(name, ".db") ? name : NULL;
}

#define REAL(type, name, ...) static type (*real)(__VA_ARGS__); if (!real) real = dlsym(RTLD_NEXT, name)

static ssize_t logged_pwrite(int fd, const void *data, size_t size, long long at, ssize_t done) {
    char name[1001];
    if (done > 0 && name_of(fd, name)) say("write", name, at, done, data);
    return done;
}

ssize_t pwrite(int fd, const void *data, size_t size, off_t at) {
    REAL(ssize_t, "pwrite", int, const void *, size_t, off_t);
    return logged_pwrite(fd, data, size, at, real(fd, data, size, at));
}

ssize_t pwrite64(int fd, const void *data, size_t size, off64_t at) {
    REAL(ssize_t, "pwrite64", int, const void *, size_t, off64_t);
    return logged_pwrite(fd, data, size, at, real(fd, data, size, at));
}

ssize_t write(int fd, const void *data, size_t size) {
    char name[1001];
    long long at = lseek(fd, 0, SEEK_CUR);
    ssize_t done = real_write ? real_write(fd, data, size) : -1;
    if (done <= 0) return done;
    if (fd == 1) say("said", "-", 0, done, data);
    else if (name_of(fd, name)) say("write", name, at, done, data);
    return done;
}

static int logged_truncate(int fd, long long size, int done) {
    char name[1001];
    if (!done && name_of(fd, name)) say("truncate", name, size, 0, NULL);
    return done;
}

int ftruncate(int fd, off_t size) {
    REAL(int, "ftruncate", int, off_t);
    return logged_truncate(fd, size, real(fd, size));
}

int ftruncate64(int fd, off64_t size) {
    REAL(int, "ftruncate64", int, off64_t);
    return logged_truncate(fd, size, real(fd, size));
}

static int logged_sync(int fd, int done) {
    char name[1001];
    struct stat found;
    if (done) return done;
    if (name_of(fd, name)) say("sync", name, 0, 0, NULL);
    else if (!fstat(fd, &found) && S_ISDIR(found.st_mode)) say("syncdir", "-", 0, 0, NULL);
    return done;
}

int fsync(int fd) {
    REAL(int, "fsync", int);
    return logged_sync(fd, real(fd));
}

int fdatasync(int fd) {
    REAL(int, "fdatasync", int);
    return logged_sync(fd, real(fd));
}

int unlink(const char *name) {
    REAL(int, "unlink", const char *);
    int done = real(name);
    if (!done && strstr(name, ".db")) say("unlink", name, 0, 0, NULL);
    return done;
}
