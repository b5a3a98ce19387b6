/* Calls of the C library that fail with a chosen errno on chosen paths.

   REFUSE="fsync:5:d flock:38:* rename:16:out.jsonl": a call, an errno, and what it is about: `d` a
   folder, `f` a file, `*` everything, else the end of a path. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <fcntl.h>

static int about(const char *what, const char *path)
{
    struct stat status;
    size_t length = strlen(path), end = strlen(what);
    if (!strcmp(what, "*"))
        return 1;
    if (stat(path, &status) == 0 && (!strcmp(what, "d") || !strcmp(what, "f")))
        return S_ISDIR(status.st_mode) ? *what == 'd' : *what == 'f';
    return length >= end && !strcmp(path + length - end, what);
}

static int refused(const char *call, const char *path)
{
    char rules[1024], name[64], what[256], *rule, *rest = NULL;
    int number;
    const char *given = getenv("REFUSE");
    if (!given)
        return 0;
    snprintf(rules, sizeof rules, "%s", given);
    for (rule = strtok_r(rules, " ", &rest); rule; rule = strtok_r(NULL, " ", &rest))
        if (sscanf(rule, "%63[^:]:%d:%255s", name, &number, what) == 3 && !strcmp(name, call)
            && about(what, path)) {
            errno = number;
            return 1;
        }
    return 0;
}

static int refused_fd(const char *call, int fd)
{
    char link[64], path[4096];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, sizeof path - 1);
    path[length > 0 ? length : 0] = 0;
    return refused(call, path);
}

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

ssize_t write(int fd, const void *bytes, size_t count)
{
    return refused_fd("write", fd) ? -1 : REAL(write)(fd, bytes, count);
}

int fsync(int fd) { return refused_fd("fsync", fd) ? -1 : REAL(fsync)(fd); }
int fdatasync(int fd) { return refused_fd("fdatasync", fd) ? -1 : REAL(fdatasync)(fd); }
int flock(int fd, int way) { return refused_fd("flock", fd) ? -1 : REAL(flock)(fd, way); }
int chmod(const char *path, mode_t mode) { return refused("chmod", path) ? -1 : REAL(chmod)(path, mode); }
int fchmod(int fd, mode_t mode) { return refused_fd("chmod", fd) ? -1 : REAL(fchmod)(fd, mode); }
int rename(const char *from, const char *to)
{
    return refused("rename", to) ? -1 : REAL(rename)(from, to);
}

static int lock_refused(int fd, int command)
{
    return (command == F_SETLK || command == F_SETLKW) && refused_fd("lockf", fd);
}

int fcntl64(int fd, int command, ...)
{
    va_list rest;
    va_start(rest, command);
    void *argument = va_arg(rest, void *);
    va_end(rest);
    return lock_refused(fd, command) ? -1
        : ((int (*)(int, int, ...))dlsym(RTLD_NEXT, "fcntl64"))(fd, command, argument);
}

int fcntl(int fd, int command, ...)
{
    va_list rest;
    va_start(rest, command);
    void *argument = va_arg(rest, void *);
    va_end(rest);
    return lock_refused(fd, command) ? -1
        : ((int (*)(int, int, ...))dlsym(RTLD_NEXT, "fcntl"))(fd, command, argument);
}
