/* Ends a process before a chosen file operation below a folder.

For LD_PRELOAD: Python's operations and those of TensorFlow's C++ pass through
libc, whose functions are replaced here. `crash_arm` begins to count those that
change something below a folder, and names the one that the process does not
live to see. What is ended is the process, not the machine: what it has handed
to the system stays, what is in its buffers is lost.

What libc does inside of itself is not seen, such as the writes of `fwrite`;
files that are opened with `fopen` therefore become streams whose writing is
done here.
*/

#define _GNU_SOURCE
#undef _FORTIFY_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

static char folder[PATH_MAX]; /* empty: not armed */
static long chosen;           /* number of the operation, from 1; 0: none */
static int in_half;           /* half of the bytes of a write come first */
static long count;
static int log_fd = -1;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

#define REAL(name) \
  static __typeof__(&name) real; \
  if (!real) real = (__typeof__(&name))dlsym(RTLD_NEXT, #name)

static void die(void) {
  kill(getpid(), SIGKILL);
  for (;;) pause();
}

/* Begins to count.

where: the folder, absolute, without symbolic links.
at: number of the operation before which the process ends; 0 for none.
half: whether it ends after half of the bytes instead, where it writes.
log: file that gets a line for each operation; NULL for none. */
void crash_arm(const char *where, long at, int half, const char *log) {
  count = 0;
  chosen = at;
  in_half = half;
  if (log) log_fd = syscall(SYS_openat, AT_FDCWD, log,
                            O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0666);
  snprintf(folder, sizeof folder, "%s", where);
}

/* Resolves `.`, `..` and repeated slashes. */
static void normalise(char *path) {
  char *out = path, *in = path;
  while (*in) {
    while (*in == '/') in++;
    size_t n = strcspn(in, "/");
    if (n == 2 && in[0] == '.' && in[1] == '.') {
      while (out > path && *--out != '/') {
      }
    } else if (n && !(n == 1 && in[0] == '.')) {
      *out++ = '/';
      memmove(out, in, n);
      out += n;
    }
    in += n;
  }
  *out = 0;
}

static int is_below(const char *path) {
  size_t n = strlen(folder);
  return !strncmp(path, folder, n) && (path[n] == '/' || !path[n]);
}

/* Whether a descriptor is of something below the folder; gives its path. */
static int fd_below(int fd, char *path) {
  char link[64];
  snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
  ssize_t n = readlink(link, path, PATH_MAX - 1);
  if (n < 0) return 0;
  path[n] = 0;
  return is_below(path);
}

static int path_below(int dir, const char *name, char *path) {
  if (!*folder || !name) return 0;
  char base[PATH_MAX] = "";
  if (*name != '/') {
    if (dir == AT_FDCWD) {
      if (!getcwd(base, sizeof base)) return 0;
    } else {
      fd_below(dir, base);
    }
  }
  if (snprintf(path, PATH_MAX, "%s/%s", base, name) >= PATH_MAX) return 0;
  normalise(path);
  return is_below(path);
}

/* Counts an operation; returns whether only half of it is to be done. */
static int operation(const char *what, const char *path, size_t bytes) {
  int error = errno;
  pthread_mutex_lock(&lock); /* the operations of threads, one by one */
  long number = ++count;
  if (log_fd >= 0) {
    char line[PATH_MAX + 64];
    int n = snprintf(line, sizeof line, "%s\t%zu\t%s\n", what, bytes,
                     path + strlen(folder));
    syscall(SYS_write, log_fd, line, n);
  }
  if (number == chosen && !(in_half && bytes)) die();
  pthread_mutex_unlock(&lock);
  errno = error;
  return number == chosen;
}

static void path_operation(const char *what, int dir, const char *name) {
  int error = errno;
  char path[PATH_MAX];
  if (path_below(dir, name, path)) operation(what, path, 0);
  errno = error;
}

/* As `operation`, for a descriptor that was opened for writing. */
static int fd_operation(const char *what, int fd, size_t bytes) {
  if (!*folder) return 0;
  int error = errno;
  char path[PATH_MAX];
  int flags = fcntl(fd, F_GETFL);
  int half = flags >= 0 && (flags & O_ACCMODE) != O_RDONLY &&
             fd_below(fd, path) && operation(what, path, bytes);
  errno = error;
  return half;
}

/* ------------------------------------------------------------- opening */

static void opening(int dir, const char *name, int flags) {
  if (flags & (O_CREAT | O_TRUNC | O_WRONLY | O_RDWR))
    path_operation("open", dir, name);
}

#define MODE(last) \
  mode_t mode = 0; \
  if (flags & (O_CREAT | O_TMPFILE)) { \
    va_list rest; \
    va_start(rest, last); \
    mode = va_arg(rest, mode_t); \
    va_end(rest); \
  }

#define OPEN(function) \
  int function(const char *name, int flags, ...) { \
    MODE(flags) \
    opening(AT_FDCWD, name, flags); \
    REAL(function); \
    return real(name, flags, mode); \
  }
OPEN(open)
OPEN(open64)

#define OPENAT(function) \
  int function(int dir, const char *name, int flags, ...) { \
    MODE(flags) \
    opening(dir, name, flags); \
    REAL(function); \
    return real(dir, name, flags, mode); \
  }
OPENAT(openat)
OPENAT(openat64)

int __open_2(const char *name, int flags) { return open(name, flags); }
int __open64_2(const char *name, int flags) { return open(name, flags); }
int __openat_2(int dir, const char *name, int flags) {
  return openat(dir, name, flags);
}
int __openat64_2(int dir, const char *name, int flags) {
  return openat(dir, name, flags);
}

#define CREAT(function) \
  int function(const char *name, mode_t mode) { \
    return open(name, O_CREAT | O_WRONLY | O_TRUNC, mode); \
  }
CREAT(creat)
CREAT(creat64)

/* ------------------------------------------------------------- writing */

#define PWRITE(function, type) \
  ssize_t function(int fd, const void *bytes, size_t n, type at) { \
    REAL(function); \
    if (fd_operation("write", fd, n)) { \
      real(fd, bytes, n / 2, at); \
      die(); \
    } \
    return real(fd, bytes, n, at); \
  }
PWRITE(pwrite, off_t)
PWRITE(pwrite64, off64_t)

ssize_t write(int fd, const void *bytes, size_t n) {
  REAL(write);
  if (fd_operation("write", fd, n)) {
    real(fd, bytes, n / 2);
    die();
  }
  return real(fd, bytes, n);
}

ssize_t writev(int fd, const struct iovec *parts, int n) {
  size_t bytes = 0;
  for (int i = 0; i < n; i++) bytes += parts[i].iov_len;
  REAL(writev);
  if (fd_operation("write", fd, bytes)) {
    real(fd, parts, n / 2);
    die();
  }
  return real(fd, parts, n);
}

#define SENDFILE(function, type) \
  ssize_t function(int out, int in, type *at, size_t n) { \
    REAL(function); \
    if (fd_operation("write", out, n)) { \
      real(out, in, at, n / 2); \
      die(); \
    } \
    return real(out, in, at, n); \
  }
SENDFILE(sendfile, off_t)
SENDFILE(sendfile64, off64_t)

ssize_t copy_file_range(int in, off64_t *from, int out, off64_t *to, size_t n,
                        unsigned flags) {
  REAL(copy_file_range);
  if (fd_operation("write", out, n)) {
    real(in, from, out, to, n / 2, flags);
    die();
  }
  return real(in, from, out, to, n, flags);
}

#define FD(function, what) \
  int function(int fd) { \
    fd_operation(what, fd, 0); \
    REAL(function); \
    return real(fd); \
  }
FD(close, "close")
FD(fsync, "sync")
FD(fdatasync, "sync")

#define FTRUNCATE(function, type) \
  int function(int fd, type n) { \
    fd_operation("truncate", fd, 0); \
    REAL(function); \
    return real(fd, n); \
  }
FTRUNCATE(ftruncate, off_t)
FTRUNCATE(ftruncate64, off64_t)

int fchmod(int fd, mode_t mode) {
  fd_operation("chmod", fd, 0);
  REAL(fchmod);
  return real(fd, mode);
}

/* ------------------------------------------------------------- streams */

static struct {
  FILE *stream;
  int fd;
} streams[1024];
#define NUM_STREAMS ((int)(sizeof streams / sizeof *streams))

static ssize_t stream_read(void *cookie, char *bytes, size_t n) {
  return read((int)(long)cookie, bytes, n);
}

static ssize_t stream_write(void *cookie, const char *bytes, size_t n) {
  return write((int)(long)cookie, bytes, n);
}

static int stream_seek(void *cookie, off64_t *at, int whence) {
  off64_t result = lseek64((int)(long)cookie, *at, whence);
  if (result < 0) return -1;
  *at = result;
  return 0;
}

static int stream_close(void *cookie) {
  int fd = (int)(long)cookie;
  pthread_mutex_lock(&lock);
  for (int i = 0; i < NUM_STREAMS; i++)
    if (streams[i].stream && streams[i].fd == fd) streams[i].stream = NULL;
  pthread_mutex_unlock(&lock);
  return close(fd);
}

static FILE *opened(const char *name, const char *mode) {
  int is_update = strchr(mode, '+') != NULL;
  int flags = is_update ? O_RDWR : O_WRONLY;
  if (*mode == 'w') flags |= O_CREAT | O_TRUNC;
  if (*mode == 'a') flags |= O_CREAT | O_APPEND;
  if (strchr(mode, 'x')) flags |= O_EXCL;
  if (strchr(mode, 'e')) flags |= O_CLOEXEC;
  int fd = open(name, flags, 0666);
  if (fd < 0) return NULL;
  cookie_io_functions_t functions = {stream_read, stream_write, stream_seek,
                                     stream_close};
  FILE *stream = fopencookie((void *)(long)fd, mode, functions);
  pthread_mutex_lock(&lock);
  int i = 0;
  while (i < NUM_STREAMS && streams[i].stream) i++;
  if (i == NUM_STREAMS) abort();
  streams[i].stream = stream;
  streams[i].fd = fd;
  pthread_mutex_unlock(&lock);
  return stream;
}

#define FOPEN(function) \
  FILE *function(const char *name, const char *mode) { \
    char path[PATH_MAX]; \
    int writes = *mode != 'r' || strchr(mode, '+'); \
    if (writes && path_below(AT_FDCWD, name, path)) return opened(name, mode); \
    REAL(function); \
    return real(name, mode); \
  }
FOPEN(fopen)
FOPEN(fopen64)

#define FILENO(function) \
  int function(FILE *stream) { \
    int fd = -1; \
    pthread_mutex_lock(&lock); \
    for (int i = 0; i < NUM_STREAMS; i++) \
      if (streams[i].stream == stream) fd = streams[i].fd; \
    pthread_mutex_unlock(&lock); \
    if (fd >= 0) return fd; \
    REAL(function); \
    return real(stream); \
  }
FILENO(fileno)
FILENO(fileno_unlocked)

/* --------------------------------------------------------------- names */

#define NAME(function, what) \
  int function(const char *name) { \
    path_operation(what, AT_FDCWD, name); \
    REAL(function); \
    return real(name); \
  }
NAME(unlink, "remove")
NAME(remove, "remove")
NAME(rmdir, "rmdir")

int unlinkat(int dir, const char *name, int flags) {
  path_operation(flags & AT_REMOVEDIR ? "rmdir" : "remove", dir, name);
  REAL(unlinkat);
  return real(dir, name, flags);
}

int mkdir(const char *name, mode_t mode) {
  path_operation("mkdir", AT_FDCWD, name);
  REAL(mkdir);
  return real(name, mode);
}

int mkdirat(int dir, const char *name, mode_t mode) {
  path_operation("mkdir", dir, name);
  REAL(mkdirat);
  return real(dir, name, mode);
}

int mkfifo(const char *name, mode_t mode) {
  path_operation("mkfifo", AT_FDCWD, name);
  REAL(mkfifo);
  return real(name, mode);
}

/* The new name counts, wherever the old one is. */
#define TWO_NAMES(function, what) \
  int function(const char *from, const char *to) { \
    path_operation(what, AT_FDCWD, to); \
    REAL(function); \
    return real(from, to); \
  }
TWO_NAMES(rename, "rename")
TWO_NAMES(link, "link")
TWO_NAMES(symlink, "symlink")

int renameat(int from_dir, const char *from, int to_dir, const char *to) {
  path_operation("rename", to_dir, to);
  REAL(renameat);
  return real(from_dir, from, to_dir, to);
}

int renameat2(int from_dir, const char *from, int to_dir, const char *to,
              unsigned flags) {
  path_operation("rename", to_dir, to);
  REAL(renameat2);
  return real(from_dir, from, to_dir, to, flags);
}

int linkat(int from_dir, const char *from, int to_dir, const char *to,
           int flags) {
  path_operation("link", to_dir, to);
  REAL(linkat);
  return real(from_dir, from, to_dir, to, flags);
}

int symlinkat(const char *from, int dir, const char *to) {
  path_operation("symlink", dir, to);
  REAL(symlinkat);
  return real(from, dir, to);
}

#define TRUNCATE(function, type) \
  int function(const char *name, type n) { \
    path_operation("truncate", AT_FDCWD, name); \
    REAL(function); \
    return real(name, n); \
  }
TRUNCATE(truncate, off_t)
TRUNCATE(truncate64, off64_t)

int chmod(const char *name, mode_t mode) {
  path_operation("chmod", AT_FDCWD, name);
  REAL(chmod);
  return real(name, mode);
}

int fchmodat(int dir, const char *name, mode_t mode, int flags) {
  path_operation("chmod", dir, name);
  REAL(fchmodat);
  return real(dir, name, mode, flags);
}

/* What has no function of its own everywhere, as renameat2 had none. */
long syscall(long number, ...) {
  va_list rest;
  va_start(rest, number);
  long a[6];
  for (int i = 0; i < 6; i++) a[i] = va_arg(rest, long);
  va_end(rest);
  if (number == SYS_renameat2)
    path_operation("rename", (int)a[2], (const char *)a[3]);
  static long (*real)(long, ...);
  if (!real) real = (long (*)(long, ...))dlsym(RTLD_NEXT, "syscall");
  return real(number, a[0], a[1], a[2], a[3], a[4], a[5]);
}
